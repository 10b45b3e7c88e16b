"""Compares the incidents of two runs over the same input. Pure.

With other settings, the same trouble can begin at another reading, and then its incident has
another `id`: so two incidents of one instance are the same if they overlap in time.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal, NamedTuple, TypeAlias

from dataflow.records import Anomaly, Incident

__all__ = ["Change", "Sign", "Window", "changes", "changes_of_alerts", "last_records", "opened"]

Sign: TypeAlias = Literal["+", "-", "~"]


class Window(NamedTuple):
    """The time in which incidents count, in seconds since 1970: `start` belongs to it."""

    start: float | None = None
    end: float | None = None

    def has(self, time: float | None) -> bool:
        """Return whether a time lies in it; one that is not known does.

        >>> Window(100.0).has(99.0), Window(100.0).has(None), Window(None, 100.0).has(99.0)
        (False, True, True)
        """
        if time is None:
            return True
        return (self.start is None or time >= self.start) and (self.end is None or time < self.end)


class Change(NamedTuple):
    """An incident that is gained (`+`), lost (`-`), or has other times or another end (`~`).

    `before` and `after` are its last records; None in a run that does not have it.
    """

    sign: Sign
    before: Incident | None
    after: Incident | None

    @property
    def shown(self) -> Incident:
        """The record to show: that of the run after, if there is one."""
        found = self.after or self.before
        assert found is not None
        return found


def last_records(records: Iterable[Incident]) -> list[Incident]:
    """Return the last record of each incident, in the order in which they opened."""
    last: dict[str, Incident] = {}
    for record in records:
        known = last.get(record.id)
        if known is None or known.sequence < record.sequence:
            last[record.id] = record
    return sorted(last.values(), key=opened)


def changes(before: Iterable[Incident], after: Iterable[Incident]) -> list[Change]:
    """Return what differs between the records of two runs, in the order of time.

    Of one instance, metric and kind, incidents with the same `id` are the same, then those that
    overlap, the earliest first.
    """
    sides = [_by_series(last_records(records)) for records in (before, after)]
    found: list[Change] = []
    for series in {**sides[0], **sides[1]}:
        found += _changes_of_series(*(side.get(series, []) for side in sides))
    return sorted(found, key=lambda one: opened(one.shown))


_Series: TypeAlias = tuple[str, str, str, bool]


def _by_series(incidents: Sequence[Incident]) -> dict[_Series, list[Incident]]:
    series: defaultdict[_Series, list[Incident]] = defaultdict(list)
    for one in incidents:
        series[one.instance, one.metric, one.kind, one.spread is not None].append(one)
    return series


def _changes_of_series(before: list[Incident], after: list[Incident]) -> list[Change]:
    known = {one.id: one for one in after}
    pairs: list[tuple[Incident | None, Incident | None]] = []
    pairs += [(one, known[one.id]) for one in before if one.id in known]
    paired = {one.id for one, _ in pairs if one is not None}
    left = [one for one in before if one.id not in paired]
    right = [one for one in after if one.id not in paired]
    while left and right:
        first, second = left[0], right[0]
        if _begin(first) <= _end(second) and _begin(second) <= _end(first):
            pairs.append((left.pop(0), right.pop(0)))
        elif _end(first) <= _end(second):
            pairs.append((left.pop(0), None))
        else:
            pairs.append((None, right.pop(0)))
    pairs += [(one, None) for one in left]
    pairs += [(None, one) for one in right]
    return [change for change in map(_change, pairs) if change is not None]


def _change(pair: tuple[Incident | None, Incident | None]) -> Change | None:
    before, after = pair
    if before is None:
        return Change("+", None, after)
    if after is None:
        return Change("-", before, None)
    return None if _seen(before) == _seen(after) else Change("~", before, after)


def _seen(one: Incident) -> tuple[object, ...]:
    """Return what makes an incident another one for the people who get it."""
    affected = None if one.spread is None else one.spread.affected
    return one.since, one.opened_at, one.resolved_at, one.ended, one.folded, affected


def _begin(one: Incident) -> datetime:
    # Without times, only the id says which are the same.
    return _NEVER if one.since is None else one.since


def _end(one: Incident) -> datetime:
    if one.since is None:
        return _EVER
    return _NEVER if one.resolved_at is None else one.resolved_at


_EVER = datetime.fromisoformat("0001-01-01T00:00:00Z")
_NEVER = datetime.fromisoformat("9999-12-31T23:59:59Z")


def opened(one: Incident) -> tuple[datetime, str, str, str, str]:
    """Return what puts incidents in the order of time."""
    return one.opened_at or _EVER, one.instance, one.metric, one.kind, one.id


def changes_of_alerts(
    before: Iterable[Anomaly], after: Iterable[Anomaly]
) -> list[tuple[Sign, Anomaly]]:
    """Return the alerts that are gained and lost: an alert is the same if its reading is."""
    sides: list[Counter[str]] = [Counter(), Counter()]
    known: dict[str, Anomaly] = {}
    for side, alerts in zip(sides, (before, after), strict=True):
        for one in alerts:
            side[one.id] += 1
            known.setdefault(one.id, one)
    lost, gained = sides[0] - sides[1], sides[1] - sides[0]
    found: list[tuple[Sign, Anomaly]] = [("-", known[name]) for name in lost.elements()]
    found += [("+", known[name]) for name in gained.elements()]
    return found
