"""Records of the feeds as their producers write them, for the tests: what each says is known."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

__all__ = ["FEEDS", "Feed", "Row", "counted", "field", "otlp_protobuf", "pair", "streams"]


class Row(NamedTuple):
    """A reading: instance, seconds since 1970, percent."""

    instance: str
    time: int
    value: float


class Feed(NamedTuple):
    """How a producer writes readings, one after another, and the format that reads them."""

    format: str
    write: Callable[[Row], list[bytes]]
    settings: Mapping[str, str] = {}


def _json(*objects: Any) -> bytes:
    return b"\n".join(json.dumps(one).encode() for one in objects)


def streams(row: Row, **changed: Any) -> list[dict[str, Any]]:
    """What a CloudWatch metric stream says of an instance in a minute: most of it is not CPU."""

    def datum(name: str, total: float, count: int = 1, **more: Any) -> dict[str, Any]:
        return {
            "metric_stream_name": "all",
            "account_id": "123456789012",
            "region": "eu-central-1",
            "namespace": "AWS/EC2",
            "metric_name": name,
            "dimensions": {"InstanceId": row.instance},
            "timestamp": row.time * 1000,
            "value": {"max": total, "min": total, "sum": total, "count": float(count)},
            "unit": "Percent",
            **more,
        }

    return [
        datum("NetworkOut", 52_100.0, unit="Bytes"),
        datum("CPUUtilization", 5 * row.value, 5, **changed),
        datum("CPUUtilization", 140.0, 2, dimensions={"AutoScalingGroupName": "workers"}),
        datum("CPUUtilization", 12.0, dimensions={}),
        datum("CPUUtilization", 3.0, namespace="AWS/RDS", dimensions={"DBInstanceIdentifier": "d"}),
        datum("CPUCreditBalance", 144.0),
    ]


def _flattened(row: Row) -> list[bytes]:
    out = []
    for one in streams(row):
        dimensions, value = one.pop("dimensions"), one.pop("value")
        out.append(
            _json(
                {
                    **one,
                    **{f"dimensions.{name}": each for name, each in dimensions.items()},
                    **{f"value.{name}": each for name, each in value.items()},
                }
            )
        )
    return out


def _firehose(row: Row) -> list[bytes]:
    data = base64.b64encode(_json(*streams(row))).decode()
    return [_json({"requestId": "r", "timestamp": 1, "records": [{"data": data}]})]


def _cpu(row: Row, cpu: str, idle: float) -> dict[str, Any]:
    return {
        "name": "cpu",
        "tags": {"cpu": cpu, "host": row.instance},
        "fields": {"usage_idle": idle, "usage_user": 100 - idle, "usage_iowait": 0},
        "timestamp": row.time,
    }


def _telegraf(row: Row) -> list[dict[str, Any]]:
    mem = {"name": "mem", "tags": {"host": row.instance}, "fields": {"free": 7}}
    return [
        _cpu(row, "cpu0", 3.0),
        _cpu(row, "cpu1", 99.0),
        _cpu(row, "cpu-total", 100 - row.value),
        {**mem, "timestamp": row.time},
    ]


def _influx(row: Row) -> list[bytes]:
    time = row.time * 10**9
    tags = f"host={row.instance}"
    return [
        f"cpu,cpu=cpu0,{tags} usage_idle=3,usage_user=97 {time}\n".encode(),
        f"cpu,cpu=cpu-total,{tags} usage_idle={100 - row.value!r},usage_user=1 {time}\n".encode(),
        f'disk,{tags},path=/mnt/a\\ b used=7i,label="x, y=1" {time}\n'.encode(),
    ]


def _polled(row: Row) -> list[bytes]:
    tags = {"host": "collector", "instance_id": row.instance, "region": "eu-central-1"}
    fields = {"cpu_utilization_average": row.value, "cpu_utilization_maximum": 99.0}
    return [
        _json({"name": "cloudwatch_aws_ec2", "tags": tags, "fields": fields, "timestamp": row.time})
    ]


def _streamed(row: Row) -> list[bytes]:
    """Telegraf's cloudwatch_metric_streams: the dimensions become tags."""
    out = []
    for one in streams(row):
        name = f"{one['namespace']}_{one['metric_name']}".replace("/", "_").lower()
        tags = {"host": "collector", "accountId": one["account_id"], **one["dimensions"]}
        fields, time = one["value"], one["timestamp"] // 1000
        out.append(_json({"name": name, "tags": tags, "fields": fields, "timestamp": time}))
    return out


STATES = ("user", "system", "idle", "wait")


def _points(row: Row) -> list[tuple[str, str, float]]:
    """CPU, state and share: the mean of the idle ones leaves the value."""
    idle = 1 - row.value / 100
    spread = min(idle, 1 - idle, 0.1)
    return [
        (f"cpu{cpu}", state, share if state == "idle" else (1 - share) / 3)
        for cpu, share in enumerate((idle - spread, idle + spread))
        for state in STATES
    ]


def _attributes(**pairs: str) -> list[dict[str, Any]]:
    return [
        {"key": key.replace("_", "."), "value": {"stringValue": value}}
        for key, value in pairs.items()
    ]


def _otlp_metric(row: Row) -> dict[str, Any]:
    points = [
        {
            "timeUnixNano": str(row.time * 10**9),
            "asDouble": share,
            "attributes": _attributes(cpu=cpu, state=state),
        }
        for cpu, state, share in _points(row)
    ]
    return {"name": "system.cpu.utilization", "unit": "1", "gauge": {"dataPoints": points}}


def _otlp_json(row: Row) -> list[bytes]:
    load = {"name": "system.cpu.load_average.1m", "gauge": {"dataPoints": []}}
    scope = {"scope": {"name": "hostmetrics"}, "metrics": [load, _otlp_metric(row)]}
    host = {"attributes": _attributes(host_id=row.instance, host_name="ip-10-0-0-9")}
    return [_json({"resourceMetrics": [{"resource": host, "scopeMetrics": [scope]}]})]


CORES = 2


def counted(row: Row, seconds: int, idle: float) -> dict[str, Any]:
    """What the Collector sends by default: the seconds of each CPU and state since its start."""
    points = [
        {
            "startTimeUnixNano": "1740000000000000000",
            "timeUnixNano": str(row.time * 10**9),
            "asDouble": share * seconds,
            "attributes": _attributes(**{"cpu_logical_number": str(cpu), "cpu_mode": state}),
        }
        for cpu in range(CORES)
        for state, share in (("user", (1 - idle) / 2), ("idle", idle), ("system", (1 - idle) / 2))
    ]
    total = {"dataPoints": points, "aggregationTemporality": 2, "isMonotonic": True}
    metric = {"name": "system.cpu.time", "unit": "s", "sum": total}
    host = {"attributes": _attributes(host_name=row.instance)}
    return {"resourceMetrics": [{"resource": host, "scopeMetrics": [{"metrics": [metric]}]}]}


def _redpanda(row: Row) -> list[bytes]:
    host = {"attributes": _attributes(host_name=row.instance)}
    return [_json({"resource": host, "scope": {}, **_otlp_metric(row)})]


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def field(number: int, content: bytes | float | int, kind: str = "") -> bytes:
    """A field of a protobuf message: bytes, a double, a fixed64, or a varint."""
    import struct

    if isinstance(content, bytes):
        return varint(number << 3 | 2) + varint(len(content)) + content
    if isinstance(content, float):
        return varint(number << 3 | 1) + struct.pack("<d", content)
    if kind == "varint":
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 1) + struct.pack("<Q", content)


def pair(key: str, value: str | bytes) -> bytes:
    """A KeyValue: of text, or of the bytes of a KeyValueList."""
    inner = field(1, value.encode()) if isinstance(value, str) else field(6, value)
    return field(1, key.encode()) + field(2, inner)


def otlp_protobuf(row: Row, start: int | None = None, *, backwards: bool = False) -> bytes:
    """A request of the Collector: the host, and a point for each CPU and state.

    `backwards`: with the fields of each message from the last to the first, as the Collector has
    them since version 0.133.
    """

    def message(*fields: bytes) -> bytes:
        return b"".join(reversed(fields) if backwards else fields)

    points = []
    for cpu, state, share in _points(row):
        point = message(
            *([] if start is None else [field(2, start)]),
            *(field(3, row.time * 10**9), field(4, share)),
            *(field(7, pair("cpu", cpu)), field(7, pair("state", state))),
        )
        points.append(field(1, point))
    metric = message(
        field(1, b"system.cpu.utilization"), field(3, b"1"), field(5, message(*points))
    )
    other = message(field(1, b"system.memory.usage"), field(7, field(1, field(3, 5) + field(6, 7))))
    resource = field(1, pair("host.id", row.instance)) + field(1, pair("host.name", "other"))
    scope = message(field(1, field(1, b"hostmetrics")), field(2, other), field(2, metric))
    return field(1, message(field(1, resource), field(2, scope)))


def _otlp_stream(row: Row) -> list[bytes]:
    """CloudWatch's stream in the OpenTelemetry format: summaries, each request after its length."""
    out = b""
    for one in streams(row):
        dimensions = b"".join(field(1, pair(*each)) for each in one["dimensions"].items())
        point = field(2, row.time * 10**9 - 60 * 10**9) + field(3, row.time * 10**9)
        point += field(4, int(one["value"]["count"])) + field(5, one["value"]["sum"])
        point += field(7, pair("Namespace", one["namespace"]))
        point += field(7, pair("MetricName", one["metric_name"]))
        point += field(7, pair("Dimensions", dimensions))
        name = f"amazonaws.com/{one['namespace']}/{one['metric_name']}"
        metric = field(1, name.encode()) + field(11, field(1, point))
        resource = field(1, pair("cloud.provider", "aws"))
        request = field(1, field(1, resource) + field(2, field(2, metric)))
        out += varint(len(request)) + request
    return [out]


def _iso(row: Row, zone: str = "Z") -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(row.time, UTC).strftime("%Y-%m-%dT%H:%M:%S") + zone


def _prometheus(row: Row) -> list[bytes]:
    def sample(name: str, value: str, **labels: str) -> bytes:
        labels = {"__name__": name, "instance": row.instance, "job": "node", **labels}
        return _json({"labels": labels, "name": name, "timestamp": _iso(row), "value": value})

    return [
        sample("node_load1", "0.7"),
        sample("instance:node_cpu_utilisation:rate5m", repr(row.value / 100)),
        sample("node_cpu_seconds_total", "71.4", cpu="0", mode="user"),
    ]


def _yace(row: Row) -> list[bytes]:
    name = "aws_ec2_cpuutilization_average"
    labels = {"__name__": name, "instance": "yace:5000", "dimension_InstanceId": row.instance}
    value = repr(row.value)
    return [_json({"labels": labels, "name": name, "timestamp": _iso(row), "value": value})]


def _metricbeat(row: Row) -> list[bytes]:
    share = row.value / 100
    event = {
        "@timestamp": _iso(row, ".000Z"),
        "event": {"dataset": "system.cpu", "module": "system"},
        "host": {"name": row.instance},
        "system": {"cpu": {"cores": 4, "total": {"pct": 4 * share, "norm": {"pct": share}}}},
    }
    return [_json({**event, "event": {"dataset": "system.memory"}, "system": {}}), _json(event)]


def _ec2(row: Row) -> list[bytes]:
    return [
        _json(
            {
                "@timestamp": _iso(row),
                "event": {"dataset": "aws.ec2"},
                "cloud": {"instance": {"id": row.instance}},
                "aws": {"ec2": {"cpu": {"total": {"pct": row.value / 100}}}},
            }
        )
    ]


def _vector(row: Row) -> list[bytes]:
    metric = {"tags": {"host": row.instance}, "timestamp": _iso(row), "kind": "absolute"}
    return [
        _json({"name": "load1", "gauge": {"value": 0.7}, **metric}),
        _json({"name": "cpu_usage_percent", "gauge": {"value": row.value}, **metric}),
    ]


def _fluent_bit(row: Row) -> list[bytes]:
    record = {"@timestamp": float(row.time), "cpu_p": row.value, "user_p": 1.0, "cpu0.p_cpu": 60.0}
    return [_json({**record, "host": row.instance})]


def _collectd(row: Row) -> list[bytes]:
    def value(state: str, percent: float, cpu: str = "") -> dict[str, Any]:
        return {
            **{"values": [percent], "dstypes": ["gauge"], "dsnames": ["value"]},
            **{"time": float(row.time), "interval": 60.0, "host": row.instance, "plugin": "cpu"},
            **{"plugin_instance": cpu, "type": "percent", "type_instance": state},
        }

    return [_json([value("idle", 100 - row.value), value("user", 1.0), value("idle", 3.0, "0")])]


def _plain(row: Row) -> dict[str, Any]:
    return {"timestamp": row.time, "value": row.value, "instance": row.instance}


def _debezium(row: Row) -> list[bytes]:
    return [_json({"schema": {}, "payload": {"op": "c", "before": None, "after": _plain(row)}})]


def _cloud_event(row: Row) -> list[bytes]:
    return [_json({"specversion": "1.0", "time": _iso(row), "data": _plain(row)})]


def _jsonata(row: Row) -> list[bytes]:
    return [
        _json({"name": "cpu", "timestamp": row.time, **one["tags"], **one["fields"]})
        for one in _telegraf(row)[:3]
    ]


def _each(write: Callable[[Row], Iterable[Any]]) -> Callable[[Row], list[bytes]]:
    return lambda row: [_json(one) for one in write(row)]


FEEDS: dict[str, Feed] = {
    "cloudwatch": Feed("cloudwatch", lambda row: [_json(*streams(row))]),
    "cloudwatch, an object a record": Feed("cloudwatch", _each(streams)),
    "cloudwatch, flat": Feed("cloudwatch", _flattened),
    "cloudwatch, body of Firehose": Feed("cloudwatch", _firehose),
    "cloudwatch, from Vector": Feed(
        "cloudwatch", lambda row: [_json({"message": _json(*streams(row)).decode()})]
    ),
    "cloudwatch, on a line": Feed(
        "cloudwatch", lambda row: [_json(*streams(row)).replace(b"\n", b"")]
    ),
    "cloudwatch, packed": Feed("cloudwatch", lambda row: [gzip.compress(_json(*streams(row)))]),
    "cloudwatch, OpenTelemetry": Feed("otlp", _otlp_stream),
    "telegraf": Feed("telegraf", _each(_telegraf)),
    "telegraf, batch": Feed("telegraf", lambda row: [_json({"metrics": _telegraf(row)})]),
    "telegraf, lines": Feed("telegraf", _influx),
    "telegraf, lines of a batch": Feed("telegraf", lambda row: [b"".join(_influx(row))]),
    "telegraf, CloudWatch polled": Feed("telegraf", _polled),
    "telegraf, CloudWatch streamed": Feed("telegraf", _streamed),
    "otlp, protobuf": Feed("otlp", lambda row: [otlp_protobuf(row)]),
    "otlp, protobuf backwards": Feed("otlp", lambda row: [otlp_protobuf(row, 1, backwards=True)]),
    "otlp, protobuf of a sum": Feed("otlp", lambda row: [otlp_protobuf(row, start=1)]),
    "otlp, JSON": Feed("otlp", _otlp_json),
    "otlp, a metric a record": Feed("otlp", _redpanda),
    "prometheus": Feed("prometheus", _prometheus),
    "prometheus, YACE": Feed("prometheus", _yace),
    "metricbeat": Feed("metricbeat", _metricbeat),
    "metricbeat, EC2": Feed("metricbeat", _ec2),
    "vector": Feed("vector", _vector),
    "fluent-bit": Feed("fluent-bit", _fluent_bit),
    "collectd": Feed("collectd", _collectd),
    "json": Feed("json", lambda row: [_json({**_plain(row), "index": row.time})]),
    "json, no index": Feed("json", lambda row: [_json(_plain(row))]),
    "json, Debezium": Feed("json", _debezium),
    "json, CloudEvents": Feed("json", _cloud_event),
    "json, an array": Feed("json", lambda row: [_json([_plain(row)])]),
    "json, registry": Feed("json", lambda row: [b"\x00\x00\x00\x00\x07" + _json(_plain(row))]),
    "json, mark": Feed("json", lambda row: [b"\xef\xbb\xbf" + _json(_plain(row))]),
    "json, of JSONata": Feed("json", _jsonata),
}
