"""Verdicts in the flow: what they keep quiet, undone, and across kill -9."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, Flow, fill_topic, free_port
from test_rules import both, end, replayed, served, until

from dataflow.errors import UserError
from dataflow.metrics import counters
from dataflow.records import Anomaly, Reading, encode
from dataflow.recovery.places import Places
from dataflow.settings import Settings
from dataflow.steps import anomaly, score
from dataflow.steps import verdicts as step
from dataflow.verdicts import store as kept
from dataflow.verdicts import watch
from dataflow.verdicts.effect import episode_of
from dataflow.verdicts.pattern import pattern_of
from dataflow.verdicts.record import Feedback, InForce

START = datetime(2026, 3, 2, tzinfo=UTC)
INTERVAL = 1800
PER_DAY = 48
DAYS = 24
SAME = (9, 12, 15, 18, 21)
"""Days with the same for two hours from 02:00 on."""
OTHER = (10, 13, 16, 19)
"""Days with an anomaly of the same size at 14:00."""


def values(seed: int = 0) -> list[float]:
    """CPU of a host with a daily habit, 0 to 1."""
    rng = random.Random(seed)
    found = []
    for at in range(DAYS * PER_DAY):
        day, hour = divmod(at, PER_DAY)
        value = 0.3 + 0.1 * math.sin(math.tau * hour / PER_DAY) + rng.gauss(0, 0.01)
        if (day in SAME and 4 <= hour < 8) or (day in OTHER and 28 <= hour < 32):
            value += 0.4
        found.append(round(value, 4))
    return found


def readings(seed: int = 0) -> list[Reading]:
    return [
        Reading("web-1", moment.isoformat(), at, value, moment.timestamp(), 0, at)
        for at, value in enumerate(values(seed))
        if (moment := START + timedelta(seconds=INTERVAL * at))
    ]


def fed() -> list[tuple[str | None, bytes | None]]:
    """The same as records of the topic, with their keys."""
    return [
        (
            "web-1",
            json.dumps(
                {
                    "instance": one.instance,
                    "timestamp": one.timestamp,
                    "index": one.index,
                    "value": 100 * one.value,
                }
            ).encode(),
        )
        for one in readings()
    ]


class Judged:
    """The step `score` of one instance, and the verdicts in force."""

    def __init__(self, breaks: frozenset[int] = frozenset()) -> None:
        self.settings = Settings(_env_file=None, interval=INTERVAL)
        self.detector = score.detector(self.settings)
        self.rules = score.episode_rules(self.settings, self.detector)
        self.places = Places(None)
        self.kept = InForce()
        self.breaks = breaks
        self.states: list[bytes] = []

    def say(self, feedback: Feedback) -> None:
        assert self.kept.take(feedback.id.encode(), encode(feedback))
        self.places.stage(step.KIND, self.kept.document())

    def run(self, told: dict[int, Feedback], verdicts: bool = True) -> list[Anomaly]:
        """Return the anomalies; each verdict is said before the reading of its place."""
        quiet = step.Verdicts(self.settings, self.rules, self.places) if verdicts else None
        scorer = score.scorer(self.detector, self.rules, lambda _: None, quiet=quiet)
        convert = anomaly.from_scored(self.settings, self.detector, self.rules.threshold)
        state, found = None, []
        for one in readings():
            if one.offset in told:
                self.say(told[one.offset])
            self.places.reach(0, one.offset, one.offset)
            if one.offset in self.breaks and state is not None:
                state = scorer.load(scorer.dump(state))
            state, scored = scorer.score(state, [one])
            found += [convert(it) for it in scored if it[1].score > self.rules.threshold]
        assert state is not None
        self.states.append(scorer.dump(state))
        return found


def day_of(one: Anomaly) -> int:
    assert isinstance(one.index, int)
    return one.index // PER_DAY


def fine(anomalies: list[Anomaly], day: int, **other: Any) -> Feedback:
    """A verdict on the first episode of a day."""
    first = next(one for one in anomalies if day_of(one) == day)
    episode = episode_of(anomalies, first.id)
    return Feedback(**({"id": first.id, "verdict": "fine", "pattern": pattern_of(episode)} | other))


def test_the_same_is_quiet_and_comes_back_when_it_is_undone() -> None:
    before = Judged().run({}, verdicts=False)
    alerts = {day_of(one) for one in before if one.alert}
    assert set(SAME + OTHER) <= alerts
    said = fine(before, 9)
    there = 10 * PER_DAY
    undone = Feedback(id=said.id, verdict="undo")
    counted = counters.KEPT_QUIET._value.get()  # type: ignore[attr-defined]
    found = Judged().run({there: said, 17 * PER_DAY: undone})
    assert counters.KEPT_QUIET._value.get() - counted >= 3  # type: ignore[attr-defined]
    assert [one for one in found if day_of(one) < 10] == [one for one in before if day_of(one) < 10]
    assert not {12, 15} & {day_of(one) for one in found}
    assert set(OTHER) <= {day_of(one) for one in found if one.alert}
    back = [one for one in found if day_of(one) >= 17]
    assert {18, 21} <= {day_of(one) for one in back if one.alert}
    assert [(one.index, one.score) for one in back] == [
        (one.index, one.score) for one in before if day_of(one) >= 17
    ]


def test_off_and_without_verdicts_nothing_changes_to_the_byte() -> None:
    off, on = Judged(), Judged()
    assert off.run({}, verdicts=False) == on.run({})
    assert off.states == on.states


def test_a_snapshot_at_each_reading_goes_on_as_if_there_was_none() -> None:
    said = {10 * PER_DAY: SAID}
    whole, broken = Judged(), Judged(frozenset(range(10 * PER_DAY, 16 * PER_DAY)))
    assert broken.run(said) == whole.run(said)
    assert broken.states == whole.states


SAID = fine(Judged().run({}, verdicts=False), 9)


def test_a_verdict_ends_by_the_times_of_the_readings() -> None:
    until_day_13 = START + timedelta(days=14)
    found = Judged().run({10 * PER_DAY: fine(Judged().run({}, False), 9, until=until_day_13)})
    days = {day_of(one) for one in found}
    assert 12 not in days
    assert {15, 18, 21} <= days


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"detector": "tutorial"}, "the detector tutorial expects no value"),
        ({"together": True, "metrics": "cpu,load1"}, "ANOMALY_TOGETHER judges all metrics"),
    ],
)
def test_what_verdicts_cannot_work_with_is_one_line(options: dict[str, Any], reason: str) -> None:
    chosen = Settings(_env_file=None, verdicts="verdicts", **options)
    detector = score.detector(chosen)
    with pytest.raises(UserError, match=f"ANOMALY_VERDICTS cannot be used: .*{reason}"):
        step.verdicts(chosen, detector, score.episode_rules(chosen, detector), Places(None))


def test_a_file_of_verdicts_is_read_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dataflow.rules.watch.LOOK", 0.02)
    path = tmp_path / "said.jsonl"
    chosen = Settings(_env_file=None, verdicts=str(path))
    news = threading.Event()
    found: list[list[str]] = []

    def changed(now: InForce) -> None:
        found.append([one.id for one in now.all()])
        news.set()

    assert len(watch.begin(chosen, changed)) == 0
    assert (
        "said.jsonl does not exist: no verdict is in force until it does" in capsys.readouterr().err
    )
    kept.write(chosen, SAID)
    assert news.wait(60)
    assert found[-1] == [SAID.id]
    news.clear()
    kept.write(chosen, Feedback(id=SAID.id, verdict="undo"))
    assert news.wait(60)
    assert found[-1] == []
    assert kept.in_force(chosen).document() == b""


@pytest.mark.kafka
@pytest.mark.short("embedded-one process", "embedded-two processes, reordered")
@pytest.mark.parametrize(
    ("processes", "reorder"),
    [
        pytest.param(1, "false", id="one process"),
        pytest.param(2, "true", id="two processes, reordered"),
        pytest.param(2, "false", id="two processes"),
    ],
)
def test_a_verdict_while_the_flow_runs_and_kill_9(
    run_flow: Flow,
    brokers: str,
    topic: str,
    tmp_path: Path,
    store: Path,
    processes: int,
    reorder: str,
) -> None:
    """It applies to the same readings when they are read again, whatever was said since."""
    records = fed()
    said, output = f"{topic}-said", tmp_path / "out.jsonl"
    ports = [free_port() for _ in range(processes)]
    common: dict[str, Any] = {
        **{"brokers": brokers, "topic": topic, "verdicts": said, "incidents": "true"},
        **{"rejected_topic": f"{topic}.rejected", "interval": INTERVAL, "silence": 0},
        "reorder": reorder,
    }
    chosen = Settings(_env_file=None, **common)
    fill_topic(brokers, f"{topic}.rejected", [], 1)
    fill_topic(brokers, topic, [], 1)

    def write(first: int, last: int) -> None:
        fill_topic(brokers, topic, records[first * PER_DAY : last * PER_DAY], 1)
        until(lambda: total("anomaly_readings_scored_total") >= last * PER_DAY, flows[0])

    def total(name: str) -> float:
        lines = [line for port in ports for line in served(port, name).splitlines()]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def start(**more: object) -> list[Any]:
        addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in ports)
        return [
            run_flow.start(
                *(("-i", str(number), "-a", addresses) if processes > 1 else ()),
                *("-r", str(store), "-s", "3600", "-b", "0"),
                **common | {"output": output, "metrics_port": port} | more,
            )
            for number, port in enumerate(ports)
        ]

    def found() -> set[int]:
        return {day_of_record(one) for one in both(output) if one.get("alert")}

    fill_topic(brokers, said, [("x", b"no verdict")], 1)
    flows = start()
    write(0, 10)
    kept.write(chosen, SAID)
    until(lambda: total("anomaly_verdicts ") == processes, flows[0])
    write(10, 14)
    until(lambda: {9, 10, 13} <= found(), flows[0])
    err = "".join(map(end, flows))
    assert "1 verdict applies to each reading from the next one on" in err
    assert "a record in" in err
    # The store's snapshot is older than all of it: all is read again, without the verdict by now.
    kept.write(chosen, Feedback(id=SAID.id, verdict="undo"))
    fill_topic(brokers, topic, records[14 * PER_DAY :], 1)
    for flow in start(follow="false"):
        _, err = flow.communicate(timeout=240)
        assert flow.returncode == 0, err
    assert found() == {9, *OTHER, 15, 18, 21}
    assert not [
        one for one in both(output) if one.get("alert") is False and day_of_record(one) == 11
    ]
    assert both(output) == replayed(run_flow, tmp_path, store, follow="false", **common)


def day_of_record(one: dict[str, Any]) -> int:
    return int(one.get("index", -PER_DAY)) // PER_DAY


@pytest.mark.slow
def test_the_benchmark_of_a_whole_flow_is_exact() -> None:
    """Its exit status says that undoing brings all back, and that a replay is the same."""
    script = REPOSITORY / "benchmarks" / "verdicts_flow.py"
    done = subprocess.run(
        [sys.executable, script, "--instances", "2", "--processes", "2"],
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "that came again were quiet" in done.stdout
