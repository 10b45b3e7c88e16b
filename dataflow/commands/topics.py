"""`python -m dataflow topics`."""

from __future__ import annotations

from typing import Annotated

import typer

from dataflow import settings
from dataflow.kafka.topics import create

__all__ = ["topics"]


def topics(
    partitions: Annotated[
        int, typer.Option(min=1, help="Partitions of the input and of the anomalies topic.")
    ] = 3,
) -> None:
    """Create the topics of the flow that are not there: input, anomalies, rejected, incidents."""
    options = settings.load()
    names = [options.topic, options.anomalies_topic, options.rejected_topic]
    names += [options.incidents_topic] if options.incidents else []
    made = create(options, names, partitions)
    for topic in made:
        typer.echo(f"created {topic} with {partitions} partitions on {options.brokers}")
    if not made:
        typer.echo(f"all topics are on {options.brokers} already")
