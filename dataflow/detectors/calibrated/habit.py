"""What an instance usually does at this hour: the level that a reading is measured from."""

from __future__ import annotations

from typing import Final

from dataflow.detectors.calibrated.memory import Memory

__all__ = ["expect", "learn"]

HOUR_RATE: Final = 0.05
WEEK_RATE: Final = 0.1
MARGIN: Final = 0.8
"""A seasonal level explains an instance if it misses by less than this times the other's miss."""

UNKNOWN_MISS: Final = 1.5
"""Misses counted for an hour never seen, times the running level's: no credit without proof."""


def expect(m: Memory, by_day: float, by_week: float) -> tuple[float, float]:
    """Return the level that has been nearest of late, by a clear margin, and its usual miss.

    It is the running level, that of this hour of the day, or that of this hour of the week, which
    are given, NaN where there is none.
    """
    level = m.level
    miss = m.off_level
    least = miss
    if m.off_hour < MARGIN * miss and by_day == by_day:
        level = by_day
        miss = m.off_hour
    if m.off_hour < least:
        least = m.off_hour
    if m.off_week < MARGIN * least and by_week == by_week:
        level = by_week
        miss = m.off_week
    return level, miss


def learn(
    m: Memory, x: float, day: int, week: int, by_day: float, by_week: float, rate: float
) -> None:
    """Move the levels towards a reading, and their usual misses towards how far off they were.

    `day` and `week` are the places in `m.hours` of the levels of this hour, which are given.
    """
    hours = m.hours
    level = m.level
    off = x - level
    m.level = level + rate * off
    off = abs(off)
    m.off_level += rate * (off - m.off_level)
    unknown = UNKNOWN_MISS * off
    if by_day == by_day:
        m.off_hour += rate * (abs(x - by_day) - m.off_hour)
        hours[day] = by_day + HOUR_RATE * (x - by_day)
    else:
        m.off_hour += rate * (unknown - m.off_hour)
        hours[day] = x
    if by_week == by_week:
        m.off_week += rate * (abs(x - by_week) - m.off_week)
        hours[week] = by_week + WEEK_RATE * (x - by_week)
    else:
        m.off_week += rate * (unknown - m.off_week)
        hours[week] = x
