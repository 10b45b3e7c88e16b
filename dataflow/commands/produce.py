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
from dataflow.formats.files import KINDS

__all__ = ["produce"]

SINE = Path("sine")
COUNT = 10_000
SEED = 42


def produce(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help=f"A file of records ({KINDS}), a line each, or `sine` for a generated wave.",
        ),
    ],
    partitions: Annotated[
        int, typer.Option(min=1, help="Partitions of the topic, if it does not exist.")
    ] = 3,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, help="Records a second. Default: as fast as possible."),
    ] = None,
    if_empty: Annotated[
        bool, typer.Option("--if-empty", help="Write nothing if the topic already has records.")
    ] = False,
    count: Annotated[
        int | None, typer.Option(min=1, help=f"Points of the sine wave. Default: {COUNT}.")
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help=f"Seed of the points that are raised. Default: {SEED}."),
    ] = None,
) -> None:
    """Write the readings of a file to the input topic, keyed by instance.

    `sine` writes `{"value": v, "time_step": i}`: a sine wave with 1% of its points raised by up to
    5. It goes to the topic `raw-data` unless ANOMALY_TOPIC is set.
    """
    options = settings.load()
    records: Iterator[tuple[str | None, bytes]]
    if file == SINE:
        if "topic" not in options.model_fields_set:
            options = settings.load(topic=sine.TOPIC)
        total = COUNT if count is None else count
        wave = sine.records(total, SEED if seed is None else seed)
        # The points name no instance; one key keeps them in one partition.
        records = ((options.topic, point) for point in wave)
    else:
        if count is not None or seed is not None:
            raise UserError(
                f"--count and --seed apply to `produce sine` only: remove them to write {file}."
            )
        records = producer.keyed_records(file, options)
        total = producer.count_records(file)
    if producer.prepare_topic(options, partitions):
        typer.echo(f"created {options.topic} with {partitions} partitions")
    stored = producer.stored_records(options)
    if if_empty and stored:
        typer.echo(f"{options.topic} holds {stored:,} records already: nothing is written")
        return
    with progress.bar(f"to {options.topic}", total) as advance:
        sent = producer.send(options, records, rate, advance)
    typer.echo(f"wrote {sent:,} records to {options.topic} on {options.brokers}")
