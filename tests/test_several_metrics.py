"""Several metrics of an instance: each feed gives them, and no two of them become one."""

from __future__ import annotations

import json
import math
import random
import tarfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from bytewax.testing import TestingSink, TestingSource, run_main
from conftest import REPOSITORY, Flow, PausableBroker, fill_topic, read_json_lines
from faults import kill, wait_for
from feeds import FEEDS, Row, field, pair, streams
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from test_feeds import mutated

from dataflow import kafka
from dataflow.dashboard.intake import Intake, row_name
from dataflow.flow import build
from dataflow.formats import metrics
from dataflow.inspection.report import inspect
from dataflow.metrics import counters
from dataflow.notify.alertmanager import Alertmanager
from dataflow.notify.test import example
from dataflow.records import (
    Anomaly,
    Incident,
    Raw,
    Reading,
    Rejected,
    anomaly_id,
    incident_id,
    series_key,
    series_parts,
)
from dataflow.settings import Settings
from dataflow.steps import admit, decode, score
from dataflow.steps.anomaly import metrics_of
from dataflow.steps.exchange import keyed, keyer

START = 1_741_449_600


def read(
    values: Iterable[bytes], selected: str, **settings: Any
) -> tuple[list[Reading], list[Rejected]]:
    options = Settings(_env_file=None, metrics=selected, **settings)
    batch = [Raw(0, offset, value) for offset, value in enumerate(values)]
    records = decode.decoder(options)(batch)
    readings = [one for one in records if isinstance(one, Reading)]
    places = [(one.offset, one.number) for one in readings]
    assert len(set(places)) == len(places)
    return readings, [one for one in records if isinstance(one, Rejected)]


def said(readings: Iterable[Reading]) -> list[tuple[str, str, float, str | None]]:
    return [(one.instance, one.metric or "cpu", one.value, one.unit) for one in readings]


def line(*objects: Any) -> bytes:
    return b"\n".join(json.dumps(one).encode() for one in objects)


# The key


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1)
whole = st.text(st.characters(exclude_categories=("Cs",)), min_size=1)


@given(st.lists(st.tuples(texts, st.none() | whole), min_size=2, max_size=20))
def test_each_series_has_a_key_of_its_own(series: list[tuple[str, str | None]]) -> None:
    keys = [series_key(*one) for one in series]
    assert [series_parts(key) for key in keys] == series
    assert len(set(keys)) == len(set(series))


def test_ids_of_two_metrics_differ_and_that_of_the_default_one_stays() -> None:
    own = Reading("a", START, None, 0.5, START, 0, 0)
    other = Reading("a", START, None, 0.5, START, 0, 0, metric="load")
    for kind in ("anomaly", "silence"):
        assert incident_id(kind, own) != incident_id(kind, other)
    assert anomaly_id("a", None, START) != anomaly_id("a", None, START, "load")


@given(whole)
def test_the_key_of_what_is_scored_by_default_is_the_instance(instance: str) -> None:
    reading = Reading(instance, None, 0, 0.5, None, 0, 0)
    assert [key for key, _ in keyed([reading])] == [instance]
    assert [key for key, _ in keyed([reading], several=True)] == [instance]


tagged = st.dictionaries(st.text("a{,=\\}", max_size=3), st.text("b{,=\\}", max_size=3), max_size=3)


@given(st.lists(st.tuples(st.text("m{,=\\}", min_size=1, max_size=3), tagged), max_size=20))
def test_tags_never_make_two_series_one(series: list[tuple[str, dict[str, str]]]) -> None:
    names = {metrics.series(name, tags) for name, tags in series}
    assert len(names) == len({(name, tuple(sorted(tags.items()))) for name, tags in series})


def test_a_name_with_the_separator_is_rejected_among_several_metrics_only() -> None:
    record = line({"instance": "a\0load", "timestamp": START, "value": 5, "index": 1, "m": "cpu"})
    (reading,), _ = read([record], "cpu", format="json")
    assert reading.instance == "a\0load"
    readings, (rejected,) = read([record], "cpu, load", format="json", metric_field="m")
    assert (readings, rejected.reason) == ([], "bad-instance")


# The feeds


def telegraf(name: str, fields: dict[str, Any], **tags: str) -> dict[str, Any]:
    return {"name": name, "tags": {"host": "a", **tags}, "fields": fields, "timestamp": START}


def otlp(*metrics: dict[str, Any]) -> bytes:
    resource = {"attributes": [{"key": "host.id", "value": {"stringValue": "a"}}]}
    scopes = [{"metrics": list(metrics)}]
    return line({"resourceMetrics": [{"resource": resource, "scopeMetrics": scopes}]})


def gauge(name: str, *points: tuple[float, dict[str, Any]], unit: str = "") -> dict[str, Any]:
    def point(value: float, attributes: dict[str, Any]) -> dict[str, Any]:
        pairs = [{"key": key, "value": one} for key, one in attributes.items()]
        return {"timeUnixNano": str(START * 10**9), "asDouble": value, "attributes": pairs}

    return {"name": name, "unit": unit, "gauge": {"dataPoints": [point(*one) for one in points]}}


def sum_of(name: str, *, monotonic: bool) -> dict[str, Any]:
    metric = gauge(name, (5.0, {}))
    return {"name": name, "sum": {**metric["gauge"], "isMonotonic": monotonic}}


def prometheus(name: str, value: str, **labels: str) -> dict[str, Any]:
    own = {"__name__": name, "instance": "a", "job": "node", **labels}
    return {"labels": own, "name": name, "timestamp": "2025-03-08T16:00:00Z", "value": value}


def beat(dataset: str, **fields: Any) -> dict[str, Any]:
    return {
        "@timestamp": "2025-03-08T16:00:00Z",
        "event": {"dataset": dataset},
        "host": {"name": "a"},
        "cloud": {"availability_zone": "eu-1a"},
        **fields,
    }


def vector(name: str, value: float, kind: str = "gauge", **tags: str) -> dict[str, Any]:
    own = {"host": "a", "collector": "c", **tags}
    time = "2025-03-08T16:00:00Z"
    return {
        "name": name,
        "tags": own,
        "timestamp": time,
        "kind": "absolute",
        kind: {"value": value},
    }


def collectd(plugin: str, kind: str, values: list[float], **more: Any) -> dict[str, Any]:
    own = {"plugin": plugin, "plugin_instance": "", "type": kind, "type_instance": ""}
    kinds, names = ["gauge"] * len(values), ["shortterm", "midterm"]
    rest = {"dstypes": kinds, "dsnames": names, "time": START, "host": "a", "interval": 10}
    return {**own, "values": values, **rest, **more}


CLOUDWATCH = streams(Row("a", START, 41.5))
CLOUDWATCH[-1]["unit"] = "Count"

FEED = {
    "cloudwatch": (
        [line(*CLOUDWATCH)],
        [
            ("a", "NetworkOut", 52_100.0, "Bytes"),
            ("a", "cpu", 41.5, None),
            ("a", "CPUCreditBalance", 144.0, "Count"),
        ],
    ),
    "telegraf": (
        [
            line(
                telegraf("cpu", {"usage_idle": 58.5, "usage_user": 30.0}, cpu="cpu-total"),
                telegraf("mem", {"used_percent": 62.5, "free": 7, "ok": True, "text": "x"}),
            ),
            line(telegraf("net", {"bytes_recv": 5, "err_in": 1}, interface="eth0")),
            line(telegraf("disk", {"used_percent": 12.5}, path="/", region="eu")),
            line(telegraf("disk", {"used_percent": 80.0}, path="/data", region="eu")),
        ],
        [
            ("a", "cpu", 41.5, None),
            ("a", "cpu.usage_user{cpu=cpu-total}", 30.0, "%"),
            ("a", "mem.used_percent", 62.5, "%"),
            ("a", "mem.free", 7.0, None),
            ("a", "disk.used_percent{path=/}", 12.5, "%"),
            ("a", "disk.used_percent{path=/data}", 80.0, "%"),
        ],
    ),
    "otlp": (
        [
            otlp(
                gauge("system.cpu.utilization", (0.585, {"state": {"stringValue": "idle"}})),
                gauge("system.cpu.load_average.1m", (1.5, {}), unit="{thread}"),
                gauge(
                    "system.memory.utilization",
                    (0.5, {"state": {"stringValue": "used"}}),
                    (0.25, {"state": {"stringValue": "free"}}),
                    unit="1",
                ),
                gauge("odd", (1.0, {"by": {"arrayValue": {}}}), (2.0, {"by": {"boolValue": True}})),
                sum_of("system.network.io", monotonic=True),
                sum_of("system.processes.count", monotonic=False),
            )
        ],
        [
            ("a", "cpu", 41.5, None),
            ("a", "system.cpu.load_average.1m", 1.5, "{thread}"),
            ("a", "system.memory.utilization{state=used}", 0.5, "ratio"),
            ("a", "system.memory.utilization{state=free}", 0.25, "ratio"),
            ("a", "odd{by=true}", 2.0, None),
            ("a", "system.processes.count", 5.0, None),
        ],
    ),
    "prometheus": (
        [
            line(prometheus("instance:node_cpu_utilisation:rate5m", "0.415")),
            line(prometheus("node_load1", "1.5")),
            line(prometheus("node_filesystem_avail_bytes", "7", mountpoint="/")),
            line(prometheus("node_network_receive_bytes_total", "7", device="eth0")),
        ],
        [
            ("a", "cpu", 41.5, None),
            ("a", "node_load1", 1.5, None),
            ("a", "node_filesystem_avail_bytes{mountpoint=/}", 7.0, None),
        ],
    ),
    "metricbeat": (
        [
            line(
                beat("system.cpu", system={"cpu": {"total": {"norm": {"pct": 0.415}}}}),
                beat(
                    "system.memory",
                    system={
                        "memory": {
                            "actual": {"used": {"pct": 0.5, "bytes": 7}},
                            "swap": {"in": {"pages": 5}},
                        }
                    },
                ),
                beat("system.filesystem", system={"filesystem": {"used": {"pct": 0.5}}}),
                beat(
                    "aws.ec2",
                    aws={
                        "dimensions": {"InstanceId": "i-1"},
                        "ec2": {"metrics": {"NetworkIn": {"avg": 7.5}, "DiskReadOps": {"sum": 1}}},
                    },
                ),
            )
        ],
        [
            ("a", "cpu", 41.5, None),
            ("a", "system.memory.actual.used.pct", 0.5, "ratio"),
            ("a", "system.memory.actual.used.bytes", 7.0, None),
            ("i-1", "NetworkIn", 7.5, None),
        ],
    ),
    "vector": (
        [
            line(vector("cpu_usage_percent", 41.5)),
            line(vector("memory_free_bytes", 7.0)),
            line(vector("filesystem_used_ratio", 0.5, mountpoint="/")),
            line(vector("network_receive_bytes_total", 7.0, "counter")),
        ],
        [
            ("a", "cpu", 41.5, None),
            ("a", "memory_free_bytes", 7.0, None),
            ("a", "filesystem_used_ratio{mountpoint=/}", 0.5, "ratio"),
        ],
    ),
    "fluent-bit": (
        [
            line({"@timestamp": START, "host": "a", "cpu_p": 41.5, "user_p": 30.0}),
            line({"@timestamp": START, "host": "a", "Mem.used": 7}),
            line({"@timestamp": START, "host": "a", "name": "zone0", "temp": 32.5}),
        ],
        [
            ("a", "cpu", 41.5, None),
            ("a", "user_p", 30.0, "%"),
            ("a", "Mem.used", 7.0, None),
            ("a", "temp{name=zone0}", 32.5, None),
        ],
    ),
    "collectd": (
        [
            line(
                [
                    collectd("cpu", "percent", [41.5], type_instance="active"),
                    collectd("memory", "memory", [7.0], type_instance="used"),
                    collectd("load", "load", [1.5, 1.25]),
                    collectd("df", "percent_bytes", [12.5], plugin_instance="root"),
                    collectd("interface", "if_octets", [1.0, 2.0], dstypes=["derive", "derive"]),
                ]
            )
        ],
        [
            ("a", "cpu", 41.5, None),
            ("a", "memory/memory-used", 7.0, None),
            ("a", "load/load/shortterm", 1.5, None),
            ("a", "load/load/midterm", 1.25, None),
            ("a", "df-root/percent_bytes", 12.5, "%"),
        ],
    ),
}


@pytest.mark.parametrize("name", FEED)
def test_a_feed_gives_all_its_metrics(name: str) -> None:
    values, wanted = FEED[name]
    for format in (name, "auto"):
        readings, rejected = read(values, "*", format=format)
        assert said(readings) == wanted
        assert rejected == []
        assert {one.time for one in readings} == {float(START)}


def test_protobuf_gives_what_json_gives() -> None:
    def request(at: int) -> bytes:
        def point(value: float, *pairs: bytes) -> bytes:
            own = field(3, (START + at) * 10**9) + field(4, value)
            return field(1, own + b"".join(field(7, one) for one in pairs))

        idle = point(0.585, pair("state", "idle"), pair("cpu", "cpu0"))
        used = point(0.415, pair("state", "user"), pair("cpu", "cpu0"))
        parts = [
            metric("system.cpu.utilization", 5, idle + used),
            metric("load", 5, point(1.5), "{thread}"),
            metric("mem.utilization", 5, point(0.5, pair("state", "used")), "1"),
            metric("odd", 5, point(2.0, odd)),
            metric("io", 7, point(5.0) + field(2, 2, "varint") + field(3, 1, "varint")),
            metric("count", 7, point(5.0) + field(2, 2, "varint")),
        ]
        resource = field(1, field(1, pair("host.id", "a")) + field(1, pair("zone", "eu-1a")))
        return field(1, resource + field(2, b"".join(parts)))

    def metric(name: str, kind: int, body: bytes, unit: str = "") -> bytes:
        return field(2, field(1, name.encode()) + field(3, unit.encode()) + field(kind, body))

    odd = field(1, b"by") + field(2, field(2, 1, "varint"))
    requests = [request(60 * at) for at in range(4)]
    readings, rejected = read(requests, "*", format="otlp", label_fields="zone")
    assert rejected == []
    assert {(one.labels or {}).get("zone") for one in readings} == {"eu-1a"}
    assert said(readings) == 4 * [
        ("a", "cpu", 41.5, None),
        ("a", "load", 1.5, "{thread}"),
        ("a", "mem.utilization{state=used}", 0.5, "ratio"),
        ("a", "odd{by=true}", 2.0, None),
        ("a", "count", 5.0, None),
    ]


def test_lines_give_what_json_gives() -> None:
    def texts(at: int) -> bytes:
        time = (START + at) * 10**9
        return (
            f"cpu,cpu=cpu-total,host=a,zone=eu usage_idle=58.5,usage_user=30 {time}\n"
            f"mem,host=a,zone=eu used_percent=62.5,free=7i,ok=true {time}\n"
            f"net,host=a,zone=eu,interface=eth0 bytes_recv=5i {time}\n"
        ).encode()

    values = [texts(60 * at) for at in range(4)]
    readings, rejected = read(values, "*", format="telegraf", label_fields="zone")
    assert rejected == []
    assert {(one.labels or {}).get("zone") for one in readings} == {"eu"}
    assert said(readings) == 4 * [
        ("a", "cpu", 41.5, None),
        ("a", "cpu.usage_user{cpu=cpu-total}", 30.0, "%"),
        ("a", "mem.used_percent", 62.5, "%"),
        ("a", "mem.free", 7.0, None),
    ]
    alone, _ = read(values, "cpu", format="telegraf", label_fields="zone")
    assert [(one.value, one.labels) for one in alone] == 4 * [(41.5, {"zone": "eu"})]
    others, _ = read(values, "mem.free", format="telegraf")
    assert said(others) == 4 * [("a", "mem.free", 7.0, None)]


def test_telegrafs_metric_stream_gives_means_by_their_dimensions() -> None:
    statistics = {"sum": 187.5, "count": 3.0, "max": 80.0, "min": 40.0}
    tags = {"host": "collector", "accountId": "7", "region": "eu", "InstanceId": "i-1"}
    values = [
        line({"name": name, "tags": {**tags, **more}, "fields": statistics, "timestamp": START})
        for name, more in (
            ("aws_ec2_networkin", {}),
            ("cwagent_mem_used_percent", {"ImageId": "ami-1"}),
            ("aws_ec2_cpuutilization", {}),
        )
    ]
    values.append(line({**json.loads(values[0]), "tags": {"host": "collector", "accountId": "7"}}))
    readings, rejected = read(values, "*", format="telegraf")
    assert rejected == []
    assert said(readings) == [
        ("i-1", "aws_ec2_networkin", 62.5, None),
        ("i-1", "cwagent_mem_used_percent{ImageId=ami-1}", 62.5, "%"),
        ("i-1", "cpu", 62.5, None),
    ]


def test_a_stream_in_opentelemetry_format_gives_what_it_gives_in_json() -> None:
    row = Row("a", START, 41.5)
    found, rejected = read(FEEDS["cloudwatch, OpenTelemetry"].write(row), "*", format="otlp")
    assert rejected == []
    assert [one[:3] for one in said(found)] == [
        ("a", "NetworkOut", 52_100.0),
        ("a", "cpu", 41.5),
        ("a", "CPUCreditBalance", 144.0),
    ]


@pytest.mark.parametrize("name", FEED)
def test_a_feed_gives_only_what_is_selected(name: str) -> None:
    values, wanted = FEED[name]
    assert said(read(values, "cpu", format=name)[0]) == [one for one in wanted if one[1] == "cpu"]
    for _, metric, *_ in wanted:
        readings, _ = read(values, metric, format=name)
        assert said(readings) == [one for one in wanted if one[1] == metric]
        short = metric.partition("{")[0]
        readings, _ = read(values, f"{short}, nothing", format=name)
        assert said(readings) == [one for one in wanted if one[1].partition("{")[0] == short]


@pytest.mark.parametrize("name", FEEDS)
def test_the_cpu_of_a_feed_is_the_same_among_all_its_metrics(name: str) -> None:
    feed = FEEDS[name]
    if feed.format == "json":
        pytest.skip("JSON is of one metric, unless a field names it")
    rows = [Row(f"i-{at % 2}", START + 60 * (at // 2), 12.5 + at) for at in range(6)]
    values = [value for row in rows for value in feed.write(row)]
    alone, _ = read(values, "cpu", format=feed.format)
    among, _ = read(values, "*", format=feed.format)

    def plain(readings: list[Reading]) -> list[Any]:
        return [
            (one.instance, one.time, one.value, one.counter, one.part, one.offset)
            for one in readings
            if one.metric is None
        ]

    assert plain(among) == plain(alone)
    assert plain(alone)


def test_mutated_records_are_read_or_rejected() -> None:
    rng = random.Random(13)
    for name, (values, _) in FEED.items():
        broken = [mutated(rng.choice(values), rng) for _ in range(500)]
        readings, rejected = read(broken, "*", format=name)
        assert readings
        for one in readings:
            assert math.isfinite(one.value)
            assert one.unit not in metrics.BOUNDS or 0 <= one.value <= metrics.BOUNDS[one.unit]
            assert one.metric is None or 0 < len(one.metric) <= metrics.MAX_LENGTH
            assert one.time is not None
        assert all(one.reason and one.error for one in rejected)


# JSON


def test_json_is_told_apart_by_the_field_with_the_name() -> None:
    records = [
        {"instance": "a", "timestamp": START + at, "value": value, "index": at, "m": {"n": name}}
        for at, (name, value) in enumerate(
            [("CPUUtilization", 41.5), ("mem_percent", 62.5), ("queue", -7e9), ("x", 1.0)]
        )
    ]
    values = [line(one) for one in records]
    wanted = [
        ("a", "cpu", 41.5, None),
        ("a", "mem_percent", 62.5, "%"),
        ("a", "queue", -7e9, None),
    ]
    found, rejected = read(values, "cpu, mem*, queue", metric_field="/m/n")
    assert (said(found), rejected) == (wanted, [])
    assert [one.index for one in found] == [0, 1, 2]
    # The careful way reads the same.
    again, _ = read([line(records)], "cpu, mem*, queue", metric_field="/m/n", format="json")
    assert said(again) == wanted
    assert said(read(values, "cpu", metric_field="/m/n")[0]) == wanted[:1]
    named = Settings(_env_file=None, metric_field="/m/n", value_field="/v")
    assert (named.default_metric, metrics_of(named)(found[0]).name) == ("cpu", "CPU")
    assert said(read(values, "CPUUtilization", metric_field="/m/n")[0]) == wanted[:1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"m": None}, "bad-metric"),
        ({"m": 5}, "bad-metric"),
        ({"m": "queue", "value": "x"}, "not-a-number"),
        ({"m": "mem_percent", "value": 120}, "out-of-range"),
        ({"m": "q" * 300}, "bad-metric"),
    ],
)
def test_a_broken_record_of_a_metric_says_which(change: dict[str, Any], reason: str) -> None:
    record = {"instance": "a", "timestamp": START, "value": 5, "index": 0, "m": "queue", **change}
    readings, (rejected,) = read([line(record)], "*", format="json", metric_field="m")
    assert (readings, rejected.reason) == ([], reason)
    assert rejected.metric == (None if reason == "bad-metric" else record["m"])


def test_two_metrics_that_are_both_called_cpu_are_not_mixed() -> None:
    names = ("cpu_usage", "CPUUtilization")
    records = [
        {"instance": "a", "timestamp": START + at, "value": 5, "index": at, "m": names[at % 2]}
        for at in range(4)
    ]
    values = [line(one) for one in records]
    readings, rejected = read(values, "cpu", format="json", metric_field="m")
    assert [one.offset for one in readings] == [0, 2]
    assert {one.reason for one in rejected} == {"bad-metric"}
    readings, rejected = read(values, "CPUUtilization", format="json", metric_field="m")
    assert ([one.offset for one in readings], rejected) == ([1, 3], [])


# Labels


@pytest.mark.parametrize(
    ("name", "fields", "labels"),
    [
        (
            "cloudwatch",
            "account_id, region, InstanceId",
            {"InstanceId": "a", "region": "eu-central-1"},
        ),
        ("cloudwatch", "/metric_stream_name", {"metric_stream_name": "all"}),
        ("telegraf", "host, none", {"host": "a"}),
        ("otlp", "host.id", {"host.id": "a"}),
        ("prometheus", "job", {"job": "node"}),
        ("prometheus", "/labels/job", {"job": "node"}),
        ("vector", "collector", {"collector": "c"}),
        ("metricbeat", "/cloud/availability_zone", {"availability_zone": "eu-1a"}),
        ("fluent-bit", "host", {"host": "a"}),
        ("collectd", "host", {"host": "a"}),
    ],
)
@pytest.mark.parametrize("metrics", ["cpu", "*"])
def test_labels_travel_with_each_reading(
    name: str, fields: str, labels: dict[str, str], metrics: str
) -> None:
    readings, _ = read(FEED[name][0], metrics, format=name, label_fields=fields)
    assert readings
    for one in readings:
        assert one.labels is not None
        assert labels.items() <= one.labels.items()


def test_labels_of_json_are_read_on_both_ways() -> None:
    record = {
        "instance": "a",
        "timestamp": START,
        "value": 5,
        "index": 0,
        "g": {"asg": "w"},
        "z": 7,
    }
    for value in (line(record), line([record])):
        (reading,), _ = read([value], "cpu", format="json", label_fields="/g/asg, z, none")
        assert reading.labels == {"asg": "w", "z": "7"}


def test_a_tag_that_is_a_label_is_not_part_of_a_name() -> None:
    value = line(telegraf("mem", {"used_percent": 5.0}, team="web"))
    (reading,), _ = read([value], "mem.*", format="telegraf")
    assert reading.metric == "mem.used_percent{team=web}"
    (reading,), _ = read([value], "mem.*", format="telegraf", label_fields="team")
    assert (reading.metric, reading.labels) == ("mem.used_percent", {"team": "web"})


# Groups


@pytest.mark.parametrize(
    ("format", "key"),
    [("cloudwatch", "AutoScalingGroupName"), ("telegraf", "AutoScalingGroupName")],
)
def test_the_aggregate_of_an_auto_scaling_group_is_scored_by_its_name(
    format: str, key: str
) -> None:
    if format == "cloudwatch":
        values = [line(*CLOUDWATCH)]
    else:
        values = FEEDS["telegraf, CloudWatch streamed"].write(Row("a", START, 41.5))
    readings, _ = read(values, "cpu", format=format, key_field=key)
    assert said(readings) == [("workers", "cpu", 70.0, None)]


# Inspect


def test_inspect_lists_what_is_not_selected() -> None:
    values, wanted = FEED["telegraf"]
    batch = [Raw(0, at, value) for at, value in enumerate(values)]
    report = inspect(Settings(_env_file=None, label_fields="host"), batch)
    assert [(one.metric, one.value, one.labels) for one in report.readings] == [
        ("cpu", 41.5, {"host": "a"})
    ]
    assert set(report.others) == {metric for _, metric, *_ in wanted} - {"cpu"}
    report = inspect(Settings(_env_file=None, metrics="*"), batch)
    assert [(one.metric, one.value) for one in report.readings] == [
        (metric, value) for _, metric, value, _ in wanted
    ]
    assert report.others == {}


# The flow


HOURS = 400
SPIKES = {"cpu": 390, "mem.used_percent": 380, "mem.free": 385}


def minutes_of(host: int) -> list[bytes]:
    """Records of a host with CPU and two metrics of memory, each with a spike of its own."""
    out = []
    for at in range(HOURS):
        name, time = f"web-{host}", START + 300 * at
        cpu = 20 + (at * 7 + host) % 10 + (60 if at == SPIKES["cpu"] else 0)
        used = 40 + (at * 3 + host) % 5 + (50 if at == SPIKES["mem.used_percent"] else 0)
        free = 8e9 + (at * 11 + host) % 7 * 1e8 - (7e9 if at == SPIKES["mem.free"] else 0)
        metrics = [
            telegraf("cpu", {"usage_idle": 100 - cpu}, cpu="cpu-total"),
            telegraf("mem", {"used_percent": used, "free": free}, zone="eu-1a"),
        ]
        for one in metrics:
            one["timestamp"] = time
            one["tags"]["host"] = name
        out.append(line({"metrics": metrics}))
    return out


def feed(hosts: int = 2) -> list[tuple[str, bytes]]:
    """Records with their keys, in the order of their times."""
    columns = [[(f"web-{host}", value) for value in minutes_of(host)] for host in range(hosts)]
    return [one for row in zip(*columns, strict=True) for one in row]


def flow(values: Iterable[bytes], **settings: Any) -> tuple[list[Anomaly], list[Incident]]:
    """What the flow makes of records of one partition."""
    options = Settings(_env_file=None, detector="zscore", **settings)
    anomalies: list[Any] = []
    incidents: list[Any] = []
    outputs = {"write_here": TestingSink(anomalies)}
    if options.incidents:
        outputs["write_incidents_here"] = TestingSink(incidents)
    raws = [Raw(0, offset, value) for offset, value in enumerate(values)]
    source = TestingSource(raws, batch_size=25)
    run_main(build(options, score.detector(options), None, source=source, outputs=outputs))
    return [one for _, one in anomalies], [one for _, one in incidents]


def test_each_metric_is_scored_by_itself() -> None:
    values = [value for _, value in feed()]
    found, incidents = flow(
        values, metrics="cpu, mem.*", label_fields="zone", incidents=True, silence=0
    )
    detector = score.detector(Settings(_env_file=None, detector="zscore"))
    scores = {}
    for reading in read(values, "cpu, mem.*", label_fields="zone", format="telegraf")[0]:
        key = reading.instance, reading.metric
        value = reading.value / (1 if reading.metric == "mem.free" else 100)
        state, verdict = detector.update(scores.get(key, (None,))[0], value, reading.time)  # type: ignore[union-attr]
        scores[key] = state, {**(scores[key][1] if key in scores else {}), reading.time: verdict}
    wanted = {
        (instance, metric or "cpu", time): verdict.score
        for (instance, metric), (_, verdicts) in scores.items()
        for time, verdict in verdicts.items()
        if verdict.score > detector.threshold
    }
    assert {(it.instance, it.metric, it.timestamp): it.score for it in found} == wanted
    news = {(it.metric, (it.timestamp - START) // 300) for it in found if it.score > 0.6}  # type: ignore[operator]
    assert news >= set(SPIKES.items())
    assert len({one.id for one in found}) == len(found)
    free = next(one for one in found if (one.metric, one.value) == ("mem.free", one.raw))
    assert (free.unit, free.labels) == (None, {"zone": "eu-1a"})
    assert free.why.startswith("mem.free 1,")
    used = next(one for one in found if one.metric == "mem.used_percent")
    assert (used.unit, used.raw) == ("%", pytest.approx(100 * used.value))
    cpu = next(one for one in found if one.metric == "cpu")
    assert (cpu.unit, cpu.labels, cpu.why[:4]) == ("%", {}, "CPU ")
    opened = {(it.instance, it.metric, it.id) for it in incidents if it.state == "opened"}
    assert {(instance, metric) for instance, metric, _ in opened} == {
        (f"web-{host}", metric) for host in range(2) for metric in SPIKES
    }
    assert {one.episode for one in found} >= {id for *_, id in opened}
    assert all(it.labels == ({} if it.metric == "cpu" else {"zone": "eu-1a"}) for it in incidents)


def test_cpu_among_others_is_what_it_is_alone() -> None:
    values = [value for _, value in feed()]
    alone, _ = flow(values)
    among, _ = flow(values, metrics="*")
    own = [one for one in among if one.metric == "cpu"]

    def plain(found: list[Anomaly]) -> list[Any]:
        # The number counts the readings of a record, of which there are more.
        return [replace(one, source=replace(one.source, number=0)) for one in found]

    assert plain(own) == plain(alone)
    assert own


def forgotten(records: list[dict[str, Any]], size: int) -> Iterator[tuple[str, int]]:
    """Yield each key that is forgotten, with the last index that was read then."""
    settings = Settings(
        _env_file=None, format="json", metrics="*", metric_field="m", index_field="i", interval=3600
    )
    admission = admit.admitter(settings, decode.decoder(settings), [].append)
    key = keyer(admission, several=True)
    for begin in range(0, len(records), size):
        lines = map(line, records[begin : begin + size])
        batch = [Raw(0, begin + at, one) for at, one in enumerate(lines)]
        readings = [one for one in admission(batch) if isinstance(one, Reading)]
        for name, group in key(readings):
            if not group:
                yield name, int(readings[-1].index or 0)


def instances() -> int:
    return int(counters.INSTANCES._value.get())  # type: ignore[attr-defined]


def test_a_metric_that_stops_is_forgotten_and_counts_no_more() -> None:
    """Each week another metric: the instances that count stay few, and their states go."""
    weeks = 8
    records = [
        {
            **{"instance": name, "timestamp": START + 3600 * hour, "value": hour % 7},
            **{"m": metric, "i": hour},
        }
        for hour in range(24 * 7 * weeks)
        for name in ("a", "b")
        for metric in ("cpu", f"week-{hour // 168}")
    ]
    before, found = instances(), {}
    for key, hour in forgotten(records, 24):
        found[key] = hour // 168
        assert instances() - before <= 6
    assert instances() - before == 4
    # Two weeks and up to two days after the last reading.
    assert found == {
        series_key(name, f"week-{week}"): week + 3 for week in range(weeks - 3) for name in "ab"
    }
    counters.INSTANCES.dec(4)


def test_a_wrong_clock_of_an_instance_with_several_metrics_forgets_nothing() -> None:
    def record(name: str, metric: str, at: int, days: int) -> dict[str, Any]:
        time = START + 3600 * at + 86_400 * days
        return {"instance": name, "timestamp": time, "value": at % 7, "m": metric, "i": at}

    records = [record("quiet", "cpu", 0, 0)] + [
        record(name, metric, at, at if name == "b" else 0)
        for at in range(40)
        for metric in ("cpu", "load")
        for name in ("a", "b")
    ]
    before = instances()
    assert list(forgotten(records, 1)) == []
    assert instances() - before == 5
    counters.INSTANCES.dec(5)


def test_the_page_has_a_row_for_each_metric() -> None:
    values, _ = FEED["telegraf"]
    options = Settings(_env_file=None, metrics="cpu, mem.*", detector="zscore")
    intake = Intake(options)
    rows = [
        (row_name(one.instance, one.metric), one.value)
        for at, value in enumerate(values)
        for one in intake.readings(Raw(0, at, value))
    ]
    assert rows == [("a", 0.415), ("a mem.used_percent", 0.625), ("a mem.free", 7.0)]
    found, _ = flow([value for _, value in feed(1)], metrics="*")
    names = {intake.named(one).instance for one in found}
    assert names == {"web-0", "web-0 mem.used_percent", "web-0 mem.free"}


def test_alertmanager_tells_the_metrics_of_an_instance_apart() -> None:
    now = datetime.fromtimestamp(START, UTC)
    target = Alertmanager("http://localhost")
    labels = [
        target.body(replace(example(), metric=metric), "", now)[0]["labels"]  # type: ignore[index]
        for metric in ("cpu", "load")
    ]
    assert labels[1] == {**labels[0], "metric": "load"}


# Through a broker


def test_several_metrics_through_kill_9(
    run_flow: Flow, brokers: str, topic: str, store: Path
) -> None:
    fill_topic(brokers, topic, feed(6), partitions=2)
    settings = {
        **{"brokers": brokers, "topic": topic, "detector": "zscore", "incidents": "true"},
        **{"metrics": "cpu, mem.*", "label_fields": "zone", "silence": 0},
    }
    done = run_flow(output="whole.jsonl", follow="false", **settings)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") <= 2, done.stderr
    names = [f"{{}}.{kind}jsonl" for kind in ("", "incidents.")]
    whole = [read_json_lines(run_flow.folder / name.format("whole")) for name in names]
    assert {one["metric"] for one in whole[0]} == {one["metric"] for one in whole[1]} == {*SPIKES}

    arguments = ("-r", str(store), "-s", "1", "-b", "0")
    path = run_flow.folder / "found.jsonl"
    for _ in range(3):
        process = run_flow.start(*arguments, output="found.jsonl", **settings)
        wait_for(lambda: path.exists() and path.stat().st_size > 0)
        assert process.poll() is None, process.communicate()
        kill(process)
    done = run_flow(*arguments, output="found.jsonl", follow="false", **settings)
    assert done.returncode == 0, done.stderr
    for name, wanted in zip(names, whole, strict=True):
        found = read_json_lines(run_flow.folder / name.format("found"))
        assert sorted(map(json.dumps, found)) == sorted(map(json.dumps, wanted))


def test_a_silent_metric_is_an_incident_of_its_own(run_flow: Flow) -> None:
    """One of two hosts sends no memory for a while, and goes on with CPU."""
    records = []
    for at in range(60):
        for host in ("a", "b"):
            for metric in ("cpu", "mem"):
                if host == "a" or metric == "cpu" or not 30 < at < 50:
                    time, value = START + 300 * at, at % 7
                    own = {"instance": host, "timestamp": time, "value": value, "index": at}
                    records.append(line({**own, "m": metric}))
    (run_flow.folder / "in.jsonl").write_bytes(b"\n".join(records))
    done = run_flow(
        input="in.jsonl",
        output="found.jsonl",
        metrics="*",
        metric_field="m",
        incidents="true",
    )
    assert done.returncode == 0, done.stderr
    found = read_json_lines(run_flow.folder / "found.incidents.jsonl")
    assert [(it["instance"], it["metric"], it["kind"], it["state"]) for it in found] == [
        ("b", "mem", "silence", state) for state in ("opened", "resolved")
    ]


def test_a_metric_that_is_no_longer_selected_is_gone_and_not_silent(
    run_flow: Flow, brokers: str, topic: str, store: Path
) -> None:
    records = feed()
    # All but the last reading of the spike of memory: its incident is open.
    end = 2 * SPIKES["mem.used_percent"] + 2
    fill_topic(brokers, topic, records[:end], partitions=1)
    settings = {
        **{"brokers": brokers, "topic": topic, "detector": "zscore", "incidents": "true"},
        **{"follow": "false", "output": "found.jsonl"},
    }
    arguments = ("-r", str(store), "-s", "1", "-b", "0")
    done = run_flow(*arguments, metrics="cpu, mem.*", **settings)
    assert done.returncode == 0, done.stderr
    path = run_flow.folder / "found.incidents.jsonl"
    opened = [one for one in read_json_lines(path) if one["metric"] == "mem.used_percent"]
    assert [one["state"] for one in opened] == ["opened", "opened"]
    fill_topic(brokers, topic, records[end:], partitions=1)
    done = run_flow(*arguments, metrics="cpu, mem.free", **settings)
    assert done.returncode == 0, done.stderr
    found = read_json_lines(path)
    assert {one["kind"] for one in found} == {"anomaly"}
    ended = [one for one in found if one["metric"] == "mem.used_percent"][2:]
    assert [(one["state"], one["ended"]) for one in ended] == [("resolved", "gone")] * 2
    assert {one["id"] for one in ended} == {one["id"] for one in opened}
    assert any(one["metric"] == "mem.free" and one["state"] == "opened" for one in found)


def test_a_store_of_one_metric_goes_on_with_it_and_takes_others(
    own_broker: PausableBroker, run_flow: Flow, tmp_path: Path
) -> None:
    """The store was written by the version before, after the first half of the feed."""
    records, topic = feed(), "ec2_metrics"
    fill_topic(own_broker.address, topic, records[:400], partitions=2)
    options = Settings(_env_file=None, brokers=own_broker.address)
    begins = kafka.end_offsets(options, topic)
    fill_topic(own_broker.address, topic, records[400:], partitions=2)
    settings = {
        **{"brokers": own_broker.address, "detector": "zscore", "incidents": "true"},
        **{"silence": 0, "follow": "false"},
    }

    def found(name: str, **more: str) -> list[dict[str, Any]]:
        arguments: tuple[str, ...] = ()
        if name != "whole":
            with tarfile.open(REPOSITORY / "tests/stores/format-3-telegraf.tar.gz") as packed:
                packed.extractall(tmp_path / name, filter="data")
            arguments = ("-r", str(tmp_path / name / "format-3-telegraf"), "-s", "1", "-b", "0")
        done = run_flow(*arguments, output="stdout", **settings, **more)
        assert done.returncode == 0, done.stderr
        lines = map(json.loads, done.stdout.splitlines())
        later = [one for one in lines if one["source"]["offset"] >= begins[place(one)]]
        return sorted(later, key=lambda one: (one["id"], one.get("sequence", -1)))

    def place(one: dict[str, Any]) -> int:
        return int(one["source"]["partition"])

    whole = found("whole")
    assert found("same") == whole
    assert {one["metric"] for one in whole} == {"cpu"}
    assert any(one.get("state") == "opened" for one in whole)
    more = found("more", metrics="cpu, mem.*")
    assert {one["metric"] for one in more} == {*SPIKES}
    own = [one for one in more if one["metric"] == "cpu"]
    for one in (*own, *whole):
        one["source"].pop("number", None)
    assert own == whole
