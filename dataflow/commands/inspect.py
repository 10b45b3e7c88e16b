"""`python -m dataflow inspect`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Annotated

import msgspec
import typer

from dataflow import settings
from dataflow.commands.tables import print_table
from dataflow.formats.files import KINDS, is_file
from dataflow.inspection import sample
from dataflow.inspection.report import Found, Report
from dataflow.inspection.report import inspect as look
from dataflow.warnings import one_line

__all__ = ["inspect"]

SHOWN = 5
"""Readings that are printed."""

NAMED = 20
"""Metrics that are not selected that are printed."""


def inspect(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help=f"A file of records ({KINDS}), or any other file that is one record. Default: "
            "the topic in ANOMALY_TOPIC.",
        ),
    ] = None,
    records: Annotated[int, typer.Option(min=1, help="Records to look at.")] = 500,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what the records of a topic or a file are, and which settings read them.

    Reads some records, prints the settings to copy and some readings, and warns of what would give
    wrong results. Nothing is written.
    """
    options = settings.load()
    if file is None:
        raws = sample.of_topic(options, records)
        where = f"the topic {options.topic}"
    else:
        options = settings.load(input=str(file)) if is_file(file.name) else options
        raws = sample.of_file(file, records)
        where = str(file)
    report = look(options, raws)
    if as_json:
        typer.echo(msgspec.json.encode(report))
    else:
        _print(report, len(raws), where)


def _print(report: Report, count: int, where: str) -> None:
    readings = len(report.readings)
    if report.format is None:
        typer.echo(f"{count:,} records of {where}: nothing is known that looks like them.")
    else:
        typer.echo(
            f"{count:,} records of {where}: {report.format}, {readings:,} readings of "
            f"{len({one.instance for one in report.readings}):,} instances, {report.skipped:,} of "
            f"other metrics skipped, {sum(report.refused.values()):,} rejected."
        )
    for reason, number in report.refused.items():
        typer.echo(f"rejected ({one_line(reason)}): {number:,}")
    if report.others:
        names = list(report.others)
        more = "" if len(names) <= NAMED else f" and {len(names) - NAMED:,} more"
        typer.echo(f"not in ANOMALY_METRICS: {one_line(', '.join(names[:NAMED]))}{more}.")
    if report.settings:
        typer.echo("\nSettings:\n")
        for name, value in report.settings.items():
            typer.echo(f"{name}={quote(one_line(value))}")
    if readings:
        typer.echo("")
        rows = [_row(one) for one in report.readings[:SHOWN]]
        print_table(rows, ["instance", "metric", "time", "value"], left=3)
    for line in report.warnings:
        typer.echo(f"\nwarning: {one_line(line)}", err=True)


def _row(one: Found) -> list[str]:
    time = "" if one.time is None else datetime.fromtimestamp(one.time, UTC).isoformat()
    return [
        one_line(one.instance),
        one_line(one.metric),
        time.replace("+00:00", "Z"),
        f"{one.value:g}",
    ]
