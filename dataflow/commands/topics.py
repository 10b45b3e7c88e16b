"""`python -m dataflow topics`."""

from __future__ import annotations

from typing import Annotated

import typer

from dataflow import settings
from dataflow.kafka.topics import create

__all__ = ["topics"]


def topics(
    partitions: Annotated[
        int, typer.Option(min=1, help="Partitions of each topic that is created.")
    ] = 3,
) -> None:
    """Create the missing topics of the flow: input, anomalies, rejected, incidents."""
    options = settings.load()
    names = [options.topic, options.anomalies_topic, options.rejected_topic]
    names += [options.incidents_topic] if options.incidents else []
    created = create(options, names, partitions)
    for topic in created:
        typer.echo(f"created {topic} with {partitions} partitions on {options.brokers}")
    if not created:
        typer.echo(f"all topics exist on {options.brokers} already: nothing changed")
