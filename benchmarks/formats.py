"""What a reading costs in each format, from the broker to the output, beside flat JSON.

    python benchmarks/formats.py [--readings 100000] [--rounds 5] [--only WORD] [--against DIR]
        [--detector tutorial] [--brokers HOST:PORT] [--json FILE] [--quick]

The same readings of 100 instances are in a topic for each format; the flow reads each as its users
run it, with the format that `auto` finds. In each round all rows run in turn, first on a short
topic, then on the long one; the figures are the cost of the long one minus the median of the short
ones. Ratios are medians of the rounds' ratios to flat JSON. `--against` runs the package of another
checkout on flat JSON too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import struct
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from processes import Run, describe, machine
from rows import FLOW, Place, Row, settings
from throughput import Turn, per_record, ratio, turn

from dataflow import kafka
from dataflow.demo.broker import EmbeddedBroker
from dataflow.kafka import topics
from dataflow.settings import Settings

FLAT = "JSON, flat"
INSTANCES = 100
SHORT = 2_000
START = 1_709_251_200
TOGETHER = 20
"""Readings of a record, where records have many."""

PATHS = {
    "key_field": "/tags/host",
    "value_field": "/fields/usage",
    "time_field": "/timestamp",
    "index_field": "none",
    "where": "/name=cpu",
}


class Reading(NamedTuple):
    """What is written: `value` is in percent."""

    instance: str
    number: int
    value: float

    @property
    def time(self) -> int:
        """Seconds since 1970."""
        return START + 300 * self.number


Write = Callable[[Sequence[Reading]], bytes]


class Form(NamedTuple):
    """A row: how a producer writes so many readings to a record, and the settings that it needs."""

    name: str
    write: Write
    together: int = 1
    settings: dict[str, str] = {}  # noqa: RUF012  never changed


def readings(count: int) -> Iterator[Reading]:
    """Yield readings of all instances in turn."""
    for place in range(count):
        number, instance = divmod(place, INSTANCES)
        value = 5 + instance % 60 + (number * 7 + instance) % 30 / 10
        yield Reading(f"i-{instance:06x}", number, 97.5 if number % 288 == 200 else value)


def _json(*objects: Any) -> bytes:
    return b"\n".join(json.dumps(one).encode() for one in objects)


def _flat(chunk: Sequence[Reading]) -> bytes:
    """Write a reading as the tutorial's producer does: all values are text."""
    (one,) = chunk
    time = f"{datetime.fromtimestamp(one.time, UTC):%Y-%m-%d %H:%M:%S}"
    return _json(
        {
            "index": str(one.number),
            "timestamp": time,
            "value": f"{one.value:.3f}",
            "instance": one.instance,
        }
    )


def _nested(chunk: Sequence[Reading]) -> bytes:
    (one,) = chunk
    tags = {"host": one.instance, "zone": "b"}
    return _json(
        {"name": "cpu", "tags": tags, "fields": {"usage": one.value}, "timestamp": one.time}
    )


FIELDS = ("guest", "guest_nice", "iowait", "irq", "nice", "softirq", "steal", "system", "user")


def _shares(one: Reading) -> dict[str, float]:
    return {"usage_idle": 100 - one.value, **{f"usage_{name}": 0.5 for name in FIELDS}}


def _telegraf(chunk: Sequence[Reading]) -> bytes:
    (one,) = chunk
    tags = {"cpu": "cpu-total", "host": one.instance}
    return _json({"fields": _shares(one), "name": "cpu", "tags": tags, "timestamp": one.time})


def _lines(chunk: Sequence[Reading]) -> bytes:
    (one,) = chunk
    fields = ",".join(f"{name}={value}" for name, value in _shares(one).items())
    return f"cpu,cpu=cpu-total,host={one.instance} {fields} {one.time}000000000\n".encode()


OTHERS = ("NetworkIn", "NetworkOut", "DiskReadOps", "CPUCreditBalance", "StatusCheckFailed")


def _stream(*names: str) -> Write:
    def write(chunk: Sequence[Reading]) -> bytes:
        return _json(
            *(
                {
                    "metric_stream_name": "all",
                    "account_id": "123456789012",
                    "region": "eu-central-1",
                    "namespace": "AWS/EC2",
                    "metric_name": name,
                    "dimensions": {"InstanceId": one.instance},
                    "timestamp": one.time * 1000,
                    "value": {
                        "max": one.value + 1,
                        "min": one.value - 1,
                        "sum": 5 * one.value,
                        "count": 5.0,
                    },
                    "unit": "Percent",
                }
                for one in chunk
                for name in ("CPUUtilization", *names)
            )
        )

    return write


def _field(number: int, content: bytes | float | int) -> bytes:
    """Write a field of a protobuf message: bytes, a double, or a fixed64."""
    if isinstance(content, bytes):
        size, length = bytearray(), len(content)
        while length > 127:
            size.append(length & 127 | 128)
            length >>= 7
        return bytes([number << 3 | 2, *size, length]) + content
    return bytes([number << 3 | 1]) + struct.pack(
        "<d" if isinstance(content, float) else "<Q", content
    )


def _pair(key: str, value: str) -> bytes:
    return _field(1, key.encode()) + _field(2, _field(1, value.encode()))


STATES = ("user", "system", "idle", "interrupt", "nice", "softirq", "steal", "wait")


def _otlp(cpus: int) -> Write:
    """Return what the Collector writes: fields from the last to the first."""

    def write(chunk: Sequence[Reading]) -> bytes:
        (one,) = chunk
        idle = 1 - one.value / 100
        points = b"".join(
            _field(
                1,
                _field(7, _pair("cpu", f"cpu{cpu}"))
                + _field(7, _pair("state", state))
                + _field(4, idle if state == "idle" else (1 - idle) / 7)
                + _field(3, one.time * 10**9)
                + _field(2, START * 10**9),
            )
            for cpu in range(cpus)
            for state in STATES
        )
        metric = _field(5, points) + _field(3, b"1") + _field(1, b"system.cpu.utilization")
        scope = _field(2, metric) + _field(1, _field(1, b"hostmetricsreceiver"))
        resource = _field(1, _pair("host.name", one.instance))
        return _field(1, _field(2, scope) + _field(1, resource))

    return write


def _otlp_json(chunk: Sequence[Reading]) -> bytes:
    (one,) = chunk

    def attributes(**pairs: str) -> list[dict[str, Any]]:
        return [{"key": key, "value": {"stringValue": text}} for key, text in pairs.items()]

    idle = 1 - one.value / 100
    times = {"startTimeUnixNano": f"{START}000000000", "timeUnixNano": f"{one.time}000000000"}
    points = [
        {
            "attributes": attributes(cpu="cpu0", state=state),
            **times,
            "asDouble": idle if state == "idle" else (1 - idle) / 7,
        }
        for state in STATES
    ]
    metric = {"name": "system.cpu.utilization", "unit": "1", "gauge": {"dataPoints": points}}
    scopes = [{"scope": {"name": "hostmetricsreceiver"}, "metrics": [metric]}]
    resource = {"attributes": attributes(**{"host.name": one.instance})}
    return _json({"resourceMetrics": [{"resource": resource, "scopeMetrics": scopes}]})


FORMS = (
    Form(FLAT, _flat),
    Form("JSON, nested", _nested, settings=PATHS),
    Form("Telegraf, JSON", _telegraf),
    Form("Telegraf, influx lines", _lines),
    Form("CloudWatch stream, JSON, only CPU", _stream(), TOGETHER),
    Form("CloudWatch stream, JSON, 1 of 6 is CPU", _stream(*OTHERS), TOGETHER),
    Form("OTLP, protobuf, 1 CPU of 8 states", _otlp(1)),
    Form("OTLP, protobuf, 4 CPUs of 8 states", _otlp(4)),
    Form("OTLP, JSON, 1 CPU of 8 states", _otlp_json),
)


def fill(brokers: str, topic: str, form: Form, count: int) -> None:
    """Create a topic of one partition with so many readings."""
    own = Settings(_env_file=None, brokers=brokers)
    topics.create(own, [topic, f"{topic}.rejected"], 1)
    producer = kafka.producer(own, **{"linger.ms": 50})
    chunk: list[Reading] = []
    for number, one in enumerate(readings(count), start=1):
        chunk.append(one)
        if len(chunk) == form.together:
            producer.produce(topic, form.write(chunk))
            chunk.clear()
        if number % 10_000 == 0:
            producer.flush()
    if producer.flush(60):
        raise SystemExit(f"error: The broker {brokers} did not take all records: is it up?")


def row(form: Form, detector: str, path: Path | None = None) -> Row:
    """Return the flow that reads a form, with the package from `path` if it is given."""

    def runs(place: Place) -> list[Run]:
        more = {"PYTHONPATH": str(path.resolve())} if path else {}
        return [Run(FLOW, {**settings(place, detector, **form.settings), **more})]

    return Row(f"{form.name}, other version" if path else form.name, runs)


def table(seen: list[dict[str, Turn]], more: int) -> str:
    """Return the medians of the rounds as a Markdown table."""
    cost = {name: per_record([one[name] for one in seen], more)[0] for name in seen[0]}
    lines = ["| | CPU µs a reading | x flat JSON |", "| --- | --- | --- |"]
    for name, figures in cost.items():
        times = ratio(figures, cost[FLAT])
        lines.append(f"| {name} | {statistics.median(figures):.2f} | {times:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--readings", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", action="append", default=[], help="rows with this in their name")
    parser.add_argument("--against", type=Path, help="checkout of another version to compare with")
    parser.add_argument("--detector", default="tutorial")
    parser.add_argument("--brokers", help="HOST:PORT; by default an embedded broker")
    parser.add_argument("--json", type=Path, help="write each round's µs a reading to this file")
    parser.add_argument("--quick", action="store_true", help="one small round: does it work?")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.readings = 1, 2 * SHORT
    for name in [name for name in os.environ if name.startswith("ANOMALY_")]:
        del os.environ[name]
    chosen = [
        form
        for form in FORMS
        if form.name == FLAT or any(word in form.name for word in options.only or [""])
    ]
    seen: list[dict[str, Turn]] = []
    with ExitStack() as stack:
        brokers = options.brokers
        if brokers is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            brokers = stack.enter_context(EmbeddedBroker(Path(folder))).address
        own = Settings(_env_file=None, brokers=brokers)
        rows: list[tuple[Row, list[Place]]] = []
        for form in chosen:
            places = []
            for count in (SHORT, options.readings):
                topic = f"bench-{uuid.uuid4().hex[:8]}"
                stack.callback(topics.delete, own, [topic, f"{topic}.rejected"])
                fill(brokers, topic, form, count)
                places.append(Place(brokers, topic, count, Path()))
            rows.append((row(form, options.detector), places))
            if form.name == FLAT and options.against:
                rows.append((row(form, options.detector, options.against), places))
        for number in range(1, options.rounds + 1):
            seen.append({one.name: turn(one, *places) for one, places in rows})
            print(f"round {number} of {options.rounds}", file=sys.stderr, flush=True)
    more = options.readings - SHORT
    if options.json:
        rounds = {name: per_record([one[name] for one in seen], more)[0] for name in seen[0]}
        options.json.write_text(json.dumps({"machine": machine(), "rows": rounds}, indent=2) + "\n")
    print(f"{describe(machine())}; {options.rounds} rounds, {options.readings:,} readings\n")
    print(table(seen, more))


if __name__ == "__main__":
    main()
