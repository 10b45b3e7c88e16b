"""What groups cost: CPU per record of a flow with incidents, with groups and without.

    python benchmarks/groups_cpu.py [--instances 2000] [--rounds 15] [--json FILE] [--quick]

Both flows run in this process, in turn, over the same readings of three partitions, which are made
before; each second round begins with groups. There is no broker and no recovery store. *Live* are
epochs of 10 s, each with the readings that come in them; *behind* are epochs with a reading of each
instance. A ratio is the median of those of the rounds: what else runs on the machine disturbs one
flow of a round as the other.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import processes
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main

from dataflow.flow import build
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

WITH = Settings(_env_file=None, incidents=True, group_pattern="^(g[0-9]+)-", silence=0)
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


def measure(instances: int, turns: int, batch: int, rounds: int) -> dict[str, float]:
    """Return the medians of the rounds, and of their ratios."""
    made = batches(instances, turns, batch)
    pairs: list[tuple[float, float]] = []
    for number in range(rounds):
        if number % 2 == 0:
            without = cost(WITHOUT, made)
            pairs.append((without, cost(WITH, made)))
        else:
            with_groups = cost(WITH, made)
            pairs.append((cost(WITHOUT, made), with_groups))
    ratios = sorted(with_groups / without for without, with_groups in pairs)
    return {
        "without_us": statistics.median(without for without, _ in pairs),
        "with_us": statistics.median(with_groups for _, with_groups in pairs),
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
    if arguments.quick:
        instances, turns, rounds = 80, 3, 1
    live = max(1, instances * EPOCH // INTERVAL)
    rows = {
        kind: measure(instances, turns, batch, rounds)
        for kind, batch in (("live", live), ("behind", instances))
    }
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
