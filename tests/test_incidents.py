"""Incidents against a recount of the whole history, and what must hold however they come about."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judging import THRESHOLD, Judge, alerts, episodes, judge_all
from msgspec.structs import replace

from dataflow.detectors import make
from dataflow.errors import UserError
from dataflow.incidents import maintenance
from dataflow.incidents.episodes import EpisodeTracker
from dataflow.incidents.monitor import InstanceMonitor
from dataflow.incidents.rules import Judged, Rules
from dataflow.incidents.silence import Progress, SilenceState
from dataflow.records import Incident, Reading, encode
from dataflow.recovery.decisions import Decisions
from dataflow.settings import Settings

START = 1_709_251_200.0  # Friday, 1 March 2024, 00:00 UTC
STEP = 300.0

scores = st.none() | st.sampled_from([0.45, 0.6, 0.7, 0.8, 0.9, 0.99])
passed = st.sampled_from([0.0, 60.0, STEP, STEP, STEP, 900.0, 4000.0, 90_000.0, -STEP])
histories = st.lists(st.tuples(passed, scores), max_size=40)


def readings_of(
    history: list[tuple[float, float | None]],
) -> Iterator[tuple[Reading, float | None]]:
    time = START
    for index, (gap, score) in enumerate(history):
        time += gap
        yield Reading("host-a", time, index, 0.5, time, 0, index), score


some_rules = st.builds(
    Rules,
    anomalies=st.integers(1, 3),
    readings=st.integers(3, 5),
    duration=st.sampled_from([0.0, STEP, 900.0]),
    cooldown=st.sampled_from([0.0, 900.0, 7200.0]),
    updates=st.integers(0, 3),
    silence=st.just(0.0),
    plan=st.sampled_from(
        [
            maintenance.Plan(),
            maintenance.parse("host-*: daily 00:20-01:10; other: daily 00:00-23:00"),
        ]
    ),
)


quiets = st.sampled_from([300.0, 600.0, 3600.0])


def recount(
    rules: Rules,
    quiet: float,
    history: list[tuple[Reading, float]],
    threshold: float = THRESHOLD,
) -> list[tuple[str, int, int, int, int, str | None]]:
    """State, first reading, sequence, cause, anomalies, end: of every record."""
    clocks = [0.0]
    for (before, _), (after, _) in itertools.pairwise(history):
        clocks.append(clocks[-1] + max(0.0, after.time - before.time))  # type: ignore[operator]
    above = [score > threshold for _, score in history]
    news = alerts([score for _, score in history], threshold)
    out: list[tuple[str, int, int, int, int, str | None]] = []
    rest = 0.0
    for first, end in episodes(history, threshold, quiet):
        last = len(history) if end is None else end

        def opens(index: int, first: int = first, rest: float = rest) -> bool:
            of_day = history[index][0].time % 86_400  # type: ignore[operator]
            lasting = any(
                all(above[at : at + 6]) for at in range(first, index - 4) if at + 6 <= index + 1
            )
            return (
                (lasting or any(first <= at <= index for at in news))
                and sum(above[max(0, index - rules.readings + 1) : index + 1]) >= rules.anomalies
                and clocks[index] - clocks[first] >= rules.duration
                and clocks[index] >= rest
                and not (rules.plan.entries and 20 * 60 <= of_day < 70 * 60)
            )

        found = [index for index in range(first, last) if above[index]]
        opened = next((index for index in found if opens(index)), None)
        if opened is None:
            continue
        peaks = {it: max(history[i][1] for i in found if i <= it) for it in found}
        rise = (1 - peaks[opened]) / max(1, rules.updates)
        records = [("opened", opened)]
        reported = peaks[opened]
        for index in (it for it in found if it > opened):
            if (
                len(records) <= rules.updates
                and peaks[index] > reported
                and peaks[index] >= reported + rise
            ):
                records.append(("updated", index))
                reported = peaks[index]
        if end is not None:
            records.append(("resolved", end))
            rest = clocks[end] + rules.cooldown
        out += [
            (
                state,
                first,
                number,
                index,
                sum(it <= index for it in found),
                "recovered" if state == "resolved" else None,
            )
            for number, (state, index) in enumerate(records)
        ]
    return out


@given(histories, some_rules, quiets)
def test_incidents_are_what_a_recount_of_the_whole_history_finds(
    history: list[tuple[float, float | None]], rules: Rules, quiet: float
) -> None:
    readings = list(readings_of(history))
    monitor = InstanceMonitor(rules, Progress(), "host-a")
    records = [
        incident
        for reading, judged in judge_all(readings, quiet)
        for incident in monitor.add(reading, judged)
    ]
    firsts = {incident_id(reading): index for index, (reading, _) in enumerate(readings)}
    assert [
        (it.state, firsts[it.id], it.sequence, it.source.offset, it.anomalies, it.ended)
        for it in records
    ] == recount(rules, quiet, [(reading, score or 0.0) for reading, score in readings])
    for it in records:
        inside = readings[firsts[it.id] : it.source.offset + 1]
        assert it.score == max(score or 0.0 for _, score in inside)


def incident_id(reading: Reading) -> str:
    from dataflow.records import incident_id

    return incident_id("anomaly", reading)


long_quiets = st.sampled_from([600.0, 100_000.0])

silent_rules = st.builds(
    Rules,
    silence=st.just(900.0),
    wall=st.just(1800.0),
    gone=st.sampled_from([0.0, 3600.0]),
    plan=st.sampled_from([maintenance.Plan(), maintenance.parse("*: daily 00:20-01:10")]),
)


def check(records: list[Incident]) -> None:
    """What must hold of all records of one instance, each once."""
    by_id: dict[str, list[Incident]] = defaultdict(list)
    for record in records:
        by_id[record.id].append(record)
    for same in by_id.values():
        same.sort(key=lambda it: it.sequence)
        assert [it.sequence for it in same] == list(range(len(same)))
        assert same[0].state == "opened"
        assert [it.state for it in same[1:-1]] == ["updated"] * len(same[1:-1])
        assert same[-1].state != "opened" or len(same) == 1
        assert len({(it.kind, it.since, it.opened_at) for it in same}) == 1
        for it in same:
            assert (it.resolved_at is not None) == (it.state == "resolved") == bool(it.ended)
            assert it.updated_at is not None
            if it.kind == "silence" and it.opened_at and it.since:
                assert (it.opened_at - it.since).total_seconds() >= 900


def check_order(records: list[Incident]) -> None:
    """No second one of a kind opens before the first is resolved."""
    open_now: dict[str, str] = {}
    for record in records:
        if record.state == "opened":
            assert record.kind not in open_now
            open_now[record.kind] = record.id
        else:
            assert open_now[record.kind] == record.id
            if record.state == "resolved":
                del open_now[record.kind]


@given(
    histories, silent_rules, long_quiets, st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40))
)
def test_a_state_saved_and_loaded_anywhere_changes_nothing(
    history: list[tuple[float, float | None]],
    rules: Rules,
    quiet: float,
    breaks: set[int],
    waits: set[int],
) -> None:
    """`waits`: after these readings the clock found a silence."""

    last_state = SilenceState.GONE if rules.gone else SilenceState.SILENT

    def run(breaks: set[int]) -> list[Incident]:
        monitor = InstanceMonitor(rules, Progress(), "host-a")
        out: list[Incident] = []
        for index, (reading, found) in enumerate(judge_all(readings_of(history), quiet)):
            if index and index in breaks:
                monitor = InstanceMonitor.load(rules, Progress(), monitor.dump())
            out += monitor.add(reading, found)
            if index in waits and monitor.silence < last_state:
                out += monitor.report_silence()
        return out

    records = run(set())
    assert run(breaks) == records
    check(records)
    check_order(records)


calm_histories = st.lists(
    st.tuples(
        st.sampled_from([STEP, STEP, STEP, STEP, STEP, 60.0, 901.0, 4000.0, 0.0, -STEP]),
        st.sampled_from([None, None, None, None, None, None, 0.45, 0.8]),
    ),
    min_size=12,
    max_size=40,
)


@given(
    *(calm_histories, some_rules, st.sampled_from([0.0, 900.0]), long_quiets),
    *(st.lists(st.integers(0, 6), min_size=1), st.sets(st.integers(0, 40))),
)
def test_passing_over_readings_equals_adding_each(
    history: list[tuple[float, float | None]],
    rules: Rules,
    silence: float,
    quiet: float,
    sizes: list[int],
    rejected: set[int],
) -> None:
    """Of batches of any size, in which there are rejected readings, with all that is saved."""
    judge, limits = Judge(quiet), replace(rules, silence=silence)
    scored = [judge.scored(reading, score) for reading, score in readings_of(history)]
    each, together = (InstanceMonitor(limits, Progress(now=lambda: 0.0), "host-a") for _ in "ab")
    expected: list[Incident] = []
    found: list[Incident] = []
    counts = itertools.cycle(sizes)
    at = 0
    while at < len(scored):
        batch = scored[at : at + next(counts) + 1]
        if at in rejected:
            for monitor in (each, together):
                monitor.rejected(0, at, START + STEP * at)
        for place, out, monitor in ((0, expected, each), (1, found, together)):
            left = batch[monitor.pass_over(batch) if place else 0 :]
            for reading, verdict, finding in left:
                judged = None if finding is None else Judged(finding, verdict.score)
                out += monitor.add(reading, judged)
        at += len(batch)
        if each.last is not None:
            assert together.dump() == each.dump()
    assert found == expected


def test_ordinary_readings_are_passed_over() -> None:
    monitor = InstanceMonitor(Rules(silence=900.0), Progress(), "host-a")
    ordinary = [Judge(600.0).scored(*one) for one in readings_of([(STEP, None)] * 9)]
    assert monitor.pass_over(ordinary) == 0, "nothing is known of the instance"
    monitor.add(ordinary[0][0], None)
    assert monitor.pass_over(ordinary[1:]) == 8
    assert monitor.last is ordinary[-1][0]


@given(histories, silent_rules, long_quiets, st.sets(st.integers(0, 40)))
def test_a_silence_has_the_same_records_however_it_is_found(
    history: list[tuple[float, float | None]], rules: Rules, quiet: float, waits: set[int]
) -> None:
    """A real gap has the same records, found by the clock or by the next reading."""

    def run(waits: set[int]) -> list[Incident]:
        monitor = InstanceMonitor(rules, Progress(), "host-a")
        out: list[Incident] = []
        readings = list(judge_all(readings_of(history), quiet))
        for index, (reading, found) in enumerate(readings):
            out += monitor.add(reading, found)
            gap = readings[index + 1][0].time - reading.time if index + 1 < len(readings) else 0
            limit = monitor._silence.limit()
            if index in waits and limit is not None and gap > limit:
                out += monitor.report_silence()
        return out

    assert run(waits) == run(set())


def test_a_wrong_time_disturbs_once() -> None:
    rules, judge = Rules(silence=900.0), Judge(3600.0)
    progress = Progress()
    monitors = {name: InstanceMonitor(rules, progress, name) for name in "abcd"}
    out: list[Incident] = []
    for index in range(100):
        for name, monitor in monitors.items():
            time = START + STEP * index + (1e9 if (name, index) == ("a", 50) else 0)
            score = 0.9 if name == "a" and index in (49, 52) else None
            reading = Reading(name, time, index, 0.5, time, 0, 4 * index)
            out += monitor.add(reading, judge.judged(reading, score))
    assert [(it.kind, it.state) for it in out] == [
        ("anomaly", "opened"),
        *[("silence", "opened"), ("silence", "resolved")],
        ("anomaly", "resolved"),  # and what comes ten minutes later is no news
    ]
    assert not any(monitor.overdue(0.0) for monitor in monitors.values())


def test_an_instance_is_silent_by_the_progress_of_the_others() -> None:
    """Not by their times, which may be weeks apart, but by how far they have come since."""
    rules = Rules(silence=900.0, wall=1800.0)
    progress = Progress()
    monitors = {name: InstanceMonitor(rules, progress, name) for name in "abcd"}

    def add(name: str, index: int, partition: int = 0) -> None:
        time = START + 1e7 * ord(name) + STEP * index
        monitors[name].add(Reading(name, time, index, 0.5, time, partition, index), None)

    for index in range(10):
        for name in "abc":
            add(name, index)
        add("d", index, partition=1)
    for index in range(10, 13):
        for name in "bc":
            add(name, index)
    assert monitors["a"].overdue(0.0) is None  # not later than three intervals
    add("b", 13)
    assert monitors["a"].overdue(0.0) is None  # one alone may have a wrong clock
    add("c", 13)
    assert {name: monitor.overdue(0.0) for name, monitor in monitors.items()} == {
        **dict.fromkeys("bcd"),
        "a": "progress",
    }
    assert monitors["d"].overdue(1801.0) == "wall"
    # It comes back, and is again where the others are.
    add("a", 13)
    assert monitors["a"].overdue(0.0) is None


def test_readings_without_times() -> None:
    tracker, judge = EpisodeTracker(Rules(), "a"), Judge(600.0)
    out: list[Incident] = []
    for index in range(6):
        reading = Reading("a", None, index, 0.5, None, 0, index)
        judged = judge.judged(reading, 0.9 if index == 1 else None)
        out += tracker.add(STEP * index, reading, judged)
    assert [(it.state, it.source.offset) for it in out] == [("opened", 1), ("resolved", 3)]
    assert {it.opened_at for it in out} == {None}


# Maintenance


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("a: Sat 22:00-Sun 02:00", ["2024-03-02T22:00", "2024-03-03T01:59"], ["2024-03-03T02:00"]),
        ("a: sun 22:00-mon 02:00", ["2024-03-04T01:00", "1969-12-29T01:00"], ["2024-03-05T01:00"]),
        ("a: Mon 10:00 - 12:00", ["2024-03-04T11:00"], ["2024-03-04T12:00", "2024-03-05T11:00"]),
        ("*: daily 23:00-1:00", ["2024-03-04T00:30", "2024-03-04T23:00"], ["2024-03-04T01:00"]),
        ("a: 2024-03-01T10:00/2024-03-01T12:00+01:00", ["2024-03-01T10:30"], ["2024-03-01T11:00"]),
    ],
)
def test_maintenance(text: str, inside: list[str], outside: list[str]) -> None:
    windows = maintenance.parse(f"b: daily 00:00-23:59 # not ours\n{text};").windows("a")
    for moment in inside + outside:
        time = datetime.fromisoformat(moment).replace(tzinfo=UTC).timestamp()
        assert (maintenance.after(windows, time) > time) == (moment in inside), moment


@given(st.integers(0, 3_000_000), st.lists(st.integers(1, 23), min_size=1, max_size=4))
def test_the_end_of_maintenance_is_the_first_moment_in_no_window(
    minute: int, hours: list[int]
) -> None:
    windows = maintenance.parse(
        ";".join(f"*: daily {hour:02}:00-{(hour + 3) % 24:02}:00" for hour in hours)
    ).windows("a")
    time = START + 60.0 * minute

    def covered(time: float) -> bool:
        return any((time // 3600 - hour) % 24 < 3 for hour in hours)

    expected = time
    while covered(expected):
        expected = (expected // 3600 + 1) * 3600
    assert maintenance.after(windows, time) == expected


def test_maintenance_without_end() -> None:
    windows = maintenance.parse("*: daily 00:00-12:00; *: daily 12:00-00:00").windows("a")
    assert maintenance.after(windows, START) == float("inf")
    monitor = InstanceMonitor(
        Rules(plan=maintenance.parse("*: daily 00:00-12:00; *: daily 12:00-00:00")), Progress(), "a"
    )
    reading = Reading("a", START, 0, 0.5, START, 0, 0)
    assert monitor.add(reading, Judge(600.0).judged(reading, 0.9)) == []
    assert monitor.overdue(1e9) is None


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a: never",
        "a: Foo 10:00-11:00",
        ": daily 10:00-11:00",
        "a: daily 10:00-10:00",
        "a: 2024-03-02/2024-03-01",
        "a: daily 25:00-26:00",
    ],
)
def test_a_maintenance_window_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ValueError, match="maintenance window"):
        maintenance.parse(text)


# Crashes, with what the clock decides


class Machine:
    """A flow with one instance: its step, its recovery store, its output, and the clock."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # Here, because they need Bytewax, and the other tests do not.
        from dataflow.sinks.identity import BY_SEQUENCE
        from dataflow.steps import incidents

        self.identity, self.monitors = BY_SEQUENCE, incidents.monitors
        self.now = 1_000_000.0
        self.store: Any = SimpleNamespace(folder=folder, process=0)
        monkeypatch.setattr(incidents.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(
            incidents, "wake", lambda after: datetime.fromtimestamp(self.now + after, UTC)
        )
        self.settings = Settings(
            _env_file=None, incidents=True, interval=STEP, silence_gone=3600, incident_quiet=600
        )
        self.written: dict[Any, Incident] = {}
        self.saved: tuple[int, bytes | None] = (0, None)
        self.next = 0
        self.start()

    def start(self) -> None:
        """Resume from the last snapshot."""
        detector = make("tutorial")
        build = self.monitors(self.settings, detector, self.store)
        self.next, state = self.saved
        self.logic = build(state)

    def write(self, incidents: Any) -> None:
        for incident in incidents:
            same = self.identity.of(incident)
            assert self.identity.of_line(encode(incident) + b"\n") == same
            assert self.written.setdefault(same, incident) == incident

    def read(self, scored: Any) -> None:
        self.write(self.logic.on_batch([[scored]])[0])
        self.next += 1

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while (due := self.logic.notify_at()) is not None and due.timestamp() <= until:
            self.now = max(self.now, due.timestamp())
            self.write(self.logic.on_notify()[0])
        self.now = until


@given(
    history=st.lists(
        st.tuples(st.sampled_from([STEP, STEP, 900.0, 1200.0, 8000.0]), scores),
        min_size=1,
        max_size=12,
    ),
    actions=st.lists(
        st.sampled_from(["read", "read", "read", "wait", "save", "kill"]), max_size=40
    ),
)
def test_killed_anywhere_each_record_is_written_once_and_what_opened_is_resolved(
    tmp_path_factory: pytest.TempPathFactory,
    history: list[tuple[float, float | None]],
    actions: list[str],
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        machine = Machine(tmp_path_factory.mktemp("store"), monkeypatch)
        readings = list(readings_of(history))
        # In the end, every incident is over.
        end = readings[-1][0].time or 0.0
        rest = [
            Reading("host-a", end + STEP * i, 99, 0.5, end + STEP * i, 0, 900 + i)
            for i in range(1, 6)
        ]
        # What leaves the step before is the same each time that the readings are read.
        judge = Judge(600.0)
        everything = [judge.scored(r, score) for r, score in readings]
        everything += [judge.scored(r, None) for r in rest]
        for action in actions:
            if action == "read" and machine.next < len(readings):
                machine.read(everything[machine.next])
            elif action == "wait":
                machine.wait(2000.0)
            elif action == "save" and machine.next:
                machine.saved = (machine.next, machine.logic.snapshot())
            elif action == "kill":
                machine.start()
        while machine.next < len(everything):
            machine.read(everything[machine.next])
    records = list(machine.written.values())
    check(records)
    opened = {it.id for it in records if it.state == "opened"}
    assert opened == {it.id for it in records if it.state == "resolved"}


def test_decisions_are_there_for_the_next_process(tmp_path: Path) -> None:
    store: Any = SimpleNamespace(folder=tmp_path, process=0)
    decisions = Decisions(store)
    reading = Reading("a", None, 7, 0.5, None, 2, 70)
    decisions.add(reading, 1, {2: 70})
    decisions.add(reading, 2, {2: 70})
    decisions.reach("a", {2: 80, 3: 9})
    decisions.reach("a", {2: 75})
    other: Any = SimpleNamespace(folder=tmp_path, process=1)
    assert Decisions(other).of("a") == ({(2, 70, 0): 2}, {2: 80, 3: 9})
    assert Decisions(store).of("b") == ({}, {})
    Decisions(None).add(reading, 1, {})
    # A process that was killed before it had made its table.
    (tmp_path / "decisions-2.log").touch()
    killed: Any = SimpleNamespace(folder=tmp_path, process=2)
    assert Decisions(killed).of("a")[0] == {(2, 70, 0): 2}
    (tmp_path / "decisions-7.log").write_bytes(b"not a database, and longer than a header" * 9)
    with pytest.raises(UserError, match="is damaged"):
        Decisions(store)
