"""Telegraf's metrics: JSON, alone or in batches, and influx lines, which are its default.

CPU is read from three of its inputs. `cpu` says per CPU and for all together which share is idle:
only the total counts. `cloudwatch_metric_streams` and `cloudwatch` bring CPUUtilization of EC2; the
tag `host` is then that of the collector, not of the instance.

Any other number is a metric `MEASUREMENT.FIELD`, such as `mem.used_percent`, with the tags that are
not those of the host in its name. What only grows (`COUNTERS`) is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from dataflow.formats.base import (
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
    rounded,
    usual_time,
)
from dataflow.formats.framing import documents, unframed
from dataflow.formats.influx import Line, last_of, lines, plain_line
from dataflow.formats.json import decoded
from dataflow.formats.metrics import same_everywhere, series, unit_of
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
    """Reads the CPU of a host, and of EC2 from CloudWatch, and the metrics that are selected.

    ANOMALY_KEY_FIELD names the tag of the instance, if it is not `host`.

    >>> telegraf = Telegraf(Fields("instance", "timestamp", "index", "value", None, 100.0))
    >>> list(telegraf.read(b"cpu,cpu=cpu-total,host=a usage_idle=58.5 1741449600000000000"))
    [Point(instance='a', value=41.5, time=1741449600000000000)]
    >>> telegraf.read(b'{"name": "mem", "tags": {}, "fields": {}, "timestamp": 1741449600}')
    (None,)
    """

    percent = True
    cpu_names = ("cpu.usage_active", "cpu.usage_idle", "CPUUtilization")

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
        if self.several:
            return self._all(value)
        try:
            metric = _metric(value)
        except (ValueError, RecursionError):
            return self._several(value)
        found = self._point(metric.name, metric.tags, metric.fields, metric.timestamp)
        return SKIPPED if found is None else found

    def _several(self, value: bytes) -> Iterator[Point | RecordError | None]:
        content, is_json = _content(value)
        return map(self._part, _metrics(content)) if is_json else map(self._line, lines(content))

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

    def _all(self, value: bytes) -> Iterator[Point | RecordError | None]:
        """Read what is selected of a record: CPU, and any other field of each metric."""
        content, is_json = _content(value)
        for line in map(_as_line, _metrics(content)) if is_json else lines(content):
            if isinstance(line, RecordError):
                yield line
                continue
            yield self._line(line) if self.wanted.cpu else None
            for field in line.fields:
                try:
                    yield self._other(line.name, line.tags, line.fields, field, line.time)
                except RecordError as wrong:
                    wrong.part = bytes(line.text)
                    yield wrong

    def _other(self, name: str, tags: Tags, values: Values, field: str, time: Any) -> Point | None:
        """Return a metric that is not CPU, None if it is not selected, no number, or a counter."""
        value = values[field]
        if value.__class__ is not float and value.__class__ is not int:
            return None
        # A statistic of a metric stream has the sum of a period: the other fields are not read.
        streamed = "accountId" in tags and "sum" in values
        if streamed and field != "sum":
            return None
        metric = name if streamed else f"{name}.{field}"
        if not self.wanted.begins(metric) or _is_cpu(name, field) or _only_grows(name, field):
            return None
        usual = "InstanceId" if streamed else "host"
        if name.startswith("cloudwatch_"):
            usual = "instance_id"
        tag = self._tag or usual
        if usual != "host" and tag not in tags:
            return None  # of a group, or of another service
        further = {
            key: one
            for key, one in tags.items()
            if key not in (tag, "host", *self.labels.names) and not same_everywhere(key)
        }
        metric = series(metric, further)
        if time is None:
            raise RecordError("the line has no time", "missing-field", metric=metric)
        if streamed:
            value = _mean(values)
        return Point(
            self._instance(tags, usual),
            float(value),
            time,
            metric=metric,
            unit="%" if name == "cpu" else unit_of(name if streamed else f"{name}.{field}"),
            labels=self.labels.of(None, tags),
        )

    def _line(self, line: Line | RecordError) -> Point | RecordError | None:
        if isinstance(line, RecordError):
            return line
        name, tags, values, time, text = line
        try:
            if time is None and name in ("cpu", "win_cpu"):
                raise RecordError("the line has no time", "missing-field")
            return self._point(name, tags, values, time)
        except RecordError as wrong:
            wrong.part = bytes(text)
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
                return self._cpu(tags, "host", _number(values, "usage_active"), time)
            return None
        if name == "aws_ec2_cpuutilization":
            return self._streamed(tags, values, time)
        if name == "cloudwatch_aws_ec2":
            tag = self._tag if self._tag in POLLED else "instance_id"
            if tag not in tags or "cpu_utilization_average" not in values:
                return None
            percent = _number(values, "cpu_utilization_average")
            return self._cpu(tags, "instance_id", percent, time)
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
        return self._cpu(tags, "host", value, time)

    def _streamed(self, tags: Tags, values: Values, time: Any) -> Point | None:
        """Read a statistic of a metric stream: of single instances, or of the groups asked for."""
        wanted = self._tag if self._tag in STREAMED else "InstanceId"
        if tags.keys() & STREAMED != {wanted}:
            return None
        return self._cpu(tags, "InstanceId", _mean(values), time)

    def _cpu(self, tags: Tags, tag: str, value: float, time: Any) -> Point:
        instance = self._instance(tags, tag)
        if self.labelled:
            return Point(instance, value, time, labels=self.labels.of(None, tags))
        return Point(instance, value, time)

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
    if not 0 < count <= MAX_READINGS:
        raise ValueError
    return readings, count


def _usual(host: str, idle: float, stamp: int, raw: Raw, number: int) -> Reading:
    """Return a reading. Raises an exception if anything of it has to be looked at with care."""
    time = usual_time(stamp)
    if time is None or not (0.0 <= idle <= PERCENT and 0 < len(host) <= MAX_INSTANCE_LENGTH):
        raise ValueError
    value = inverted(idle, PERCENT)
    return Reading(host, stamp, None, value, time, raw.partition, raw.offset, number)


STREAMED = frozenset({"InstanceId", "AutoScalingGroupName", "ImageId", "InstanceType"})
POLLED = frozenset({"instance_id", "auto_scaling_group_name", "image_id", "instance_type"})
"""Dimensions of EC2's statistics, as tags of a metric stream and of the poller."""

COUNTERS = frozenset({"diskio", "interrupts", "kernel", "kernel_vmstat", "net", "nstat"})
"""Inputs whose fields only grow, but for `GAUGES`."""

GAUGES = frozenset({"diskio.iops_in_progress", "kernel.entropy_avail", "net.speed"})

GROWING = frozenset({"swap.in", "swap.out", "system.uptime"})
"""Fields of other inputs that only grow."""


def _only_grows(name: str, field: str) -> bool:
    metric = f"{name}.{field}"
    if name in COUNTERS:
        return metric not in GAUGES
    return (
        metric in GROWING
        or field.endswith(("_total", "_counter"))
        or (name == "cpu" and field.startswith("time_"))
    )


def _is_cpu(name: str, field: str) -> bool:
    """Return whether a field is read as CPU, or is what is left of it."""
    return (
        (name == "cpu" and field in ("usage_active", "usage_idle"))
        or (name == "win_cpu" and field == "Percent_Idle_Time")
        or name == "aws_ec2_cpuutilization"
        or (name == "cloudwatch_aws_ec2" and field == "cpu_utilization_average")
    )


def _mean(values: Values) -> float:
    """Return the mean of a statistic of a metric stream. Raises `RecordError`."""
    count = _number(values, "samplecount" if "samplecount" in values else "count")
    if not count > 0:
        raise RecordError("'count' is not above 0", "not-a-number")
    return rounded(_number(values, "sum") / count)


def _content(value: bytes) -> tuple[bytes, bool]:
    """Return the content of a record, and whether it is JSON. Raises `RecordError` if empty."""
    content = unframed(value)
    head = content[:64].lstrip()[:1]
    if not head:
        raise RecordError("the record is empty", "no-value")
    return content, head in (b"{", b"[")


def _as_line(document: bytes | msgspec.Raw) -> Line | RecordError:
    """Return a metric in JSON as a line."""
    try:
        metric = _metric(document)
    except (ValueError, RecursionError) as error:
        return _no_metric(bytes(document), error)
    return Line(metric.name, metric.tags, metric.fields, metric.timestamp, document)


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
