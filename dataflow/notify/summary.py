"""An incident in one sentence, and how urgent it is."""

from __future__ import annotations

import unicodedata
from datetime import datetime

from dataflow.records import ALL, Incident, Severity, Spread

__all__ = ["severity", "summary", "visible"]

SEVERE = 0.8
"""An anomaly is critical from this score on, which is four times the default threshold's odds."""

LONG = 3600.0
"""Or if it lasts for as many seconds."""

LONGEST_NAME = 256
"""Characters of an instance's name at most."""

INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories of characters that break a line, turn its direction, or cannot be seen."""

JOINER = "\u200d"
"""Invisible, but emoji are made with it."""


def severity(incident: Incident) -> Severity:
    """Return how urgent an incident is, as its latest record says.

    It is what the rules say, if they do. Silence is a warning: an instance that scales in is silent
    too.

    >>> from dataflow.notify.test import example
    >>> severity(example())
    'warning'
    """
    if incident.severity:
        return incident.severity
    if incident.kind == "silence":
        return "warning"
    lasts = incident.duration is not None and incident.duration >= LONG
    return "critical" if lasts or (incident.score or 0.0) >= SEVERE else "warning"


def summary(incident: Incident) -> str:
    """Return one sentence, in one line: the instance, what happened, since when, and why.

    >>> from dataflow.records import Source
    >>> reading = (0.5, None, 0, Source("cpu", 0, 1))
    >>> summary(Incident("web\\n1", "silence", "opened", "a", 0, *[None] * 7, *reading))
    'web\\\\n1 is silent'
    """
    name = visible(incident.instance)
    if incident.kind == "silence" and incident.metric not in ("cpu", ALL):
        name += f" ({visible(incident.metric)})"
    since = "" if incident.since is None else f" since {_utc(incident.since)}"
    lasted = "" if incident.duration is None else f" after {_lasting(incident.duration)}"
    if incident.spread is not None:
        return _of_group(incident, incident.spread, name, since, lasted)
    if incident.kind == "silence":
        if incident.state != "resolved":
            return f"{name} is silent{since}"
        if incident.ended == "gone":
            return f"{name} counts as gone: it has been silent{since}"
        return f"{name} sends again{lasted}"
    why = visible(incident.why) or _values(incident)
    if incident.state == "opened":
        return f"{name}: {why}{since}"
    if incident.state == "updated" and incident.part_of is not None:
        return f"{name} goes on after the others of {visible(incident.group or '')}: {why}{since}"
    if incident.state == "updated":
        return f"{name} has become worse (score {incident.score or 0.0:.2f}): {why}{since}"
    said = {
        "gone": "has gone silent in trouble",
        "adapted": "stays as it is, and that counts as ordinary now,",
    }.get(incident.ended or "", "has recovered")
    return f"{name} {said}{lasted}: it began with {why}{since}"


def _of_group(incident: Incident, spread: Spread, name: str, since: str, lasted: str) -> str:
    members = f"{spread.affected} of {spread.size} instances"
    first = visible(spread.members[0].instance) if spread.members else ""
    if incident.state == "resolved":
        return f"{name} is over{lasted}: {members}, first {first}{since}"
    state = "together" if incident.state == "opened" else "by now"
    if incident.kind == "silence":
        return f"{name}: {members} are silent {state}, first {first}{since}"
    why = visible(incident.why) or _values(incident)
    return f"{name}: {members} are anomalous {state}, first {first}: {why}{since}"


def _values(incident: Incident) -> str:
    """Return the worst reading, of records that do not say why."""
    expected = "" if incident.expected is None else f", expected {incident.expected:.3g}"
    return f"value {incident.value:.3g}{expected}"


def _lasting(seconds: float) -> str:
    minutes = round(seconds / 60)
    parts = [(minutes // 1440, "d"), (minutes // 60 % 24, "h"), (minutes % 60, "min")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "a moment"


def _utc(time: datetime) -> str:
    return f"{time.isoformat(' ', 'minutes')[:16]} UTC"


def visible(name: str) -> str:
    """Return a text in one line, of characters that can be seen, and not too long."""
    if len(name) > LONGEST_NAME:
        name = name[: LONGEST_NAME - 1] + "…"
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in INVISIBLE and character != JOINER
        else character
        for character in name
    )
