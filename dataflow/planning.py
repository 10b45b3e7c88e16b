"""What a fleet needs: partitions, processes, memory, disk, CPU, and how long a restart takes.

All from figures that `benchmarks/instances.py` measured, kept here and nowhere else.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from dataflow.refusal import Refusal

__all__ = ["COSTS", "MEASURED", "Costs", "Plan", "plan", "store_files"]

MEASURED = "November 2026, AMD EPYC, Python 3.11, Bytewax 0.21.1, calibrated compiled"
"""When and where the figures below were taken."""


class Costs(NamedTuple):
    """What a detector costs, of an instance or a reading: microseconds of CPU, and bytes."""

    reading: float
    """A reading through the flow, without a recovery store."""
    saving: float
    """A state into the recovery store, once for each epoch in which its instance sent."""
    starting: float
    """A state out of the store, at a restart."""
    memory: int
    """An instance, in memory."""
    copied: int
    """A state as it waits to be saved; at a clean end, that of every instance does."""
    stored: int
    """An instance on the disk, with the room that SQLite keeps free."""


COSTS = {
    "calibrated": Costs(11.0, 20.5, 28.5, 2_900, 2_600, 4_800),
    "tutorial": Costs(6.2, 11.0, 12.2, 770, 380, 280),
}

SLOWER = 1.4
"""Times the CPU that the same work took of the same machine, a virtual one, on another day."""

FETCHING = 1.5
"""Microseconds of CPU that librdkafka takes for a record, with its own threads."""

IDLE = 0.04
"""Of a core, for a process that has nothing to read from Apache Kafka."""

EPOCH = 1000.0
"""Microseconds of CPU that an epoch costs, whatever is in it."""

BASE = 130_000_000
"""Bytes of a process without instances, librdkafka's buffers among them."""

FILE_KEYS = 10_000
"""Instances to a file of the store: Bytewax looks through a whole file again and again as it loads
from it, so that ten times the instances in one file take a hundred times as long."""

BUSY = 0.5
"""Of a core, the most that a process is planned to take: the rest is for catching up."""

MARGIN = 1.25
"""Partitions are not equally full, and a fleet grows."""

MOST_MEMORY = 8_000_000_000
MOST_RESTART = 60.0


class Plan(NamedTuple):
    """What a fleet needs. Not rounded."""

    partitions: int
    processes: int
    files: int
    """Of each recovery store."""
    every: int
    """Seconds between two saves."""
    cores: float
    """Cores that all processes keep busy."""
    memory: float
    """Bytes of each process, at the most: when it ends cleanly and saves all."""
    disk: float
    """Bytes of each store."""
    restart: float
    """Seconds of CPU from the command to the first score."""
    behind: float
    """Seconds from a crash until all readings are scored that came meanwhile."""
    largest: int
    """Instances of a process, at the most."""


def store_files(instances: int) -> int:
    """Return how many files a recovery store of so many instances is best made of.

    >>> store_files(1_000), store_files(1_000_000), store_files(50_000_000)
    (1, 100, 1024)
    """
    return max(1, min(1024, math.ceil(instances / FILE_KEYS)))


def plan(instances: int, interval: float, detector: str = "calibrated") -> Plan:
    """Plan for so many instances that each send a reading every `interval` seconds.

    A Refusal if nothing was measured for the detector.

    >>> plan(8, 300).processes
    1
    """
    costs = COSTS.get(detector)
    if costs is None:
        raise Refusal(
            f"no figures for the detector {detector}: there are some for {', '.join(COSTS)}."
        )
    every = 10 if instances <= FILE_KEYS else 60
    readings = instances / interval
    saves = instances / max(interval, every)
    busy = SLOWER * (readings * (costs.reading + FETCHING) + saves * costs.saving) / 1e6
    starting = SLOWER * costs.starting / 1e6
    grown = instances * MARGIN
    processes = max(
        1,
        math.ceil(busy / BUSY),
        math.ceil(grown * (costs.memory + costs.copied) / (MOST_MEMORY - BASE)),
        math.ceil(instances * starting / MOST_RESTART),
    )
    largest = math.ceil(grown / processes)
    cores = busy + processes * (IDLE + EPOCH / every / 1e6)
    restart = 2 + instances / processes * starting
    share = busy / processes
    # What came since the last save is read again, with what came since the crash.
    waiting = share * (every + restart)
    return Plan(
        partitions=max(3, 4 * processes),
        processes=processes,
        files=store_files(largest),
        every=every,
        cores=cores,
        memory=BASE + largest * (costs.memory + costs.copied),
        disk=largest * costs.stored,
        restart=restart,
        behind=restart + waiting / (1 - share),
        largest=largest,
    )
