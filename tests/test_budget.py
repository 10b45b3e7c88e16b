"""The pages of a day: never more than the limit, and nothing is lost, whatever comes."""

from __future__ import annotations

from collections import defaultdict
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_notify import incident

from dataflow.notify.backlog import Backlog, Record
from dataflow.notify.budget import DAY, Budget, Key
from dataflow.notify.digest import Digest, digest_of, held_back, lines, title
from dataflow.records import Incident

HOUR = 3600.0
BEGIN = 1.7e9


def opened(number: int, score: float | None = 0.75, **more: Any) -> Incident:
    kind = "silence" if score is None else "anomaly"
    return incident(number=number, score=score, kind=kind, **more)


# Any input


class KilledError(Exception):
    pass


class World:
    """`notify` and one target that has all that it was ever sent, with a clock of their own.

    Unless it is `kind`, posts fail or their answers are lost, and `notify` is killed.
    """

    def __init__(self, limit: int, records: list[tuple[Incident, str]], random: Random):
        self.limit, self.records, self.random = limit, records, random
        self.teams = {it.id: team for it, team in records}
        self.now = BEGIN
        self.rows: dict[Key, bytes] = {}
        self.committed = 0
        self.received: list[tuple[float, Incident | Digest]] = []
        self.rejected: set[str] = set()
        self.kind = False
        self.steps = random.choices([0, 0, 1, 60, HOUR, 5 * HOUR, DAY - 5, DAY, 2 * DAY], k=4)
        self.start()

    def start(self) -> None:
        self.budget = Budget(self.limit, self.rows)
        self.backlog = Backlog(repeats=False)
        self.read = self.committed

    def save(self) -> None:
        for key, value in self.budget.changes().items():
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value

    def fetch(self, count: int) -> None:
        for it, team in self.records[self.read : self.read + count]:
            self.budget.waits(it, team)
            self.read += 1
            self.backlog.add(Record(it, (0, self.read - 1), {0: self.read}))

    def may_die(self) -> None:
        if not self.kind and self.random.random() < 0.06:
            raise KilledError

    def post(self, sent: list[Incident | Digest]) -> str:
        self.may_die()
        self.now += 0 if self.kind else self.random.choice([0, 1, 10])
        said = "accepted"
        if not self.kind:
            said = self.random.choice(["accepted"] * 6 + ["lost", "down", "rejected"])
        if said in ("accepted", "lost"):
            self.received += [(self.now, it) for it in sent]
        self.may_die()
        return said

    def turn(self) -> None:
        digest = self.budget.digest(self.now)
        if digest is not None:
            self.save()
            if self.post([digest]) in ("accepted",):
                self.budget.digest_done(digest)
            self.save()
            return
        batch = self.backlog.batch(
            1 if self.kind else self.random.randint(1, 3),
            0.0,
            lambda it: self.budget.admits(it, self.teams[it.id], "", self.now),
        )
        self.save()
        if batch.new:
            said = self.post(list(batch.incidents))
            if said == "rejected" and len(batch.new) == 1:
                self.budget.rejected(batch.incidents[0], "", self.now)
                self.rejected.add(batch.incidents[0].id)
            elif said != "accepted":
                return
            else:
                for it in batch.incidents:
                    self.budget.accepted(it)
            self.save()
        self.may_die()
        self.committed = self.backlog.done(batch, 0.0).get(0, self.committed)

    def live(self) -> None:
        for _ in range(self.random.randint(1, 40)):
            self.now += self.random.choice(self.steps)
            try:
                self.fetch(self.random.randint(0, 5))
                self.turn()
            except KilledError:
                self.start()

    def end(self) -> None:
        """Let everything arrive."""
        self.kind = True
        self.fetch(len(self.records))
        for _ in range(len(self.records) + 20):
            self.turn()
            self.now += DAY / 2 if not self.backlog else 0


def topic(random: Random) -> list[tuple[Incident, str]]:
    """Some incidents, each with its records in order, among those of the others."""
    left = []
    for number in range(random.randint(1, 14)):
        scores = random.choices([0.3, 0.55, 0.8, 0.99], k=random.randint(1, 3))
        silent = random.random() < 0.2
        lives = [
            opened(
                number, None if silent else score, sequence=at, state="updated" if at else "opened"
            )
            for at, score in enumerate(scores)
        ]
        if random.random() < 0.5:
            lives.append(opened(number, scores[0], state="resolved", sequence=len(scores)))
        left.append((lives, random.choice(["", "", "web"])))
    found = []
    while left:
        lives, team = random.choice(left)
        found.append((lives.pop(0), team))
        left = [it for it in left if it[0]]
    return found


@settings(max_examples=60, deadline=None)
@given(limit=st.integers(2, 6), random=st.randoms(use_true_random=True))
def test_no_day_has_more_pages_and_nothing_is_lost(limit: int, random: Random) -> None:
    for _ in range(10):
        check_a_world(limit, random)


def check_a_world(limit: int, random: Random) -> None:
    records = topic(random)
    world = World(limit, records, random)
    world.live()
    world.end()
    # A page is what the target sees first of an incident, or sees of it again; or a digest.
    pages: dict[str, list[tuple[float, str]]] = defaultdict(list)
    first: dict[str, float] = {}
    named: dict[str, set[str]] = defaultdict(set)
    for at, it in world.received:
        if isinstance(it, Digest):
            pages[it.team or ""].append((at, it.id))
            for each in it.incidents:
                named[each.id].add(it.id)
            assert it.unnamed == 0
            assert it.count == len(it.incidents)
            continue
        assert it.id in first or it.state != "resolved"
        number = float("inf") if it.state == "resolved" else it.sequence
        if number <= first.setdefault(it.id, number):
            pages[world.teams[it.id]].append((at, it.id))
    for times in pages.values():
        for begin, _ in times:
            assert len({it for at, it in times if begin <= at < begin + DAY}) <= limit
    for it, _ in records:
        assert it.id in first or len(named[it.id]) == 1
        assert len(named[it.id]) <= 1
    assert world.committed == len(records)


# What is sent


def admitted(budget: Budget, *incidents: Incident, now: float = BEGIN, team: str = "") -> list[int]:
    """Post incidents one after the other; return the numbers of those that were sent."""
    sent = []
    for it in incidents:
        if budget.admits(it, team, "", now):
            budget.accepted(it)
            sent.append(int(it.id, 16))
    return sent


def test_the_more_pages_are_taken_the_more_surprising_an_incident_must_be() -> None:
    budget = Budget(10)
    assert admitted(budget, *(opened(n, 0.55) for n in range(20))) == [0, 1, 2, 3, 4, 5]
    # A silence counts as 0.5.
    assert admitted(budget, *(opened(n, None) for n in range(20, 30))) == []
    assert admitted(budget, *(opened(n, 0.75) for n in range(30, 40))) == [30, 31]
    assert admitted(budget, *(opened(n, 0.95) for n in range(40, 50))) == [40]
    # The last one is for the digest.
    assert budget.digest(BEGIN) is None
    digest = budget.digest(BEGIN + HOUR)
    assert digest is not None
    assert (digest.count, digest.incidents[0].score) == (41, 0.95)
    assert admitted(budget, opened(50, 1.0), now=BEGIN + DAY) == []
    assert admitted(budget, opened(51, 0.1), now=BEGIN + DAY + HOUR / 2) == [51]


def test_of_what_waits_the_most_surprising_is_sent() -> None:
    budget = Budget(4)
    burst = [opened(n, 0.76 + n / 1000) for n in range(100)]
    for it in burst:
        budget.waits(it, "")
    assert admitted(budget, *burst) == [97, 98, 99]


def test_teams_have_pages_of_their_own() -> None:
    budget = Budget(2)
    assert admitted(budget, opened(1), opened(2), team="web") == [1]
    assert admitted(budget, opened(3), opened(4)) == [3]
    assert {budget.digest(BEGIN + HOUR).team, budget.digest(BEGIN + HOUR).team} == {"web"}  # type: ignore[union-attr]


def test_what_follows_a_page_is_none_and_what_follows_none_may_be_one() -> None:
    budget = Budget(4)
    assert admitted(budget, *(opened(n, 0.6) for n in range(1, 6))) == [1, 2, 3]
    worse = opened(1, 0.9, state="updated", sequence=1)
    assert admitted(budget, worse, opened(1, state="resolved", sequence=2)) == [1, 1]
    # Two days later there are pages again.
    later = BEGIN + 2 * DAY
    again = opened(4, 0.9, state="updated", sequence=1)
    assert admitted(budget, again, opened(5, state="resolved", sequence=1), now=later) == [4]
    digest = budget.digest(later)
    assert digest is not None
    assert [(int(it.id, 16), it.state) for it in digest.incidents] == [(5, "resolved")]
    assert admitted(budget, opened(4, state="resolved", sequence=2), now=later) == [4]


def test_digests_take_a_fifth_of_the_pages_and_come_an_hour_later() -> None:
    budget, found = Budget(20), []
    admitted(budget, *(opened(n, 0.6) for n in range(14)))
    for minute in range(0, 24 * 60, 10):
        now = BEGIN + 60 * minute
        admitted(budget, opened(1000 + minute, 0.6), now=now)
        if (digest := budget.digest(now)) is not None:
            budget.digest_done(digest)
            found.append(minute / 60)
    assert found == [1, 7, 13, 19]


def test_a_clock_that_was_set_back_delays_no_page_by_more_than_a_day() -> None:
    budget = Budget(2)
    assert admitted(budget, opened(1), opened(2), now=BEGIN + 1000 * DAY) == [1]
    assert admitted(budget, opened(3), now=BEGIN) == []
    assert budget.digest(BEGIN + HOUR) is not None
    assert admitted(budget, opened(4), now=BEGIN + 2 * DAY) == [4]


def test_a_digest_names_instances_the_worst_first_and_is_not_too_large() -> None:
    held = [held_back(opened(n, 0.5 + n / 100), "") for n in range(12)]
    held.append(held_back(opened(20, 0.51, instance="host-3", state="resolved"), ""))
    digest = digest_of("web", held, 2, BEGIN, BEGIN + HOUR)
    assert title(digest).startswith("15 incidents of team web held back since 2023-11-14 22:13 UTC")
    said = lines(digest)
    assert [it.split(":")[0] for it in said[:3]] == ["host-11", "host-10", "host-9"]
    assert said[8].endswith("(warning, still open) (and 1 more of this instance)")
    assert said[10:] == ["and 4 more incidents"]
    many = [held_back(opened(n), "") for n in range(1000)]
    digest = digest_of("", many, 0, BEGIN, BEGIN)
    assert digest.team is None
    assert digest.unnamed + len(digest.incidents) == digest.count == 1000
    assert 100 < len(digest.incidents) < 400


def test_what_is_forgotten_while_it_is_held_back_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dataflow.notify.budget.KNOWN", 3)
    budget = Budget(2)
    admitted(budget, *(opened(n) for n in range(6)))
    rows = {key: value for key, value in budget.changes().items() if value is not None}
    digest = Budget(2, rows).digest(BEGIN + HOUR)
    assert digest is not None
    assert (digest.count, digest.unnamed) == (5, 2)
