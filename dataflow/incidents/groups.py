"""Turns incidents of members of a group that come together into one incident of the group. Pure.

A member's incident that opens is held for a while. If others of the group follow soon enough, they
become one incident of the group, and those of the members are folded into it; else it goes on as
it is. `docs/incidents.md` has the rules.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec
from msgspec.structs import replace

from dataflow.incidents.rules import stamp
from dataflow.records import Incident, Member, Outcome, Spread, encode

__all__ = ["GroupRules", "GroupTracker", "Saved", "time_of"]

ENOUGH = 3
"""Members whose incidents are one of the group; all, of a group of two. Two may coincide: of 40
instances with a false alarm a fortnight each, two alert within five minutes of each other once a
month, three in a row once in ten years."""

WAITS = 2
"""A member's incident waits this many times as long, if others follow that are not enough yet."""

BEFORE = 0.15
"""The share of the reason `lately` above which a trouble has begun before its alert.

With fleet 1 of `benchmarks/groups.py`, 97% of the members of shared faults that alert more than
ten minutes after their onset are above it, and 5% of the instances that alert at once."""

MOSTLY = 0.5
"""The same above which the value says nothing of the side: the readings before it do."""

LISTED = 100
"""Members that a record lists at most: it has to fit into a notification."""


class GroupRules(msgspec.Struct, frozen=True):
    """When incidents of members come together. Both are seconds of the readings' times.

    `hold` is for how long a member's incident waits for others, and again for those that follow
    them. Once the group has an incident, further members join it while each follows within `hold`:
    the onset. Up to `together` after that, a member joins whose trouble began before its alert.
    All are on the same side of what was expected, as far as it is known. A member that goes on
    alone is left to itself after `alone`.
    """

    hold: float = 300.0
    together: float = 7200.0
    alone: float = 7200.0


class _Held(msgspec.Struct, array_like=True):
    """A member's incident that has opened, at `time`, and what followed it."""

    time: float
    records: list[Incident]


class _Going(msgspec.Struct, array_like=True):
    """The incident of the group. `latest` is the end of its onset.

    `going` are the ids of the members' incidents that are not resolved, each with its last record,
    and `alone` is since when there is only one of them. `count` are anomalies of the resolved ones,
    and `lasted` the seconds from the first onset to the end of the last trouble. `said` is the
    number of members in the last record, and `size` that of all.
    """

    id: str
    first: Incident
    worst: Incident
    opened_at: float
    latest: float
    members: list[Member]
    going: dict[str, Incident]
    sequence: int = 0
    alone: float | None = None
    count: int = 0
    lasted: float = 0.0
    said: int = 0
    size: int = 0


class Saved(msgspec.Struct, array_like=True):
    """The saved state of a `GroupTracker`."""

    held: list[_Held]
    going: _Going | None
    apart: dict[str, str]


class GroupTracker:
    """The incidents of one kind and one metric in one group, in the order of their times.

    Every call returns records in the order in which they are to be written: those of the members,
    and those of the group.
    """

    def __init__(self, rules: GroupRules, group: str) -> None:
        self._rules = rules
        self._group = group
        self._held: list[_Held] = []
        self._going: _Going | None = None
        # Incidents that were folded and go on by themselves: the id of the group's.
        self._apart: dict[str, str] = {}

    @property
    def idle(self) -> bool:
        """Whether nothing is known that later records need."""
        return not self._held and self._going is None and not self._apart

    @property
    def open(self) -> bool:
        """Whether an incident of the group is open."""
        return self._going is not None

    def due(self) -> float | None:
        """Return the time after which `advance` has records; None if there is none."""
        times = [self._until(held) for held in self._held]
        if self._going is not None and self._going.alone is not None:
            times.append(self._going.alone + self._rules.alone)
        return min(times, default=None)

    def advance(self, now: float) -> list[Incident]:
        """Return what comes of it that no record before `now` follows."""
        out: list[Incident] = []
        going = self._going
        if going is not None and going.alone is not None:
            until = going.alone + self._rules.alone
            if until < now:
                out += self._part(going, until)
        waited = [held for held in self._held if self._until(held) < now]
        if waited:
            self._held = [held for held in self._held if held not in waited]
        return [*out, *(record for held in waited for record in held.records)]

    def _until(self, held: _Held) -> float:
        """Return how long a member's incident waits: for others, and for those that follow them."""
        hold, side = self._rules.hold, _side(held.records[0])
        last = held.time
        for other in self._held:
            if last < other.time <= last + hold and _side(other.records[0]) == side:
                last = other.time
        return min(last + hold, held.time + WAITS * hold)

    def release(self) -> list[Incident]:
        """Return what is held, because no record follows."""
        held, self._held = self._held, []
        return [record for one in held for record in one.records]

    def add(self, incident: Incident, size: int) -> list[Incident]:
        """Take the next record of a member's incident; `size` is the number of all members."""
        if incident.state == "opened":
            return self._opened(incident, size)
        for held in self._held:
            if held.records[0].id == incident.id:
                held.records.append(incident)
                return []
        going = self._going
        if going is not None and incident.id in going.going:
            going.size = size
            return self._followed(going, incident)
        if incident.id not in self._apart:
            return [incident]
        part_of = self._apart[incident.id]
        if incident.state == "resolved":
            del self._apart[incident.id]
        # The record that said that it goes on by itself stands between.
        return [replace(incident, part_of=part_of, sequence=incident.sequence + 1)]

    def _opened(self, incident: Incident, size: int) -> list[Incident]:
        time = time_of(incident)
        going = self._going
        if going is not None and self._belongs(going, incident, time):
            return self._join(going, [_Held(time, [incident])], size)
        self._held.append(_Held(time, [incident]))
        self._held.sort(key=_order)
        near = self._near(incident, time)
        instances = {held.records[0].instance for held in near}
        if len(instances) < (ENOUGH if size >= ENOUGH else 2):
            return []
        self._held = [held for held in self._held if held not in near]
        if going is not None:
            return self._join(going, near, size)
        first = near[0].records[0]
        key = encode(("group", self._group, first.kind, first.metric, first.id))
        going = self._going = _Going(
            hashlib.blake2b(key, digest_size=12).hexdigest(), first, first, time, time, [], {}
        )
        return self._join(going, near, size, "opened")

    def _belongs(self, going: _Going, incident: Incident, time: float) -> bool:
        """Return whether a single incident that opens is a part of what goes on.

        One of long ago that comes late is not. In doubt it is not: a page more is better than none.
        """
        rules, before = self._rules, _before(incident)
        after = time - going.latest
        if time < going.opened_at - rules.hold or after > rules.together:
            return False
        if before > MOSTLY:
            return True
        return _side(incident) == _side(going.first) and (after <= rules.hold or before > BEFORE)

    def _near(self, incident: Incident, time: float) -> list[_Held]:
        """Return what is held that came together with an incident, each soon after another one."""
        hold, side = self._rules.hold, _side(incident)
        same = [held for held in self._held if _side(held.records[0]) == side]
        first = last = time
        for held in reversed(same):
            if first - hold <= held.time < first:
                first = held.time
        for held in same:
            if last < held.time <= last + hold:
                last = held.time
        return [held for held in same if first <= held.time <= last]

    def _join(
        self,
        going: _Going,
        joining: list[_Held],
        size: int,
        state: Literal["opened", "updated"] = "updated",
    ) -> list[Incident]:
        out: list[Incident] = []
        going.size = size
        for held in joining:
            opened = held.records[0]
            if len(joining) > 1 or _before(opened) <= BEFORE:
                going.latest = max(going.latest, held.time)
            if all(member.instance != opened.instance for member in going.members):
                going.members.append(Member(opened.instance, opened.since, opened.id))
            for record in held.records:
                out.append(self._fold(going, record))
        cause = joining[-1].records[-1]
        affected = len(going.members)
        going.alone = None if len(going.going) != 1 else time_of(cause)
        if state == "opened" or affected >= 2 * going.said:
            # Members that follow are folded into an incident that is in the topic already.
            out.insert(0, self._record(going, cause, state))
        if not going.going:
            out.append(self._end(going, cause))
        return out

    def _fold(self, going: _Going, record: Incident) -> Incident:
        if (record.score or 0.0) > (going.worst.score or 0.0):
            going.worst = record
        if record.since is not None and going.first.since is not None:
            began = (record.since - going.first.since).total_seconds()
            going.lasted = max(going.lasted, began + (record.duration or 0.0))
        going.going[record.id] = record
        if record.state == "resolved":
            del going.going[record.id]
            going.count += record.anomalies
        return replace(record, part_of=going.id, folded=True)

    def _followed(self, going: _Going, incident: Incident) -> list[Incident]:
        out = [self._fold(going, incident)]
        if not going.going:
            return [*out, self._end(going, incident)]
        if len(going.going) > 1:
            going.alone = None
        elif going.alone is None:
            going.alone = time_of(incident)
        return out

    def _part(self, going: _Going, time: float) -> list[Incident]:
        """End the group's incident, of which one member goes on by itself."""
        (last,) = going.going.values()
        end = self._end(going, last, time)
        self._apart[last.id] = going.id
        at = stamp(time)
        return [
            end,
            replace(
                last,
                **{"state": "updated", "sequence": last.sequence + 1, "updated_at": at},
                part_of=going.id,
            ),
        ]

    def _end(self, going: _Going, cause: Incident, time: float | None = None) -> Incident:
        self._going = None
        at = time_of(cause) if time is None else time
        return self._record(going, cause, "resolved", at, cause.ended or "recovered")

    def _record(
        self,
        going: _Going,
        cause: Incident,
        state: Literal["opened", "updated", "resolved"],
        time: float | None = None,
        ended: Outcome | None = None,
    ) -> Incident:
        first, worst = going.first, going.worst
        affected = len(going.members)
        at = cause.updated_at if time is None else stamp(time)
        record = Incident(
            instance=self._group,
            kind=first.kind,
            state=state,
            id=going.id,
            sequence=going.sequence,
            since=first.since,
            opened_at=stamp(going.opened_at),
            updated_at=at,
            resolved_at=at if state == "resolved" else None,
            ended=ended,
            score=worst.score,
            peak_at=worst.peak_at,
            value=worst.value,
            expected=worst.expected,
            anomalies=going.count + sum(one.anomalies for one in going.going.values()),
            source=cause.source,
            duration=going.lasted,
            reasons=first.reasons,
            ordinary=first.ordinary,
            why=first.why,
            metric=first.metric,
            labels=first.labels,
            metrics=first.metrics,
            rules=cause.rules,
            team=first.team,
            severity=first.severity,
            runbook=first.runbook,
            group=self._group,
            spread=Spread(affected, max(going.size, affected), tuple(going.members[:LISTED])),
        )
        going.sequence += 1
        going.said = affected
        return record

    def save(self) -> Saved:
        """Return the state, for `load`."""
        return Saved(self._held, self._going, self._apart)

    def load(self, saved: Saved) -> None:
        """Continue from a saved state."""
        self._held, self._going, self._apart = saved.held, saved.going, saved.apart


def time_of(incident: Incident) -> float:
    """Return the time of a record in seconds since 1970; negative infinity if it has none."""
    at = incident.updated_at
    return float("-inf") if at is None else at.timestamp()


def _side(incident: Incident) -> int:
    """Return whether the value was above (1) or below (-1) what was expected; 0 if not known."""
    value, expected = incident.value, incident.expected
    return 0 if expected is None else (value > expected) - (value < expected)


def _before(incident: Incident) -> float:
    """Return the share of the alert that comes of readings before it."""
    return next((one.share for one in incident.reasons or () if one.kind == "lately"), 0.0)


def _order(held: _Held) -> tuple[float, str, str]:
    first = held.records[0]
    return held.time, first.instance, first.id
