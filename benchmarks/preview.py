"""What `python -m dataflow preview` costs: CPU seconds for 10 million readings, both runs together.

    python benchmarks/preview.py [--instances 1000] [--days 5] [--rounds 5] [--against DIR]
        [--only WORD] [--brokers HOST:PORT] [--json FILE] [--quick]

Instances have a daily rhythm, noise, and about one trouble each every four days; each sends a
reading every 300 s. The command reads them from a topic in 4 partitions, and from a file, with
other settings of four kinds: `incidents` (ANOMALY_SILENCE) leave anomalies as they are, `threshold`
leaves scores as they are, `interval` changes them, and a `limit` of instances may change what is
read, so that nothing is shared. `--only` takes the rows of this input, or of this kind. In each
round all rows run in turn, also with the package of another checkout (`--against`). The cost of a
start, that of the same command over a few readings, is subtracted. Figures are medians of the
rounds. Then one more run of the file in this process is sampled: which part of it takes how much
of the time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from processes import Run, describe, machine, measure

from dataflow import kafka
from dataflow.demo.broker import EmbeddedBroker
from dataflow.kafka import topics
from dataflow.rerun import options, run, stages
from dataflow.settings import Settings

CHANGES = {
    "incidents": "ANOMALY_SILENCE=6",
    "threshold": "ANOMALY_THRESHOLD=0.6",
    "interval": "ANOMALY_INTERVAL=240",
    "limit": "ANOMALY_MAX_INSTANCES=500000",
}
START = 1_709_251_200
STEPS_A_DAY = 288
PARTITIONS = 4
LIMIT = 1_800.0
FEW = 2
"""Steps of the input whose cost is that of a start."""

PARTS = {
    "sources": "read",
    "kafka": "read",
    "formats": "decode",
    "steps/decode": "decode",
    "steps/admit": "decode",
    "steps/exchange": "key_on, normalize",
    "steps/normalize": "key_on, normalize",
    "steps/filter": "filter, anomaly",
    "steps/anomaly": "filter, anomaly",
    "alerts/sentence": "filter, anomaly",
    "steps/score": "score",
    "alerts": "score",
    "detectors": "score",
    "runtime/stateful_map": "score",
    "steps/incidents": "incidents",
    "incidents": "incidents",
    "rerun": "collect",
    "runtime/serial": "steps in turn",
}


def fleet(instances: int, steps: int) -> Iterator[tuple[str, bytes]]:
    """Yield the readings of all instances in turn, each with its instance."""
    rng = random.Random(1)
    levels = [(rng.uniform(5, 40), rng.uniform(2, 20), rng.uniform(0, 1)) for _ in range(instances)]
    until = [0] * instances
    for step in range(steps):
        time = f"{datetime.fromtimestamp(START + 300 * step, UTC):%Y-%m-%d %H:%M:%S}"
        for number, (level, swing, phase) in enumerate(levels):
            value = level + swing * (1 + math.sin(math.tau * (step / STEPS_A_DAY + phase)))
            value += rng.gauss(0, 1.5)
            if rng.random() < 0.0008:
                until[number] = step + rng.choice((1, 1, 3, 12, 48))
            if step < until[number]:
                value = rng.uniform(70, 100)
            name = f"i-{number:06x}"
            one = {
                "index": str(step),
                "timestamp": time,
                "value": f"{min(max(value, 0), 100):.3f}",
                "instance": name,
            }
            yield name, json.dumps(one).encode()


def fill(brokers: str, topic: str, instances: int, steps: int) -> None:
    """Create a topic and write the readings to it."""
    settings = Settings(_env_file=None, brokers=brokers)
    topics.create(settings, [topic], PARTITIONS)
    producer = kafka.producer(settings, **{"linger.ms": 50})
    for number, (name, record) in enumerate(fleet(instances, steps)):
        producer.produce(topic, record, name, partition=number % instances % PARTITIONS)
        if number % 20_000 == 0:
            producer.flush()
    if producer.flush(60):
        raise SystemExit(f"error: {brokers} did not take all records: check that it is up.")


def cpu(package: Path, given: dict[str, str], change: str, folder: Path) -> float:
    """Return the CPU seconds of the command."""
    command = [sys.executable, "-m", "dataflow", "preview", "--set", change]
    environment = {**given, "PYTHONPATH": str(package)}
    return measure("preview", [Run(command, environment)], folder, LIMIT).cpu


def shares(given: dict[str, str], change: str) -> dict[str, float]:
    """Return which share of the time each part of a run takes, by a sample every few ms."""
    before, after = (options.load({**given, **more}) for more in ({}, options.of_pairs([change])))
    found: Counter[str] = Counter()
    over = threading.Event()
    watched = threading.get_ident()

    def sample() -> None:
        while not over.wait(0.003):
            frame: Any = sys._current_frames()[watched]
            while frame is not None:
                _, inside, path = frame.f_code.co_filename.partition(f"{os.sep}dataflow{os.sep}")
                part = next((PARTS[it] for it in _prefixes(path) if it in PARTS), None)
                if inside and part is not None:
                    found[part] += 1
                    break
                frame = frame.f_back

    threading.Thread(target=sample, daemon=True).start()
    run.together([before, after], run.held(before), stages.shared(before, after))
    over.set()
    return {name: count / found.total() for name, count in found.most_common()}


def _prefixes(path: str) -> list[str]:
    folder, _, rest = path.removesuffix(".py").replace(os.sep, "/").partition("/")
    return [f"{folder}/{rest}", folder]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--instances", type=int, default=1_000)
    parser.add_argument("--days", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", type=Path, help="another checkout, to compare with")
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help="these rows")
    parser.add_argument("--brokers", help="a running broker; without it, one is started")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--quick", action="store_true", help="few readings: does it work?")
    given = parser.parse_args()
    if given.quick:
        given.instances, given.days, given.rounds = 20, 0.05, 1
    packages = {"": Path(__file__).resolve().parent.parent}
    if given.against is not None:
        packages[" (the other checkout)"] = given.against.resolve()
    wanted = [
        (place, kind)
        for place in ("topic", "file")
        for kind in CHANGES
        if all(word in (place, kind) for word in given.only)
    ]
    with tempfile.TemporaryDirectory(prefix="preview-") as name, ExitStack() as stack:
        folder = Path(name)
        if given.brokers is None and "topic" in dict(wanted):
            given.brokers = stack.enter_context(EmbeddedBroker(folder / "broker")).address
        found = rows(given, wanted, packages, folder)
    if given.json is not None:
        given.json.write_text(json.dumps({"machine": machine(), **found}, indent=1) + "\n")
    print(describe(machine()))
    print(f"{given.instances:,} instances, {found['readings']:,} readings, {given.rounds} rounds\n")
    print("| input | differs | CPU s for 10 million readings, both runs | least |")
    print("| --- | --- | --- | --- |")
    for row, values in found["rows"].items():
        print(f"| {row} | {statistics.median(values):.0f} | {min(values):.0f} |")
    for row, parts in found["shares"].items():
        print(f"\n{row}: " + ", ".join(f"{part} {share:.0%}" for part, share in parts.items()))


def rows(
    given: argparse.Namespace,
    wanted: Sequence[tuple[str, str]],
    packages: dict[str, Path],
    folder: Path,
) -> dict[str, Any]:
    """Return the figures of the rows, and the shares."""
    instances, steps = given.instances, max(FEW + 1, round(given.days * STEPS_A_DAY))
    topic = f"bench-{time.time_ns():x}"
    names = [topic, f"{topic}-few"]
    for name, many in zip(names, (steps, FEW), strict=True):
        with (folder / f"{name}.jsonl").open("wb") as file:
            file.writelines(record + b"\n" for _, record in fleet(instances, many))
        if "topic" in dict(wanted):
            fill(given.brokers, name, instances, many)
    inputs = {
        "topic": [{"ANOMALY_BROKERS": given.brokers, "ANOMALY_TOPIC": name} for name in names],
        "file": [{"ANOMALY_INPUT": str(folder / f"{name}.jsonl")} for name in names],
    }
    found: dict[str, list[float]] = {}
    per = 1e7 / (instances * (steps - FEW))
    for _ in range(given.rounds):
        for place, kind in wanted:
            for label, package in packages.items():
                cost, start = (cpu(package, one, CHANGES[kind], folder) for one in inputs[place])
                found.setdefault(f"{place} | {kind}{label}", []).append((cost - start) * per)
    if "topic" in dict(wanted):
        topics.delete(Settings(_env_file=None, brokers=given.brokers), names)
    sampled = {
        f"file, {kind}": shares(inputs["file"][0], CHANGES[kind])
        for kind in dict.fromkeys(kind for _, kind in wanted)
        if kind != "limit"  # two processes
    }
    return {"readings": instances * steps, "rows": found, "shares": sampled}


if __name__ == "__main__":
    main()
