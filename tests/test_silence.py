"""What is no silence: rejected readings, another interval, readings sent again, a broker away."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Flow, PausableBroker, fill_topic, read_json_lines
from faults import wait_for
from hypothesis import given
from hypothesis import strategies as st
from judging import Judge

from dataflow.detectors import make
from dataflow.detectors.base import Verdict
from dataflow.incidents.monitor import InstanceMonitor
from dataflow.incidents.progress import Progress
from dataflow.incidents.rules import Rules
from dataflow.incidents.silence import SilenceState
from dataflow.kafka import topics
from dataflow.kafka.caught_up import ASKED, CaughtUp
from dataflow.records import Incident, Reading, Rejected, Source
from dataflow.settings import Settings
from dataflow.steps import incidents

START = 1_709_251_200.0
STEP = 300.0
QUIET = 900.0
RULES = Rules(interval=STEP, silence=900.0, wall=1800.0)


def at(index: int, offset: int | None = None, name: str = "a") -> Reading:
    time = START + STEP * index
    return Reading(name, time, index, 0.5, time, 0, index if offset is None else offset)


@pytest.mark.parametrize(
    ("patterns", "silences"), [("", 2), ("asg-*, spot-?", 0), ("asg", 2), ("ASG-*", 2), ("*", 0)]
)
def test_the_silence_of_some_instances_is_no_incident(patterns: str, silences: int) -> None:
    options = Settings(_env_file=None, incidents=True, silence_except=patterns)
    monitor = InstanceMonitor(incidents.rules(options, make(options.detector)), Progress(), "asg-7")
    assert monitor.add(at(0, name="asg-7"), None) == []
    assert len(monitor.add(at(20, name="asg-7"), None)) == silences


# Rejected readings are signs of life.


@pytest.mark.parametrize("saved", [False, True])
def test_an_hour_of_rejected_readings_is_no_silence(saved: bool) -> None:
    monitor = InstanceMonitor(RULES, Progress(), "a")
    monitor.add(at(0), None)
    for index in range(1, 13):
        monitor.rejected(0, index, START + STEP * index)
        if saved:
            monitor = InstanceMonitor.load(RULES, Progress(), monitor.dump())
    assert monitor.add(at(13), None) == []
    # And where they end, the silence begins.
    assert [it.state for it in monitor.add(at(20), None)] == ["opened", "resolved"]


def test_a_gap_among_rejected_readings_is_a_silence() -> None:
    monitor = InstanceMonitor(RULES, Progress(), "a")
    monitor.add(at(0), None)
    monitor.rejected(0, 1, START + STEP)
    monitor.rejected(0, 12, START + 12 * STEP)
    assert [it.state for it in monitor.add(at(13), None)] == ["opened", "resolved"]


def test_others_do_not_overtake_one_whose_readings_are_rejected() -> None:
    progress = Progress()
    monitors = {name: InstanceMonitor(RULES, progress, name) for name in "abc"}
    for index in range(20):
        for number, name in enumerate("abc"):
            offset = 3 * index + number
            if name == "a" and index:
                monitors[name].rejected(0, offset, START + STEP * index)
            else:
                monitors[name].add(at(index, offset, name), None)
        assert not any(one.overdue(0.0) for one in monitors.values())


def test_the_step_takes_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(incidents.time, "monotonic", lambda: now)
    settings = Settings(_env_file=None, incidents=True, interval=STEP)
    logic = incidents.monitors(settings, make("tutorial"), None)(None)
    ((_, sign),) = incidents.signs_of_life(
        [Rejected("out-of-range", "", Source("t", 0, 1), None, instance="a", time=START + STEP)]
    )
    # Of an instance that has no reading yet, nothing is kept.
    assert logic.on_batch([sign]) == ([], logic.DISCARD)
    assert incidents.signs_of_life([Rejected("not-json", "", Source("t", 0, 1), None)]) == []
    logic.on_batch([[(at(0), Verdict(0.0), None)]])
    out: list[Incident] = []
    for _ in range(100):
        now += 100.0
        logic.on_batch([sign])
        out += logic.on_notify()[0]
    assert out == []
    for _ in range(30):
        now += 100.0
        out += logic.on_notify()[0]
    assert [it.state for it in out] == ["opened"]


# The interval.


@pytest.mark.parametrize(("step", "warned"), [(3600.0, 1), (60.0, 1), (300.0, 0), (500.0, 0)])
def test_a_wrong_interval_is_said_once(
    monkeypatch: pytest.MonkeyPatch, step: float, warned: int
) -> None:
    said: list[str] = []
    monkeypatch.setattr(incidents, "warn_once", lambda _reason, line: said.append(line))
    settings = Settings(_env_file=None, incidents=True, interval=300)
    build = incidents.monitors(settings, make("tutorial"), None)
    for name in "abc":
        logic = build(None)
        for index in range(20):
            # With a gap of a day.
            time = START + step * index + (86_400 if index > 4 else 0)
            logic.on_batch(
                [[(Reading(name, time, index, 0.5, time, 0, index), Verdict(0.0), None)]]
            )
    assert len(said) == warned
    if warned:
        assert f"most readings come {step:g} s after" in said[0]
        assert "ANOMALY_INTERVAL is 300 s" in said[0]


def test_hourly_readings_are_not_each_a_silence() -> None:
    monitor = InstanceMonitor(RULES, Progress(), "a")
    out = []
    for index in range(0, 12 * 500, 12):
        out += monitor.add(at(index), None)
    assert len(out) <= 2 * 6
    # A real gap is found all the same.
    assert [it.state for it in monitor.add(at(12 * 520), None)] == ["opened", "resolved"]


# Readings that are sent again.

outages = st.integers(3, 30)


@given(length=outages, later=st.integers(1, 40), again=st.integers(1, 3), learned=st.integers(0, 3))
def test_an_outage_that_is_sent_again_is_reported_once(
    length: int, later: int, again: int, learned: int
) -> None:
    """`learned` of its first readings are no longer anomalous, as the detector knows them now."""
    monitor, judge = InstanceMonitor(RULES, Progress(), "a"), Judge(QUIET)
    out: list[Incident] = []
    offset = 0

    def send(indexes: range, anomalous: range) -> None:
        nonlocal offset
        for index in indexes:
            reading = at(index, offset)
            judged = judge.judged(reading, 0.9 if index in anomalous else None)
            out.extend(monitor.add(reading, judged))
            offset += 1

    end = 10 + length + later
    send(range(end), range(10, 10 + length))
    for _ in range(again):
        send(range(8, 12 + length), range(10 + learned, 10 + length))
    send(range(end, end + 20), range(0))
    assert [it.state for it in out if it.kind == "anomaly"] == ["opened", "resolved"]
    assert not [it for it in out if it.kind == "silence"]


def test_a_new_topic_or_store_gives_the_same_id() -> None:
    ids = set()
    for offset in (3, 4711):
        monitor = InstanceMonitor(RULES, Progress(), "a")
        (opened,) = monitor.add(at(5, offset), Judge(QUIET).judged(at(5, offset), 0.9))
        ids.add(opened.id)
    assert len(ids) == 1


def test_a_clock_that_was_set_back_blinds_no_instance() -> None:
    """The index goes on: these are new readings. So with a year between, whatever the index."""
    monitor = InstanceMonitor(RULES, Progress(), "a")
    monitor.add(at(100), None)
    back = Reading("a", START, 101, 0.5, START, 0, 101)
    judged = Judge(QUIET).judged(back, 0.9)
    assert [it.state for it in monitor.add(back, judged)] == ["opened"]
    monitor = InstanceMonitor(RULES, Progress(), "a")
    far = START + 365 * 86_400
    monitor.add(Reading("a", "far", "far", 0.5, far, 0, 0), None)
    now = Reading("a", "now", "now", 0.5, START, 0, 1)
    assert monitor.add(now, Judge(QUIET).judged(now, 0.9))


# The broker is away.


class Answers:
    """A broker that is there, away, or has more than was read."""

    def __init__(self) -> None:
        self.known: bool | None = True

    def at_end(self, partition: int, since: float) -> bool | None:
        return self.known

    def away(self, partition: int) -> float:
        return 0.0


@pytest.mark.parametrize("known", [False, None])
def test_the_clock_decides_only_where_all_was_read(
    monkeypatch: pytest.MonkeyPatch, known: bool | None
) -> None:
    now = 0.0
    monkeypatch.setattr(incidents.time, "monotonic", lambda: now)
    settings = Settings(
        _env_file=None, incidents=True, interval=10, silence_seconds=30, silence_gone=0
    )
    broker: Any = Answers()
    logics = []
    for number in range(40):
        name = f"i-{number}"
        logic = incidents.monitors(settings, make("tutorial"), None, broker)(None)
        logic.on_batch([[(Reading(name, START, 0, 0.5, START, 0, number), Verdict(0.0), None)]])
        logics.append(logic)

    def wait(seconds: int) -> list[Incident]:
        nonlocal now
        out: list[Incident] = []
        for _ in range(seconds):
            now += 1
            for logic in logics:
                out += logic.on_notify()[0]
        return out

    broker.known = known
    assert wait(80) == []
    if known is None:  # it has answered, and the flow is behind
        return
    # It is back, and the readings come within ten seconds.
    broker.known = True
    out = wait(10)
    for number, logic in enumerate(logics):
        reading = Reading(f"i-{number}", START + 80, 1, 0.5, START + 80, 0, 100 + number)
        logic.on_batch([[(reading, Verdict(0.0), None)]])
    # The gap is in their times too: it is said, and ended, by that reading.
    assert out == []
    # And those that are really silent are found.
    assert len(wait(120)) == 40


@pytest.mark.slow
def test_a_broker_that_hangs_makes_nobody_silent(
    run_flow: Flow, own_broker: PausableBroker, topic: str, tmp_path: Path
) -> None:
    """Away for three times as long as a silence, with readings each second before and after."""

    def send(second: int) -> None:
        rows = [
            {"instance": name, "timestamp": START + second, "index": second, "value": 50}
            for name in ("a", "b", "c", "d")
        ]
        fill_topic(
            own_broker.address,
            topic,
            [(str(row["instance"]), json.dumps(row).encode()) for row in rows],
        )

    topics.create(Settings(_env_file=None, brokers=own_broker.address), [topic], 1)
    send(0)
    flow = run_flow.start(
        brokers=own_broker.address,
        topic=topic,
        output="found.jsonl",
        incidents="true",
        interval=1,
        silence_seconds=8,
    )
    wait_for((tmp_path / "found.incidents.jsonl").exists)
    for second in range(1, 4):
        send(second)
        time.sleep(1)
    own_broker.pause()
    time.sleep(25)
    own_broker.resume()
    for second in range(4, 8):
        send(second)
        time.sleep(1)
    assert read_json_lines(tmp_path / "found.incidents.jsonl") == []
    # What has really stopped is found.
    wait_for(lambda: len(read_json_lines(tmp_path / "found.incidents.jsonl")) == 4)
    flow.terminate()
    _, said = flow.communicate(timeout=120)
    assert flow.returncode == 0, said


def test_what_is_known_of_the_end() -> None:
    read = CaughtUp()
    assert read.at_end(0, 0.0) is None
    read.answer(0, 1.0, 1.0, 10, 0)
    assert read.at_end(0, 0.0) is None  # nothing read yet
    read.answer(0, 3.0, 3.0, 10, 9)
    read.answer(0, 12.0, 12.0, 10, 9)
    assert read.at_end(0, 0.0) is None
    read.answer(0, 14.0, 14.0, 10, 9)
    assert read.at_end(0, 0.0) is True  # the mark of a transaction
    read.answer(0, 16.0, 16.0, 12, 9)
    assert read.at_end(0, 0.0) is None
    read.answer(0, 17.0, 17.0, 12, 12)
    assert read.at_end(0, 16.0) is True
    assert read.at_end(0, 17.5) is None  # asked before
    read.answer(0, 18.0, 18.0, None, 12)
    assert read.at_end(0, 17.0) is False
    read.answer(0, 20.0, 22.5, 12, 12)
    assert (read.at_end(0, 17.0), read.away(0)) == (False, 22.5)  # it hung meanwhile
    read.answer(0, 24.0, 24.1, 12, 12)
    assert (read.at_end(0, 23.0), read.away(0), read.away(1)) == (True, 22.5, 0.0)
    # Another process of the cluster reads it.
    read.answer(1, 1.0, 1.0, 10, None)
    assert read.at_end(1, 0.0) is True


def test_the_broker_is_asked_while_it_matters() -> None:
    read = CaughtUp()
    now = time.monotonic()
    assert read.wanted(now) == []
    read.answer(0, now, now, 10, 9)
    assert read.wanted(now) == []
    read.at_end(0, now)
    assert read.wanted(now + ASKED - 1) == [0]
    assert read.wanted(now + ASKED + 60) == []
    read.answer(0, now, now, None, 9)
    assert read.wanted(now + 10 * ASKED) == [0]  # until it is back


def test_a_state_of_an_earlier_version_goes_on() -> None:
    monitor = InstanceMonitor(RULES, Progress(), "a")
    monitor.add(at(0), None)
    monitor.report_silence()
    import msgspec

    version, clock, lead, episodes, silence, *_ = msgspec.msgpack.decode(monitor.dump())
    before = msgspec.msgpack.encode([version, clock, lead, episodes, silence[:3]])
    loaded = InstanceMonitor.load(RULES, Progress(), before)
    assert loaded.silence is SilenceState.SILENT
    assert [it.ended for it in loaded.add(at(1), None)] == ["returned"]
