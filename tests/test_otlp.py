"""OTLP in protobuf, against OpenTelemetry's own classes, and against the same in JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from feeds import Row, field, otlp_protobuf
from hypothesis import given
from hypothesis import strategies as st

from dataflow.formats import Fields, Point, RecordError
from dataflow.formats.otlp import Otlp, template
from dataflow.records import Raw, Rejected, Source

json_format = pytest.importorskip("google.protobuf.json_format", reason="needs the extra `test`")
common = pytest.importorskip("opentelemetry.proto.common.v1.common_pb2")
metrics = pytest.importorskip("opentelemetry.proto.metrics.v1.metrics_pb2")
service = pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")

FIELDS = Fields("instance", "timestamp", "index", "value", None, 100.0)

NAMES = (
    *("system.cpu.utilization", "system.cpu.time", "system.memory.usage", "CPUUtilization", ""),
    "amazonaws.com/AWS/EC2/CPUUtilization",
)
STATES = ("idle", "user", "system", "wait", "")


@st.composite
def attributes(draw: st.DrawFn) -> list[Any]:
    """A CPU and a state, under one name or the other, and something else, in any order."""
    cpu = draw(st.sampled_from(("cpu", "cpu.logical_number")))
    state = draw(st.sampled_from(("state", "cpu.mode")))
    pairs = [
        common.KeyValue(key=cpu, value=common.AnyValue(int_value=draw(st.integers(0, 300)))),
        common.KeyValue(
            key=state, value=common.AnyValue(string_value=draw(st.sampled_from(STATES)))
        ),
        common.KeyValue(key="x", value=common.AnyValue(bool_value=True)),
    ]
    return draw(st.permutations(pairs))[: draw(st.integers(1, 3))]


TIMES = st.sampled_from((0, 1_741_449_600_000_000_000, 1_741_449_660_000_000_000))


@st.composite
def numbers(draw: st.DrawFn) -> Any:
    point = metrics.NumberDataPoint(
        time_unix_nano=draw(TIMES),
        start_time_unix_nano=draw(TIMES),
        flags=draw(st.sampled_from((0, 0, 0, 1))),
        attributes=draw(attributes()),
    )
    if draw(st.booleans()):
        point.as_double = draw(st.floats(0, 1) | st.floats(allow_nan=False))
    else:
        point.as_int = draw(st.integers(-5, 2**53))
    if draw(st.integers(0, 5)) == 0:
        point.exemplars.add(as_double=0.5, time_unix_nano=5)
    return point


@st.composite
def summaries(draw: st.DrawFn) -> Any:
    dimensions = draw(
        st.dictionaries(
            st.sampled_from(("InstanceId", "ImageId")), st.text("ab", max_size=3), max_size=2
        )
    )
    inner = common.KeyValueList(
        values=[
            common.KeyValue(key=key, value=common.AnyValue(string_value=value))
            for key, value in dimensions.items()
        ]
    )
    return metrics.SummaryDataPoint(
        time_unix_nano=draw(TIMES),
        count=draw(st.integers(0, 9)),
        sum=draw(st.floats(0, 900)),
        attributes=[
            common.KeyValue(key="Dimensions", value=common.AnyValue(kvlist_value=inner)),
            common.KeyValue(key="Namespace", value=common.AnyValue(string_value="AWS/EC2")),
        ],
    )


@st.composite
def requests(draw: st.DrawFn) -> Any:
    request = service.ExportMetricsServiceRequest()
    for _ in range(draw(st.integers(1, 3))):
        resource = request.resource_metrics.add()
        keys = st.sampled_from(("host.id", "host.name", "os"))
        for key in draw(st.lists(keys, unique=True)):
            text = draw(st.text("h", max_size=2))
            resource.resource.attributes.append(
                common.KeyValue(key=key, value=common.AnyValue(string_value=text))
            )
        scope = resource.scope_metrics.add()
        scope.scope.name = "hostmetrics"
        for _ in range(draw(st.integers(0, 3))):
            metric = scope.metrics.add(name=draw(st.sampled_from(NAMES)), unit="1", description="x")
            kind = draw(st.sampled_from(("gauge", "sum", "summary")))
            if kind == "summary":
                metric.summary.data_points.extend(draw(st.lists(summaries(), max_size=3)))
            else:
                getattr(metric, kind).data_points.extend(draw(st.lists(numbers(), max_size=5)))
            if kind == "sum":
                metric.sum.aggregation_temporality = draw(st.sampled_from((1, 2)))
                metric.sum.is_monotonic = True
    return request


def outcomes(otlp: Otlp, value: bytes) -> list[Any]:
    return [
        str(one) if isinstance(one, RecordError) else one
        for one in otlp.read(value)
        if one is not None
    ]


otlp = Otlp(FIELDS)
"""One for all, so that what it remembers of other records takes part."""


@given(requests())
def test_protobuf_says_what_json_says(request: Any) -> None:
    """OpenTelemetry's classes write both."""
    text = json_format.MessageToJson(request).encode()
    binary = request.SerializeToString()
    if not binary:
        return
    assert repr(outcomes(otlp, binary)) == repr(outcomes(otlp, text))
    size = len(binary)
    prefix = bytearray()
    while size > 127:
        prefix.append(size & 127 | 128)
        size >>= 7
    framed = bytes([*prefix, size]) + binary
    if framed[:1] != b"\n":
        assert repr(outcomes(otlp, framed * 2)) == repr(outcomes(otlp, binary) * 2)


def backwards(message: Any) -> bytes:
    """A message with its fields from the last to the first, as the Collector writes them."""
    out = b""
    for descriptor, value in reversed(message.ListFields()):
        number = descriptor.number
        if descriptor.message_type is None:
            alone = type(message)()
            setattr(alone, descriptor.name, value)
            out += alone.SerializeToString()
        else:
            several = [value] if hasattr(value, "ListFields") else value
            out += b"".join(field(number, backwards(one)) for one in several)
    return out


@given(requests())
def test_the_order_of_fields_does_not_matter(request: Any) -> None:
    for one in (request, backwards(request)):
        assert (
            service.ExportMetricsServiceRequest.FromString(
                one if isinstance(one, bytes) else one.SerializeToString()
            )
            == request
        )
    assert repr(outcomes(otlp, backwards(request) or b"\n\0")) == repr(
        outcomes(otlp, request.SerializeToString() or b"\n\0")
    )


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(("web-1", "web-2", "web-10")),
        st.sampled_from((10**18, 10**18 + 60 * 10**9, 0)),
        st.lists(
            st.floats(0, 1) | st.sampled_from((-1e-9, 1.04, 2.0, float("nan"), float("inf"))),
            min_size=4,
            max_size=4,
        ),
        st.booleans(),
    ),
    min_size=2,
    max_size=8,
)


@pytest.mark.parametrize("name", ["system.cpu.utilization", "system.cpu.time"])
@given(CHANGES)
def test_what_comes_again_is_read_as_the_first_time(name: str, changes: list[Any]) -> None:
    """A format that has seen requests of the same form, and one that has seen none, agree."""
    known = Otlp(FIELDS)
    for host, time, values, late in changes:
        request = service.ExportMetricsServiceRequest()
        resource = request.resource_metrics.add()
        resource.resource.attributes.add(key="host.name").value.string_value = host
        metrics_of = resource.scope_metrics.add().metrics
        memory = metrics_of.add(name="system.memory.usage").sum.data_points
        memory.add(time_unix_nano=time, as_int=int(1e9 * len(host)))
        metric = metrics_of.add(name=name)
        for number, value in enumerate(values):
            moment = time + 10**9 * (late and number == 3)
            point = metric.sum.data_points.add(time_unix_nano=moment, as_double=value)
            point.attributes.add(key="cpu").value.string_value = f"cpu{number // 2}"
            point.attributes.add(key="state").value.string_value = ("idle", "user")[number % 2]
        metric.sum.aggregation_temporality = 2
        for binary in (request.SerializeToString(), backwards(request)):
            first = outcomes(Otlp(FIELDS), binary)
            assert repr(outcomes(known, binary)) == repr(first)


def request_of(names: list[str], values: list[float]) -> Any:
    """A request of these metrics, with the points of a host of one CPU."""
    request = service.ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.add(key="host.name").value.string_value = "web-1"
    for name in names:
        metric = resource.scope_metrics.add().metrics.add(name=name)
        for state, value in zip(STATES, values, strict=False):
            point = metric.sum.data_points.add(
                time_unix_nano=10**18, start_time_unix_nano=5, as_double=value
            )
            point.attributes.add(key="state").value.string_value = state
        metric.sum.aggregation_temporality = 2
    return request


def read_by(otlp: Otlp, value: bytes) -> list[Any]:
    def reject(raw: Raw, reason: str, sentence: str) -> Any:
        return Rejected(reason, sentence, Source("t", raw.partition, raw.offset), None)

    return otlp.decoder(reject)([Raw(0, 0, value)])


@pytest.mark.parametrize(
    ("names", "values"),
    [
        (["system.cpu.utilization"], [0.585]),
        (["system.cpu.utilization"], [0.585, 0.25, 0.125]),
        (["system.cpu.time"], [0.585, 0.25]),
        (["system.memory.usage", "system.cpu.time", "system.cpu.utilization"], [0.585, 0.25]),
    ],
)
@pytest.mark.parametrize("written", [lambda it: it.SerializeToString(), backwards])
def test_a_byte_that_differs_is_read_as_the_first_time(
    names: list[str], values: list[float], written: Callable[[Any], bytes]
) -> None:
    """Each byte of a request that is known is changed; also in its values and times."""
    value = written(request_of(names, values))
    known, straight = Otlp(FIELDS), Otlp(FIELDS)
    straight._templates._left = 0
    assert read_by(known, value) == read_by(straight, value)
    known._templates._left = 0
    assert known._templates.read(value) is not None
    for place in range(len(value)):
        for bit in (1, 8, 128):
            other = bytearray(value)
            other[place] ^= bit
            assert read_by(known, bytes(other)) == read_by(straight, bytes(other)), place


def test_what_comes_again_is_not_walked_through_again(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Otlp(FIELDS)
    rows = [
        Row(f"web-{host}", 1_741_449_600 + 60 * at, 5.0 + at) for at in range(3) for host in (1, 2)
    ]
    values = [otlp_protobuf(row, 1, backwards=True) for row in rows]
    assert [len(outcomes(known, value)) for value in values[:2]] == [1, 1]
    monkeypatch.setattr(known, "_carefully", None)
    for row, value in zip(rows[2:], values[2:], strict=True):
        (point,) = outcomes(known, value)
        assert (point.instance, point.time) == (row.instance, row.time * 10**9)
        assert point.value == pytest.approx(row.value)


def test_what_is_remembered_of_requests_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "MOST", 20_000)
    monkeypatch.setattr(template, "INSTANCES", 10)
    known = Otlp(FIELDS)
    for length in range(1, 120):
        row = Row("h" * length, 1_741_449_600, 5.0)
        for at in range(2):  # the second one is known, so that the next one is learned from
            value = otlp_protobuf(row._replace(time=row.time + at), 1, backwards=True)
            assert [one.instance for one in outcomes(known, value)] == [row.instance]
    templates = known._templates
    assert sum(size * len(those) for size, those in templates._known.items()) < 30_000
    assert len(templates._instances) <= 10


@pytest.mark.parametrize("length", [ord("{"), ord("["), ord(" "), 300])
@pytest.mark.parametrize("framed", [False, True])
def test_a_length_that_is_a_brace_is_no_json(length: int, framed: bool) -> None:
    """The bytes of a record may begin as those of JSON do."""
    request = service.ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.add(key="x").value.string_value = ""
    while True:
        size = request.ByteSize() if framed else resource.ByteSize()
        if size >= length:
            break
        resource.resource.attributes[0].value.string_value += "x"
    assert size == length
    binary = request.SerializeToString()
    value = bytes([length]) + binary if framed and length < 128 else binary
    assert outcomes(otlp, value) == []


@given(st.lists(st.lists(st.floats(0, 1), min_size=2, max_size=2), min_size=1, max_size=4))
def test_what_the_mean_of_the_idle_shares_leaves(cpus: list[list[float]]) -> None:
    request = service.ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.append(
        common.KeyValue(key="host.name", value=common.AnyValue(string_value="a"))
    )
    metric = resource.scope_metrics.add().metrics.add(name="system.cpu.utilization")
    for cpu, shares in enumerate(cpus):
        for state, share in zip(("idle", "user"), shares, strict=True):
            point = metric.gauge.data_points.add(time_unix_nano=10**18, as_double=share)
            for key, text in (("cpu", f"cpu{cpu}"), ("state", state)):
                point.attributes.append(
                    common.KeyValue(key=key, value=common.AnyValue(string_value=text))
                )
    (point,) = outcomes(otlp, request.SerializeToString())
    assert isinstance(point, Point)
    assert point.value == pytest.approx(100 * (1 - sum(idle for idle, _ in cpus) / len(cpus)))
