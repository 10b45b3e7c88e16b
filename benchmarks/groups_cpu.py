"""What groups cost: CPU per record of a flow with incidents, with groups and without.

    python benchmarks/groups_cpu.py [--instances 2000] [--rounds 15] [--json FILE] [--quick]

Both flows run in turn, over the same readings of three partitions, which are made before; each
second round begins with groups. *Live* are epochs of 10 s, each with the readings that come in
them; *behind* are epochs with a reading of each instance. These two run in this process, without a
broker and a recovery store. *Process* is all that `python -m bytewax.run dataflow.flow` takes to
read a topic to its end, with a recovery store, less what it takes to start; a broker is started for
it. A ratio is the median of those of the rounds: what else runs on the machine disturbs one flow of
a round as the other.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import processes
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main

from dataflow import kafka
from dataflow.demo.broker import EmbeddedBroker
from dataflow.flow import build
from dataflow.kafka import topics
from dataflow.records import Raw
from dataflow.runtime import epochs
from dataflow.settings import Settings
from dataflow.steps import score

START = 1_709_251_200
INTERVAL = 300
EPOCH = 10
PARTITIONS = 3
MEMBERS = 40
TURNS = 20
"""Readings of each instance in a run."""

PROCESS_TURNS = 100
"""The same in a topic."""

LIMIT = 600.0

GROUPS = "^(g[0-9]+)-"
WITH = Settings(_env_file=None, incidents=True, group_pattern=GROUPS, silence=0)
WITHOUT = Settings(_env_file=None, incidents=True, silence=0)


def batches(instances: int, turns: int, batch: int) -> list[list[list[Raw]]]:
    """Return the records of each partition, in batches; `batch` is that of all partitions."""
    found: list[list[list[Raw]]] = []
    for partition in range(PARTITIONS):
        members = range(partition, instances, PARTITIONS)
        raw = [
            Raw(
                partition,
                turn * len(members) + place,
                b'{"index":%d,"timestamp":%d,"value":%d.%d,"instance":"g%02d-%02d"}'
                % (
                    *(turn, START + INTERVAL * turn + INTERVAL * number // instances),
                    *(20 + (number * 7 + turn * 3) % 11, (number + turn) % 10),
                    *divmod(number, MEMBERS),
                ),
            )
            for turn in range(turns)
            for place, number in enumerate(members)
        ]
        size = max(1, batch // PARTITIONS)
        found.append([raw[first : first + size] for first in range(0, len(raw), size)])
    return found


class Made(FixedPartitionedSource[Raw, int]):
    """Reads what was made; each batch is an epoch."""

    def __init__(self, made: list[list[list[Raw]]]) -> None:
        self._made = made

    def list_parts(self) -> list[str]:
        """Return the partitions."""
        return [str(partition) for partition in range(PARTITIONS)]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _MadePart:
        """Begin a partition."""
        return _MadePart(int(for_part), self._made[int(for_part)])


class _MadePart(StatefulSourcePartition[Raw, int]):
    def __init__(self, partition: int, made: list[list[Raw]]) -> None:
        self._partition = partition
        self._made = iter(made)
        self._next = 0

    def next_batch(self) -> list[Raw]:
        batch = next(self._made)
        self._next = batch[-1].offset + 1
        return batch

    def snapshot(self) -> int:
        epochs.end(self._partition, self._next)
        return self._next


class Nowhere(DynamicSink[Any]):
    """Drops what it gets."""

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _NowherePart:
        """Return the writer of a worker."""
        return _NowherePart()


class _NowherePart(StatelessSinkPartition[Any]):
    def write_batch(self, items: list[Any]) -> None:
        pass


def cost(options: Settings, made: list[list[list[Raw]]]) -> float:
    """Return the microseconds of CPU per record of one run."""
    outputs = {"write_anomalies": Nowhere(), "write_incidents": Nowhere()}
    flow = build(options, score.detector(options), None, source=Made(made), outputs=outputs)
    gc.collect()
    before = time.process_time()
    run_main(flow, epoch_interval=timedelta(0))  # type: ignore[no-untyped-call]
    taken = time.process_time() - before
    return taken / sum(len(batch) for part in made for batch in part) * 1e6


def fill(brokers: str, topic: str, instances: int, turns: int) -> int:
    """Create a topic and write the readings to it; return how many."""
    settings = Settings(_env_file=None, brokers=brokers)
    topics.create(settings, [topic], PARTITIONS)
    producer = kafka.producer(settings)
    made = [raw for part in batches(instances, turns, instances) for it in part for raw in it]
    for number, raw in enumerate(made):
        producer.produce(topic, raw.value, partition=raw.partition)
        if number % 20_000 == 0:
            producer.flush()
    if producer.flush(60):
        raise SystemExit(f"error: {brokers} did not take all records: check that it is up.")
    return len(made)


def cost_of_process(given: dict[str, str], pattern: str, folder: Path) -> float:
    """Return the CPU seconds of a process that reads a topic to its end."""
    store = folder / "store"
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir()
    environment = {
        **given,
        "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
        "ANOMALY_FOLLOW": "false",
        "ANOMALY_OUTPUT": "anomalies.jsonl",
        "ANOMALY_INCIDENTS": "true",
        "ANOMALY_SILENCE": "0",
        **({"ANOMALY_GROUP_PATTERN": pattern} if pattern else {}),
    }

    def run(*module: str) -> float:
        command = [sys.executable, "-m", *module]
        one = processes.Run(command, environment)
        return processes.measure(module[0], [one], folder, LIMIT).cpu

    run("bytewax.recovery", str(store), "1")
    return run("bytewax.run", "dataflow.flow", "-r", str(store), "-s", str(EPOCH), "-b", "0")


def measure_process(instances: int, turns: int, rounds: int) -> dict[str, float]:
    """Return the same as `measure` does, of the process."""
    with tempfile.TemporaryDirectory(prefix="groups-") as name:
        folder = Path(name)
        with EmbeddedBroker(folder / "broker") as broker:
            many, few = (
                ({"ANOMALY_BROKERS": broker.address, "ANOMALY_TOPIC": topic}, count)
                for topic, count in (
                    (topic, fill(broker.address, topic, instances, number))
                    for topic, number in (("many", turns), ("few", 1))
                )
            )

            def cost_of(pattern: str) -> float:
                read, start = (cost_of_process(one, pattern, folder) for one, _ in (many, few))
                return (read - start) / (many[1] - few[1]) * 1e6

            return compare(lambda: cost_of(""), lambda: cost_of(GROUPS), rounds)


def measure(instances: int, turns: int, batch: int, rounds: int) -> dict[str, float]:
    """Return the medians of the rounds, and of their ratios."""
    made = batches(instances, turns, batch)
    return compare(lambda: cost(WITHOUT, made), lambda: cost(WITH, made), rounds)


def compare(
    without: Callable[[], float], with_groups: Callable[[], float], rounds: int
) -> dict[str, float]:
    """Return the medians of the costs and of their ratios; the two take turns to be the first."""
    pairs: list[tuple[float, float]] = []
    for number in range(rounds):
        if number % 2 == 0:
            first = without()
            pairs.append((first, with_groups()))
        else:
            first = with_groups()
            pairs.append((without(), first))
    ratios = sorted(more / less for less, more in pairs)
    return {
        "without_us": statistics.median(less for less, _ in pairs),
        "with_us": statistics.median(more for _, more in pairs),
        "ratio": statistics.median(ratios),
        "quarter": ratios[len(ratios) // 4],
        "three_quarters": ratios[3 * len(ratios) // 4],
    }


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--instances", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="only check that it works")
    arguments = parser.parse_args()
    instances, turns, rounds = arguments.instances, TURNS, arguments.rounds
    process_turns = PROCESS_TURNS
    if arguments.quick:
        instances, turns, rounds, process_turns = 80, 3, 1, 3
    live = max(1, instances * EPOCH // INTERVAL)
    rows = {
        kind: measure(instances, turns, batch, rounds)
        for kind, batch in (("live", live), ("behind", instances))
    }
    rows["process"] = measure_process(instances, process_turns, rounds)
    print("| flow | without groups, µs | with groups, µs | ratio | half of the ratios |")
    print("| --- | --- | --- | --- | --- |")
    for kind, row in rows.items():
        print(
            f"| {kind} | {row['without_us']:.2f} | {row['with_us']:.2f} | {row['ratio']:.3f} | "
            f"{row['quarter']:.3f} to {row['three_quarters']:.3f} |"
        )
    machine = processes.machine()
    print(f"\n{processes.describe(machine)}; {instances:,} instances, {rounds} rounds")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
