"""What is wrong with an instance now: an anomaly that has not ended, or no readings. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from dataflow.dashboard.status import lasting

__all__ = ["State", "Trouble", "said"]

CALM = 600.0
"""Seconds of ordinary readings after which the page says that an open trouble is calm."""


class State(IntEnum):
    """The state of an instance; a higher one stands above lower ones in the table."""

    GONE = 0
    """Silent for so long that it counts as switched off."""
    ORDINARY = 1
    MAINTAINED = 2
    """It is anomalous, or silent, and all of that is within maintenance windows."""
    TROUBLED = 3
    """It is anomalous, or silent."""


@dataclass(slots=True)
class Trouble:
    """An episode of anomalies that has not ended; places are on the axis of the readings.

    `since` is the first anomaly, `last` the last reading that belongs to it. `score` is the highest
    one, at `peak`. `why` says in a sentence what the last alert was. `opens` is False for an
    episode in which nothing was news yet.
    """

    episode: str
    since: float
    last: float
    score: float
    peak: float
    why: str
    opens: bool


def said(silent: float | None, trouble: Trouble | None, place: float, timed: bool) -> str:
    """Return what is wrong in a few words; `place` is that of the last reading.

    `silent` are the seconds without a reading, None if the instance sends.

    >>> trouble = Trouble("e", 0.0, 7800.0, 0.93, 600.0, "CPU 99.7%", True)
    >>> said(None, trouble, 7800.0, True), said(None, trouble, 9000.0, True)
    ('Anomalous for 2 h 10 min', 'Anomalous for 2 h 10 min, ordinary for 20 min')
    >>> said(720.0, None, 7800.0, True), said(None, None, 7800.0, True)
    ('No data for 12 min', '')
    """
    if silent is not None:
        return f"No data for {lasting(silent)}"
    if trouble is None:
        return ""
    if not timed:
        return "Anomalous"
    text = f"Anomalous for {lasting(trouble.last - trouble.since)}"
    calm = place - trouble.last
    return f"{text}, ordinary for {lasting(calm)}" if calm >= CALM else text
