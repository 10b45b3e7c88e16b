"""What a record costs from the broker to the output, beside the tutorial's flow and other ways.

    python benchmarks/throughput.py [--rounds 5] [--records 300000] [--instances 100] [--only WORD]
                                    [--json FILE] [--compare FILE] [--quick]

Each row is read from the same topic of the embedded broker by processes of its own. In a round all
rows take their turn, first with a short topic and then with the long one: what is told is the
difference, so that a start costs nothing. CPU is that of all threads and processes of a row, and
not the broker's; figures are medians of the rounds, and ratios are medians of the rounds' ratios to
the tutorial's flow in the same round. With --json a file is written after each round: an end by
Ctrl-C, or by --minutes, keeps the rounds that were whole.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from rows import PARTITIONS, TUTORIAL, Place, Row, rows

from dataflow import kafka, topics
from dataflow.broker import EmbeddedBroker
from dataflow.settings import Settings

SHORT = 2_000
LIMIT = 300.0
"""Seconds that a row may take: one that waits for ever must not keep the others waiting."""

START = datetime(2024, 3, 1, tzinfo=UTC)


class Cost(NamedTuple):
    """Seconds of CPU and of the clock, and the most memory of all processes together in bytes."""

    cpu: float
    wall: float
    memory: int


def fill(brokers: str, topic: str, records: int, instances: int) -> None:
    """Write readings as the tutorial's producer does, by instance to a partition."""
    settings = Settings(_env_file=None, brokers=brokers)
    topics.create(settings, [topic], PARTITIONS)
    rng = random.Random(1)
    levels = [rng.uniform(5, 60) for _ in range(instances)]
    producer = kafka.producer(settings, **{"linger.ms": 50})
    for number in range(records):
        index, instance = divmod(number, instances)
        if rng.random() < 0.01:
            value = rng.uniform(0, 100)
        else:
            value = min(max(rng.gauss(levels[instance], 3), 0), 100)
        reading = {
            "index": str(index),
            "timestamp": f"{START + timedelta(minutes=5 * index):%Y-%m-%d %H:%M:%S}",
            "value": f"{value:.3f}",
            "instance": f"i-{instance:06x}",
        }
        key = reading["instance"]
        producer.produce(topic, json.dumps(reading), key, partition=instance % PARTITIONS)
        if number % 20_000 == 0:
            producer.flush()
    if producer.flush(60):
        raise SystemExit("error: the embedded broker did not take all records")


def run(row: Row, place: Place) -> Cost:
    """Let a row read its topic, and return what it cost."""
    started = time.monotonic()
    processes = [
        subprocess.Popen(
            run.command,
            env={**os.environ, **run.environment},
            cwd=place.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for run in row.runs(place)
    ]
    limit = threading.Timer(LIMIT, lambda: [process.kill() for process in processes])
    limit.daemon = True
    limit.start()
    cpu, memory = 0.0, 0
    for process in processes:
        said = process.stderr.read() if process.stderr else b""
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"error: {row.name} failed:\n{said.decode()[-2000:]}")
        cpu += used.ru_utime + used.ru_stime
        memory += used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    limit.cancel()
    return Cost(cpu, time.monotonic() - started, memory)


def turn(row: Row, short: Place, long: Place) -> dict[str, float]:
    """Return a row's figures: of the records that the long topic has more than the short one."""
    costs = []
    for place in (short, long):
        with tempfile.TemporaryDirectory() as folder:
            costs.append(run(row, place._replace(folder=Path(folder))))
    start, whole = costs
    more = long.count - short.count
    return {
        "cpu_us": (whole.cpu - start.cpu) / more * 1e6,
        "records_s": more / max(whole.wall - start.wall, 1e-3),
        "rss_mb": whole.memory / 1e6,
        "start_s": start.wall,
    }


def medians(rounds: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Return each row's figures over the rounds, and its ratios to the tutorial's flow."""
    found: dict[str, dict[str, float]] = {}
    for name in rounds[0]:
        own = [one[name] for one in rounds]
        figures = {what: statistics.median(one[what] for one in own) for what in own[0]}
        for what, ratio in (("cpu_us", "cpu_x"), ("records_s", "speed_x")):
            if TUTORIAL in rounds[0]:
                pairs = [(one[TUTORIAL][what], one[name][what]) for one in rounds]
                figures[ratio] = statistics.median(
                    own / base if what == "records_s" else base / max(own, 1e-3)
                    for base, own in pairs
                )
        found[name] = figures
    return found


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    from importlib.metadata import version

    model = "unknown"
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        pass
    names = ("bytewax", "river", "confluent-kafka", "msgspec")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
    }


def table(figures: dict[str, dict[str, float]], old: dict[str, dict[str, float]]) -> str:
    """Write the figures as a Markdown table; beside an older run, the change of the ratios."""
    heads = ["", "records/s, x tutorial", "CPU µs a record", "CPU, 1/x of tutorial", "peak MB"]
    lines = [[*heads, "CPU against the older run"] if old else heads]
    lines.append(["---"] * len(lines[0]))
    for name, one in figures.items():
        cells = [
            name,
            f"{one.get('speed_x', 0):.1f} ({one['records_s']:,.0f}/s)",
            f"{one['cpu_us']:.2f}",
            f"{one.get('cpu_x', 0):.1f}",
            f"{one['rss_mb']:.0f}",
        ]
        if old:
            # Both against the tutorial's flow in their own run: machines and noise differ.
            was = old.get(name, {}).get("cpu_x")
            cells.append(f"x {was / one['cpu_x']:.2f}" if was and one.get("cpu_x") else "")
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--records", type=int, default=300_000)
    parser.add_argument("--instances", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=9.0, help="begin no round after these")
    parser.add_argument("--only", action="append", default=[], help="rows with this in their name")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--compare", type=Path, help="a file that --json wrote")
    parser.add_argument("--quick", action="store_true", help="one small round: does it work?")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    asked = options()
    old = json.loads(asked.compare.read_text())["rows"] if asked.compare else {}
    if asked.quick:
        asked.rounds, asked.records = 1, 2 * SHORT
    for name in [name for name in os.environ if name.startswith("ANOMALY_")]:
        del os.environ[name]
    began = time.monotonic()
    rounds: list[dict[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        chosen = [row for row in rows(folder) if any(it in row.name for it in asked.only or [""])]
        with EmbeddedBroker(folder / "broker") as broker:
            places = []
            for topic, count in (("short", SHORT), ("long", asked.records)):
                fill(broker.address, topic, count, asked.instances)
                # What is refused goes to a topic of its own, made once and not in a row's time.
                settings = Settings(_env_file=None, brokers=broker.address)
                topics.create(settings, ["ec2_metrics.rejected", f"{topic}.rejected"], 1)
                places.append(Place(broker.address, topic, count, folder))
            for number in range(1, asked.rounds + 1):
                if number > 1 and time.monotonic() - began > 60 * asked.minutes:
                    break
                try:
                    rounds.append({row.name: turn(row, *places) for row in chosen})
                except KeyboardInterrupt:
                    break
                took = time.monotonic() - began
                print(f"round {number} of {asked.rounds}, {took:.0f} s", file=sys.stderr)
                found = {
                    "machine": machine(),
                    "records": asked.records,
                    "instances": asked.instances,
                    "rounds": len(rounds),
                    "rows": medians(rounds),
                }
                if asked.json:
                    asked.json.write_text(json.dumps(found, indent=2) + "\n")
    if not rounds:
        raise SystemExit("error: no round was whole")
    where = found["machine"]
    print(
        f"{where['cpu']}, {where['cores']} cores, load {where['load']:.1f}, "
        f"Python {where['python']}; {asked.records:,} records of {asked.instances} instances, "
        f"{len(rounds)} rounds\n"
    )
    print(table(found["rows"], old))


if __name__ == "__main__":
    main()
