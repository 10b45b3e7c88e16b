"""`python -m dataflow produce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dataflow import producing, settings
from dataflow.commands import progress

__all__ = ["produce"]


def produce(
    file: Annotated[Path, typer.Argument(help="A .csv or .jsonl file of readings.")],
    partitions: Annotated[
        int, typer.Option(min=1, help="Partitions of the topic, if it must be created.")
    ] = 3,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, help="Records a second; as fast as it goes if not given."),
    ] = None,
    if_empty: Annotated[
        bool, typer.Option("--if-empty", help="Do nothing if the topic holds records already.")
    ] = False,
) -> None:
    """Write the readings of a file to the input topic, keyed by instance."""
    options = settings.load()
    records = producing.keyed_records(file, options)
    if producing.prepare_topic(options, partitions):
        typer.echo(f"created {options.topic} with {partitions} partitions")
    held = producing.held_records(options)
    if if_empty and held:
        typer.echo(f"{options.topic} holds {held:,} records already: nothing written")
        return
    with progress.bar(f"to {options.topic}", producing.count_records(file)) as advance:
        sent = producing.send(options, records, rate, advance)
    typer.echo(f"wrote {sent:,} records to {options.topic} on {options.brokers}")
