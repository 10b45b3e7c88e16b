"""Incidents of groups: by their rules, in any order of arrival, and over any sequence of lives."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from dataflow.incidents.groups import GroupRules, GroupTracker, time_of
from dataflow.records import Incident, Raw, Reading, Reason, Source
from dataflow.runtime import epochs, shutdown
from dataflow.settings import Settings
from dataflow.steps import groups
from dataflow.steps.groups import Membership, Passed

START = 1_709_251_200.0  # Friday, 1 March 2024, 00:00 UTC
STEP = 300.0
RULES = GroupRules(STEP, 3600.0, 900.0)
SETTINGS = Settings(_env_file=None, incidents=True, group_pattern="^(.)")


def record(
    instance: str,
    at: float,
    state: str,
    id: str,
    sequence: int,
    score: float = 0.7,
    *,
    low: bool = False,
    slow: float = 0.0,
) -> Incident:
    time = datetime.fromtimestamp(START + at, UTC)
    ended = "recovered" if state == "resolved" else None
    return Incident(
        *(instance, "anomaly", state, id, sequence),  # type: ignore[arg-type]
        **{"since": time, "opened_at": time, "updated_at": time, "resolved_at": None},
        **{"ended": ended, "score": score, "peak_at": time, "expected": 0.2},
        **{"value": 0.1 if low else 0.9},
        **{"reasons": (Reason("jump", 0.6), Reason("lately", slow)) if slow else None},
        **{"anomalies": sequence + 1, "source": Source("cpu", int(instance[1:]) % 3, int(at))},
        **{"duration": 0.0, "group": "web"},
    )


def life(
    instance: str,
    begins: float,
    lasts: float | None,
    number: int = 0,
    *,
    low: bool = False,
    slow: float = 0.0,
) -> list[tuple[float, Incident]]:
    """The records of an incident of a member: opened, and resolved unless it never is.

    It is `low` or high; `slow` is the share of its alert that comes of the readings before it.
    """
    id = f"{instance}-{number}"
    score = 0.6 + int(instance[1:]) / 100
    made = [(begins, record(instance, begins, "opened", id, 0, score, low=low, slow=slow))]
    if lasts is not None:
        ends = begins + lasts
        made.append((ends, record(instance, ends, "resolved", id, 1, low=low, slow=slow)))
    return made


def run(lives: list[list[tuple[float, Incident]]], size: int = 40) -> list[Incident]:
    tracker = GroupTracker(RULES, "web")
    out: list[Incident] = []
    events = sorted(itertools.chain(*lives), key=lambda it: (it[0], it[1].id))
    for at, one in events:
        out += tracker.advance(START + at)
        out += tracker.add(one, size)
    return out + tracker.advance(START + 1e9)


def shown(records: list[Incident]) -> list[str]:
    minutes = [round((time_of(one) - START) / 60) for one in records]
    return [
        f"{at} {one.instance} {one.state}" + (" folded" if one.folded else "")
        for at, one in zip(minutes, records, strict=True)
    ]


def test_three_that_come_together_are_one() -> None:
    found = run([life("m1", 0, 7200), life("m2", 60, 7200), life("m3", 240, 7200)])
    assert shown(found) == [
        "4 web opened",
        *("0 m1 opened folded", "1 m2 opened folded", "4 m3 opened folded"),
        *("120 m1 resolved folded", "121 m2 resolved folded", "124 m3 resolved folded"),
        "124 web resolved",
    ]
    first, last = found[0], found[-1]
    assert first.spread is not None
    assert (first.spread.affected, first.spread.size) == (3, 40)
    assert [it.instance for it in first.spread.members] == ["m1", "m2", "m3"]
    assert (first.since, first.score, first.id) == (found[1].since, 0.63, last.id)
    assert {one.part_of for one in found[1:-1]} == {first.id}
    assert (last.ended, last.anomalies) == ("recovered", 6)


def test_two_are_two_but_in_a_group_of_two() -> None:
    lives = [life("m1", 0, 600), life("m2", 60, 600)]
    assert shown(run(lives)) == [
        *("0 m1 opened", "1 m2 opened", "10 m1 resolved", "11 m2 resolved")
    ]
    assert "1 web opened" in shown(run(lives, size=2))


def test_who_comes_too_late_for_the_onset_is_alone() -> None:
    found = run([life("m1", 0, None), life("m2", 200, None), life("m3", 501, None)])
    assert shown(found) == ["0 m1 opened", "3 m2 opened", "8 m3 opened"]


def test_an_onset_lasts_while_members_follow() -> None:
    """Each comes within an interval of the one before, as in a deployment."""
    found = run([life(f"m{n}", 290 * n, None) for n in range(6)])
    assert shown(found)[:2] == ["10 web opened", "0 m0 opened folded"]
    assert all(it.folded for it in found if it.spread is None)


def test_two_wait_for_a_third_no_longer_than_two_intervals() -> None:
    tracker = GroupTracker(RULES, "web")
    for at, one in life("m1", 0, None) + life("m2", 299, None):
        assert not tracker.advance(START + at) + tracker.add(one, 40)
    assert tracker.due() == START + 599
    assert not tracker.advance(START + 599)
    assert [it.instance for it in tracker.advance(START + 600)] == ["m1", "m2"]


def test_one_on_the_other_side_waits_only_for_its_own_side() -> None:
    tracker = GroupTracker(RULES, "web")
    for at, one in life("m1", 0, None) + life("m2", 10, None, low=True) + life("m3", 290, None):
        assert not tracker.advance(START + at) + tracker.add(one, 40)
    assert [it.instance for it in tracker.advance(START + 311)] == ["m2"]
    assert [it.instance for it in tracker.advance(START + 591)] == ["m1", "m3"]


def test_who_began_before_its_alert_joins_and_who_begins_later_does_not() -> None:
    """A single fault while a group is in trouble is a page of its own."""
    onset = [life(f"m{n}", 10 * n, 9000) for n in range(4)]
    later = [
        *(life("m5", 400, 600), life("m6", 2400, 600)),
        *(life("m7", 1400, 600, slow=0.2), life("m8", 2500, 600, slow=0.2)),
        *(life("m9", 3700, 600, slow=0.2), life("m4", 1800, 600, slow=0.2, low=True)),
        # Whether its readings were high or low, its value does not say any more.
        life("m10", 3000, 600, slow=0.6, low=True),
        life("m11", 3200, 600, slow=0.1),
    ]
    found = run([*onset, *later])
    folded = {one.instance for one in found if one.state == "opened" and one.folded}
    assert folded == {*(f"m{n}" for n in range(4)), "m7", "m8", "m10"}
    assert [one.state for one in found if one.instance == "m6"] == ["opened", "resolved"]


def test_who_is_on_the_other_side_of_what_was_expected_is_alone() -> None:
    onset = [life(f"m{n}", 10 * n, 9000) for n in range(3)]
    lives = [life("m4", 0, 600, low=True), *onset, life("m5", 35, 600, low=True)]
    found = run([*lives, life("m6", 60, 600)])
    alone = {one.instance for one in found if not one.folded and one.spread is None}
    assert alone == {"m4", "m5"}
    # Three of them are in trouble together: it is one of the group too, and only one is open.
    found = run([*lives, life("m6", 60, 600, low=True)])
    assert all(one.folded for one in found if one.spread is None)
    assert len({one.id for one in found if one.spread}) == 1


def test_a_member_that_goes_on_alone_is_left_to_itself() -> None:
    lives = [life("m1", 0, 1200), life("m2", 0, 30_000), life("m3", 0, 1500)]
    found = run(lives)
    assert shown(found)[-4:] == [
        *("25 m3 resolved folded", "40 web resolved", "40 m2 updated", "500 m2 resolved")
    ]
    updated, resolved = found[-2:]
    assert (updated.sequence, resolved.sequence) == (1, 2)
    assert updated.part_of == resolved.part_of == found[-3].id


def test_an_update_comes_when_twice_as_many_are_affected() -> None:
    found = run([life(f"m{n:02d}", 60 * n, None) for n in range(1, 25)])
    of_group = [one for one in found if one.spread is not None]
    assert [(one.state, one.spread.affected) for one in of_group if one.spread] == [
        *(("opened", 3), ("updated", 6), ("updated", 12), ("updated", 24))
    ]


Chosen = tuple[str, float, float | None, tuple[bool, float]]

members = st.integers(0, 7).map("m{}".format)
some_lives = st.lists(
    st.tuples(
        members,
        st.integers(0, 40).map(lambda it: 100.0 * it),
        st.none() | st.integers(0, 80).map(lambda it: 150.0 * it),
        st.sampled_from([(False, 0.0), (False, 0.2), (True, 0.0), (True, 0.6)]),
    ),
    max_size=14,
)


def made(chosen: list[Chosen]) -> list[list[tuple[float, Incident]]]:
    """One incident at a time of each member."""
    lives = []
    ends: dict[str, float] = {}
    for number, (instance, begins, lasts, kind) in enumerate(sorted(chosen, key=lambda it: it[1])):
        if begins >= ends.get(instance, 0.0):
            low, slow = kind
            lives.append(life(instance, begins, lasts, number, low=low, slow=slow))
            ends[instance] = float("inf") if lasts is None else begins + lasts + 1
    return lives


@given(some_lives)
@settings(max_examples=50)
def test_every_record_is_there_once_and_pages_are_right(
    chosen: list[Chosen],
) -> None:
    lives = made(chosen)
    found = run(lives)
    by_id = defaultdict(list)
    for one in found:
        by_id[one.id].append(one)
    for each in lives:
        records = by_id.pop(each[0][1].id)
        assert [it.sequence for it in records] == list(range(len(records)))
        left = [it for it in records if it.state != "updated"]
        assert [it.state for it in left] == [it.state for _, it in each]
        # One that was left to itself says so once; nothing folds it again.
        assert sum(it.state == "updated" for it in records) <= 1
        assert [it.folded for it in records] == sorted((it.folded for it in records), reverse=True)
    own = [one for one in found if one.spread is None and one.state == "opened"]
    for id, records in by_id.items():
        assert [it.sequence for it in records] == list(range(len(records)))
        assert [it.state for it in records][:1] == ["opened"]
        assert all(it.state != "resolved" for it in records[:-1])
        opened = time_of(records[0])
        begun = [it for it in own if it.part_of == id and time_of(it) <= opened]
        assert len({it.value for it in begun}) == 1
        times = sorted(time_of(it) for it in begun)
        assert len({it.instance for it in begun}) >= 3
        assert all(after - before <= STEP for before, after in itertools.pairwise(times))
        # Who joins later follows another one soon, or began before.
        for it in own:
            if it.part_of == id and time_of(it) > opened and not it.reasons:
                others = [time_of(other) for other in own if other is not it and other.folded]
                assert min(abs(time_of(it) - time) for time in others) <= STEP
        # It is resolved if all of its members are, or all but one.
        going = {it.id for it in own if it.part_of == id}
        open_now = going - {it.id for it in found if it.state == "resolved"}
        assert (records[-1].state == "resolved") == (len(open_now) < 2)
    # Of those that page by themselves, no three came together.
    single = sorted((time_of(one), one.instance, one.value) for one in own if not one.folded)
    for at, _, side in single:
        near = {name for time, name, value in single if at <= time <= at + STEP and value == side}
        assert len(near) < 3


class Lives:
    """The step `groups` in a flow that is killed; each epoch brings its records in any order."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
        self.now = 1000.0
        self.random = random.Random(seed)
        monkeypatch.setattr(groups.time, "monotonic", lambda: self.now)
        self.folder, self.process = folder, 0
        self.written: dict[tuple[str, int], Incident] = {}
        self.saved: tuple[int, bytes | None] = (0, None)
        self.kept: dict[str, Any] = {}
        self.start()

    def start(self) -> None:
        self.process = 1 - self.process
        store: Any = SimpleNamespace(
            folder=self.folder, process=self.process, kept=self.kept.get, keep=self.kept.__setitem__
        )
        self.next, state = self.saved
        self.logic = groups.logic(SETTINGS, store)(state)

    def epoch(self, items: list[Any], *, ends: bool = False) -> None:
        """Let the items of an epoch come in batches; `ends`: it is the last one."""
        items = self.random.sample(items, len(items))
        # The records of one incident come in their order.
        own = sorted((it for it in items if isinstance(it, Incident)), key=lambda it: it.sequence)
        places = [place for place, it in enumerate(items) if isinstance(it, Incident)]
        for place, it in zip(places, own, strict=True):
            items[place] = it
        while items:
            size = self.random.randint(1, 4)
            self.write(self.logic.on_batch(items[:size])[0])
            del items[:size]
        self.next += 1
        if ends:
            self.write(self.logic.on_eof()[0])

    def write(self, records: Any) -> None:
        for one in records:
            before = self.written.setdefault((one.id, one.sequence), one)
            assert before == one, "a record is computed again, and is another one"

    def save(self) -> None:
        self.saved = (self.next, self.logic.snapshot())


def epochs_of(lives: list[list[tuple[float, Incident]]]) -> list[list[Any]]:
    """Epochs of ten minutes in three partitions: their marks, members and records."""
    events = sorted(itertools.chain(*lives), key=lambda it: it[0])
    last = int(events[-1][0] // 600) + 1 if events else 1
    found: list[list[Any]] = []
    for number in range(last + 1):
        reached = START + 600.0 * number
        items: list[Any] = [Passed(partition, reached - 1.0) for partition in range(3)]
        if number == 0:
            items += [Membership(START + it, "web", "cpu", 1) for it in range(8)]
        items += [one for at, one in events if number <= at / 600 < number + 1]
        found.append(items)
    return found


@given(some_lives, st.lists(st.sampled_from(["go", "go", "save", "kill", "wait"]), max_size=30))
@settings(max_examples=8)
def test_lives_and_orders_change_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    chosen: list[Chosen],
    acts: list[str],
) -> None:
    lives = made(chosen)
    epochs = epochs_of(lives)
    with pytest.MonkeyPatch.context() as monkeypatch:
        whole = Lives(tmp_path_factory.mktemp("whole"), monkeypatch, 1)
        items = [it for it in itertools.chain(*epochs) if not isinstance(it, Passed)]
        whole.epoch(items, ends=True)
        flow = Lives(tmp_path_factory.mktemp("store"), monkeypatch, 2)
        waited = False
        for act in itertools.chain(acts, itertools.repeat("go")):
            if act == "kill":
                flow.start()
            elif act == "save":
                flow.save()
            elif act == "wait":
                # Nothing comes for a while, so what is there is taken: another decision, but one.
                waited = True
                flow.now += 1000.0
                flow.write(flow.logic.on_notify()[0])
            else:
                flow.epoch(epochs[flow.next], ends=flow.next == len(epochs) - 1)
                if flow.next == len(epochs):
                    break
    if not waited:
        assert flow.written == whole.written
    opened = {id for id, sequence in flow.written}
    assert {(each[0][1].id, 0) for each in lives} <= flow.written.keys()
    for id in opened:
        numbers = sorted(sequence for own, sequence in flow.written if own == id)
        assert numbers == list(range(len(numbers)))


def test_a_stopped_flow_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutdown, "asked", lambda: True)
    flow = Lives(tmp_path, monkeypatch, 1)
    flow.epoch([it for _, it in life("m1", 0, None)], ends=True)
    assert not flow.written


def test_decisions_of_other_rules_are_refused_and_their_incidents_carried_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a flow that was killed, the last decisions are repeated: other rules would take others."""

    def stop(reason: str) -> None:
        raise SystemExit(reason)

    monkeypatch.setattr(groups, "stop_process", stop)
    flow = Lives(tmp_path, monkeypatch, 1)
    onset, *_ = epochs_of([life(f"m{number}", 0, None) for number in range(3)])
    flow.epoch(onset)
    flow.save()
    flow.now += 1000.0
    flow.write(flow.logic.on_notify()[0])
    flow.start()
    flow.kept.clear()  # as an earlier version leaves it
    with pytest.raises(SystemExit, match="did not save its last decisions of groups before it was"):
        flow.start()
    # It was stopped, and saved what it knew, in the form of then.
    flow.kept["rules of groups"] = groups.RULES
    flow.start()
    flow.write(flow.logic.on_notify()[0])
    state = bytearray(flow.logic.snapshot())
    assert state[1] == groups.VERSION
    state[1] = groups.CARRIED_OVER
    flow.kept.clear()
    flow.saved = (1, bytes(state))
    flow.start()
    assert flow.kept == {"rules of groups": groups.RULES}
    assert any(tracker.open for tracker in flow.logic._trackers.values())
    state[1] = groups.VERSION + 1
    flow.saved = (1, bytes(state))
    with pytest.raises(SystemExit, match="were saved by another version"):
        flow.start()


def test_a_page_waits_no_longer_than_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No reading follows: half a minute to see that, then the time that others have to come."""
    flow = Lives(tmp_path, monkeypatch, 1)
    flow.epoch([it for _, it in life("m1", 0, None)])
    for after, pages in ((0.0, 0), (329.0, 0), (331.0, 1)):
        flow.now = 1000.0 + after
        flow.write(flow.logic.on_notify()[0])
        assert len(flow.written) == pages, after


def test_what_is_in_no_group_passes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from msgspec.structs import replace

    flow = Lives(tmp_path, monkeypatch, 1)
    flow.epoch([replace(it, group=None) for _, it in life("m1", 0, 600)])
    assert [one.state for one in flow.written.values()] == ["opened", "resolved"]


def test_a_record_waits_however_slow_its_partition_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Marks of another partition do not say that an instance's clock is ahead."""
    flow = Lives(tmp_path, monkeypatch, 1)
    begins = {name: life(name, at, None)[0][1] for name, at in (("m1", 600), ("m4", 1000))}
    marks = [Passed(partition, START) for partition in (1, 2)]
    members = [Membership(START, "web", "cpu", 1) for _ in range(8)]
    flow.epoch([*marks, *members, *begins.values()])
    for number in range(1, 6):
        flow.epoch([Passed(2, START + 100.0 * number)])
    assert not flow.written
    flow.epoch([life(name, at, None)[0][1] for name, at in (("m2", 700), ("m5", 750))], ends=True)
    (of_group,) = (one for one in flow.written.values() if one.spread and one.state == "opened")
    assert [it.instance for it in of_group.spread.members] == ["m1", "m2", "m5"]


def test_a_record_of_a_clock_that_is_ahead_does_not_wait_for_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = Lives(tmp_path, monkeypatch, 1)
    flow.epoch([Passed(1, START), *(it for _, it in life("m1", 1e6, 600))])
    for number in range(1, 5):
        assert bool(flow.written) == (number > 3)
        flow.epoch([Passed(1, START + 600.0 * number)])
    assert [one.state for one in flow.written.values()] == ["opened", "resolved"]


def test_open_incidents_of_groups_are_counted_across_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counted() -> float | None:
        return REGISTRY.get_sample_value("anomaly_incidents_open", {"incident": "group"})

    flow = Lives(tmp_path, monkeypatch, 1)
    lives = [life(f"m{number}", 0, 700) for number in (1, 2, 3)]
    first, second, *_ = epochs_of(lives)
    flow.epoch(first)
    flow.epoch([Passed(partition, START + 500.0) for partition in range(3)])
    flow.now += 1000.0
    flow.write(flow.logic.on_notify()[0])
    assert counted() == 1
    flow.save()
    groups.INCIDENTS_OPEN.clear()
    flow.start()
    assert counted() == 1
    flow.epoch(second)
    flow.now += 1000.0
    flow.write(flow.logic.on_notify()[0])
    assert counted() == 0


@pytest.mark.parametrize("last", range(8))
def test_what_is_saved_does_not_depend_on_how_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    """While nothing happens, the same bytes are saved in each epoch."""
    often, once = Lives(tmp_path, monkeypatch, 1), Lives(tmp_path, monkeypatch, 1)
    joins = [Membership(START + it, "web", "cpu", 1) for it in range(3)]
    of_m1 = [it for _, it in life("m1", 2700, 300)]
    leaves = Membership(START + 1500.0, "web", "cpu", -1)
    epochs = [joins[:1], joins[1:], [], [leaves], [], of_m1, [], []]
    for number, items in enumerate(epochs[: last + 1]):
        for flow in (often, once):
            flow.epoch([Passed(0, START + 600.0 * number), *items])
        often.save()
    once.save()
    assert often.saved == once.saved


def test_each_partition_of_a_batch_is_marked_with_its_own_time() -> None:
    """Bytewax may put the batches of several partitions together."""

    def decode(batch: list[Raw]) -> list[Any]:
        return [
            Reading("m1", None, 0, 0.5, START + raw.offset, raw.partition, raw.offset)
            for raw in batch
        ]

    marked = groups.marked(decode)
    # Partitions that no other test has.
    batch = [Raw(partition, offset, b"") for partition, offset in ((901, 10), (901, 20), (902, 90))]
    assert not [it for it in marked(batch) if isinstance(it, Passed)]
    for partition, offset in ((901, 21), (902, 91)):
        epochs.end(partition, offset)
    batch = [Raw(partition, offset, b"") for partition, offset in ((901, 30), (902, 91))]
    found = [it for it in marked(batch) if isinstance(it, Passed)]
    assert found == [Passed(901, START + 20), Passed(902, START + 90)]


def test_a_batch_with_which_an_epoch_ends_is_of_that_epoch() -> None:
    """The snapshot is taken before the batch is passed on; a mark then would come too early."""

    def decode(batch: list[Raw]) -> list[Any]:
        return [Reading("m1", None, 0, 0.5, START + it.offset, 903, it.offset) for it in batch]

    marked = groups.marked(decode)

    def marks(*offsets: int, ends: bool = False) -> list[float]:
        if ends:
            epochs.end(903, offsets[-1] + 1)
        found = marked([Raw(903, offset, b"") for offset in offsets])
        return [it.time - START for it in found if isinstance(it, Passed)]

    assert marks(1, 2) == []
    assert marks(3, 4, ends=True) == []
    assert marks(5, 6) == [4]
    assert marks(7, ends=True) == []
    for _ in range(3):  # epochs without records
        epochs.end(903, 8)
    assert marks(8, 9) == [7]
    assert marks(10) == []
