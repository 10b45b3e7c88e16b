"""The rules that make an incident, and what is known of a reading in an episode."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from dataflow.alerts.episode import Finding
from dataflow.incidents.maintenance import Plan, Window
from dataflow.records import Reading

__all__ = ["Judged", "Rules", "stamp"]


class Rules(msgspec.Struct, frozen=True):
    """When incidents open, change and end. Times are in seconds, by the readings' own times.

    An incident opens in an episode with an alert, or that lasts, when `anomalies` of the last
    `readings` are anomalous and at least `duration` lies between the first and the last anomaly of
    the episode, but not within `cooldown` after a resolve. While it is open, at most `updates`
    records follow as its score rises; it is resolved when the episode ends.

    An instance is silent `silence` after its last reading, by the progress of other instances, or
    `wall` after it by the machine's clock. It is gone after `gone` more. 0 turns either off, and so
    does a name that matches one of the patterns `silence_except`. `metric` is the name of what is
    scored by default. `windows` returns those windows of a reading that are not in the plan.
    """

    topic: str = ""
    interval: float = 300.0
    anomalies: int = 1
    readings: int = 1
    duration: float = 0.0
    cooldown: float = 0.0
    updates: int = 5
    silence: float = 900.0
    wall: float = 1800.0
    gone: float = 86_400.0
    silence_except: tuple[str, ...] = ()
    plan: Plan = Plan()
    metric: str = "cpu"
    windows: Callable[[Reading], tuple[Window, ...]] | None = None


class Judged(NamedTuple):
    """What is found of a reading in an episode, its score, the value that was expected, and why."""

    finding: Finding
    score: float
    expected: float | None = None
    why: str = ""


def stamp(time: float | None) -> datetime | None:
    """Return a time, in seconds since 1970, as incident records carry it.

    >>> stamp(1392388200.0)
    datetime.datetime(2014, 2, 14, 14, 30, tzinfo=datetime.timezone.utc)
    """
    return None if time is None else datetime.fromtimestamp(time, UTC)
