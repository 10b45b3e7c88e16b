"""`python -m dataflow preview`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from dataflow.alerts.line import lasted
from dataflow.cloudwatch.plan import duration
from dataflow.commands.tables import print_table
from dataflow.commands.times import moment
from dataflow.errors import UserError
from dataflow.formats.files import KINDS
from dataflow.formats.metrics import CPU
from dataflow.records import ALL, Anomaly, Incident
from dataflow.warnings import one_line

if TYPE_CHECKING:
    from dataflow.rerun.changes import Change
    from dataflow.rerun.report import Report

__all__ = ["preview"]

WORST = 10
"""Instances that are printed."""

DIFFERENT = 1
FAILED = 2
"""Exit statuses with --check."""


def preview(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FILE]",
            help=f"A file of readings ({KINDS}). Default: what ANOMALY_INPUT names.",
        ),
    ] = None,
    changed: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting to try; may be repeated."),
    ] = None,
    env_file: Annotated[
        Path | None,
        typer.Option(help="A file of settings to try, one NAME=VALUE a line; --set wins over it."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="A file of settings to compare with. Default: those of the environment."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(help="Only incidents of the last days, hours or minutes, such as 14d or 12h."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", help="Only incidents that opened at this time (UTC) or later."),
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", help="Only incidents that opened before this time (UTC).")
    ] = None,
    alerts: Annotated[
        bool, typer.Option("--alerts", help="Print alerts that are gained and lost too.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="End with status 1 if an incident is gained, lost or changed, and with 2 on an "
            "error.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show which incidents other settings would gain, lose or change.

    Runs the flow over the whole topic, or file, with the settings of the environment and with
    those to try, and compares what comes of it: `+` is gained, `-` is lost, `~` has other times or
    another end. Nothing is written.
    """
    try:
        found = _report(file, changed or [], env_file, against, (since, start, end))
    except (UserError, ChildProcessError) as error:
        if isinstance(error, UserError):
            if not check:
                raise
            typer.echo(f"error: {error}", err=True)
        raise typer.Exit(FAILED if check else 1) from None
    if as_json:
        typer.echo(msgspec.json.encode(found))
    else:
        _print(found, alerts=alerts)
    if check and found.differs:
        raise typer.Exit(DIFFERENT)


def _report(
    file: Path | None,
    changed: list[str],
    env_file: Path | None,
    against: Path | None,
    times: tuple[str | None, str | None, str | None],
) -> Report:
    # What these import takes a second, which `--help` need not wait for.
    from dataflow.rerun import options, report, run

    if not changed and env_file is None and against is None:
        raise UserError(
            "there is nothing to try: give a setting such as --set ANOMALY_THRESHOLD=0.6, or "
            "--env-file."
        )
    since, start, end = times
    if since is not None and (start is not None or end is not None):
        raise UserError("--since and --from or --to are given: give one of them.")
    ago = None if since is None else _ago(since)
    moments = [moment(text, name) for text, name in ((start, "--from"), (end, "--to"))]
    old = {} if against is None else options.of_file(against)
    new = {} if env_file is None else options.of_file(env_file)
    new |= options.of_pairs(changed)
    given = {} if file is None else {"input": str(file)}
    before, after = options.load(old, **given), options.load(new, **given)
    options.refuse_other_input(before, after)
    for one in (before, after):
        if times != (None, None, None) and one.time_field is None:
            raise UserError("--since, --from and --to need readings with a time.")
    runs = run.in_processes([before, after], run.held(before))
    if not any(one.readings for one in runs):
        raise UserError(
            f"{before.source_name} holds no reading that can be scored: python -m dataflow inspect "
            "says what its records are."
        )
    window = report.window_of((runs[0], runs[1]), ago, *moments)
    return report.report((runs[0], runs[1]), window, options.differing(before, after))


def _ago(text: str) -> float:
    try:
        return duration(text).total_seconds()
    except ValueError as error:
        raise UserError(f"--since: {error}.") from None


def _print(found: Report, *, alerts: bool) -> None:
    from dataflow.rerun.report import time_of

    for one in found.changes():
        typer.echo(one_line(_line(one)))
    if alerts:
        for sign, alert in found.alerts():
            name, when = _name(alert), _moment_of(time_of(alert))
            said = f"{name}  alert, score {alert.score:.2f}  {alert.why}"
            typer.echo(one_line(f"{sign} {when}  {said}"))
    if found.differs or (alerts and found.alerts()):
        typer.echo("")
    tried = ", ".join(
        f"{name}={after} (before: {before})" for name, (before, after) in found.settings.items()
    )
    typer.echo(one_line(tried or "no setting differs"))
    span = "" if found.end is None else f", {_moment_of(found.start)} to {_moment_of(found.end)}"
    typer.echo(f"{found.readings:,} readings of {found.instances:,} instances{span}")
    typer.echo(
        f"{len(found.gained):,} incidents gained, {len(found.lost):,} lost, "
        f"{len(found.changed):,} changed\n"
    )
    sides = (found.before, found.after)
    rows = [
        ["incidents", *(f"{side.incidents:,}" for side in sides)],
        ["incidents a day", *(_rate(side.incidents_per_day) for side in sides)],
        ["alerts", *(f"{side.alerts:,}" for side in sides)],
        ["alerts a day", *(_rate(side.alerts_per_day) for side in sides)],
        ["anomalies, all times", *(f"{side.anomalies:,}" for side in sides)],
        ["rejected, all times", *(f"{side.rejected:,}" for side in sides)],
    ]
    print_table(rows, ["", "before", "after"])
    if found.worst:
        typer.echo("")
        print_table(
            [
                [one_line(one.instance), *(f"{count:,}" for count in (*one.incidents, *one.alerts))]
                for one in found.worst[:WORST]
            ],
            ["instance", "incidents", "after", "alerts", "after"],
        )


def _rate(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _line(change: Change) -> str:
    one = change.shown
    said = f"{change.sign} {_at(one.opened_at)}  {_name(one)}  "
    if change.before is not None and change.after is not None:
        return said + "; ".join(_differences(change.before, change.after))
    return said + "  ".join(filter(None, (_what(one), one.why)))


def _name(one: Incident | Anomaly) -> str:
    return one.instance if one.metric in (CPU, ALL) else f"{one.instance} {one.metric}"


def _what(one: Incident) -> str:
    parts = ["silent"] if one.kind == "silence" else []
    if one.spread is not None:
        parts.append(f"{one.spread.affected} of {one.spread.size} instances together")
    if one.folded:
        parts.append("in the incident of its group")
    over = f"{lasted(one.duration or 0.0)}, {one.ended}" if one.ended else "still open"
    parts.append(over)
    if one.score is not None:
        parts.append(f"score {one.score:.2f}")
    return ", ".join(parts)


def _differences(before: Incident, after: Incident) -> list[str]:
    found = []
    if before.kind == "silence":
        found.append("silent")
    for name, value in (("since", "since"), ("opened", "opened_at"), ("resolved", "resolved_at")):
        was, now = getattr(before, value), getattr(after, value)
        if was != now and not (name == "since" and _at_once(before) and _at_once(after)):
            found.append(f"{name} {_at(now) or 'not yet'}, before {_at(was) or 'not yet'}")
    if before.ended != after.ended:
        found.append(f"{after.ended or 'still open'}, before {before.ended or 'still open'}")
    if before.folded != after.folded:
        found.append(f"{'in' if after.folded else 'no longer in'} the incident of its group")
    if before.spread is not None and after.spread is not None and before.spread != after.spread:
        found.append(f"{after.spread.affected} instances, before {before.spread.affected}")
    return found


def _at_once(one: Incident) -> bool:
    return one.opened_at == one.since


def _at(time: datetime | None) -> str:
    return "" if time is None else f"{time:%Y-%m-%d %H:%M:%S}"


def _moment_of(time: float | None) -> str:
    return "" if time is None else _at(datetime.fromtimestamp(time, UTC))
