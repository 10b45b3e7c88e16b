FROM python:3.12.13-slim-bookworm AS build
WORKDIR /src
# For the detector's compiled form; what runs has no compiler.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY dataflow dataflow
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12.13-slim-bookworm
LABEL org.opencontainers.image.title="ec2-anomaly-dataflow" \
      org.opencontainers.image.description="Flags EC2 instances whose CPU departs from their own past behavior, as readings arrive: a Bytewax dataflow over Kafka or Redpanda." \
      org.opencontainers.image.licenses="Apache-2.0"
# What is found is said at once, and not when a buffer is full.
ENV PYTHONUNBUFFERED=1
# A new volume on /recovery takes over this folder's owner: the flow may write to it.
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin anomaly \
    && install --directory --owner=anomaly --group=anomaly /recovery
COPY --from=build /wheels /wheels
RUN pip install --no-cache-dir --only-binary=:all: /wheels/*.whl
WORKDIR /app
COPY data data
USER anomaly
# Both SIGINT and SIGTERM end the flow with a last snapshot; this is what Ctrl-C sends.
STOPSIGNAL SIGINT
# Without a recovery store, which only a volume would keep: docker-compose.yml has one.
# No HEALTHCHECK: only a flow with ANOMALY_METRICS_PORT can be asked; docker-compose.yml does.
CMD ["python", "-m", "bytewax.run", "dataflow.flow"]
