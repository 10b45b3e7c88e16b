"""Which silences of Alertmanager are verdicts, and on which incidents. Pure.

A silence is a verdict `fine` on an incident if someone who made it meant that incident: it names
the instance, each of its matchers is `label="value"`, and the alert was firing when it began. It is
given when the incident is over, since only then its whole pattern is known, and lasts as long as
the silence. Its id holds those of both, so that the topic of verdicts says what was given already.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

import msgspec

from dataflow.records import ALL, Incident
from dataflow.verdicts.record import Feedback

__all__ = [
    "ENDED",
    "Alert",
    "Alerts",
    "Silence",
    "Verdict",
    "broad",
    "changes",
    "given",
    "read",
    "wanted",
]

ENDED = "the silence has ended"
"""The comment by which a record that ends a verdict differs from one that a person writes."""

KNOWN = 20_000
"""Incidents that are kept: those that opened last."""

LONGEST = 500
"""Characters of a name or a comment."""

SAME_MOMENT = timedelta(seconds=1)
"""How far apart the end of a silence and the beginning of the one that replaces it may be."""

PREFIX = "silence:"


class Matcher(msgspec.Struct, frozen=True, rename="camel"):
    """What a silence says of one label; early versions of Alertmanager have no `isEqual`."""

    name: str
    value: str
    is_regex: bool = False
    is_equal: bool = True


class _Status(msgspec.Struct, frozen=True):
    state: Literal["active", "pending", "expired"]


class Silence(msgspec.Struct, frozen=True, rename="camel"):
    """A silence, as version 2 of Alertmanager's API shows it."""

    id: str
    matchers: tuple[Matcher, ...]
    starts_at: datetime
    ends_at: datetime
    status: _Status
    created_by: str = ""
    comment: str = ""

    @property
    def is_active(self) -> bool:
        """Whether it holds alerts now."""
        return self.status.state == "active"

    @property
    def instance(self) -> str | None:
        """The instance that it names; None if it is not about one alone."""
        if not all(one.is_equal and not one.is_regex for one in self.matchers):
            return None
        return next((one.value for one in self.matchers if one.name == "instance"), "") or None

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Return whether it holds an alert with these labels; one that is missing is empty."""
        return all(_matches(one, labels.get(one.name, "")) for one in self.matchers)


def _matches(matcher: Matcher, value: str) -> bool:
    if not matcher.is_regex:
        return (value == matcher.value) == matcher.is_equal
    try:
        found = re.fullmatch(matcher.value, value)
    except (re.error, RecursionError):
        return False  # Go's own syntax: such a silence is never a verdict
    return (found is not None) == matcher.is_equal


_entries = msgspec.json.Decoder(list[msgspec.Raw]).decode
_silence = msgspec.json.Decoder(Silence).decode


def read(text: str) -> list[Silence]:
    """Return the silences of an answer; one that is not as expected is left out.

    Raises `ValueError` if it is no list.

    >>> read('[{"id": "5"}]')
    []
    """
    found = []
    for entry in _entries(text):
        try:
            silence = _silence(entry)
        except ValueError:
            continue
        # A colon separates the ids of both.
        if silence.id and ":" not in silence.id and silence.starts_at.tzinfo is not None:
            found.append(silence)
    return found


class Alert(NamedTuple):
    """The alert of an incident: from when to when it was in Alertmanager, in seconds since 1970.

    The times are those at which the records were written; `resolved` is None while it is open.
    """

    incident: str
    instance: str
    labels: Mapping[str, str]
    opened: float
    resolved: float | None = None

    def fired(self, time: float) -> bool:
        """Return whether it was firing at a time."""
        return self.opened <= time and (self.resolved is None or time <= self.resolved)


class Alerts:
    """The alerts of the incidents that opened last, by instance."""

    def __init__(self) -> None:
        """Begin with none."""
        self._by_id: dict[str, Alert] = {}
        self._ids: dict[str, dict[str, None]] = {}

    def take(self, incident: Incident, labels: Mapping[str, str], written: float) -> None:
        """Take the next record of the topic. Labels and opening are those of the first one."""
        if incident.kind != "anomaly" or incident.spread is not None or incident.metric == ALL:
            return  # no pattern
        known = self._by_id.get(incident.id)
        if known is None:
            if incident.folded:
                return  # the alert is that of its group
            known = Alert(incident.id, incident.instance, labels, written)
            self._ids.setdefault(incident.instance, {})[incident.id] = None
        if incident.state == "resolved" and known.resolved is None:
            known = known._replace(resolved=written)
        self._by_id[incident.id] = known
        if len(self._by_id) > KNOWN:
            gone = self._by_id.pop(next(iter(self._by_id)))
            ids = self._ids[gone.instance]
            del ids[gone.incident]
            if not ids:
                del self._ids[gone.instance]

    def of(self, instance: str) -> list[Alert]:
        """Return those of an instance."""
        return [self._by_id[name] for name in self._ids.get(instance, ())]

    def all(self) -> Iterable[Alert]:
        """Return all of them."""
        return self._by_id.values()


class Verdict(NamedTuple):
    """A verdict that a silence gives: what is not yet known of it is the pattern."""

    id: str
    silence: str
    incident: str
    instance: str
    until: datetime
    by: str | None
    comment: str

    def record(self, at: datetime, said: Feedback) -> Feedback:
        """Return its record, with the pattern and the sentence that another one has."""
        return Feedback(
            id=self.id,
            verdict="fine",
            until=self.until,
            by=self.by,
            at=at,
            why=said.why,
            pattern=said.pattern,
            comment=self.comment or msgspec.UNSET,
        )


def _verdict(silence: Silence, incident: str, instance: str) -> Verdict:
    return Verdict(
        f"{PREFIX}{silence.id}:{incident}",
        silence.id,
        incident,
        instance,
        silence.ends_at.replace(microsecond=0),
        silence.created_by.strip()[:LONGEST] or None,
        silence.comment.strip()[:LONGEST],
    )


def _began(silences: Collection[Silence]) -> dict[str, float]:
    """Return when each began: one that replaces another, when that one began.

    Alertmanager ends a silence whose matchers are edited, and begins another at the same moment.
    """
    ended: dict[str, list[Silence]] = {}
    for one in silences:
        if one.status.state == "expired" and one.instance is not None:
            ended.setdefault(one.instance, []).append(one)
    return {one.id: _first(one, ended).starts_at.timestamp() for one in silences}


def _first(silence: Silence, ended: Mapping[str, list[Silence]]) -> Silence:
    for other in ended.get(silence.instance or "", ()):
        replaced = abs(silence.starts_at - other.ends_at) <= SAME_MOMENT
        if replaced and other.starts_at < silence.starts_at:
            return _first(other, ended)
    return silence


def wanted(silences: Collection[Silence], alerts: Alerts) -> list[Verdict]:
    """Return the verdicts that the active silences give on incidents that are over."""
    began = _began(silences)
    return [
        _verdict(silence, alert.incident, instance)
        for silence in silences
        if silence.is_active and (instance := silence.instance) is not None
        for alert in alerts.of(instance)
        if alert.resolved is not None
        and alert.fired(began[silence.id])
        and silence.holds(alert.labels)
    ]


def broad(silences: Collection[Silence], alerts: Alerts) -> dict[str, int]:
    """Return how many alerts that were firing each silence holds that is no verdict, by its id."""
    others = [one for one in silences if one.is_active and one.instance is None]
    counts = {
        one.id: sum(
            alert.fired(one.starts_at.timestamp()) and one.holds(alert.labels)
            for alert in alerts.all()
        )
        for one in others
    }
    return {name: count for name, count in counts.items() if count}


class Changes(NamedTuple):
    """What to write: new verdicts, without their patterns, and whole records."""

    new: list[Verdict]
    records: list[Feedback]


def changes(
    silences: Collection[Silence],
    wanted: Iterable[Verdict],
    said: Mapping[str, Feedback],
    at: datetime,
    *,
    complete: bool = True,
) -> Changes:
    """Return what is to be written now.

    `said` is the last record of each id. What a person has said of a verdict or called `real`
    stands. `complete` says that the silences are all there are: without it, one that is missing
    does not end its verdicts.
    """
    known = {one.id: one for one in silences}
    records = []
    for name, last in given(said).items():
        silence, incident = known.get(_parts(name)[0]), _parts(name)[1]
        if silence is None and not complete:
            continue
        if silence is None or not silence.is_active or _is_real(incident, said):
            undo = Feedback(id=name, verdict="undo", by=last.by, at=at, comment=ENDED)
            records.append(undo)
            continue
        instance = "" if last.pattern is None else last.pattern.instance
        now = _verdict(silence, incident, instance).record(at, last)
        if (now.until, now.by, now.comment) != (last.until, last.by, last.comment):
            records.append(now)
    new = [
        one
        for one in wanted
        if not _is_real(one.incident, said)
        and (one.id not in said or said[one.id].comment == ENDED)
    ]
    return Changes(new, records)


def given(said: Mapping[str, Feedback]) -> dict[str, Feedback]:
    """Return those of the records that are verdicts of silences, and in force."""
    return {
        name: last
        for name, last in said.items()
        if last.verdict == "fine" and name.startswith(PREFIX)
    }


def _parts(name: str) -> tuple[str, str]:
    """Return the ids of the silence and of the incident that the id of a verdict holds."""
    silence, _, incident = name.removeprefix(PREFIX).partition(":")
    return silence, incident


def _is_real(incident: str, said: Mapping[str, Feedback]) -> bool:
    last = said.get(incident)
    return last is not None and last.verdict == "real"
