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
from typing import Any, NamedTuple

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
    usual_time,
)
from dataflow.formats.framing import documents, unframed
from dataflow.formats.json import decoded
from dataflow.formats.metrics import Wanted, series
from dataflow.formats.otlp_template import Templates
from dataflow.formats.protobuf import (
    BYTES,
    FIXED64,
    VARINT,
    double,
    integer,
    scan,
    time_and_value,
    value_and_time,
    varint,
)
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

Attributes = dict[str, Any]

Outcome = Point | RecordError | None


class _Number(NamedTuple):
    """A point of a gauge or a sum: its time in ns, its value, None if it has none."""

    time: int
    value: float | None
    attributes: Attributes


class _Summary(NamedTuple):
    """A point of a summary."""

    time: int
    number: float
    total: float
    attributes: Attributes


class _Metric(NamedTuple):
    """A metric that is read: the attributes of its resource, its name and its points."""

    resource: Attributes
    name: str
    numbers: list[_Number]
    summaries: list[_Summary]
    delta: bool = False
    """Whether the points say what was added since the ones before."""
    monotonic: bool = False
    """Whether the points only grow."""
    unit: str = ""


class Otlp(Format):
    """Reads the CPU of hosts and EC2 instances, and the metrics that are selected.

    ANOMALY_KEY_FIELD names another attribute of the resource, or of the point.

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
        self._known = _Known()
        self._reads: Callable[[str], bool] = WANTED.__contains__
        if self.several:
            names = _Names(self.wanted)
            self._known.names, self._reads = names, names.selected
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
                    readings = None if found is None else _usual(found, raw)
                except Exception:
                    readings = None
                if readings is None:
                    out += read_carefully(raw, reject, skip)
                    continue
                out += readings
                if len(readings) < len(found):  # type: ignore[arg-type]
                    skip(len(found) - len(readings))  # type: ignore[arg-type]
            return out

        return decode

    def read(self, value: bytes) -> Iterable[Outcome]:
        """Read the metrics of a record."""
        content = unframed(value)
        if not content:
            raise RecordError("the record is empty", "no-value")
        again = self._templates.read(content)
        return self._carefully(content) if again is None else again

    def _carefully(self, content: bytes) -> Iterator[Outcome]:
        found: Iterable[_Metric | RecordError | None]
        if is_json(content):
            found = _from_json(content, self._reads)
        else:
            try:
                found = _from_protobuf(content, self._known)
            except ValueError as error:
                raise RecordError(f"the record is no OTLP: {error}", "bad-record") from None
            if self.only_cpu:
                self._templates.learn(content, self._host_of, _state_of)
        metrics = list(found)
        # The resource of several metrics of a record is the same object.
        better = {
            id(metric.resource)
            for metric in metrics
            if isinstance(metric, _Metric) and metric.name == UTILIZATION
        }
        for metric in metrics:
            if (
                isinstance(metric, _Metric)
                and metric.name == TIME
                and id(metric.resource) in better
            ):
                yield None
            else:
                yield from self._metric(metric)

    def _host_of(self, resource: bytes) -> str:
        """Return the instance of the bytes of a resource. Raises `RecordError` if it has none."""
        return self._name(_read_attributes(resource, 0, len(resource), 1), {}, 1)

    def _metric(self, metric: _Metric | RecordError | None) -> Iterable[Outcome]:
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

    def _other(self, metric: _Metric) -> Iterator[Outcome]:
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
        for time, value, attributes in metric.numbers:
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

    def _mean(self, one: _Summary, name: str, unit: str) -> Point | None:
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
        mean = round(one.total / one.number, DIGITS)
        labels = self.labels.of(None, dimensions)
        unit = "%" if unit == "Percent" else unit
        return Point(
            dimensions[wanted], mean, one.time, metric=metric, unit=unit or None, labels=labels
        )

    def _host(self, metric: _Metric) -> Iterator[Outcome]:
        """Yield the CPU of a host at each time, from the points of its CPUs and states."""
        by_time: dict[int, tuple[list[float], set[Any]]] = {}
        before = None
        for time, value, attributes in metric.numbers:
            if time != before:  # as a rule, all points have the same
                before = time
                idle, states = by_time.setdefault(time, ([], set()))
            state = _state(attributes)
            states.add(state)
            if value is not None and (state is None or state == "idle"):
                idle.append(value)
        for time, (values, found) in by_time.items():
            try:
                yield self._use(metric.resource, time, values, found)
            except RecordError as wrong:
                yield wrong

    def _seconds(self, metric: _Metric) -> Iterator[Outcome]:
        """Yield the seconds of a host's CPUs at each time: idle ones and all."""
        idles: dict[int, list[float]] = {}
        values: dict[int, list[float]] = {}
        states: dict[int, set[Any]] = {}
        for time, value, attributes in metric.numbers:
            if value is not None:
                state = _state(attributes)
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
                    percent = round(PERCENT * (1.0 - idle / total), DIGITS)
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
        percent = round(100.0 * (mean if None in states else 1.0 - mean), DIGITS)
        labels = self.labels.of(None, resource) if self.labelled else None
        return Point(instance, percent, time, labels=labels)

    def _instance(self, one: _Summary, resource: Attributes) -> Outcome:
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
        return Point(instance, round(one.total / one.number, DIGITS), one.time, labels=labels)

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


def _dimensions(one: _Summary) -> Mapping[str, Any]:
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


def _usual(points: list[Point | None], raw: Raw) -> list[Reading] | None:
    """Return the readings of points; None if one has to be looked at with care."""
    out = []
    for number, point in enumerate(points):
        if point is None:
            continue
        instance, value, stamp, counter = point.instance, point.value, point.time, point.counter
        time = usual_time(stamp)  # type: ignore[arg-type]  # it is a whole number
        if time is None or not 0.0 <= value <= PERCENT or len(instance) > MAX_INSTANCE_LENGTH:
            return None
        if counter is not None and not 0.0 <= counter[0] <= counter[1] < math.inf:
            return None
        place = raw.partition, raw.offset, number
        out.append(Reading(instance, stamp, None, value, time, *place, counter))
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
        _from_protobuf(content, _Known())
    except ValueError:  # RecordError is one
        return True
    return False


# JSON, in which fields that are 0 or empty are left out.


class _Value(msgspec.Struct, gc=False, frozen=True):
    stringValue: str | None = None  # noqa: N815
    intValue: str | int | None = None  # noqa: N815
    boolValue: bool | None = None  # noqa: N815
    doubleValue: float | None = None  # noqa: N815
    kvlistValue: _Pairs | None = None  # noqa: N815


class _Pair(msgspec.Struct, gc=False, frozen=True):
    key: str = ""
    value: _Value = _Value()


class _Pairs(msgspec.Struct, gc=False, frozen=True):
    values: list[_Pair] = []


class _JsonNumber(msgspec.Struct, gc=False, frozen=True):
    timeUnixNano: int = 0  # noqa: N815
    asDouble: float | None = None  # noqa: N815
    asInt: int | None = None  # noqa: N815
    attributes: list[_Pair] = []
    flags: int = 0


class _JsonSummary(msgspec.Struct, gc=False, frozen=True):
    timeUnixNano: int = 0  # noqa: N815
    count: float = 0.0
    sum: float = 0.0
    attributes: list[_Pair] = []


class _Points(msgspec.Struct, gc=False, frozen=True):
    dataPoints: list[msgspec.Raw] = []  # noqa: N815
    aggregationTemporality: int | str = 2  # noqa: N815
    isMonotonic: bool = False  # noqa: N815


DELTA = (1, "1", "AGGREGATION_TEMPORALITY_DELTA")


class _JsonMetric(msgspec.Struct, gc=False, frozen=True):
    name: str = ""
    unit: str = ""
    gauge: _Points | None = None
    sum: _Points | None = None
    summary: _Points | None = None


class _Resource(msgspec.Struct, gc=False, frozen=True):
    attributes: list[_Pair] = []


class _Scope(msgspec.Struct, gc=False, frozen=True):
    metrics: list[msgspec.Raw] = []


class _ResourceMetrics(msgspec.Struct, gc=False, frozen=True):
    resource: _Resource = _Resource()
    scopeMetrics: list[_Scope] = []  # noqa: N815


class _Request(msgspec.Struct, gc=False, frozen=True):
    resourceMetrics: list[_ResourceMetrics] | msgspec.UnsetType = msgspec.UNSET  # noqa: N815
    resource: _Resource = _Resource()
    name: str | msgspec.UnsetType = msgspec.UNSET


# Not strict: 64-bit numbers are text in JSON.
_request = msgspec.json.Decoder(_Request, strict=False).decode
_metric = msgspec.json.Decoder(_JsonMetric).decode
_numbers = msgspec.json.Decoder(_JsonNumber, strict=False).decode
_summaries = msgspec.json.Decoder(_JsonSummary, strict=False).decode


def _from_json(
    content: bytes, reads: Callable[[str], bool]
) -> Iterator[_Metric | RecordError | None]:
    for document in documents(content):
        try:
            request = _request(document)
        except (ValueError, RecursionError) as error:
            yield _wrong(document, error)
            continue
        if not isinstance(request.resourceMetrics, msgspec.UnsetType):
            for one in request.resourceMetrics:
                attributes = _attributes(one.resource.attributes)
                for scope in one.scopeMetrics:
                    for metric in scope.metrics:
                        yield _json_metric(metric, attributes, reads)
        elif not isinstance(request.name, msgspec.UnsetType):  # a metric, its resource inside
            attributes = _attributes(request.resource.attributes)
            yield _json_metric(document, attributes, reads)
        else:
            yield RecordError(
                "the field 'resourceMetrics' is missing", "missing-field", part=document
            )


def _wrong(document: bytes, error: Exception) -> RecordError:
    try:
        decoded(document)
    except RecordError as wrong:
        wrong.part = document
        return wrong
    return RecordError(f"the record is no OTLP: {error}", "bad-record", part=document)


def _json_metric(
    document: bytes | msgspec.Raw, resource: Attributes, reads: Callable[[str], bool]
) -> Any:
    try:
        metric = _metric(document)
        if not reads(metric.name):
            return None
        found = metric.gauge or metric.sum
        numbers = [] if found is None else list(map(_json_number, found.dataPoints))
        summary = [] if metric.summary is None else map(_json_summary, metric.summary.dataPoints)
        delta = found is not None and found.aggregationTemporality in DELTA
        grows = metric.sum is not None and metric.sum.isMonotonic
        return _Metric(resource, metric.name, numbers, list(summary), delta, grows, metric.unit)
    except (ValueError, RecursionError) as error:
        return RecordError(f"a metric cannot be read: {error}", "bad-record")


def _json_number(document: msgspec.Raw) -> _Number:
    point = _numbers(document)
    value = point.asDouble if point.asInt is None else float(point.asInt)
    return _Number(
        point.timeUnixNano, None if point.flags & 1 else value, _attributes(point.attributes)
    )


def _json_summary(document: msgspec.Raw) -> _Summary:
    point = _summaries(document)
    return _Summary(point.timeUnixNano, point.count, point.sum, _attributes(point.attributes))


def _attributes(pairs: list[_Pair]) -> Attributes:
    return {pair.key: _content(pair.value) for pair in pairs}


def _content(value: _Value) -> Any:
    if value.kvlistValue is not None:
        return _attributes(value.kvlistValue.values)
    if value.stringValue is None and value.intValue is not None:
        return str(value.intValue)
    if value.boolValue is not None:
        return str(value.boolValue).lower()
    return value.stringValue if value.doubleValue is None else str(value.doubleValue)


def _state(attributes: Attributes) -> Any:
    return attributes.get("state") or attributes.get("cpu.mode")


# Protobuf: the numbers are those of opentelemetry/proto/metrics/v1/metrics.proto.


KNOWN = 4096
"""Lists of attributes that are remembered."""


class _Known:
    """Attributes that were read before, by their bytes: hosts and CPUs are the same each time."""

    def __init__(self) -> None:
        self.of_resources: dict[bytes, Attributes] = {}
        self.of_points: dict[bytes, Attributes] = {}
        self.names: Container[bytes] = _WANTED

    @staticmethod
    def add(known: dict[bytes, Attributes], data: bytes, attributes: Attributes) -> None:
        if len(known) >= KNOWN:
            known.clear()
        known[data] = attributes


def _from_protobuf(content: bytes, known: _Known) -> list[_Metric | None]:
    """Read a request, or several with their length before each, as CloudWatch writes them."""
    found: list[_Metric | None] = []
    end = len(content)
    try:
        _read_request(content, 0, end, found, known)
        return found
    except ValueError:
        found.clear()
    place = 0
    while place < end:
        size, place = varint(content, place, end)
        if not size or place + size > end:
            raise ValueError("a message is longer than the record")
        _read_request(content, place, place + size, found, known)
        place += size
    return found


def _read_request(
    data: bytes, place: int, end: int, found: list[_Metric | None], known: _Known
) -> None:
    for number, kind, begin, stop in scan(data, place, end):
        if number != 1 or kind != BYTES:
            raise ValueError("it holds something else than metrics of resources")
        _read_resource(data, begin, stop, found, known)


def _read_resource(
    data: bytes, place: int, end: int, found: list[_Metric | None], known: _Known
) -> None:
    resource: Attributes = {}
    scopes = []
    for number, kind, begin, stop in scan(data, place, end):
        if kind == BYTES and number == 1:
            written = data[begin:stop]
            before = known.of_resources.get(written)
            if before is None:
                before = _read_attributes(data, begin, stop, 1)
                known.add(known.of_resources, written, before)
            resource = before
        elif kind == BYTES and number == 2:
            scopes.append((begin, stop))
    for scope, scope_end in scopes:
        for number, kind, begin, stop in scan(data, scope, scope_end):
            if number == 2 and kind == BYTES:
                found.append(_read_metric(data, begin, stop, resource, known))
                if len(found) > MAX_READINGS:
                    raise RecordError(
                        f"the record holds over {MAX_READINGS:,} readings", "too-many-readings"
                    )


def _read_metric(
    data: bytes, place: int, end: int, resource: Attributes, known: _Known
) -> _Metric | None:
    name: bytes | None = None
    unit = b""
    bodies = []
    for number, kind, begin, stop in scan(data, place, end):
        if kind != BYTES:
            continue
        if number == 1:
            name = data[begin:stop]
            if name not in known.names:
                return None
        elif number == 3:
            unit = data[begin:stop]
        elif number in (5, 7, 11):  # gauge, sum, summary
            bodies.append((number, begin, stop))
    if name is None:
        return None
    metric = _Metric(resource, name.decode(), [], [], unit=unit.decode())
    for body, begin, stop in bodies:
        if body != 11:
            begin, delta = _read_numbers(data, begin, stop, metric.numbers, known.of_points)
            if delta and body == 7:
                metric = metric._replace(delta=True)
        for number, kind, first, last in scan(data, begin, stop):
            if number == 2 and kind == VARINT and body == 7:
                metric = metric._replace(delta=first == 1)
            elif number == 3 and kind == VARINT and body == 7:
                metric = metric._replace(monotonic=first == 1)
            if number != 1 or kind != BYTES:
                continue
            if body == 11:
                metric.summaries.append(_read_summary(data, first, last))
            else:
                metric.numbers.append(_read_number(data, first, last, known))
    return metric


def _read_numbers(
    data: bytes, place: int, end: int, numbers: list[_Number], known: dict[bytes, Attributes]
) -> tuple[int, bool]:
    """Read points of known attributes; return where the first other one begins, and what delta is.

    The Collector writes fields from the last to the first: the attributes, the value, the time, and
    perhaps the start. Others write them the other way round.
    """
    delta = False
    while place + 2 < end:
        tag, size = data[place], data[place + 1]
        if size >= 0x80:
            break
        if tag != 0x0A:
            if tag == 0x10:
                delta = size == 1
            elif tag != 0x18:
                break
            place += 2
            continue
        begin, stop = place + 2, place + 2 + size
        if stop > end or size <= 27:
            break
        if data[begin] == 0x3A:
            last = stop - 9 if data[stop - 9] == 0x11 else stop
            if data[last - 9] != 0x19 or data[last - 18] != 0x21:
                break
            attributes = known.get(data[begin : last - 18])
            if attributes is None:
                break
            value, time = value_and_time(data, last - 17)
        else:
            start = begin + 9 if data[begin] == 0x11 else begin
            if data[start] != 0x19 or data[start + 9] != 0x21:
                break
            attributes = known.get(data[start + 18 : stop])
            if attributes is None:
                break
            time, value = time_and_value(data, start + 1)
        numbers.append(_Number(time, value, attributes))
        place = stop
    return place, delta


def _read_number(data: bytes, place: int, end: int, known: _Known) -> _Number:
    time, value, flags = 0, None, 0
    pairs: Attributes = {}
    order = []
    for number, kind, begin, stop in scan(data, place, end):
        order.append(number)
        if kind == FIXED64 and number == 3:
            (time,) = integer(data, begin)
        elif kind == FIXED64 and number == 4:
            (value,) = double(data, begin)
        elif kind == FIXED64 and number == 6:
            value = float(int.from_bytes(data[begin:stop], "little", signed=True))
        elif kind == BYTES and number == 7:
            _add_attribute(data, begin, stop, pairs)
        elif kind == VARINT and number == 8:
            flags = begin
    if order[:1] == [2]:
        order, place = order[1:], place + 9
    elif order[-1:] == [2]:
        order, end = order[:-1], end - 9
    written = None
    if order[:2] == [3, 4] and set(order[2:]) == {7}:
        written = place + 18, end, data[place], data[place + 9]
    elif order[-2:] == [4, 3] and set(order[:-2]) == {7}:
        written = place, end - 18, data[end - 9], data[end - 18]
    if written is not None and written[2:] == (0x19, 0x21):  # tags of one byte
        known.add(known.of_points, data[written[0] : written[1]], pairs)
    return _Number(time, None if flags & 1 else value, pairs)


def _read_summary(data: bytes, place: int, end: int) -> _Summary:
    time, count, total = 0, 0, 0.0
    pairs: Attributes = {}
    for number, kind, begin, stop in scan(data, place, end):
        if kind == FIXED64 and number == 3:
            (time,) = integer(data, begin)
        elif kind == FIXED64 and number == 4:
            (count,) = integer(data, begin)
        elif kind == FIXED64 and number == 5:
            (total,) = double(data, begin)
        elif kind == BYTES and number == 7:
            _add_attribute(data, begin, stop, pairs)
        elif kind == BYTES and number == 1:  # labels, before version 1.0 of the protocol
            texts = {at: data[a:b].decode() for at, _, a, b in scan(data, begin, stop)}
            pairs[texts.get(1, "")] = texts.get(2, "")
    return _Summary(time, count, total, pairs)


def _read_attributes(data: bytes, place: int, end: int, field: int) -> Attributes:
    pairs: Attributes = {}
    for number, kind, begin, stop in scan(data, place, end):
        if number == field and kind == BYTES:
            _add_attribute(data, begin, stop, pairs)
    return pairs


def _state_of(attributes: bytes) -> Any:
    """Return the state of a point by the bytes of its attributes."""
    return _state(_read_attributes(attributes, 0, len(attributes), 7))


def _add_attribute(data: bytes, place: int, end: int, pairs: Attributes) -> None:
    key = ""
    value: Any = None
    for number, kind, begin, stop in scan(data, place, end):
        if number == 1 and kind == BYTES:
            key = data[begin:stop].decode()
        elif number == 2 and kind == BYTES:
            for at, sort, first, last in scan(data, begin, stop):
                if sort == BYTES and at == 1:
                    value = data[first:last].decode()
                elif sort == VARINT and at in (2, 3):
                    value = str(first) if at == 3 else str(bool(first)).lower()
                elif sort == FIXED64 and at == 4:
                    value = str(double(data, first)[0])
                elif sort == BYTES and at == 6:
                    value = _read_attributes(data, first, last, 1)
    pairs[key] = value
