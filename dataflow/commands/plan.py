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
"""When and where the figures below were measured."""


class Costs(NamedTuple):
    """The costs of a detector per instance or reading, in microseconds of CPU and in bytes."""

    reading: float
    """A reading through the flow, without a recovery store, in µs."""
    saving: float
    """Saving a state, once for each epoch in which its instance sent, in µs."""
    starting: float
    """Loading a state at a restart, in µs."""
    memory: int
    """An instance in memory, in bytes."""
    copied: int
    """A state that waits to be saved, in bytes; at a clean end every state waits."""
    stored: int
    """An instance on disk, with the space that SQLite keeps free, in bytes."""


COSTS = {
    "calibrated": Costs(11.0, 20.5, 28.5, 2_900, 2_600, 4_800),
    "tutorial": Costs(6.2, 11.0, 12.2, 770, 380, 280),
}

SLOWER = 1.4
"""Factor of CPU that the same work took on the same virtual machine on another day."""

FETCHING = 1.5
"""Microseconds of CPU that librdkafka takes for a record, with its own threads."""

IDLE = 0.04
"""Share of a core that a process takes with nothing to read from Apache Kafka."""

EPOCH = 1000.0
"""Microseconds of CPU that an epoch costs, whatever its content."""

BASE = 130_000_000
"""Bytes of a process without instances, including librdkafka's buffers."""

FILE_KEYS = 10_000
"""Instances per file of the store. While Bytewax loads from a file, it scans the whole file again
and again: ten times the instances in one file take a hundred times as long."""

BUSY = 0.5
"""Largest planned share of a core per process: the rest is for catching up."""

MARGIN = 1.25
"""Factor of reserve: partitions are not equally full, and a fleet grows."""

MOST_MEMORY = 8_000_000_000
MOST_RESTART = 60.0


class Plan(NamedTuple):
    """What a fleet needs, not rounded."""

    partitions: int
    processes: int
    files: int
    """Files of each recovery store."""
    every: int
    """Seconds between two saves."""
    cores: float
    """Cores that all processes together keep busy."""
    memory: float
    """Largest memory of a process in bytes: when it ends cleanly and saves every state."""
    disk: float
    """Bytes of each recovery store."""
    restart: float
    """Seconds of CPU from the command to the first score."""
    behind: float
    """Seconds from a crash until all readings that arrived meanwhile are scored."""
    largest: int
    """Most instances of one process."""


def store_files(instances: int) -> int:
    """Return the best number of files for a recovery store of this many instances.

    >>> store_files(1_000), store_files(1_000_000), store_files(50_000_000)
    (1, 100, 1024)
    """
    return max(1, min(1024, math.ceil(instances / FILE_KEYS)))


def estimate(instances: int, interval: float, detector: str = "calibrated") -> Plan:
    """Plan for this many instances that each send a reading every `interval` seconds.

    Raises `UserError` if nothing was measured for the detector.

    >>> estimate(8, 300).processes
    1
    """
    costs = COSTS.get(detector)
    if costs is None:
        raise UserError(
            f"The costs of the detector {detector!r} were not measured: plan with one of "
            f"{', '.join(COSTS)}."
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
    # Readings since the last save are read again, and those since the crash are read.
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
    instances: Annotated[
        int, typer.Option(min=1, max=1_000_000_000, help="Number of instances in the fleet.")
    ],
    interval: Annotated[
        float,
        typer.Option(min=0.001, max=604_800, help="Seconds between two readings of an instance."),
    ] = 300,
    detector: Annotated[str, typer.Option(help=f"One of {', '.join(COSTS)}.")] = "calibrated",
    cores: Annotated[
        float | None, typer.Option(min=0.1, help="Available cores: an error if they are too few.")
    ] = None,
) -> None:
    """Estimate what a fleet needs: partitions, processes, memory, disk, CPU, restart time."""
    need = estimate(instances, interval, detector)
    rows = [
        ("partitions of the topic", str(need.partitions)),
        ("processes", f"{need.processes}, each with its partitions and a recovery store"),
        (
            "files of a store",
            f"{need.files}: python -m dataflow recovery DIR --partitions {need.files}",
        ),
        ("seconds between saves", f"{need.every}: -s {need.every}"),
        ("CPU", f"{_count(need.cores)} cores kept busy, by all processes together"),
        ("memory of a process", f"{_size(need.memory)}, at a clean end; less before"),
        ("disk of a store", _size(need.disk)),
        ("restart", f"{_count(need.restart)} s of CPU until the first score"),
        ("after a crash", f"{_count(need.behind)} s until it is up to date, with a core to itself"),
    ]
    if need.largest > Settings.model_fields["max_instances"].default:
        rows.append(("setting", f"ANOMALY_MAX_INSTANCES={_up(need.largest):.0f}"))
    readings = instances / interval
    typer.echo(
        f"{instances:,} instances, a reading each {interval:g} s, {detector}: "
        f"{_count(readings)} readings a second"
    )
    print_table(rows, left=2, indent=2)
    typer.echo(f"Estimates, from measurements of {MEASURED}.")
    if cores is not None and need.cores > cores:
        raise UserError(
            f"The fleet takes {_count(need.cores)} cores, more than the {cores:g} available: use "
            "more cores, a longer interval, or a cheaper detector."
        )


def _up(value: float) -> float:
    """Round up to two significant digits.

    >>> _up(0.1234), _up(1234.5)
    (0.13, 1300.0)
    """
    if value <= 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.2g}")


def _count(value: float) -> str:
    """Return a number as text with two significant digits, rounded up.

    >>> _count(0.0267), _count(3333.3), _count(45.0)
    ('0.027', '3,400', '45')
    """
    up = _up(value)
    return f"{up:,.0f}" if up >= 10 else f"{up:g}"


def _size(size: float) -> str:
    """Return a number of bytes as text in MB or GB, rounded up.

    >>> _size(131_000_000), _size(8_450_000_000)
    ('140 MB', '8.5 GB')
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if size >= unit or name == "MB":
            break
    return f"{max(_up(size / unit), 1):g} {name}"
