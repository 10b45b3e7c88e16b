"""Telegraf and the Collector as docs/feeds.md configures them, watching this machine.

`make test-feeds` runs them; the first time it builds both, for some minutes.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, Flow
from producers import Unavailable, collector, telegraf

from dataflow import kafka
from dataflow.dashboard.intake import Intake
from dataflow.kafka import topics
from dataflow.records import Raw
from dataflow.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

RECORDS = 12
PAGE = (REPOSITORY / "docs" / "feeds.md").read_text()
UTILIZATION = "cpu: {metrics: {system.cpu.utilization: {enabled: true}}}"


def block(heading: str, language: str) -> str:
    """The first block of a language under a heading of the page."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found, heading
    return found[1]


def changed(text: str, *changes: tuple[str, str]) -> str:
    for before, after in changes:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    return text


def telegraf_runs(folder: Path, brokers: str, topic: str, form: str) -> list[str]:
    path = folder / "telegraf.conf"
    path.write_text(
        changed(
            block("Telegraf", "toml"),
            ("kafka.example:9092", brokers),
            ('"ec2_metrics"', f'"{topic}"'),
            ('interval = "60s"', 'interval = "1s"\n  flush_interval = "1s"'),
            ('data_format = "json"', f'data_format = "{form}"'),
        )
    )
    return [str(telegraf()), "--config", str(path)]


def own_telegraf_runs(folder: Path, brokers: str, topic: str, form: str) -> list[str]:
    """Telegraf as docker-compose.yml starts it."""
    path = folder / "telegraf.conf"
    path.write_text(
        changed(
            (REPOSITORY / "monitoring" / "telegraf" / "telegraf.conf").read_text(),
            ("host_metrics", topic),
            (
                'interval = "10s"\n  flush_interval = "10s"',
                'interval = "1s"\n  flush_interval = "1s"',
            ),
            ("${HOST}", "web-1"),
            ("${BROKERS}", brokers),
            ('data_format = "json"', f'data_format = "{form}"'),
        )
    )
    return [str(telegraf()), "--config", str(path)]


def collector_runs(folder: Path, brokers: str, topic: str, form: str) -> list[str]:
    encoding, metric = form.split(" ")
    path = folder / "collector.yaml"
    path.write_text(
        changed(
            block("OpenTelemetry Collector", "yaml"),
            ("kafka.example:9092", brokers),
            ("ec2_metrics", topic),
            ("collection_interval: 60s", "collection_interval: 1s"),
            ("otlp_proto", encoding),
            ("cpu: {}", UTILIZATION if metric == "utilization" else "cpu: {}"),
            # Its own figures would be served on a port that may be taken.
            ("service:\n", "service:\n  telemetry: {metrics: {level: none}}\n"),
        )
    )
    return [str(collector()), "--config", str(path)]


Rows = list[tuple[str, float, float]]
"""Instance, seconds since 1970, and percent."""


def of_influx(values: list[bytes]) -> Rows:
    form = r"cpu,cpu=cpu-total,host=(\S+) (?:\S+,)?usage_idle=([^ ,]+)\S* (\d+)\n"
    found = [re.fullmatch(form, one.decode()) for one in values]
    assert all(found)
    return [(one[1], int(one[3]) / 1e9, 100 - float(one[2])) for one in found if one]


def of_json(values: list[bytes]) -> Rows:
    found = [json.loads(one) for one in values]
    assert {one["tags"]["cpu"] for one in found} == {"cpu-total"}
    return [
        (one["tags"]["host"], one["timestamp"], 100 - one["fields"]["usage_idle"]) for one in found
    ]


def of_otlp(values: list[bytes]) -> Rows:
    """By OpenTelemetry's own classes: the share of a record, or between it and the one before."""
    formats = pytest.importorskip("google.protobuf.json_format")
    service = pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")
    rows: Rows = []
    before: tuple[float, float] | None = None
    for value in values:
        if value[:1] == b"{":
            request = formats.Parse(value, service.ExportMetricsServiceRequest())
        else:
            request = service.ExportMetricsServiceRequest.FromString(value)
        (resource,) = request.resource_metrics
        (host,) = (
            one.value.string_value for one in resource.resource.attributes if one.key == "host.name"
        )
        metrics = {it.name: it for scope in resource.scope_metrics for it in scope.metrics}
        chosen = metrics.get("system.cpu.utilization")
        if chosen is None:
            chosen = metrics["system.cpu.time"]
        shares = chosen.name == "system.cpu.utilization"
        points = (chosen.gauge if shares else chosen.sum).data_points
        idle = [one.as_double for one in points if "idle" in str(one.attributes)]
        (nanoseconds,) = {one.time_unix_nano for one in points}
        if shares:
            rows.append((host, nanoseconds / 1e9, 100 * (1 - sum(idle) / len(idle))))
            continue
        now = sum(idle), sum(one.as_double for one in points)
        if before is not None:
            share = (now[0] - before[0]) / (now[1] - before[1])
            rows.append((host, nanoseconds / 1e9, 100 * (1 - share)))
        before = now
    return rows


FORMS: dict[str, tuple[Callable[..., list[str]], str, Callable[[list[bytes]], Rows], str]] = {
    "Telegraf, influx lines": (telegraf_runs, "influx", of_influx, "telegraf"),
    "Telegraf, JSON": (telegraf_runs, "json", of_json, "telegraf"),
    "Telegraf of docker-compose.yml": (own_telegraf_runs, "json", of_json, "telegraf"),
    "Collector, protobuf, seconds": (collector_runs, "otlp_proto time", of_otlp, "otlp"),
    "Collector, protobuf, shares": (collector_runs, "otlp_proto utilization", of_otlp, "otlp"),
    "Collector, JSON, seconds": (collector_runs, "otlp_json time", of_otlp, "otlp"),
    "Collector, JSON, shares": (collector_runs, "otlp_json utilization", of_otlp, "otlp"),
}


def written(brokers: str, topic: str, command: list[str], folder: Path) -> list[Any]:
    """Let a producer write some records, and return them."""
    settings = Settings(_env_file=None, brokers=brokers, topic=topic)
    topics.create(settings, [topic], 1)
    log = folder / "producer.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, "HOSTNAME": "web-1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + 180
            while sum(kafka.end_offsets(settings, topic).values()) < RECORDS:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    return list(kafka.read_from(settings, topic, {}))


@pytest.mark.kafka
@pytest.mark.parametrize("form", FORMS)
def test_what_a_real_producer_writes_is_read_without_settings(
    form: str, run_flow: Flow, brokers: str, topic: str, tmp_path: Path
) -> None:
    start, encoding, truth, format = FORMS[form]
    try:
        command = start(tmp_path, brokers, topic, encoding)
    except Unavailable as reason:
        pytest.skip(str(reason))
    messages = written(brokers, topic, command, tmp_path)
    assert all(message.key() for message in messages)
    values = [message.value() for message in messages]
    expected = truth(values)
    assert {name for name, *_ in expected} <= {"web-1", socket.gethostname()}
    assert len(expected) >= RECORDS - 1

    intake = Intake(Settings(_env_file=None))
    raws = [Raw(0, offset, value) for offset, value in enumerate(values)]
    readings = [reading for raw in raws for reading in intake.readings(raw)]
    assert intake.rejected == 0
    assert [(one.instance, one.time) for one in readings] == [
        (name, pytest.approx(moment, abs=1e-3)) for name, moment, _ in expected
    ]
    assert [100 * one.value for one in readings] == [
        pytest.approx(min(max(percent, 0.0), 100.0), abs=1e-6) for *_, percent in expected
    ]

    # What is scored depends on what the machine does meanwhile.
    done = run_flow(brokers=brokers, topic=topic, follow="false", detector="tutorial")
    assert done.returncode == 0, done.stderr
    assert f"the records have the format {format}" in done.stderr
    assert "warning" not in done.stderr
