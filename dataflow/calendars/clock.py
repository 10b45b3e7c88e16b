"""The hours of an instance, as a detector learns them: local, and Sunday's on a holiday."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias
from zoneinfo import ZoneInfo

from dataflow.calendars.holidays import Days, Holidays, is_holiday
from dataflow.calendars.zones import Zones, offset

__all__ = ["Clock", "clocks"]

Clock: TypeAlias = Callable[[float], float]
"""From a time, in seconds since 1970, to the one that gives a detector the hour and the weekday."""

DAY = 86_400.0
SUNDAY = 3
"""The days from 1 January 1970, a Thursday, to the first Sunday."""


def clocks(zones: Zones, holidays: Holidays) -> Callable[[str], Clock | None] | None:
    """Return the function from an instance to its clock, None if that is UTC without holidays.

    None in place of the function if that holds for all instances.
    """
    if not zones.entries and not holidays.entries:
        return None

    def of(instance: str) -> Clock | None:
        zone, days = zones.of(instance), holidays.of(instance)
        return None if zone is None and days is None else clock(zone, days)

    return of


def clock(zone: ZoneInfo | None, days: Days | None) -> Clock:
    """Return the clock of a zone and its holidays.

    >>> from datetime import date
    >>> new_year = 1_704_067_200.0  # Monday, 1 January 2024, 00:00 UTC
    >>> clock(ZoneInfo("Europe/Berlin"), None)(new_year) - new_year
    3600.0
    >>> (clock(None, {date(2024, 1, 1)})(new_year) - new_year) / DAY
    6.0
    """

    def local(time: float) -> float:
        at = time if zone is None else time + offset(zone, time)
        if days is not None and is_holiday(days, at):
            return at + (SUNDAY - at // DAY) % 7 * DAY
        return at

    return local
