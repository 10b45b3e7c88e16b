"""`python -m dataflow plan`."""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

import typer

from dataflow.commands.tables import print_table
from dataflow.errors import UserError
from dataflow.settings import Settings

__all__ = ["COSTS", "MEASURED", "Costs", "Plan", "estimate", "plan", "store_files"]


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


def estimate(instances: int, interval: float, detector: str = "calibrated") -> Plan:
    """Plan for so many instances that each send a reading every `interval` seconds.

    A UserError if nothing was measured for the detector.

    >>> estimate(8, 300).processes
    1
    """
    costs = COSTS.get(detector)
    if costs is None:
        raise UserError(
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


def plan(
    instances: Annotated[int, typer.Option(min=1, max=1_000_000_000, help="Of the whole fleet.")],
    interval: Annotated[
        float, typer.Option(min=0.001, max=604_800, help="Seconds between two readings of one.")
    ] = 300,
    detector: Annotated[str, typer.Option(help=f"One of {', '.join(COSTS)}.")] = "calibrated",
    cores: Annotated[
        float | None, typer.Option(min=0.1, help="Cores that there are: refuse if they are few.")
    ] = None,
) -> None:
    """Tell what a fleet needs: partitions, processes, memory, disk, CPU, time to restart."""
    made = estimate(instances, interval, detector)
    rows = [
        ("partitions of the topic", str(made.partitions)),
        ("processes", f"{made.processes}, each with its partitions and a recovery store"),
        (
            "files of a store",
            f"{made.files}: python -m dataflow recovery DIR --partitions {made.files}",
        ),
        ("seconds between saves", f"{made.every}: -s {made.every}"),
        ("CPU", f"{_count(made.cores)} cores kept busy, by all processes together"),
        ("memory of a process", f"{_size(made.memory)}, at a clean end; less before"),
        ("disk of a store", _size(made.disk)),
        ("restart", f"{_count(made.restart)} s of CPU until the first score"),
        ("after a crash", f"{_count(made.behind)} s until it is up to date, with a core to itself"),
    ]
    if made.largest > Settings.model_fields["max_instances"].default:
        rows.append(("setting", f"ANOMALY_MAX_INSTANCES={_up(made.largest):.0f}"))
    readings = instances / interval
    typer.echo(
        f"{instances:,} instances, a reading each {interval:g} s, {detector}: "
        f"{_count(readings)} readings a second"
    )
    print_table(rows, left=2, indent=2)
    typer.echo(f"Estimates, from figures of: {MEASURED}.")
    if cores is not None and made.cores > cores:
        raise UserError(
            f"this takes {_count(made.cores)} cores and there are {cores:g}: more cores, a longer "
            "interval, or a cheaper detector."
        )


def _up(value: float) -> float:
    """Round up to two figures.

    >>> _up(0.1234), _up(1234.5)
    (0.13, 1300.0)
    """
    if value <= 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.2g}")


def _count(value: float) -> str:
    """Return a number of about two figures, for people.

    >>> _count(0.0267), _count(3333.3), _count(45.0)
    ('0.027', '3,400', '45')
    """
    up = _up(value)
    return f"{up:,.0f}" if up >= 10 else f"{up:g}"


def _size(size: float) -> str:
    """Return bytes for people, rounded up.

    >>> _size(131_000_000), _size(8_450_000_000)
    ('140 MB', '8.5 GB')
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit or name == "MB":
            break
    return f"{max(_up(size / unit), 1):g} {name}"
