"""`python -m dataflow topics`."""

from __future__ import annotations

from typing import Annotated

import typer

from dataflow import settings
from dataflow.kafka.access import DESCRIBE
from dataflow.kafka.topics import create, existing_partitions
from dataflow.settings import is_output_file

__all__ = ["topics"]


def topics(
    partitions: Annotated[
        int, typer.Option(min=1, help="Partitions of each topic that is created.")
    ] = 3,
) -> None:
    """Create the missing topics of the flow: input, anomalies, rejected, incidents, verdicts."""
    options = settings.load()
    names = ["topic", "anomalies_topic", "rejected_topic"]
    names += ["incidents_topic"] if options.incidents else []
    wanted = {getattr(options, name): f"{settings.PREFIX}{name.upper()}" for name in names}
    created = create(options, wanted, partitions)
    if options.verdicts and not is_output_file(options.verdicts):
        wanted[options.verdicts] = f"{settings.PREFIX}VERDICTS"
        # Of each id the last verdict counts, however old it is.
        created += create(options, [options.verdicts], 1, {"cleanup.policy": "compact"})
    for topic, setting in wanted.items():
        existing_partitions(options, topic, setting, [DESCRIBE])
    for topic in created:
        count = "1 partition" if topic == options.verdicts else f"{partitions} partitions"
        typer.echo(f"created {topic} with {count} on {options.brokers}")
    if not created:
        typer.echo(f"all topics exist on {options.brokers} already: nothing changed")
