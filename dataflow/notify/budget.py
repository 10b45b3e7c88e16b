"""Decides which incidents are pages, so that a team gets no more than so many a day. Pure.

A page is the first record of an incident that is posted, or a digest. A page takes one of the
`pages` of its team for a day from each attempt to post it. What happens to an incident afterwards
is no page.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import msgspec
from msgspec.structs import replace

from dataflow.notify.digest import Digest, HeldBack, digest_of, held_back, surprise
from dataflow.records import Incident, encode

__all__ = ["DAY", "Budget", "Key"]

DAY = 86_400.0

ARRIVES = 60.0
"""Seconds from an attempt to post until it has arrived, at most: a target has 10 s to answer."""

HOUR = 3600.0

DIGESTS = 5
"""One page of so many may be a digest."""

KNOWN = 50_000
"""Incidents of which it is known whether they were sent."""

Key = tuple[str, str]
"""A kind of row of the store, and its name among them."""


class _Page(msgspec.Struct, frozen=True, array_like=True):
    """A page that takes its place: when it was last posted, in seconds since 1970."""

    team: str
    name: str
    at: float


class _Known(msgspec.Struct, frozen=True, array_like=True):
    """What became of an incident.

    `page` is the sequence of the record that is its page, None while there is none; `sent` is
    whether the target has accepted it. `held` is what the next digest says about it, until then;
    `named` is whether a digest has said it. `at` is since when it is held, or when it changed last.
    """

    id: str
    instance: str
    team: str
    at: float
    page: int | None = None
    sent: bool = False
    held: HeldBack | None = None
    named: bool = False


class _Last(msgspec.Struct, frozen=True, array_like=True):
    """The last digest of a team, when it was made, and whether it is done."""

    team: str
    at: float
    done: bool
    digest: Digest


class _More(msgspec.Struct, frozen=True, array_like=True):
    """How many incidents the next digest counts that are no longer known."""

    team: str
    count: int


_Row: TypeAlias = _Page | _Known | _Last | _More

_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(row)
    for kind, row in (("page", _Page), ("incident", _Known), ("digest", _Last), ("more", _More))
}


class _Waiting(NamedTuple):
    team: str
    surprise: float


class Budget:
    """The pages of each team at one target.

    Everything that it knows is in the rows that `changes` returns: one that is made of them goes on
    where it was. Write them before anything is posted, and before an offset is committed. `now` is
    in seconds since 1970.
    """

    def __init__(self, pages: int, rows: Mapping[Key, bytes] | None = None) -> None:
        self._limit = pages
        self._every = min(max(DAY * DIGESTS / pages, HOUR), DAY)
        self._pages: dict[str, dict[str, float]] = {}
        self._known: dict[str, _Known] = {}
        self._held: dict[str, dict[str, float]] = {}
        self._last: dict[str, _Last] = {}
        self._more: dict[str, int] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._order: dict[str, list[float]] = {}
        self._changes: dict[Key, _Row | None] = {}
        self._swept = -math.inf
        self.held_total = 0
        """Incidents that were held back since the start."""
        self._restore(rows or {})

    def _restore(self, rows: Mapping[Key, bytes]) -> None:
        found = [_DECODERS[kind].decode(value) for (kind, _), value in rows.items()]
        for it in sorted(found, key=lambda it: getattr(it, "at", 0.0)):
            match it:
                case _Page():
                    self._pages.setdefault(it.team, {})[it.name] = it.at
                case _Known():
                    self._known[_name(it.id, it.instance)] = it
                    if it.held is not None:
                        self._held.setdefault(it.team, {})[_name(it.id, it.instance)] = it.at
                case _Last():
                    self._last[it.team] = it
                case _More():
                    self._more[it.team] = it.count

    def changes(self) -> dict[Key, bytes | None]:
        """Return the rows that have changed since the last call; None if one is gone."""
        changed = {key: None if row is None else encode(row) for key, row in self._changes.items()}
        self._changes = {}
        return changed

    # Incidents

    def waits(self, incident: Incident, team: str) -> None:
        """Count an incident among those that wait, until it is judged."""
        name = _name(incident.id, incident.instance)
        known = self._known.get(name)
        if name in self._waiting or incident.state == "resolved" or (known and known.sent):
            return
        self._waiting[name] = _Waiting(team, surprise(incident))
        insort(self._order.setdefault(team, []), surprise(incident))

    def was_sent(self, incident: Incident) -> bool:
        """Whether the target has accepted the page of an incident."""
        known = self._known.get(_name(incident.id, incident.instance))
        return known is not None and known.sent

    def take_as_sent(self, incident: Incident, team: str, now: float) -> None:
        """Take an incident that is not known as one that was sent while there was no limit."""
        name = _name(incident.id, incident.instance)
        if name not in self._known:
            self._keep(_Known(incident.id, incident.instance, team, now, -1, sent=True))

    def admits(self, incident: Incident, team: str, link: str, now: float) -> bool:
        """Whether to post a record now; if it is a page, it takes its place from now on.

        Ask it again before each attempt. A record that is not to be posted is in the next digest,
        if its incident is in none and has no message of its own.
        """
        name = _name(incident.id, incident.instance)
        self._waits_no_more(name)
        known = self._known.get(name) or _Known(incident.id, incident.instance, team, now)
        team = known.team
        number = math.inf if incident.state == "resolved" else incident.sequence
        if known.sent and known.page is not None and number > known.page:
            return True
        if known.page is not None and number < known.page:
            return False
        if incident.state != "resolved" and self._is_page(incident, known, name, now):
            self._charge(team, name, now)
            self._not_held(team, name)
            self._keep(replace(known, at=now, page=incident.sequence, held=None))
            return True
        if not (known.sent or known.named):
            self._hold(known, held_back(incident, link), now)
        return False

    def _is_page(self, incident: Incident, known: _Known, name: str, now: float) -> bool:
        used = self._used(known.team, now)
        if name in self._pages.get(known.team, ()):
            return True  # it has its place
        left = self._limit - used - 1  # the last one is for a digest
        own = surprise(incident)
        order = self._order.get(known.team, [])
        worse = len(order) - bisect_right(order, own)
        return left > worse and own >= used / self._limit

    def accepted(self, incident: Incident) -> None:
        """Keep that the target has a record of an incident."""
        name = _name(incident.id, incident.instance)
        known = self._known.get(name)
        if known is not None and not known.sent:
            self._keep(replace(known, sent=True))

    def rejected(self, incident: Incident, link: str, now: float) -> None:
        """Name an incident in the next digest, whose page the target will never accept."""
        name = _name(incident.id, incident.instance)
        known = self._known.get(name)
        if known is not None and not (known.sent or known.named) and known.page is not None:
            self._hold(known, held_back(incident, link), now)

    # Digests

    def digest(self, now: float) -> Digest | None:
        """Return a digest to post now, which takes its place; call `digest_done` afterwards."""
        self._sweep(now)
        unfinished = [team for team, last in self._last.items() if not last.done]
        for team in unfinished:
            last = self._last[team]
            if self._used(team, now) < self._limit or last.digest.id in self._pages.get(team, ()):
                self._charge(team, last.digest.id, now)
                return last.digest
        for team in dict.fromkeys([*self._held, *self._more]):
            if team not in unfinished and self._is_due(team, now):
                return self._make(team, now)
        return None

    def _is_due(self, team: str, now: float) -> bool:
        first = next(iter(self._held.get(team, {}).values()), -math.inf)
        last = self._last[team].at if team in self._last else -math.inf
        # What lies in the future is of a clock that was set back, and must not delay it.
        waits = first <= now < first + HOUR or last <= now < last + self._every
        return not waits and self._used(team, now) < self._limit

    def _make(self, team: str, now: float) -> Digest:
        held = self._held.pop(team, {})
        known = [self._known[name] for name in held]
        since = min([*held.values(), now])
        named = [it.held for it in known if it.held is not None]
        digest = digest_of(team, named, self._more.pop(team, 0), since, now)
        self._changes["more", team] = None
        for it in known:
            self._keep(replace(it, at=now, held=None, named=True))
        self._charge(team, digest.id, now)
        self._set_last(_Last(team, now, False, digest))
        return digest

    def digest_done(self, digest: Digest) -> None:
        """Keep that a digest is delivered, or will never be."""
        last = self._last[digest.team or ""]
        self._set_last(replace(last, done=True))

    def _set_last(self, last: _Last) -> None:
        self._last[last.team] = last
        self._changes["digest", last.team] = last

    # Rows

    def _used(self, team: str, now: float) -> int:
        """Return how many pages are taken; those of more than a day ago are given back."""
        pages = self._pages.get(team, {})
        for name, at in list(pages.items()):
            if at > now:  # the clock was set back
                self._charge(team, name, now)
            elif at <= now - DAY - ARRIVES:
                del pages[name]
                self._changes["page", _name(team, name)] = None
        return len(pages)

    def _charge(self, team: str, name: str, now: float) -> None:
        self._pages.setdefault(team, {})[name] = now
        self._changes["page", _name(team, name)] = _Page(team, name, now)

    def _hold(self, known: _Known, said: HeldBack, now: float) -> None:
        name = _name(known.id, known.instance)
        held = self._held.setdefault(known.team, {})
        self.held_total += name not in held
        at = held.setdefault(name, now)
        self._keep(replace(known, at=at, page=None, held=said))

    def _not_held(self, team: str, name: str) -> None:
        held = self._held.get(team, {})
        held.pop(name, None)
        if not held:
            self._held.pop(team, None)

    def _keep(self, known: _Known) -> None:
        name = _name(known.id, known.instance)
        self._known.pop(name, None)
        self._known[name] = known
        self._changes["incident", name] = known
        if len(self._known) > KNOWN:
            self._forget(next(iter(self._known)))

    def _forget(self, name: str) -> None:
        known = self._known.pop(name)
        self._changes["incident", name] = None
        if known.held is not None:
            self._not_held(known.team, name)
            self._more[known.team] = self._more.get(known.team, 0) + 1
            self._changes["more", known.team] = _More(known.team, self._more[known.team])

    def _waits_no_more(self, name: str) -> None:
        waited = self._waiting.pop(name, None)
        if waited is not None:
            order = self._order[waited.team]
            del order[bisect_left(order, waited.surprise)]
            if not order:
                del self._order[waited.team]

    def _sweep(self, now: float) -> None:
        """Give back the pages of teams of which nothing comes any more, once an hour."""
        if now < self._swept + HOUR and now >= self._swept:
            return
        self._swept = now
        for team in list(self._pages):
            if not self._used(team, now):
                del self._pages[team]
        for team, last in list(self._last.items()):
            if last.done and last.at < now - DAY - ARRIVES:
                del self._last[team]
                self._changes["digest", team] = None


def _name(*parts: str) -> str:
    return encode(parts).decode()
