"""The state of the feed, in words for the reader of the page. Pure."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

__all__ = [
    "Condition",
    "Counts",
    "Tone",
    "clock_text",
    "facts",
    "lasting",
    "maintenance_text",
    "waiting",
]

UNITS = (
    (365.25 / 12 * 86_400, "month"),
    (86_400.0, "d"),
    (3600.0, "h"),
    (60.0, "min"),
)
"""The units of durations, in seconds, the largest first."""


class Tone(StrEnum):
    """How a condition is shown; each value is a class in `parts.css`."""

    GOOD = "good"
    """All is well."""
    IDLE = "idle"
    """Nothing is wrong, but something is not there yet."""
    TROUBLE = "trouble"
    """Somebody must act."""

    @property
    def mark(self) -> str:
        """The sign in front of the title, for people who do not see the color."""
        return {Tone.GOOD: "●", Tone.IDLE: "○", Tone.TROUBLE: "▲"}[self]


class Condition(NamedTuple):
    """A tone, a short title, a sentence on what happens, and one on what to do."""

    tone: Tone
    title: str
    happening: str = ""
    to_do: str = ""


class Counts(NamedTuple):
    """What has been read: instances, readings, rejected records, readings a second."""

    instances: int = 0
    readings: int = 0
    rejected: int = 0
    rate: float = 0.0


def clock_text(time: float | None) -> str:
    """Return a time as text, in UTC like all times on the page.

    >>> clock_text(1741972020.0)
    '2025-03-14 17:07 UTC'
    """
    if time is None:
        return "no time"
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M} UTC"


def maintenance_text(ends: float) -> str:
    """Return that there is maintenance until a time; infinity: without an end.

    >>> maintenance_text(1741972020.0), maintenance_text(math.inf)
    ('in maintenance until 03-14 17:07', 'in maintenance')
    """
    if not math.isfinite(ends):
        return "in maintenance"
    return f"in maintenance until {datetime.fromtimestamp(ends, UTC):%m-%d %H:%M}"


def lasting(seconds: float) -> str:
    """Return a duration in its two largest units, of which months need no other.

    >>> [lasting(it) for it in (20.0, 720.0, 7800.0, 90_000.0, 3600.0, 52_000_000.0)]
    ['0 min', '12 min', '2 h 10 min', '1 d 1 h', '1 h', '19 months']
    """
    for place, (size, unit) in enumerate(UNITS):
        if seconds < size:
            continue
        count = int(seconds // size)
        if unit == "month":
            return f"{count} month{'s' if count > 1 else ''}"
        text = f"{count} {unit}"
        if place + 1 < len(UNITS):
            smaller, name = UNITS[place + 1]
            more = int(seconds % size // smaller)
            text += f" {more} {name}" if more else ""
        return text
    return "0 min"


def facts(
    counts: Counts, clock: float | None, detector: str, threshold: float, rules: str = ""
) -> str:
    """Return one line on what the page shows; `rules` is the version of the rules.

    >>> facts(Counts(8, 32256, 1, 12.3), 1741972020.0, "calibrated", 0.5)[:49]
    '8 instances · 32,256 readings · 12 a second · 1 r'
    """
    parts = [_count(counts.instances, "instance"), _count(counts.readings, "reading")]
    if counts.rate >= 0.5:
        parts.append(f"{counts.rate:,.0f} a second")
    if counts.rejected:
        parts.append(f"{_count(counts.rejected, 'record')} rejected")
    if clock is not None:
        parts.append(f"newest {clock_text(clock)}")
    parts.append(f"{detector}, threshold {threshold:g}")
    if rules:
        parts.append(f"rules {rules}")
    return " · ".join(parts)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def waiting(topic: str, brokers: str) -> Condition:
    """Return the condition of a topic that exists and is empty."""
    return Condition(
        Tone.IDLE,
        "No readings yet",
        f"The topic {topic} on {brokers} is empty.",
        "The page updates with the first reading. To try it, "
        "run python -m dataflow produce data/ec2_metrics.csv.",
    )
