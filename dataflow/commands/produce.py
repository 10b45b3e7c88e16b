"""`python -m dataflow produce`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from dataflow import settings
from dataflow.commands import progress
from dataflow.demo import producer, sine
from dataflow.errors import UserError

__all__ = ["produce"]

SINE = Path("sine")
COUNT = 10_000
SEED = 42


def produce(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A .csv or .jsonl file of readings, or `sine`: a wave, made here."
        ),
    ],
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
    count: Annotated[
        int | None, typer.Option(min=1, help=f"Points of the sine wave; {COUNT} if not given.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help=f"Decides which points are raised; {SEED} if not given."),
    ] = None,
) -> None:
    """Write the readings of a file to the input topic, keyed by instance.

    `sine` writes `{"value": v, "time_step": i}`: a sine wave, 1% of its points raised by up to 5.
    It goes to the topic `raw-data`, unless ANOMALY_TOPIC names another.
    """
    options = settings.load()
    records: Iterator[tuple[str | None, bytes]]
    if file == SINE:
        if "topic" not in options.model_fields_set:
            options = settings.load(topic=sine.TOPIC)
        total = COUNT if count is None else count
        wave = sine.records(total, SEED if seed is None else seed)
        # They name no instance; one key keeps them together all the same.
        records = ((options.topic, point) for point in wave)
    else:
        if count is not None or seed is not None:
            raise UserError(f"--count and --seed are for `produce sine`: {file} has what it has.")
        records = producer.keyed_records(file, options)
        total = producer.count_records(file)
    if producer.prepare_topic(options, partitions):
        typer.echo(f"created {options.topic} with {partitions} partitions")
    held = producer.held_records(options)
    if if_empty and held:
        typer.echo(f"{options.topic} holds {held:,} records already: nothing written")
        return
    with progress.bar(f"to {options.topic}", total) as advance:
        sent = producer.send(options, records, rate, advance)
    typer.echo(f"wrote {sent:,} records to {options.topic} on {options.brokers}")
