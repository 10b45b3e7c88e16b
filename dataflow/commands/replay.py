"""`python -m dataflow replay`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dataflow import settings
from dataflow.errors import UserError
from dataflow.records import seconds
from dataflow.replay import plan, transfer
from dataflow.steps import decode

__all__ = ["replay"]


def replay(
    file: Annotated[
        Path | None,
        typer.Argument(help="A .rejected.jsonl file; the rejected topic if not given."),
    ] = None,
    from_file: Annotated[
        Path | None,
        typer.Option(
            help="A file of rejected records, one a line, to each of which you have added the "
            "field 'mended': the object to send in place of 'raw'."
        ),
    ] = None,
    reason: Annotated[
        list[str] | None, typer.Option(help="Only records refused for it; may be repeated.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Only records refused at this time (UTC) or later.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Only records refused before this time (UTC).")
    ] = None,
    even_if_refused: Annotated[
        bool, typer.Option("--even-if-refused", help="Also send what would be refused again.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Really write; without it, only tell what would be.")
    ] = False,
) -> None:
    """Write refused records back to the input topic, keyed by instance, each once.

    Decodes them with the present settings first. A record that was sent is marked in the rejected
    topic and is not sent again; one that is refused again is a new record there. To mend records,
    save them from the topic to a file, one a line, and give it with --from-file.
    """
    options = settings.load()
    moments = [_moment(text, name) for text, name in ((since, "--since"), (until, "--until"))]
    if file is not None and from_file is not None:
        raise UserError("give either a file of rejected records or --from-file, not both.")
    path = file or from_file
    if path is not None and moments != [None, None]:
        raise UserError(
            f"{path} does not say when its records were refused: leave out --since/--until."
        )
    transfer.check_topics(options, from_topic=path is None, write=yes)
    sender = transfer.Sender(options) if yes else None
    items = plan.plan(
        plan.choose(_found(options, file, from_file), frozenset(reason or ()), *moments),
        transfer.read_marks(options),
        decode.decoder(options),
        decode.key_reader(options),
        options.topic,
        even_if_refused=even_if_refused,
    )
    summary = plan.Summary()
    for item in items:
        summary.add(item)
        if sender is not None and item.fate == plan.SEND:
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
        typer.echo("nothing was written, and there is nothing to write")


def _found(
    options: settings.Settings, file: Path | None, from_file: Path | None
) -> Iterator[plan.Found]:
    if from_file is not None:
        return transfer.read_file(from_file, mended=True)
    if file is not None:
        return transfer.read_file(file, mended=False)
    return transfer.read_topic(options)


def _moment(text: str | None, option: str) -> float | None:
    if text is None:
        return None
    try:
        return seconds(text)
    except (ValueError, OverflowError):
        raise UserError(
            f"{option} {text!r} is no time: give one such as 2024-03-01T12:00."
        ) from None


def _print(summary: plan.Summary) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    table = Table(box=None, pad_edge=False)
    table.add_column("reason", no_wrap=True)
    table.add_column("fate", no_wrap=True)
    table.add_column("records", justify="right", no_wrap=True)
    table.add_column("for example", overflow="fold")
    for reason, fate, count, example in summary.rows():
        # Not as markup: it may hold what a stranger wrote.
        table.add_row(Text(reason), fate, f"{count:,}", Text(example))
    if table.row_count:
        console.print(table)
