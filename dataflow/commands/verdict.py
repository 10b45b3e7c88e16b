"""`python -m dataflow verdict`."""

from __future__ import annotations

import getpass
import re
import sys
import time
from datetime import UTC, datetime
from typing import Annotated, Literal, cast

import typer

from dataflow import settings
from dataflow.alerts.sentence import PERCENT
from dataflow.commands.tables import print_table
from dataflow.errors import UserError
from dataflow.records import Anomaly, seconds
from dataflow.steps import calendars
from dataflow.verdicts import store
from dataflow.verdicts.effect import DAYS, Proposal, propose
from dataflow.verdicts.pattern import Pattern
from dataflow.verdicts.record import Feedback
from dataflow.warnings import one_line

__all__ = ["verdict"]

SHOWN = 20
"""Episodes that are listed at most."""

_UNITS = {"h": 3600, "d": 86_400, "w": 7 * 86_400}


def verdict(
    name: Annotated[
        str,
        typer.Argument(metavar="ID", help="Id of an anomaly or an incident; `list`: of none."),
    ],
    said: Annotated[
        str | None,
        typer.Argument(
            metavar="VERDICT",
            help="`fine`: it was none, keep its pattern quiet; `real`: it was one; `undo`: take "
            "back what was said.",
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN", help="Keep it quiet for `12h`, `30d`, `8w`, or until a time (UTC)."
        ),
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Who says so. Default: the name of this user.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Write. Without it, a terminal asks, and a pipe does not.")
    ] = False,
) -> None:
    """Say that an anomaly was fine, and keep the same pattern of its instance quiet.

    Shows first what that would have kept quiet in the last 14 days of anomalies. `verdict list`
    shows the verdicts in force. The flow reads them from ANOMALY_VERDICTS.
    """
    options = settings.load()
    if name == "list" and said is None:
        _list(options)
        return
    if said not in ("fine", "real", "undo"):
        raise UserError(
            f"{said!r} is no verdict: give `fine`, `real` or `undo` after the id."
            if said
            else "a verdict is missing: give `fine`, `real` or `undo` after the id."
        )
    ends = None if until is None else _moment(until)
    if ends is not None and said != "fine":
        raise UserError(f"--until belongs to `fine`: leave it out for `{said}`.")
    store.prove(options)
    feedback = Feedback(
        id=name,
        verdict=cast("Literal['fine', 'real', 'undo']", said),
        until=ends,
        by=_user() if by is None else by,
        at=datetime.now(UTC).replace(microsecond=0),
    )
    if said == "fine":
        feedback = _fine(options, feedback)
    else:
        known = any(one.id == name for one in store.in_force(options).all())
        if said == "undo" and not known:
            raise UserError(
                f"no verdict on {name} is in force: `python -m dataflow verdict list` shows them."
            )
    _write(options, feedback, yes)


def _fine(options: settings.Settings, feedback: Feedback) -> Feedback:
    """Return the whole record, and print what it would have kept quiet."""
    name = feedback.id
    try:
        found = propose(
            store.anomalies_of(options, name), name, options.interval, calendars.of(options)
        )
    except ValueError as error:
        raise UserError(f"{error}") from None
    _print(found)
    return Feedback(
        id=name,
        verdict="fine",
        until=feedback.until,
        by=feedback.by,
        at=feedback.at,
        why=found.alert.why,
        pattern=found.pattern,
    )


def _print(proposal: Proposal) -> None:
    episode, alert, pattern, found, lasts = proposal
    typer.echo(f"{pattern.instance}, {alert.timestamp}: {alert.why}")
    typer.echo(
        f"{len(episode):,} anomalies, {_hour(pattern.since)} to {_hour(pattern.until)} UTC, "
        f"{_size(pattern, alert)} {'above' if pattern.direction == 'high' else 'below'} what was "
        "expected"
    )
    if lasts:
        typer.echo("Nothing came after it: if it still lasts, say this again when it is over.")
    typer.echo(
        f"In the last {DAYS} days of {pattern.instance}, this would have kept quiet "
        f"{found.quieted:,} of {found.alerts:,} alerts and {found.quiet:,} of "
        f"{found.anomalies:,} anomalies."
    )
    if not found.lost:
        typer.echo("All of them are of this episode.")
        return
    typer.echo(f"Besides this episode, it touches {len(found.lost):,}:")
    rows = [
        [
            f"{loss.first.timestamp}",
            f"{loss.quieted} of {loss.alerts}",
            f"{loss.quiet} of {loss.anomalies}",
            loss.first.id,
            loss.first.why,
        ]
        for loss in found.lost[-SHOWN:]
    ]
    print_table(rows, ["time", "alerts", "anomalies", "id", "why"], left=5, indent=2)
    if len(found.lost) > SHOWN:
        typer.echo(f"  and {len(found.lost) - SHOWN:,} earlier ones")


def _size(pattern: Pattern, alert: Anomaly) -> str:
    """Return the size as people know the metric."""
    if alert.unit == "%" and alert.raw is not None:
        return f"{PERCENT * pattern.size:.1f} points"
    return f"{pattern.size:.4g}{'' if alert.unit in (None, '1') else f' {alert.unit}'}"


def _hour(moment: datetime) -> str:
    return f"{moment:%H:%M}"


def _write(options: settings.Settings, feedback: Feedback, yes: bool) -> None:
    where = store.place(options)
    if not yes:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            typer.echo(f"nothing was written: --yes writes it to {where}")
            return
        if not typer.confirm(f"Write it to {where}?"):
            typer.echo("nothing was written")
            return
    store.write(options, feedback)
    typer.echo(f"wrote {feedback.verdict} for {feedback.id} to {where}")


def _list(options: settings.Settings) -> None:
    kept = store.in_force(options)
    rows = []
    for one in kept.all():
        pattern = one.pattern
        assert pattern is not None
        rows.append(
            [
                one.id,
                pattern.instance,
                pattern.metric,
                f"{_hour(pattern.since)} to {_hour(pattern.until)} UTC",
                "always" if one.until is None else f"until {one.until:%Y-%m-%d %H:%M}",
                one_line(one.by or ""),
                one_line(one.comment or ""),
                one.why,
            ]
        )
    if rows:
        print_table(
            rows, ["id", "instance", "metric", "time", "ends", "by", "comment", "why"], left=8
        )
    else:
        typer.echo(f"no verdict is in force in {store.place(options)}")
    if kept.refused:
        typer.echo(f"{kept.refused:,} records are no verdicts; the last one: {kept.reason}")


def _moment(text: str) -> datetime:
    ahead = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", text.strip())
    try:
        moment = time.time() + float(ahead[1]) * _UNITS[ahead[2]] if ahead else seconds(text)
        return datetime.fromtimestamp(moment, UTC).replace(microsecond=0)
    except (ValueError, OverflowError, OSError):
        raise UserError(
            f"--until {text} is not a time: use `12h`, `30d`, `8w`, or 2026-03-14T16:00."
        ) from None


def _user() -> str | None:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return None  # a container's user may have no name
