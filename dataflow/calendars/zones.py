"""Time zones by patterns of instances.

One zone for all, or entries with a pattern each, of which the first that matches counts. Newlines
or semicolons separate entries:

    Europe/Berlin
    eu-*: Europe/Berlin; us-*: America/New_York; *: UTC
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

__all__ = ["Zones", "entries", "offset", "parse", "to_utc"]

SPAN = 900
"""Seconds for which an offset is looked up once: zones change theirs at quarters of an hour."""


@dataclass(frozen=True)
class Zones:
    """Patterns of instances, each with its zone; an instance without one lives in UTC."""

    entries: tuple[tuple[str, ZoneInfo], ...] = ()

    def of(self, instance: str) -> ZoneInfo | None:
        """Return the zone of an instance, None for UTC.

        >>> zones = parse("eu-*: Europe/Berlin; *: UTC")
        >>> zones.of("eu-1"), zones.of("us-1")
        (zoneinfo.ZoneInfo(key='Europe/Berlin'), None)
        """
        for pattern, zone in self.entries:
            if fnmatchcase(instance, pattern):
                return None if zone.key == "UTC" else zone
        return None


def parse(text: str) -> Zones:
    """Read zones in the format at the top of this module.

    Raises `ValueError` with a sentence that names the first wrong entry.

    >>> parse("Mars/Olympus")
    Traceback (most recent call last):
    ValueError: names the time zone 'Mars/Olympus', which does not exist: use a name such as \
Europe/Berlin
    """
    return Zones(tuple((pattern, _zone(name)) for pattern, name in entries(text)))


def entries(text: str) -> list[tuple[str, str]]:
    """Return pairs of pattern and value; a value without a pattern is for all instances.

    >>> entries("eu-*: a; b  # comment")
    [('eu-*', 'a'), ('*', 'b')]
    """
    found = []
    for line in re.split(r"[;\n]", text):
        entry = line.partition("#")[0].strip()
        if entry:
            pattern, colon, value = entry.rpartition(": ")
            found.append((pattern.strip() if colon else "*", value.strip()))
    return found


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f"names the time zone {name!r}, which does not exist: use a name such as Europe/Berlin"
        ) from None


_offsets: dict[tuple[str, int], float] = {}


def offset(zone: ZoneInfo, time: float) -> float:
    """Return the seconds that local time is ahead of UTC at a time in seconds since 1970.

    >>> berlin = ZoneInfo("Europe/Berlin")
    >>> offset(berlin, 1_720_000_000.0), offset(berlin, 1_705_000_000.0)
    (7200.0, 3600.0)
    """
    span = int(time // SPAN)
    key = zone.key, span
    known = _offsets.get(key)
    if known is None:
        if len(_offsets) > 100_000:
            _offsets.clear()
        delta = datetime.fromtimestamp(span * SPAN, UTC).astimezone(zone).utcoffset()
        known = _offsets[key] = 0.0 if delta is None else delta.total_seconds()
    return known


def to_utc(zone: ZoneInfo, local: float) -> float:
    """Return the time at which clocks show a local time, the first of two.

    `local` is in seconds since 1970 as if local time were UTC. A time that clocks skip is as much
    later.
    """
    return datetime.fromtimestamp(local, UTC).replace(tzinfo=zone, fold=0).timestamp()
