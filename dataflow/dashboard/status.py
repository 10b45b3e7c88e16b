"""What the feed is doing, in words for the person who looks at the page. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

__all__ = ["Condition", "Counts", "Tone", "clock_text", "facts", "waiting"]


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
    """A tone, two words, a sentence that says what is happening, and one that says what to do."""

    tone: Tone
    title: str
    happening: str = ""
    to_do: str = ""


class Counts(NamedTuple):
    """What has been read: instances, readings, records refused, readings a second."""

    instances: int = 0
    readings: int = 0
    refused: int = 0
    rate: float = 0.0


def clock_text(time: float | None) -> str:
    """Write a time of the readings as people read it; UTC, as everything on the page.

    >>> clock_text(1741972020.0)
    '2025-03-14 17:07 UTC'
    """
    if time is None:
        return "no time"
    return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M} UTC"


def facts(counts: Counts, clock: float | None, detector: str, threshold: float) -> str:
    """Say in one line what the page shows.

    >>> facts(Counts(8, 32256, 1, 12.3), 1741972020.0, "calibrated", 0.5)[:49]
    '8 instances · 32,256 readings · 12 a second · 1 r'
    """
    parts = [_count(counts.instances, "instance"), _count(counts.readings, "reading")]
    if counts.rate >= 0.5:
        parts.append(f"{counts.rate:,.0f} a second")
    if counts.refused:
        parts.append(f"{_count(counts.refused, 'record')} refused")
    if clock is not None:
        parts.append(f"newest {clock_text(clock)}")
    parts.append(f"{detector}, threshold {threshold:g}")
    return " · ".join(parts)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def waiting(topic: str, brokers: str) -> Condition:
    """Say that the topic is there and holds nothing yet."""
    return Condition(
        Tone.IDLE,
        "No readings yet",
        f"The topic {topic} on {brokers} is empty.",
        "The page fills as soon as something is written to it; to try, "
        "run python -m dataflow produce data/ec2_metrics.csv.",
    )
