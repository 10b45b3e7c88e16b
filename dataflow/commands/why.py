"""`python -m dataflow why`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from dataflow import settings
from dataflow.alerts.line import lasted
from dataflow.commands.tables import print_table
from dataflow.warnings import one_line

if TYPE_CHECKING:
    from dataflow.records import Incident
    from dataflow.rerun.why import Seen, Why

__all__ = ["why"]

MEANS = {
    "hour": "off the habit of this hour",
    "level": "off the level of the last day",
    "jump": "a jump since the reading before",
    "lately": "the readings of the last hours, more than this one",
    "range": "beyond all of the last weeks",
    "stuck": "unchanged for far longer than ever",
}
"""What the kinds of reasons say."""


def why(
    name: Annotated[
        str, typer.Argument(metavar="ID", help="The id of an anomaly, or of an incident.")
    ],
    readings: Annotated[
        int, typer.Option(min=0, help="Readings before the anomaly to print.")
    ] = 12,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how the score of an anomaly came about.

    Finds the anomaly where ANOMALY_OUTPUT has it written, reads the readings of its instance in the
    input again, scores them by the flow with the present settings, and prints the last ones, the
    reasons, whether it is an alert, and its incident. Nothing is written.
    """
    # What this imports takes a second, which `--help` need not wait for.
    from dataflow.rerun.why import explain, find

    options = settings.load()
    found = explain(options, find(options, name), readings)
    if as_json:
        typer.echo(msgspec.json.encode(found))
    else:
        _print(found)


def _print(found: Why) -> None:
    one = found.again or found.written
    typer.echo(one_line(f"{one.instance}  {one.timestamp}  score {found.score:.2f}"))
    if one.why:
        typer.echo(one_line(one.why))
    for note in found.notes:
        typer.echo(one_line(f"note: {note}."))
    typer.echo("")
    print_table(
        [_row(it) for it in found.readings], ["time", "value", "expected", "score", ""], left=1
    )
    typer.echo(f"{found.learned:,} readings of it come before in the input.")
    if one.reasons:
        typer.echo("\nWhat made the score:\n")
        print_table(
            [[it.kind, f"{100 * it.share:.0f}%", MEANS[it.kind]] for it in one.reasons],
            left=3,
            indent=2,
        )
    if one.metrics:
        typer.echo("\nIts metrics:\n")
        print_table(
            [
                [one_line(it.metric), f"{100 * it.share:.0f}%", f"{it.score:.2f}"]
                for it in one.metrics
            ],
            ["metric", "share", "score"],
            indent=2,
        )
    typer.echo("")
    if found.ordinary is not None:
        typer.echo(f"It would have been no anomaly at {found.ordinary}.")
    if found.decision is not None:
        typer.echo(f"It is {found.decision.sentence()}.")
    typer.echo(_incident(found.incident))


def _row(one: Seen) -> list[str]:
    at = "" if one.time is None else f"{datetime.fromtimestamp(one.time, UTC):%Y-%m-%d %H:%M:%S}"
    said = "alert" if one.alert else "anomaly" if one.anomaly else ""
    return [at, *one.said, f"{one.score:.2f}", said]


def _incident(one: Incident | None) -> str:
    if one is None:
        return "It belongs to no incident."
    over = "still open" if one.ended is None else f"{lasted(one.duration or 0.0)}, {one.ended}"
    opened = "" if one.opened_at is None else f", opened {one.opened_at:%Y-%m-%d %H:%M:%S}"
    return f"It belongs to the incident {one.id}{opened}: {over}."
