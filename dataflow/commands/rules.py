"""`python -m dataflow rules`: checks a file of rules, and shows which apply to an instance."""

from __future__ import annotations

from enum import StrEnum, auto
from pathlib import Path
from typing import Annotated

import typer

from dataflow.calendars import zones
from dataflow.errors import UserError
from dataflow.recovery.places import version_of
from dataflow.rules.document import DECIDE, Document, parse
from dataflow.rules.watch import read
from dataflow.settings import Settings, load
from dataflow.steps import score
from dataflow.steps.rules import limits

__all__ = ["rules"]


class Action(StrEnum):
    """What to do with the file."""

    check = auto()
    show = auto()


def rules(
    action: Annotated[
        Action,
        typer.Argument(
            help="`check` the file, or `show` what applies to an instance.", metavar="ACTION"
        ),
    ],
    file: Annotated[Path, typer.Argument(help="The file of rules, as in ANOMALY_RULES.")],
    instance: Annotated[str, typer.Argument(help="Name of the instance, for `show`.")] = "",
    metric: Annotated[
        str, typer.Option(help="Name of the metric; by default what is scored by default.")
    ] = "",
    label: Annotated[
        list[str], typer.Option(help="NAME=VALUE, a label of its readings; several times.")
    ] = [],  # noqa: B006  # typer copies it
) -> None:
    """Check a file of rules as the flow does, with its settings, or show which rules apply."""
    settings = load()
    document, version = _read(settings, file)
    if action is Action.check:
        count = len(document.rules)
        typer.echo(f"{file}: {count} rule{'' if count == 1 else 's'}, version {version or 'none'}")
        return
    if not instance:
        raise UserError("`rules show` needs the name of an instance behind the file.")
    labels = {}
    for pair in label:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            raise UserError(f"--label must be NAME=VALUE, such as service=shop, not {pair!r}.")
        labels[name] = value
    metric = metric or settings.default_metric
    group = settings.groups.of(instance, labels)
    named = document.matching(instance, metric, group, labels)
    applied = document.of(instance, metric, group, labels)
    inside = "" if group is None else f", in the group {group}"
    typer.echo(
        f"{instance}, {metric}{inside}: {', '.join(named) or 'no rule'} ({version or 'none'})"
    )
    for field in DECIDE:
        if field == "maintenance":
            for name in named:
                windows = document.rules[name].maintenance
                for window in (windows,) if isinstance(windows, str) else windows:
                    typer.echo(f"  maintenance  {window}  by {name}")
        elif field in applied.by:
            typer.echo(f"  {field:11}  {_shown(getattr(applied, field))}  by {applied.by[field]}")


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _read(settings: Settings, file: Path) -> tuple[Document, str]:
    """Return the rules of a file, and their version. Raises `UserError` if they cannot be used."""
    detector = score.detector(settings)
    try:
        content = read(file)
        document = parse(content, zones.parse(settings.time_zone), limits(settings, detector))
    except ValueError as error:
        raise UserError(f"the rules in {file} cannot be used: {error}.") from None
    return document, version_of(content)
