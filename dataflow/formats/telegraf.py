"""Telegraf's metrics: JSON, alone or in batches, and influx lines, which are its default.

CPU is read from three of its inputs. `cpu` says per CPU and for all together which share is idle:
only the total counts. `cloudwatch_metric_streams` and `cloudwatch` bring CPUUtilization of EC2; the
tag `host` is then that of the collector, not of the instance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from dataflow.formats.base import (
    DIGITS,
    PERCENT,
    Fields,
    Format,
    Point,
    RecordError,
    bounds,
    inverted,
)
from dataflow.formats.framing import documents, unframed
from dataflow.formats.influx import lines
from dataflow.formats.json import decoded

__all__ = ["Telegraf"]

Tags = Mapping[str, str]
Values = Mapping[str, Any]


class _Metric(msgspec.Struct, gc=False):
    name: str
    fields: dict[str, Any]
    timestamp: str | int | float
    tags: dict[str, str] = {}


class _Batch(msgspec.Struct, gc=False):
    metrics: list[msgspec.Raw]


SKIPPED = (None,)

_metric = msgspec.json.Decoder(_Metric).decode
_batch = msgspec.json.Decoder(_Batch).decode


class Telegraf(Format):
    """Reads the CPU of a host, and of EC2 from CloudWatch; other metrics are skipped.

    ANOMALY_KEY_FIELD names the tag of the instance, if it is not `host`.

    >>> telegraf = Telegraf(Fields("instance", "timestamp", "index", "value", None, 100.0))
    >>> list(telegraf.read(b"cpu,cpu=cpu-total,host=a usage_idle=58.5 1741449600000000000"))
    [Point(instance='a', value=41.5, time=1741449600000000000)]
    >>> telegraf.read(b'{"name": "mem", "tags": {}, "fields": {}, "timestamp": 1741449600}')
    (None,)
    """

    percent = True

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        self._tag = fields.key if fields.renamed else None

    def read(self, value: bytes) -> Point | Iterable[Point | RecordError | None]:
        """Read the metrics of a record."""
        try:
            metric = _metric(value)
        except (ValueError, RecursionError):
            return self._several(value)
        found = self._point(metric.name, metric.tags, metric.fields, metric.timestamp)
        return SKIPPED if found is None else found

    def _several(self, value: bytes) -> Iterator[Point | RecordError | None]:
        content = unframed(value)
        head = content[:64].lstrip()[:1]
        if not head:
            raise RecordError("the record is empty", "no-value")
        if head in (b"{", b"["):
            return map(self._part, _metrics(content))
        return map(self._line, lines(content))

    def _part(self, document: bytes | msgspec.Raw) -> Point | RecordError | None:
        try:
            metric = _metric(document)
        except (ValueError, RecursionError) as error:
            return _no_metric(bytes(document), error)
        try:
            return self._point(metric.name, metric.tags, metric.fields, metric.timestamp)
        except RecordError as wrong:
            wrong.part = bytes(document)
            return wrong

    def _line(self, line: Any) -> Point | RecordError | None:
        if isinstance(line, RecordError):
            return line
        name, tags, values, time, text = line
        try:
            if time is None and name in ("cpu", "win_cpu"):
                raise RecordError("the line has no time", "missing-field")
            return self._point(name, tags, values, time)
        except RecordError as wrong:
            wrong.part = text
            return wrong

    def _point(self, name: str, tags: Tags, values: Values, time: Any) -> Point | None:
        if name == "cpu":
            cpu = tags.get("cpu")
            if cpu != "cpu-total":
                if cpu is None and ("usage_idle" in values or "usage_active" in values):
                    raise RecordError(
                        "the tag 'cpu' is missing, so this may be one CPU of many: keep the tag",
                        "missing-field",
                    )
                return None
            if "usage_idle" in values:
                return self._idle(tags, values, "usage_idle", time)
            if "usage_active" in values:
                return Point(self._instance(tags, "host"), _number(values, "usage_active"), time)
            return None
        if name == "aws_ec2_cpuutilization":
            return self._streamed(tags, values, time)
        if name == "cloudwatch_aws_ec2":
            if "instance_id" not in tags or "cpu_utilization_average" not in values:
                return None
            percent = _number(values, "cpu_utilization_average")
            return Point(self._instance(tags, "instance_id"), percent, time)
        if name == "win_cpu":
            if tags.get("instance") != "_Total" or "Percent_Idle_Time" not in values:
                return None
            return self._idle(tags, values, "Percent_Idle_Time", time)
        return None

    def _idle(self, tags: Tags, values: Values, field: str, time: Any) -> Point:
        idle = _number(values, field)
        low, high = bounds(PERCENT)
        if not low <= idle <= high:
            raise RecordError(f"{field!r} is {idle:g}, outside 0 to 100", "out-of-range")
        value = inverted(min(max(idle, 0.0), PERCENT), PERCENT)
        return Point(self._instance(tags, "host"), value, time)

    def _streamed(self, tags: Tags, values: Values, time: Any) -> Point | None:
        """Read a statistic of a metric stream: only those of single instances count."""
        if "InstanceId" not in tags or not GROUPS.isdisjoint(tags):
            return None
        count = _number(values, "samplecount" if "samplecount" in values else "count")
        if not count > 0:
            raise RecordError("'count' is not above 0", "not-a-number")
        mean = _number(values, "sum") / count
        return Point(self._instance(tags, "InstanceId"), round(mean, DIGITS), time)

    def _instance(self, tags: Tags, tag: str) -> str:
        tag = self._tag or tag
        if self.fields.key is None and self.fields.only_instance is not None:
            return self.fields.only_instance
        try:
            return tags[tag]
        except KeyError:
            raise RecordError(
                f"the tag {tag!r} is missing: let Telegraf send it, or name another in "
                "ANOMALY_KEY_FIELD",
                "missing-field",
            ) from None


GROUPS = frozenset({"AutoScalingGroupName", "ImageId", "InstanceType"})
"""Dimensions of EC2's statistics of several instances."""


def _metrics(content: bytes) -> Iterator[bytes | msgspec.Raw]:
    for document in documents(content):
        # A metric has no field of this name, and a batch no other.
        if b'"metrics"' in document:
            try:
                yield from _batch(document).metrics
                continue
            except (ValueError, RecursionError):
                pass
        yield document


def _no_metric(document: bytes, error: Exception) -> RecordError:
    """Return what is wrong with a document that is no metric."""
    try:
        decoded(document)
    except RecordError as wrong:
        wrong.part = document
        return wrong
    reason = "missing-field" if "missing required field" in str(error) else "bad-record"
    return RecordError(f"the record is no metric of Telegraf: {error}", reason, part=document)


def _number(values: Values, field: str) -> float:
    value = values.get(field)
    if value.__class__ is not float and (
        not isinstance(value, (int, float)) or isinstance(value, bool)
    ):
        what = "missing" if field not in values else "not a number"
        raise RecordError(f"the field {field!r} is {what}", "not-a-number")
    return float(value)
