# The digest decides what is pulled: the same image forever, whatever becomes of the tag.
FROM python:3.12.13-slim-bookworm@sha256:8a7e7cc04fd3e2bd787f7f24e22d5d119aa590d429b50c95dfe12b3abe52f48b AS build
WORKDIR /src
# To compile the detectors. The final image has no compiler.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
COPY pyproject.toml constraints.txt hatch_build.py README.md LICENSE ./
COPY dataflow dataflow
# pip takes the first name for the build up to 25.2, the second one from 25.3 on.
RUN PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
    pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12.13-slim-bookworm@sha256:8a7e7cc04fd3e2bd787f7f24e22d5d119aa590d429b50c95dfe12b3abe52f48b
LABEL org.opencontainers.image.title="ec2-anomaly-dataflow" \
      org.opencontainers.image.description="Flags EC2 instances whose CPU departs from their own past behavior, as readings arrive: a Bytewax dataflow over Kafka or Redpanda." \
      org.opencontainers.image.licenses="Apache-2.0"
# Without a buffer, so that anomalies appear in the log when they are found.
ENV PYTHONUNBUFFERED=1
# A new volume mounted on /recovery takes this folder's owner, so the flow can write to it.
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin anomaly \
    && install --directory --mode=700 --owner=anomaly --group=anomaly /recovery
COPY --from=build /wheels /wheels
COPY constraints.txt /wheels/
# With what the settings and commands of a server may ask for: the live page, holidays, AWS.
RUN for wheel in /wheels/*.whl; do \
        pip install --no-cache-dir --only-binary=:all: --constraint /wheels/constraints.txt \
            "$wheel[aws,cloudwatch,dashboard,holidays,isolation-forest]"; \
    done
WORKDIR /app
COPY data data
USER anomaly
# The flow takes a last snapshot on SIGINT (Ctrl-C) and on SIGTERM.
STOPSIGNAL SIGINT
# No recovery store: it needs a volume. docker-compose.yml has one.
# No HEALTHCHECK: the flow answers only if ANOMALY_METRICS_PORT is set. docker-compose.yml has one.
CMD ["python", "-m", "bytewax.run", "dataflow.flow"]
