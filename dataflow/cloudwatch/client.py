"""Asks AWS: which instances there are, and the mean of their CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from dataflow.cloudwatch.plan import Window, metrics_per_call
from dataflow.errors import UserError, missing_extra, wrong_aws_certificate

__all__ = ["Client", "Point", "TransientError"]

NAMESPACE = "AWS/EC2"
METRIC = "CPUUtilization"


class TransientError(Exception):
    """AWS does not answer, or is asked too often: the next poll may succeed."""


class Point(NamedTuple):
    """The mean of a period: instance, its beginning, and the value in percent."""

    instance: str
    time: datetime
    value: float


class Client:
    """AWS's API of one region. Credentials are those that AWS's own tools find.

    Its methods raise `UserError` for what the user must correct, and `TransientError`.
    """

    def __init__(self, region: str | None) -> None:
        """Raises `UserError` if boto3 is not installed, or no region is known."""
        try:
            import boto3
            from botocore.config import Config
        except ModuleNotFoundError:
            raise missing_extra("The command cloudwatch", "cloudwatch") from None
        session = boto3.Session(region_name=region)
        if session.region_name is None:
            raise UserError("no AWS region is known: give --region, or set AWS_DEFAULT_REGION.")
        # It waits ever longer while AWS answers that it is asked too often.
        config = Config(retries={"mode": "adaptive", "max_attempts": 10})
        self.region: str = session.region_name
        self._cloudwatch: Any = session.client("cloudwatch", config=config)
        self._ec2: Any = session.client("ec2", config=config)
        for client in (self._cloudwatch, self._ec2):
            client.meta.events.register_first("needs-retry", _at_once)

    def instances(self, tags: Sequence[str]) -> list[str]:
        """Return the instances of which CloudWatch has CPU, sorted; with tags, only those.

        A tag is `NAME=VALUE`; `*` may stand in the value. Several must all fit.
        """
        found: set[str] = set()
        with _errors("list the metrics of EC2", "cloudwatch:ListMetrics"):
            pages = self._cloudwatch.get_paginator("list_metrics").paginate(
                Namespace=NAMESPACE, MetricName=METRIC
            )
            for page in pages:
                for metric in page["Metrics"]:
                    dimensions = metric["Dimensions"]
                    # Statistics of groups and types of instances have others, or none.
                    if len(dimensions) == 1 and dimensions[0]["Name"] == "InstanceId":
                        found.add(dimensions[0]["Value"])
        return sorted(found & self._tagged(tags) if tags else found)

    def _tagged(self, tags: Sequence[str]) -> set[str]:
        filters = []
        for tag in tags:
            name, _, value = tag.partition("=")
            filters.append({"Name": f"tag:{name}", "Values": [value]})
        with _errors("list the instances with these tags", "ec2:DescribeInstances"):
            pages = self._ec2.get_paginator("describe_instances").paginate(Filters=filters)
            return {
                instance["InstanceId"]
                for page in pages
                for reservation in page["Reservations"]
                for instance in reservation["Instances"]
            }

    def means(self, instances: Sequence[str], period: int, window: Window) -> Iterator[Point]:
        """Yield the means of the periods, in seconds, that begin in a window, by time."""
        size = metrics_per_call(window, period)
        for begin in range(0, len(instances), size):
            yield from self._call(instances[begin : begin + size], period, window)

    def _call(self, instances: Sequence[str], period: int, window: Window) -> Iterator[Point]:
        queries = [
            {
                "Id": f"m{number}",
                "MetricStat": {
                    "Metric": {
                        "Namespace": NAMESPACE,
                        "MetricName": METRIC,
                        "Dimensions": [{"Name": "InstanceId", "Value": instance}],
                    },
                    "Period": period,
                    "Stat": "Average",
                },
            }
            for number, instance in enumerate(instances)
        ]
        points: list[Point] = []
        with _errors("read metrics", "cloudwatch:GetMetricData"):
            pages = self._cloudwatch.get_paginator("get_metric_data").paginate(
                MetricDataQueries=queries,
                StartTime=window[0],
                EndTime=window[1],
                ScanBy="TimestampAscending",
            )
            for page in pages:
                for result in page["MetricDataResults"]:
                    instance = instances[int(result["Id"][1:])]
                    points += [
                        Point(instance, time.astimezone(UTC), value)
                        for time, value in zip(result["Timestamps"], result["Values"], strict=True)
                    ]
        yield from sorted(points, key=lambda point: (point.time, point.instance))


class _errors:  # noqa: N801
    """Turns the errors of AWS's library into a `UserError` or a `TransientError`."""

    def __init__(self, what: str, right: str) -> None:
        self._what = what
        self._right = right

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        from botocore import exceptions

        if isinstance(error, exceptions.ClientError):
            code = error.response.get("Error", {}).get("Code", "")
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if code in BUSY or status >= 500:
                raise TransientError(f"AWS answers {code}") from None
            raise UserError(
                f"AWS does not let you {self._what} ({code}): check the credentials, and that "
                f"they have the right {self._right}."
            ) from None
        if isinstance(error, exceptions.SSLError):
            raise UserError(f"{wrong_aws_certificate(error)}.") from None
        # A connection that cannot be made is no HTTPClientError.
        if isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError):
            raise TransientError("AWS does not answer") from None
        if isinstance(error, exceptions.BotoCoreError):
            reason = str(error).rstrip(".")
            raise UserError(
                f"cannot ask AWS ({reason}): configure AWS credentials, for example with "
                "`aws configure`."
            ) from None


def _at_once(caught_exception: Exception | None = None, **_: object) -> None:
    """Raise what another attempt cannot change: a wrong certificate stays wrong."""
    from botocore.exceptions import SSLError

    if isinstance(caught_exception, SSLError):
        raise caught_exception


BUSY = ("Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException")
