"""What makes an incident: the rules, and what a detector found in a reading."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from dataflow.incidents.maintenance import Plan

__all__ = ["Anomalous", "Rules", "stamp"]


class Rules(msgspec.Struct, frozen=True):
    """What makes an incident; times in seconds, of the readings' own clock but for `wall`.

    `anomalies` of the last `readings` must be anomalous, for at least `duration` from the first of
    the episode to the last; none opens in the `cooldown` after a resolve. An open one is told of at
    most `updates` times as its score rises, and is resolved `quiet` after its last anomaly.

    An instance is silent `silence` after its last reading by the progress of others, or `wall`
    after it by the clock of the machine, and gone when it stays so for `gone` more; 0: never.
    """

    topic: str = ""
    interval: float = 300.0
    anomalies: int = 1
    readings: int = 1
    duration: float = 0.0
    quiet: float = 3600.0
    cooldown: float = 0.0
    updates: int = 5
    silence: float = 900.0
    wall: float = 1800.0
    gone: float = 86_400.0
    plan: Plan = Plan()


class Anomalous(NamedTuple):
    """An anomalous reading's score, and what the detector had expected."""

    score: float
    expected: float | None = None


def stamp(time: float | None) -> datetime | None:
    """Return a time as incidents carry it.

    >>> stamp(1392388200.0)
    datetime.datetime(2014, 2, 14, 14, 30, tzinfo=datetime.timezone.utc)
    """
    return None if time is None else datetime.fromtimestamp(time, UTC)
