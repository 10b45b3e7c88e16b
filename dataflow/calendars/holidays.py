"""Holidays by patterns of instances: of a country or a part of it, or from a calendar file.

DE
eu-*: DE-BY; us-*: US; plant-*: closed.ics
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

from dataflow.calendars.zones import entries
from dataflow.errors import missing_extra

__all__ = ["Days", "Holidays", "is_holiday", "parse"]


class Days(Protocol):
    """A set of days."""

    def __contains__(self, day: date, /) -> bool:
        """Return whether a day is one of them."""
        ...


@dataclass(frozen=True)
class Holidays:
    """Patterns of instances, each with its holidays; the first that matches counts."""

    entries: tuple[tuple[str, Days], ...] = ()

    def of(self, instance: str) -> Days | None:
        """Return the holidays of an instance, None if it has none.

        >>> Holidays((("eu-*", {date(2024, 1, 1)}),)).of("us-1") is None
        True
        """
        for pattern, days in self.entries:
            if fnmatchcase(instance, pattern):
                return days
        return None


def parse(text: str) -> Holidays:
    """Read holidays in the format at the top of this module.

    Raises `ValueError` with a sentence that names the first wrong entry, and `UserError` if the
    extra `holidays` is not installed.
    """
    return Holidays(tuple((pattern, _days(name)) for pattern, name in entries(text)))


def _days(name: str) -> Days:
    try:
        import holidays  # type: ignore[import-not-found,import-untyped,unused-ignore]
        import icalendar  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ModuleNotFoundError as error:
        raise missing_extra("ANOMALY_HOLIDAYS", "holidays") from error
    if name.endswith(".ics"):
        try:
            calendar = icalendar.Calendar.from_ical(Path(name).read_bytes())
        except (OSError, ValueError):
            raise ValueError(
                f"names the calendar {name!r}, which cannot be read: give an .ics file"
            ) from None
        return _days_of(calendar)
    country, _, part = name.partition("-")
    try:
        days: Days = holidays.country_holidays(country, subdiv=part or None)
    except NotImplementedError:
        raise ValueError(
            f"names the holidays of {name!r}, which are not known: use a country such as DE, a "
            "part of it such as DE-BY, or an .ics file"
        ) from None
    return days


def _days_of(calendar: object) -> Days:
    """Return the days of a calendar's events; of those that recur, the first only."""
    days: set[date] = set()
    for event in calendar.walk("VEVENT"):  # type: ignore[attr-defined]
        start = event.decoded("DTSTART")
        end = event.decoded("DTEND", start)
        first, last = _day(start), _day(end)
        # The end of an event of whole days is the day after.
        whole = not isinstance(start, datetime)
        days.add(first)
        days.update(
            first + timedelta(days=number)
            for number in range((last - first).days + (0 if whole else 1))
        )
    return days


def _day(moment: date | datetime) -> date:
    return moment.date() if isinstance(moment, datetime) else moment


def is_holiday(days: Days, local: float) -> bool:
    """Return whether a local time, in seconds since 1970 as if it were UTC, is on one of the days.

    >>> is_holiday({date(1970, 1, 2)}, 90_000.0)
    True
    """
    return datetime.fromtimestamp(local, UTC).date() in days
