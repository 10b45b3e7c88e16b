"""`python -m dataflow topics`."""

from __future__ import annotations

from typing import Annotated

import typer

from dataflow import settings
from dataflow.kafka.access import DESCRIBE
from dataflow.kafka.topics import create, existing_partitions

__all__ = ["topics"]


def topics(
    partitions: Annotated[
        int, typer.Option(min=1, help="Partitions of each topic that is created.")
    ] = 3,
) -> None:
    """Create the missing topics of the flow: input, anomalies, rejected, incidents."""
    options = settings.load()
    names = ["topic", "anomalies_topic", "rejected_topic"]
    names += ["incidents_topic"] if options.incidents else []
    wanted = {getattr(options, name): f"{settings.PREFIX}{name.upper()}" for name in names}
    created = create(options, wanted, partitions)
    for topic, setting in wanted.items():
        existing_partitions(options, topic, setting, [DESCRIBE])
    for topic in created:
        typer.echo(f"created {topic} with {partitions} partitions on {options.brokers}")
    if not created:
        typer.echo(f"all topics exist on {options.brokers} already: nothing changed")
