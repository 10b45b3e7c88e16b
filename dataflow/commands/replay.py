"""`python -m dataflow replay`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dataflow import settings
from dataflow.commands.times import moment
from dataflow.errors import UserError
from dataflow.replay import plan, transfer
from dataflow.steps import decode

__all__ = ["replay"]

SAMPLE = 100
"""Rejected records by which the format `auto` is chosen."""


def replay(
    file: Annotated[
        Path | None,
        typer.Argument(help="A .rejected.jsonl file. Default: the rejected topic."),
    ] = None,
    from_file: Annotated[
        Path | None,
        typer.Option(
            help="A file of rejected records, one per line, each with a field 'corrected' that "
            "you added: the object to send in place of 'raw'."
        ),
    ] = None,
    reason: Annotated[
        list[str] | None, typer.Option(help="Only records with this reason; may be repeated.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Only records rejected at this time (UTC) or later.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Only records rejected before this time (UTC).")
    ] = None,
    even_if_refused: Annotated[
        bool,
        typer.Option("--even-if-refused", help="Also send records that would be rejected again."),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Write. Without it, only show what would be written.")
    ] = False,
) -> None:
    """Write rejected records back to the input topic, keyed by instance, each once.

    Decodes them with the present settings first. A record that was sent gets a mark in the rejected
    topic and is not sent again; if it is rejected again, that is a new record. To correct records,
    save them from the rejected topic to a file, one per line, and give it with --from-file.
    """
    options = settings.load()
    moments = [moment(text, name) for text, name in ((since, "--since"), (until, "--until"))]
    if file is not None and from_file is not None:
        raise UserError("a file of rejected records and --from-file are given: give one, not both.")
    path = file or from_file
    if path is not None and moments != [None, None]:
        raise UserError(
            f"{path} does not say when its records were rejected: omit --since and --until."
        )
    transfer.check_topics(options, from_topic=path is None, write=yes)
    sender = transfer.Sender(options) if yes else None
    candidates = _found(options, file, from_file)
    sample = list(islice(candidates, SAMPLE))
    values = [plan.bytes_of(one.rejected)[0] for one in sample]
    if options.format == "auto" and (choice := decode.choice(options, values, sure=True)):
        options = decode.chosen(options, choice)
    items = plan.plan(
        plan.choose(chain(sample, candidates), frozenset(reason or ()), *moments),
        transfer.read_marks(options),
        decode.decoder(options),
        decode.key_reader(options),
        options.topic,
        even_if_rejected=even_if_refused,
    )
    summary = plan.Summary()
    for item in items:
        summary.add(item)
        if sender is not None and item.outcome == plan.SEND:
            sender.send(item)
    if sender is not None:
        sender.commit()
    _print(summary)
    total = summary.total(plan.SEND)
    if sender is not None:
        typer.echo(f"wrote {sender.sent:,} records to {options.topic} on {options.brokers}")
    elif total:
        typer.echo(f"nothing was written: --yes writes {total:,} records to {options.topic}")
    else:
        typer.echo("nothing was written: there is nothing to write")


def _found(
    options: settings.Settings, file: Path | None, from_file: Path | None
) -> Iterator[plan.Candidate]:
    if from_file is not None:
        return transfer.read_file(from_file, corrected=True)
    if file is not None:
        return transfer.read_file(file, corrected=False)
    return transfer.read_topic(options)


def _print(summary: plan.Summary) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    table = Table(box=None, pad_edge=False)
    table.add_column("reason", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    table.add_column("records", justify="right", no_wrap=True)
    table.add_column("example", overflow="fold")
    for reason, outcome, count, example in summary.rows():
        # Not as markup: the text comes from the topic.
        table.add_row(Text(reason), outcome, f"{count:,}", Text(example))
    if table.row_count:
        console.print(table)
