"""What groups cost: CPU per record of a flow with incidents, with groups and without.

    python benchmarks/groups_cpu.py [--instances 2000] [--rounds 7] [--json FILE] [--quick]
    python benchmarks/groups_cpu.py --instructions

Runs with groups and without take turns, each a process of its own over the same readings, which it
generates, as in `instances.py`: its CPU time for that is subtracted. *Live* are epochs of 10 s,
each with the readings that come in them; *behind* is a flow that takes a reading of each instance
at a time. A ratio is the median of those of the rounds; each second one begins with groups.

`--instructions` counts the instructions of a record with valgrind, which takes minutes; what else
runs on the machine hardly changes them. Those that generate the readings are among them.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
from pathlib import Path
from typing import Any

import instances as fleet
import processes

WITHOUT = {"ANOMALY_INCIDENTS": "true"}
WITH = {**WITHOUT, "ANOMALY_GROUP_PATTERN": "^i-.{5}(..).$"}
"""Groups of 16: those whose names differ in the last digit."""

EPOCH = 10
TURNS = 60
"""Readings of each instance in a run."""

SHORT_AND_LONG = (2, 8)
"""The same where instructions are counted."""


def cost(settings: dict[str, str], instances: int, turns: int, batch: int, folder: Path) -> float:
    """Return the microseconds of CPU per record of one run."""
    records = instances * turns
    seen = fleet.run("calibrated", instances, records, batch, None, folder, settings=settings)
    return fleet.cost(seen, instances)


def measure(instances: int, turns: int, batch: int, rounds: int, folder: Path) -> dict[str, float]:
    """Return the medians of the rounds, and of their ratios."""
    pairs: list[tuple[float, float]] = []
    for number in range(rounds):
        order = (WITHOUT, WITH) if number % 2 == 0 else (WITH, WITHOUT)
        found = {id(one): cost(one, instances, turns, batch, folder) for one in order}
        pairs.append((found[id(WITHOUT)], found[id(WITH)]))
    return {
        "without_us": statistics.median(without for without, _ in pairs),
        "with_us": statistics.median(with_groups for _, with_groups in pairs),
        "ratio": statistics.median(with_groups / without for without, with_groups in pairs),
        "lowest": min(with_groups / without for without, with_groups in pairs),
        "highest": max(with_groups / without for without, with_groups in pairs),
    }


def instructions(settings: dict[str, str], instances: int, batch: int, folder: Path) -> float:
    """Return the instructions of a record: of a longer run less those of a shorter one."""
    counted = []
    for turns in SHORT_AND_LONG:
        log = folder / "valgrind"
        under = ("valgrind", "--tool=cachegrind", "--cache-sim=no", f"--log-file={log}")
        under += ("--cachegrind-out-file=/dev/null",)
        fleet.run(
            *("calibrated", instances, instances * turns, batch, None, folder),
            settings=settings,
            under=under,
        )
        found = re.search(r"I +refs: +([\d,]+)", log.read_text())
        assert found is not None
        counted.append(int(found[1].replace(",", "")))
    short, long = counted
    return (long - short) / instances / (SHORT_AND_LONG[1] - SHORT_AND_LONG[0])


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--instances", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--instructions", action="store_true", help="count them, with valgrind")
    parser.add_argument("--quick", action="store_true", help="only check that it works")
    arguments = parser.parse_args()
    instances, turns, rounds = arguments.instances, TURNS, arguments.rounds
    if arguments.quick:
        instances, turns, rounds = 64, 3, 1
    live = max(1, instances * EPOCH // fleet.INTERVAL)
    rows: dict[str, Any] = {}
    kinds = [("live", live), ("behind", instances)]
    with tempfile.TemporaryDirectory(prefix="groups-") as name:
        if arguments.instructions:
            for kind, batch in kinds:
                counts = [instructions(it, instances, batch, Path(name)) for it in (WITHOUT, WITH)]
                print(
                    f"{kind}: {counts[0]:,.0f} and {counts[1]:,.0f}, x {counts[1] / counts[0]:.3f}"
                )
            return
        for kind, batch in kinds[: 1 if arguments.quick else 2]:
            rows[kind] = measure(instances, turns, batch, rounds, Path(name))
    print("| flow | without groups, µs | with groups, µs | ratio | lowest | highest |")
    print("| --- | --- | --- | --- | --- | --- |")
    for kind, row in rows.items():
        print(
            f"| {kind} | {row['without_us']:.2f} | {row['with_us']:.2f} | {row['ratio']:.3f} | "
            f"{row['lowest']:.3f} | {row['highest']:.3f} |"
        )
    machine = processes.machine()
    print(f"\n{processes.describe(machine)}; {instances:,} instances, {rounds} rounds")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
