"""An incident in one sentence."""

from __future__ import annotations

import unicodedata
from datetime import datetime

from dataflow.records import Incident

__all__ = ["SEVERITY", "summary"]


SEVERITY = {"anomaly": "warning", "silence": "critical"}

LONGEST_NAME = 256
"""Characters of an instance's name at most."""

INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Categories of characters that break a line, turn its direction, or cannot be seen."""

JOINER = "\u200d"
"""Invisible, but emoji are made with it."""


def summary(incident: Incident) -> str:
    """Return one sentence, in one line: the instance, what happened, when, and the worst reading.

    >>> from dataflow.records import Source
    >>> reading = (0.5, None, 0, Source("cpu", 0, 1))
    >>> summary(Incident("web\\n1", "silence", "opened", "a", 0, *[None] * 7, *reading))
    'web\\\\n1 is silent'
    """
    name = _visible(incident.instance)
    at = "" if incident.updated_at is None else f" at {_utc(incident.updated_at)}"
    if incident.kind == "silence":
        if incident.state != "resolved":
            return f"{name} is silent{at}"
        if incident.ended == "gone":
            return f"{name} has been silent for so long that it counts as gone{at}"
        return f"{name} sends again{at}"
    expected = "" if incident.expected is None else f", expected {incident.expected:.3g}"
    worst = f"score {incident.score or 0.0:.2f}, value {incident.value:.3g}{expected}"
    if incident.state == "opened":
        return f"{name} is anomalous{at}: {worst}"
    if incident.state == "updated":
        return f"{name} has become worse{at}: {worst}"
    if incident.ended == "gone":
        return f"{name} was anomalous and has gone silent{at}; at its worst: {worst}"
    return f"{name} is quiet again{at}; at its worst: {worst}"


def _utc(time: datetime) -> str:
    return f"{time.isoformat(' ', 'seconds')[:19]} UTC"


def _visible(name: str) -> str:
    if len(name) > LONGEST_NAME:
        name = name[: LONGEST_NAME - 1] + "…"
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in INVISIBLE and character != JOINER
        else character
        for character in name
    )
