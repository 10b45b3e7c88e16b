"""The detector `calibrated` alone, over generated readings: no broker, no flow.

    python benchmarks/from_memory.py RECORDS

A row of `throughput.py`, once and twice at a time: the most that a machine can gain from a second
process that shares nothing with the first.
"""

from __future__ import annotations

import random
import sys
from typing import Any

from dataflow.detectors import make

__all__ = ["score"]

INSTANCES = 100
INTERVAL = 300


def score(records: int) -> None:
    """Score this many readings of instances in turn."""
    update = make("calibrated", interval=INTERVAL).update
    rng = random.Random(1)
    values = [rng.uniform(0, 1) for _ in range(997)]
    states: list[Any] = [None] * INSTANCES
    for number in range(records):
        index, instance = divmod(number, INSTANCES)
        value = values[number % len(values)]
        states[instance], _ = update(states[instance], value, float(INTERVAL * index))


if __name__ == "__main__":
    score(int(sys.argv[1]))
