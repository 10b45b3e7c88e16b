"""`python -m dataflow plan`."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from dataflow import planning
from dataflow.refusal import Refusal
from dataflow.settings import Settings

__all__ = ["plan"]


def plan(
    instances: Annotated[int, typer.Option(min=1, max=1_000_000_000, help="Of the whole fleet.")],
    interval: Annotated[
        float, typer.Option(min=0.001, max=604_800, help="Seconds between two readings of one.")
    ] = 300,
    detector: Annotated[
        str, typer.Option(help=f"One of {', '.join(planning.COSTS)}.")
    ] = "calibrated",
    cores: Annotated[
        float | None, typer.Option(min=0.1, help="Cores that there are: refuse if they are few.")
    ] = None,
) -> None:
    """Tell what a fleet needs: partitions, processes, memory, disk, CPU, time to restart."""
    made = planning.plan(instances, interval, detector)
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
    for what, value in rows:
        typer.echo(f"  {what:<24}{value}")
    typer.echo(f"Estimates, from figures of: {planning.MEASURED}.")
    if cores is not None and made.cores > cores:
        raise Refusal(
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
