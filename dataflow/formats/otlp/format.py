"""OpenTelemetry's metrics (OTLP), protobuf and JSON: the Collector's, and CloudWatch's streams.

`system.cpu.utilization` has a point for each CPU and each state, shares from 0 to 1: what is in use
is what the mean of the idle ones leaves. Points without a state are shares in use themselves.
`system.cpu.time` has the same points in seconds that only grow: two records give the share between
them. It is read where the other is not sent. The instance is the resource's `host.id`, else its
`host.name`.

CloudWatch's `CPUUtilization` comes as a summary: sum and count of a period, in percent, with the
dimensions as an attribute; the time is the end of the period, where CloudWatch's JSON has its
beginning.

Names of before and since semantic conventions 1.23 are taken: `state` and `cpu.mode`.

Other gauges, sums that may fall and CloudWatch's summaries are metrics by their names, and by the
attributes of each point: points that differ by an attribute are metrics of their own. Sums that
only grow and histograms are skipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from typing import Any

from dataflow.formats.base import (
    MAX_INSTANCE_LENGTH,
    PERCENT,
    Decode,
    Fields,
    Format,
    Point,
    RecordError,
    Reject,
    Skip,
    rounded,
    usual_time,
)
from dataflow.formats.framing import unframed
from dataflow.formats.metrics import Wanted, series
from dataflow.formats.otlp.json import from_json
from dataflow.formats.otlp.metric import Attributes, Metric, Summary, state_in
from dataflow.formats.otlp.protobuf import Known, from_protobuf, read_attributes, state_of
from dataflow.formats.otlp.template import Share, Templates
from dataflow.records import Raw, Reading, Rejected

__all__ = ["Otlp", "is_json"]

UTILIZATION = "system.cpu.utilization"
CLOUDWATCH = "amazonaws.com/AWS/EC2/CPUUtilization"
SUMMARY = "CPUUtilization"
TIME = "system.cpu.time"
WANTED = {UTILIZATION, TIME, CLOUDWATCH, SUMMARY}
_WANTED = {name.encode() for name in WANTED}

STREAMED = "amazonaws.com/"
OF_EC2 = "AWS/EC2/"
"""How CloudWatch's names begin in a stream."""

HOST = ("host.id", "host.name")
PARTS = ("service.", "container.", "process.", "k8s.", "faas.")
"""How the names of a resource's attributes begin that tell it from others on its host."""

EC2 = {"service.namespace": "AWS", "service.name": "EC2"}

Outcome = Point | RecordError | None


class Otlp(Format):
    """Reads the CPU of hosts and EC2 instances, and the metrics that are selected.

    ANOMALY_KEY_FIELD names another attribute of the resource, or of the point.

    >>> import msgspec
    >>> otlp = Otlp(Fields("instance", "timestamp", "index", "value", None, 100.0))
    >>> def point(state: str, value: float) -> dict[str, object]:
    ...     attributes = [{"key": "state", "value": {"stringValue": state}}]
    ...     return {"timeUnixNano": "1741449600", "asDouble": value, "attributes": attributes}
    >>> points = [point("idle", 0.585), point("user", 0.4)]
    >>> metric = {"name": "system.cpu.utilization", "gauge": {"dataPoints": points}}
    >>> host = {"attributes": [{"key": "host.id", "value": {"stringValue": "i-1"}}]}
    >>> list(otlp.read(msgspec.json.encode({"resource": host, **metric})))
    [Point(instance='i-1', value=41.5, time=1741449600)]
    """

    percent = True
    cpu_names = (UTILIZATION, TIME, SUMMARY, f"{OF_EC2}{SUMMARY}")

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        self._hosts = (fields.key,) if fields.renamed and fields.key is not None else HOST
        names: Container[bytes] = _WANTED
        self._reads: Callable[[str], bool] = WANTED.__contains__
        if self.several:
            names = several = _Names(self.wanted)
            self._reads = several.selected
        self._known = Known(names)
        self._templates = Templates()

    def decoder(self, reject: Reject, skip: Skip = lambda count: None) -> Decode:
        """Return the function that reads a batch: what comes again in one loop, else with care."""
        read_carefully, again = self.readings, self._templates.read
        if not (self._as_it_is and self.only_cpu):
            return super().decoder(reject, skip)

        def decode(batch: list[Raw]) -> list[Reading | Rejected]:
            out: list[Reading | Rejected] = []
            for raw in batch:
                try:
                    found = again(raw.value)  # type: ignore[arg-type]  # None is rejected with care
                    readings = None if found is None else _usual(*found, raw)
                except Exception:
                    readings = None
                if readings is None:
                    out += read_carefully(raw, reject, skip)
                    continue
                out += readings
                if len(readings) < len(found[1]):  # type: ignore[index]
                    skip(len(found[1]) - len(readings))  # type: ignore[index]
            return out

        return decode

    def read(self, value: bytes) -> Iterable[Outcome]:
        """Read the metrics of a record."""
        content = unframed(value)
        if not content:
            raise RecordError("the record is empty", "no-value")
        again = self._templates.read(content)
        if again is None:
            return self._carefully(content)
        instance, shares = again
        return [one and Point(instance, one[1], one[0], counter=one[2]) for one in shares]

    def _carefully(self, content: bytes) -> Iterator[Outcome]:
        found: Iterable[Metric | RecordError | None]
        if is_json(content):
            found = from_json(content, self._reads)
        else:
            try:
                found = from_protobuf(content, self._known)
            except ValueError as error:
                raise RecordError(f"the record is no OTLP: {error}", "bad-record") from None
            if self.only_cpu:
                self._templates.learn(content, self._host_of, state_of)
        metrics = list(found)
        # The resource of several metrics of a record is the same object.
        better = {
            id(metric.resource)
            for metric in metrics
            if isinstance(metric, Metric) and metric.name == UTILIZATION
        }
        for metric in metrics:
            if isinstance(metric, Metric) and metric.name == TIME and id(metric.resource) in better:
                yield None
            else:
                yield from self._metric(metric)

    def _host_of(self, resource: bytes) -> str:
        """Return the instance of the bytes of a resource. Raises `RecordError` if it has none."""
        return self._name(read_attributes(resource, 0, len(resource), 1), {}, 1)

    def _metric(self, metric: Metric | RecordError | None) -> Iterable[Outcome]:
        if metric is None or isinstance(metric, RecordError):
            return (metric,)
        if metric.name == UTILIZATION:
            return self._host(metric)
        if metric.name == TIME:
            return self._seconds(metric)
        if metric.name not in WANTED:
            return self._other(metric)
        if metric.name == SUMMARY and not EC2.items() <= metric.resource.items():
            return (None,)
        return [self._instance(one, metric.resource) for one in metric.summaries]

    def _other(self, metric: Metric) -> Iterator[Outcome]:
        """Yield the points of a metric that is not CPU."""
        name = _plain(metric.name)
        for summary in metric.summaries:
            try:
                yield self._mean(summary, name, metric.unit.strip("{}"))
            except RecordError as wrong:
                yield wrong
        if metric.monotonic:
            yield None
            return
        unit = "ratio" if metric.unit == "1" and name.endswith(".utilization") else metric.unit
        for point in metric.numbers:
            time, value, attributes = point.time, point.value, point.attributes
            whole = self._series(name, metric.resource, attributes)
            if whole is None or value is None:
                yield None
                continue
            try:
                instance = self._name(metric.resource, attributes, time)
            except RecordError as wrong:
                wrong.metric = whole
                yield wrong
                continue
            labels = self.labels.of(None, attributes, metric.resource)
            yield Point(instance, value, time, metric=whole, unit=unit or None, labels=labels)

    def _series(self, name: str, resource: Attributes, attributes: Attributes) -> str | None:
        """Return the name of a metric with what tells it from others; None if that is unknown."""
        further = {
            key: one
            for key, one in resource.items()
            if key.startswith(PARTS) and key not in self._hosts and key not in self.labels.names
        }
        further |= {key: one for key, one in attributes.items() if key not in self._hosts}
        if not all(isinstance(one, str) for one in further.values()):
            return None
        return series(name, further)

    def _mean(self, one: Summary, name: str, unit: str) -> Point | None:
        """Return the mean of a period of CloudWatch, None if it is not of an instance."""
        dimensions = _dimensions(one)
        wanted = "InstanceId" if self._hosts is HOST else self._hosts[0]
        if wanted not in dimensions:
            return None
        further = {key: value for key, value in dimensions.items() if key != wanted}
        metric = series(name, further)
        if not one.time:
            raise RecordError("the point has no time", "bad-timestamp", metric=metric)
        if not one.number > 0:
            raise RecordError(
                "the count of a summary is not above 0", "not-a-number", metric=metric
            )
        mean = rounded(one.total / one.number)
        labels = self.labels.of(None, dimensions)
        unit = "%" if unit == "Percent" else unit
        return Point(
            dimensions[wanted], mean, one.time, metric=metric, unit=unit or None, labels=labels
        )

    def _host(self, metric: Metric) -> Iterator[Outcome]:
        """Yield the CPU of a host at each time, from the points of its CPUs and states."""
        by_time: dict[int, tuple[list[float], set[Any]]] = {}
        before = None
        for point in metric.numbers:
            time, value = point.time, point.value
            if time != before:  # as a rule, all points have the same
                before = time
                idle, states = by_time.setdefault(time, ([], set()))
            state = state_in(point.attributes)
            states.add(state)
            if value is not None and (state is None or state == "idle"):
                idle.append(value)
        for time, (values, found) in by_time.items():
            try:
                yield self._use(metric.resource, time, values, found)
            except RecordError as wrong:
                yield wrong

    def _seconds(self, metric: Metric) -> Iterator[Outcome]:
        """Yield the seconds of a host's CPUs at each time: idle ones and all."""
        idles: dict[int, list[float]] = {}
        values: dict[int, list[float]] = {}
        states: dict[int, set[Any]] = {}
        for point in metric.numbers:
            time, value = point.time, point.value
            if value is not None:
                state = state_in(point.attributes)
                states.setdefault(time, set()).add(state)
                values.setdefault(time, []).append(value)
                if state == "idle":
                    idles.setdefault(time, []).append(value)
        for time, every in values.items():
            idle, total = sum(idles.get(time, ())), sum(every)
            try:
                instance = self._name(metric.resource, {}, time)
                if "idle" not in states[time] or len(states[time]) < 2:
                    raise RecordError(
                        "the points are not of 'idle' and other states", "missing-field", instance
                    )
                labels = self.labels.of(None, metric.resource)
                if not metric.delta:
                    yield Point(instance, PERCENT, time, counter=(idle, total), labels=labels)
                elif total > 0.0:
                    percent = rounded(PERCENT * (1.0 - idle / total))
                    yield Point(instance, percent, time, labels=labels)
                else:
                    yield None
            except RecordError as wrong:
                yield wrong

    def _use(self, resource: Attributes, time: int, values: list[float], states: set[Any]) -> Point:
        instance = self._name(resource, {}, time)
        if None in states and len(states) > 1:
            raise RecordError("some points have a state, and some none", "bad-record", instance)
        if not values:
            raise RecordError("there is no point of the state 'idle'", "missing-field", instance)
        mean = sum(values) / len(values)
        if not all(-1e-6 <= value <= 1.05 for value in values):
            raise RecordError(
                f"a share of {UTILIZATION} is outside 0 to 1", "out-of-range", instance
            )
        percent = rounded(PERCENT * (mean if None in states else 1.0 - mean))
        labels = self.labels.of(None, resource) if self.labelled else None
        return Point(instance, percent, time, labels=labels)

    def _instance(self, one: Summary, resource: Attributes) -> Outcome:
        """Return the CPU of an EC2 instance, None for a statistic of several."""
        dimensions = _dimensions(one)
        wanted = "InstanceId" if self._hosts is HOST else self._hosts[0]
        if set(dimensions) != {wanted}:
            return None
        instance = dimensions[wanted]
        if not one.time:
            return RecordError("the point has no time", "bad-timestamp")
        if not one.number > 0:
            return RecordError("the count of a summary is not above 0", "not-a-number")
        labels = self.labels.of(None, dimensions, resource)
        return Point(instance, rounded(one.total / one.number), one.time, labels=labels)

    def _name(self, resource: Attributes, attributes: Attributes, time: int) -> str:
        """Return the instance of a point. Raises `RecordError` if it has none, or no time."""
        if not time:
            raise RecordError("the point has no time", "bad-timestamp")
        if self.fields.key is None and self.fields.only_instance is not None:
            return self.fields.only_instance
        for name in self._hosts:
            found = resource.get(name, attributes.get(name))
            if isinstance(found, str) and found:
                return found
        raise RecordError(
            f"the resource has no attribute {' or '.join(self._hosts)}: let the Collector's "
            "processor resource or resourcedetection add one, or name another in "
            "ANOMALY_KEY_FIELD",
            "missing-field",
        )


def _dimensions(one: Summary) -> Mapping[str, Any]:
    """Return the dimensions of a statistic of CloudWatch."""
    attributes = one.attributes
    dimensions = attributes.get("Dimensions")
    if isinstance(dimensions, dict):
        return dimensions
    dimensions = {
        name: value for name, value in attributes.items() if name not in ("Namespace", "MetricName")
    }
    if "service.instance.id" in dimensions:  # the Collector's name of it
        dimensions["InstanceId"] = dimensions.pop("service.instance.id")
    return dimensions


def _plain(name: str) -> str:
    """Return the name of a metric without what CloudWatch's streams write before it.

    >>> _plain("amazonaws.com/AWS/EC2/NetworkIn"), _plain("amazonaws.com/CWAgent/mem_used_percent")
    ('NetworkIn', 'CWAgent/mem_used_percent')
    """
    return name.removeprefix(STREAMED).removeprefix(OF_EC2)


class _Names:
    """The names of the metrics to read: those of CPU, and those that are selected."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted

    def selected(self, name: str) -> bool:
        return name in WANTED or self._wanted.begins(_plain(name))

    def __contains__(self, name: object) -> bool:
        return name in _WANTED or (isinstance(name, bytes) and self.selected(name.decode()))


def _usual(instance: str, shares: list[Share | None], raw: Raw) -> list[Reading] | None:
    """Return the readings of an instance; None if one has to be looked at with care."""
    if len(instance) > MAX_INSTANCE_LENGTH:
        return None
    out = []
    for number, share in enumerate(shares):
        if share is None:
            continue
        stamp, value, counter = share
        time = usual_time(stamp)
        if time is None or not 0.0 <= value <= PERCENT:
            return None
        if counter is not None and not 0.0 <= counter[0] <= counter[1] < math.inf:
            return None
        out.append(
            Reading(instance, stamp, None, value, time, raw.partition, raw.offset, number, counter)
        )
    return out


def is_json(content: bytes) -> bool:
    """Return whether a record is JSON and not protobuf, which may begin with the same bytes.

    The length of a message may be that of a brace or a bracket, after or before the tag of a field,
    which is the end of a line.

    >>> is_json(b'{"resourceMetrics": []}'), is_json(b"\\n{" + b"\\x22\\x79" + bytes(121))
    (True, False)
    """
    if content.lstrip()[:1] not in (b"{", b"["):
        return False
    if b"\n" not in content[:2]:
        return True
    try:
        from_protobuf(content, Known(_WANTED))
    except ValueError:  # RecordError is one
        return True
    return False
