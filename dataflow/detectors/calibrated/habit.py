"""What an instance usually does at this hour: the level that a reading is measured from."""

from __future__ import annotations

from typing import Final

from dataflow.detectors.calibrated.memory import Memory

__all__ = ["expect", "learn", "start_over"]

NOT_SEEN: Final = float("nan")
HOUR_RATE: Final = 0.05
WEEK_RATE: Final = 0.1
MARGIN: Final = 0.8
"""A seasonal level explains an instance if it misses by less than this times the other's miss."""

BOUND: Final = 4.0
"""A reading counts as if it missed a level by at most this many usual misses."""

UNKNOWN_MISS: Final = 1.5
"""Misses counted for an hour never seen, times the running level's: no credit without proof."""


def expect(memory: Memory, by_day: float, by_week: float) -> tuple[float, float]:
    """Return the level that was nearest in the last days, by a clear margin, and its usual miss.

    It is the running level, or that of this hour of the day or of the week: `by_day` and `by_week`,
    NaN where there is none.
    """
    level = memory.level
    miss = memory.off_level
    least = miss
    if memory.off_hour < MARGIN * miss and by_day == by_day:
        level = by_day
        miss = memory.off_hour
    if memory.off_hour < least:
        least = memory.off_hour
    if memory.off_week < MARGIN * least and by_week == by_week:
        level = by_week
        miss = memory.off_week
    return level, miss


def learn(
    memory: Memory,
    offset: float,
    day: int,
    week: int,
    by_day: float,
    by_week: float,
    rate: float,
    bounded: bool,
) -> None:
    """Move the levels towards a reading, and their usual misses towards this reading's.

    `offset` is the reading's value from the instance's first one. `day` and `week` are the places
    in `memory.hours` of the levels of this hour, which are `by_day` and `by_week`. `bounded`: a
    surprising reading teaches no more than one at the bound, so that one bad hour does not become
    the habit of its hour.
    """
    hours = memory.hours
    distance = offset - memory.level
    memory.level = memory.level + rate * distance
    miss = abs(distance)
    unknown = UNKNOWN_MISS * miss
    memory.off_level += rate * (within(miss, memory.off_level, bounded) - memory.off_level)
    if by_day == by_day:
        distance = within(offset - by_day, memory.off_hour, bounded)
        memory.off_hour += rate * (abs(distance) - memory.off_hour)
        hours[day] = by_day + HOUR_RATE * distance
    else:
        memory.off_hour += rate * (unknown - memory.off_hour)
        hours[day] = offset
    if by_week == by_week:
        distance = within(offset - by_week, memory.off_week, bounded)
        memory.off_week += rate * (abs(distance) - memory.off_week)
        hours[week] = by_week + WEEK_RATE * distance
    else:
        memory.off_week += rate * (unknown - memory.off_week)
        hours[week] = offset


def within(distance: float, usual: float, bounded: bool) -> float:
    """Return a distance, if bounded at most BOUND times the usual one in either direction."""
    most = BOUND * usual
    if bounded:
        if distance > most:
            return most
        if distance < -most:
            return -most
    return distance


def start_over(memory: Memory, offset: float) -> None:
    """Forget all levels: those of a trouble that has become the habit begin with this reading."""
    memory.level = offset
    memory.off_level = memory.off_hour = memory.off_week = 0.0
    hours = memory.hours
    for place in range(len(hours)):
        hours[place] = NOT_SEEN
