"""The time from the command to the first scored record.

    python benchmarks/start.py [--rounds 5] [--json FILE] [--quick]

Readings wait in a topic. The flow starts as its users start it, and follows the topic; at a
threshold that every score above 0 exceeds, it writes a line for each. The figure is the seconds by
the clock until the first line is in its output, as medians of rounds in which the rows take turns.
`calibrated` scores the first 200 readings of an instance 0, so it has taken hundreds by then. Each
flow is then stopped by SIGTERM, and must end with status 0.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from processes import Run, describe, machine, started
from rows import FLOW, Place, settings, with_store
from topic import filled

from dataflow.demo.broker import EmbeddedBroker

INSTANCES = 8
READINGS = 300
"""Readings of each instance: more than the 200 that `calibrated` scores 0."""

THRESHOLD = 1e-9
OUTPUT = "found.jsonl"
LIMIT = 120.0
"""Time limit of a flow, in seconds."""


class Row(NamedTuple):
    """A line of the table: its name, its detector, and the command that starts it in a folder."""

    name: str
    detector: str
    command: Callable[[Path], tuple[str, ...]]


ROWS = (
    Row("tutorial", "tutorial", lambda folder: FLOW),
    Row("calibrated", "calibrated", lambda folder: FLOW),
    Row("calibrated, with recovery", "calibrated", lambda folder: with_store(folder / "recovery")),
)


def seconds(row: Row, place: Place) -> float:
    """Return the seconds from the command to the first line of output."""
    more = {"follow": True, "output": OUTPUT, "threshold": THRESHOLD}
    run = Run(row.command(place.folder), settings(place, row.detector, **more))
    output = place.folder / OUTPUT
    began = time.monotonic()
    with started([run], place.folder, LIMIT) as (process,):
        while not (output.exists() and output.stat().st_size):
            if process.popen.poll() is not None:
                process.check(row.name)
                raise SystemExit(f"error: {row.name} ended without a line of output.")
            time.sleep(0.002)
        took = time.monotonic() - began
        process.popen.send_signal(signal.SIGTERM)
        process.popen.wait()
        process.check(row.name)
    return took


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="one round: does it work?")
    options = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("ANOMALY_")]:
        del os.environ[name]
    rounds = 1 if options.quick else options.rounds
    took: dict[str, list[float]] = {row.name: [] for row in ROWS}
    count = INSTANCES * READINGS
    with (
        tempfile.TemporaryDirectory() as name,
        EmbeddedBroker(Path(name)) as broker,
        filled(broker.address, count, INSTANCES) as topic,
    ):
        for row in ROWS * rounds:
            with tempfile.TemporaryDirectory() as own:
                place = Place(broker.address, topic, count, Path(own))
                took[row.name].append(seconds(row, place))
    found = {
        name: {"s": statistics.median(all_), "least_s": min(all_), "most_s": max(all_)}
        for name, all_ in took.items()
    }
    where = machine()
    if options.json:
        kept = {"machine": where, "rounds": rounds, "rows": found}
        options.json.write_text(json.dumps(kept, indent=2) + "\n")
    print(f"{describe(where)}; {rounds} rounds\n")
    print("| to the first record scored | s | least | most |\n| --- | --- | --- | --- |")
    for name, one in found.items():
        print(f"| {name} | {one['s']:.2f} | {one['least_s']:.2f} | {one['most_s']:.2f} |")


if __name__ == "__main__":
    main()
