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
    MAX_INSTANCE_LENGTH,
    MAX_READINGS,
    PERCENT,
    Decode,
    Fields,
    Format,
    Point,
    RecordError,
    Reject,
    Skip,
    bounds,
    inverted,
    usual_time,
)
from dataflow.formats.framing import documents, unframed
from dataflow.formats.influx import last_of, lines, plain_line
from dataflow.formats.json import decoded
from dataflow.records import Raw, Reading, Rejected

__all__ = ["Telegraf"]

Tags = Mapping[str, Any]
Values = Mapping[str, Any]


class _Metric(msgspec.Struct, gc=False):
    name: str
    fields: dict[str, Any]
    timestamp: str | int | float
    tags: dict[str, Any] = {}


class _CpuTags(msgspec.Struct, gc=False, frozen=True):
    cpu: str | msgspec.UnsetType = msgspec.UNSET
    host: str = ""


class _CpuFields(msgspec.Struct, gc=False):
    usage_idle: float | msgspec.UnsetType = msgspec.UNSET


class _Cpu(msgspec.Struct, gc=False):
    """A metric, with what is read of the input `cpu`."""

    name: str
    fields: _CpuFields
    timestamp: int
    tags: _CpuTags = _CpuTags()


class _Batch(msgspec.Struct, gc=False):
    metrics: list[msgspec.Raw]


SKIPPED = (None,)

OTHERS = ("aws_ec2_cpuutilization", "cloudwatch_aws_ec2", "win_cpu")
"""Metrics that are read besides `cpu`."""

_cpu = msgspec.json.Decoder(_Cpu).decode
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

    def decoder(self, reject: Reject, skip: Skip = lambda count: None) -> Decode:
        """Return the function that reads a batch: usual records in one loop, others with care."""
        read_carefully = self.readings
        if not self.usual:
            return super().decoder(reject, skip)

        def decode(batch: list[Raw]) -> list[Reading | Rejected]:
            out: list[Reading | Rejected] = []
            skipped = 0
            for raw in batch:
                try:
                    value: bytes = raw.value  # type: ignore[assignment]  # None: with care
                    if not value.isascii():
                        out += read_carefully(raw, reject, skip)
                    elif value[0] == BRACE:
                        reading = _of_json(value, raw)
                        if reading is None:
                            skipped += 1
                        else:
                            out.append(reading)
                    else:
                        readings, count = _of_lines(value, raw)
                        out += readings
                        skipped += count - len(readings)
                except Exception:
                    out += read_carefully(raw, reject, skip)
            if skipped:
                skip(skipped)
            return out

        return decode

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
            instance: str = tags[tag]  # if it is something else, all formats reject it alike
            return instance
        except KeyError:
            raise RecordError(
                f"the tag {tag!r} is missing: let Telegraf send it, or name another in "
                "ANOMALY_KEY_FIELD",
                "missing-field",
            ) from None


BRACE = b"{"[0]


def _of_json(value: bytes, raw: Raw) -> Reading | None:
    """Return the reading of a usual metric, None if it is skipped; any exception: it is another."""
    metric = _cpu(value)
    if metric.name != "cpu":
        if metric.name in OTHERS:
            raise ValueError
        return None
    tags, idle = metric.tags, metric.fields.usage_idle
    if tags.cpu != "cpu-total":
        if tags.cpu is msgspec.UNSET:
            raise ValueError
        return None
    return _usual(tags.host, idle, metric.timestamp, raw, 0)  # type: ignore[arg-type]


def _of_lines(value: bytes, raw: Raw) -> tuple[list[Reading], int]:
    """Return the readings of usual lines, and how many lines there are; any exception: others."""
    readings: list[Reading] = []
    count = 0
    for line in value.split(b"\n"):
        if not line:
            continue
        name, tags, fields, stamp = plain_line(line)
        if name == b"cpu":
            cpu = last_of(tags, b",cpu=")
            if cpu == b"cpu-total":
                host, idle = last_of(tags, b",host="), last_of(fields, b",usage_idle=")
                readings.append(_usual(host.decode(), float(idle), int(stamp), raw, count))
        elif name.decode() in OTHERS:
            raise ValueError
        count += 1
    if count > MAX_READINGS:
        raise ValueError
    return readings, count


def _usual(host: str, idle: float, stamp: int, raw: Raw, number: int) -> Reading:
    """Return a reading. Raises an exception if anything of it has to be looked at with care."""
    time = usual_time(stamp)
    if time is None or not (0.0 <= idle <= PERCENT and 0 < len(host) <= MAX_INSTANCE_LENGTH):
        raise ValueError
    value = inverted(idle, PERCENT)
    return Reading(host, stamp, None, value, time, raw.partition, raw.offset, number)


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
