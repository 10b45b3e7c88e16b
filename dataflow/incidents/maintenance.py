"""Maintenance windows: when no incident opens, and for which instances. Pure.

Each entry is one window. Newlines or semicolons separate entries. Times are those of the instance's
time zone, by default UTC; of a window that comes once, UTC unless it names an offset:

    web-*: Sat 22:00-Sun 02:00                   every week
    db-?: daily 02:00-03:30                      every day; 22:00-02:00 passes midnight
    24ae8d: 2024-03-01T10:00/2024-03-01T12:00    once; ISO 8601, with or without a zone
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from zoneinfo import ZoneInfo

from dataflow.calendars.zones import Zones, offset, to_utc

__all__ = ["Plan", "Window", "after", "parse"]

DAY = 86_400
WEEK = 7 * DAY
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

MONDAY = 4 * DAY
"""Seconds from 1 January 1970, a Thursday, to the first Monday."""

_TIME = r"([01]?\d|2[0-3]):([0-5]\d)"
_DAILY = re.compile(rf"daily {_TIME} ?- ?{_TIME}", re.IGNORECASE)
_WEEKLY = re.compile(rf"(\w{{3}}) {_TIME} ?- ?(?:(\w{{3}}) )?{_TIME}", re.IGNORECASE)


NOWHERE = Zones()
"""All instances live by UTC."""


@dataclass(frozen=True)
class Window:
    """A window of `length` seconds from `start` on: once, or every `period` seconds.

    `start` is in seconds since 1970, UTC; of one that recurs, in seconds of local time, as if that
    of `zone` were UTC. The end is not part of the window.
    """

    start: float
    length: float
    period: float | None = None
    zone: ZoneInfo | None = None

    def end(self, time: float) -> float | None:
        """Return when the window around `time` ends; None if `time` is outside.

        >>> Window(100.0, 10.0).end(104.0), Window(100.0, 10.0, 60.0).end(169.0)
        (110.0, 170.0)
        >>> Window(100.0, 10.0).end(110.0), Window(100.0, 10.0, 60.0).end(159.0)
        (None, None)
        """
        if self.period is None:
            end = self.start + self.length
            return end if self.start <= time < end else None
        local = time if self.zone is None else time + offset(self.zone, time)
        end = self.start + (local - self.start) // self.period * self.period + self.length
        if local >= end:
            return None
        if self.zone is None:
            return end
        # Where the clock is set within the window, it is an hour longer or shorter.
        ends = to_utc(self.zone, end)
        return ends if ends > time else time + (end - local)


@dataclass(frozen=True)
class Plan:
    """All windows, each with the pattern of the instances that it is for, and their zones."""

    entries: tuple[tuple[str, Window], ...] = ()
    zones: Zones = NOWHERE

    def windows(self, instance: str) -> tuple[Window, ...]:
        """Return the windows of an instance.

        >>> len(parse("web-*: daily 02:00-03:00; *: Sat 22:00-Sun 02:00").windows("web-1"))
        2
        """
        zone = self.zones.of(instance)
        return tuple(
            window if window.period is None else replace(window, zone=zone)
            for pattern, window in self.entries
            if fnmatchcase(instance, pattern)
        )


def after(windows: tuple[Window, ...], time: float) -> float:
    """Return the first time from `time` on that is in no window; infinity if there is none.

    >>> after((Window(100.0, 10.0), Window(105.0, 10.0)), 104.0)
    115.0
    """
    began = time
    while True:
        ends = [end for window in windows if (end := window.end(time)) is not None]
        if not ends:
            return time
        time = max(ends)
        # Windows recur within a week: if none of two weeks is free, they cover all of it.
        longest = sum(window.length for window in windows if window.period is None)
        if time - began > 2 * WEEK + longest:
            return math.inf


def parse(text: str, zones: Zones = NOWHERE) -> Plan:
    """Read windows in the format that is shown at the top of this module.

    `zones` are the time zones of the instances.

    Raises `ValueError` with a sentence that names the first wrong entry.

    >>> parse("web-*: Sat 22:00-Sun 02:00").entries[0][1].length
    14400
    """
    entries = []
    for entry in re.split(r"[;\n]", text):
        entry = entry.partition("#")[0].strip()
        if not entry:
            continue
        pattern, colon, span = entry.rpartition(": ")
        window = _window(span.strip()) if colon and pattern.strip() else None
        if window is None:
            raise ValueError(
                f"the maintenance window {entry!r} cannot be read: write it like "
                "`web-*: Sat 22:00-Sun 02:00`, `*: daily 02:00-03:00`, or "
                "`db-1: 2024-03-01T10:00/2024-03-01T12:00`"
            )
        entries.append((pattern.strip(), window))
    return Plan(tuple(entries), zones)


def _window(span: str) -> Window | None:
    if daily := _DAILY.fullmatch(span):
        hour, minute, to_hour, to_minute = map(int, daily.groups())
        return _recurring(hour * 3600 + minute * 60, to_hour * 3600 + to_minute * 60, DAY)
    if weekly := _WEEKLY.fullmatch(span):
        day, hours, minutes, to_day, to_hours, to_minutes = weekly.groups()
        to_day = to_day or day
        if day.lower() not in DAYS or to_day.lower() not in DAYS:
            return None
        start = DAYS.index(day.lower()) * DAY + int(hours) * 3600 + int(minutes) * 60
        end = DAYS.index(to_day.lower()) * DAY + int(to_hours) * 3600 + int(to_minutes) * 60
        return _recurring(start + MONDAY, end + MONDAY, WEEK)
    first, slash, last = span.partition("/")
    try:
        start_at, end_at = _moment(first), _moment(last)
    except ValueError:
        return None
    return Window(start_at, end_at - start_at) if slash and end_at > start_at else None


def _recurring(start: int, end: int, period: int) -> Window | None:
    return None if start == end else Window(start, (end - start) % period, period)


def _moment(text: str) -> float:
    moment = datetime.fromisoformat(text.strip())
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
