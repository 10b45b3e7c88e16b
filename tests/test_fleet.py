"""What the page knows of all instances, against an independent truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.dashboard.fleet import DAY, Fleet, Silence
from dataflow.dashboard.history import REPORTED, SCORED, History
from dataflow.dashboard.trouble import State
from dataflow.detectors import make
from dataflow.detectors.base import Detector, Verdict, WindowedDetector
from dataflow.records import Anomaly, Reading, Source

VALUES = st.floats(0, 1, width=32)


def reading(instance: str, number: int, value: float, time: float | None) -> Reading:
    return Reading(instance, time, number, value, time, 0, number)


def anomaly(of: Reading, score: float) -> Anomaly:
    return Anomaly(
        instance=of.instance,
        timestamp=of.timestamp,
        index=of.index,
        value=of.value,
        score=score,
        threshold=0.5,
        expected=0.25,
        lower=0.125,
        upper=0.5,
        detector="calibrated",
        id="",
        source=Source("t", 0, of.offset),
    )


class Scripted(Detector[int]):
    """Says of each reading that its score is its value."""

    name = "scripted"
    threshold = 0.5

    def score(self, state: Any, value: float, time: float | None) -> Verdict:
        return Verdict(value)

    def update(self, state: Any, value: float, time: float | None) -> tuple[int, Verdict]:
        return (state or 0) + 1, Verdict(value)

    def dump(self, state: int) -> bytes:
        return b""

    def load(self, data: bytes) -> int:
        return 0


class Late(WindowedDetector[list[float]]):
    """Verdicts that are the values, of three readings at a time."""

    def update(
        self, state: Any, value: float, time: float | None
    ) -> tuple[list[float], Sequence[Verdict]]:
        state = [*(state or []), value]
        return ([], [Verdict(it) for it in state]) if len(state) == 3 else (state, [])

    def finish(self, state: Any) -> tuple[list[float], Sequence[Verdict]]:
        return [], [Verdict(it) for it in state]


@given(keep=st.integers(1, 200), values=st.lists(VALUES, max_size=250), data=st.data())
def test_a_track_is_the_end_of_a_list(keep: int, values: list[float], data: st.DataObject) -> None:
    track = History(keep)
    truth: list[list[float]] = []
    for number, value in enumerate(values):
        track.add(float(number // 2), value)
        truth.append([float(number // 2), value, math.nan, 0])
    for number in data.draw(st.lists(st.integers(0, 399), max_size=20)):
        track.judge(number, 0.25, None, None, None)
        track.mark(number, SCORED)
        if number < len(truth):
            truth[number][2:] = [0.25, SCORED]
    rows = track.rows()
    kept = np.array(truth[-keep:]).reshape(-1, 4)
    for column, name in enumerate(("place", "value", "score", "mark")):
        np.testing.assert_array_equal(rows[name], kept[:, column])
    if values:
        assert track.last().tobytes() == rows[-1].tobytes()
        place, value, *_ = truth[data.draw(st.integers(0, len(truth) - 1))]
        same = [i for i, it in enumerate(truth) if it[:2] == [place, value]]
        assert track.find(place, value) == (same[-1] if same[-1] >= len(truth) - keep else None)


@pytest.mark.parametrize("name", ["calibrated", "tutorial", "zscore"])
@given(st.lists(st.tuples(st.sampled_from("abc"), VALUES), min_size=1, max_size=80))
def test_scores_are_those_of_a_detector_of_each_instance(
    name: str, stream: list[tuple[str, float]]
) -> None:
    detector = make(name)
    fleet = Fleet(make(name), keep=1000)
    states: dict[str, Any] = {}
    said: dict[str, list[Verdict]] = {}
    for number, (instance, value) in enumerate(stream):
        fleet.add(reading(instance, number, value, 300.0 * number))
        states[instance], verdict = detector.update(  # type: ignore[union-attr]
            states.get(instance), value, 300.0 * number
        )
        said.setdefault(instance, []).append(verdict)  # type: ignore[arg-type]
    for instance, verdicts in said.items():
        rows = fleet.rows(instance)
        np.testing.assert_array_equal(rows["score"], np.float32([v.score for v in verdicts]))
        found = [v.score > detector.threshold for v in verdicts]
        np.testing.assert_array_equal(rows["mark"] > 0, found)
        upper = [np.nan if v.upper is None else min(max(v.upper, 0), 1) for v in verdicts]
        np.testing.assert_array_equal(rows["upper"], np.float32(upper))


@given(st.lists(st.tuples(st.sampled_from("ab"), VALUES), max_size=60), st.integers(1, 20))
def test_late_verdicts_reach_their_readings(stream: list[tuple[str, float]], keep: int) -> None:
    fleet = Fleet(Late(), keep)
    values: dict[str, list[float]] = {"a": [], "b": []}
    for number, (instance, value) in enumerate(stream):
        fleet.add(reading(instance, number, value, 300.0 * number))
        values[instance].append(value)
        judged = len(values[instance]) // 3 * 3
        truth = [v if i < judged else np.nan for i, v in enumerate(values[instance])][-keep:]
        np.testing.assert_array_equal(fleet.rows(instance)["score"], np.float32(truth))
    fleet.finish()
    for instance in {instance for instance, _ in stream}:
        np.testing.assert_array_equal(
            fleet.rows(instance)["score"], np.float32(values[instance][-keep:])
        )


@given(
    st.lists(st.tuples(st.sampled_from("abc"), VALUES), min_size=1, max_size=40),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_what_the_flow_reports_may_come_before_or_after_its_reading(
    stream: list[tuple[str, float]], whole: bool, random: Any
) -> None:
    readings = [reading(i, n, v, 300.0 * n) for n, (i, v) in enumerate(stream)]
    reports = [anomaly(it, 0.75) for it in readings if it.value > 0.75]
    # The readings of each instance in order, the reports anywhere between.
    events: list[Reading | Anomaly] = list(readings)
    for report in reports:
        events.insert(random.randrange(len(events) + 1), report)
    fleet = Fleet(Scripted(), keep=100, whole=whole)
    for event in events:
        fleet.add(event) if isinstance(event, Reading) else fleet.report(event)
    assert fleet.reported == len(reports)
    for instance in {it.instance for it in readings}:
        mine = [it for it in readings if it.instance == instance]
        rows = fleet.rows(instance)
        above = [it.value > 0.75 for it in mine]
        np.testing.assert_array_equal((rows["mark"] & REPORTED) > 0, above)
        own = [whole and it.value > 0.5 for it in mine]
        np.testing.assert_array_equal((rows["mark"] & SCORED) > 0, own)
        scores = [0.75 if it.value > 0.75 else it.value for it in mine]
        np.testing.assert_array_equal(rows["score"], np.float32(scores))
        np.testing.assert_array_equal(np.isfinite(rows["upper"]), above)


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdefghij"), st.integers(0, 400), st.booleans()), min_size=1
    )
)
def test_anomalies_are_counted_by_the_clock_of_the_readings(
    stream: list[tuple[str, int, bool]],
) -> None:
    fleet = Fleet(Scripted(), keep=10_000)
    found: dict[str, list[float]] = {}
    last: dict[str, float] = {}
    stream = sorted(stream, key=lambda it: it[1])
    for number, (instance, step, bad) in enumerate(stream):
        fleet.add(reading(instance, number, 0.9 if bad else 0.1, 600.0 * step))
        found.setdefault(instance, []).extend([600.0 * step] * bad)
        last[instance] = 600.0 * step
    newest = sorted(last.values(), reverse=True)
    clock = newest[min(2, len(newest) // 4)]
    seen = fleet.overview()
    assert seen.clock == clock
    assert [row.instance for row in seen.rows] == list(found)
    for row in seen.rows:
        times = found[row.instance]
        assert row.day == sum(time > clock - DAY for time in times)
        assert row.last_anomaly == (times[-1] if times else None)
        assert row.place == last[row.instance]


def test_a_host_whose_clock_is_wrong_hides_no_anomalies_of_others() -> None:
    fleet = Fleet(Scripted(), keep=10)
    for number in range(8):
        fleet.add(reading(f"i{number}", 0, 0.9, 1000.0 + number))
    fleet.add(reading("i0", 1, 0.1, 1e9))
    assert [row.day for row in fleet.overview().rows][1:] == [1] * 7


def test_readings_without_a_time_stand_at_their_index() -> None:
    fleet = Fleet(Scripted(), keep=10)
    for number in (5, 6):
        fleet.add(reading("wave", number, 0.9, None))
    (row,) = fleet.overview().rows
    assert (row.day, row.silent, row.place) == (None, None, 6.0)
    assert fleet.rows("wave")["place"].tolist() == [5.0, 6.0]
    assert fleet.clock() is None


def test_memory_is_bounded_by_what_is_kept() -> None:
    fleet = Fleet(Scripted(), keep=100)
    for number in range(5000):
        fleet.add(reading("a", number, 0.9, 300.0 * number))
        fleet.report(anomaly(reading("unseen", number, 0.5, 300.0 * number), 0.9))
    track = fleet._histories["a"]
    assert track._rows.nbytes == 100 * 29
    assert len(track.marked) <= 100
    for number in range(8000):
        fleet.report(anomaly(reading("unseen", number, 0.25, 300.0 * number), 0.9))
    assert len(fleet._pending) == 10_000


def test_a_spark_shows_the_spike_and_the_anomaly() -> None:
    track = History(keep=1000)
    for number in range(288):
        track.add(300.0 * number, 0.9 if number == 100 else 0.1)
    track.mark(100, SCORED)
    drawn = track.spark(DAY, 0.02)
    points = drawn.split('points="')[1].split('"')[0].split()
    heights = [float(point.split(",")[1]) for point in points]
    assert min(heights) == 3.0
    assert heights.count(3.0) == 1
    assert drawn.count("<circle") == 1
    assert 'cy="3.0"' in drawn
    assert track.spark(DAY, 0.02) is drawn
    track.add(300.0 * 288, 0.5)
    assert track.spark(DAY, 0.02) is not drawn


def scores(fleet: Fleet, *scores: float, instance: str = "a", step: float = 300.0) -> Any:
    """Add readings with these scores; return the row of the instance."""
    first = fleet.total(instance)[0] if instance in fleet else 0
    for number, score in enumerate(scores, start=first):
        fleet.add(reading(instance, number, score, step * number))
    return fleet.row(instance)


def test_trouble_lasts_from_the_first_anomaly_to_an_hour_of_ordinary_readings() -> None:
    fleet = Fleet(Scripted(), keep=100)
    assert scores(fleet, 0.1, 0.1).since is None
    row = scores(fleet, 0.7, 0.9, 0.6)
    assert (row.since, row.trouble.peak, row.trouble.last) == (600.0, 900.0, 1200.0)
    assert row.trouble.score == 0.9
    assert scores(fleet, *[0.1] * 11).since == 600.0
    assert scores(fleet, 0.1).since is None


@pytest.mark.parametrize("whole", [True, False])
def test_from_the_middle_on_trouble_is_what_the_flow_writes(whole: bool) -> None:
    fleet = Fleet(Scripted(), keep=100, whole=whole)
    scores(fleet, *[0.1] * 3, 0.8)
    assert (fleet.row("a").since == 900.0) is whole
    fleet = Fleet(Scripted(), keep=100, whole=False)
    scores(fleet, 0.1, 0.1, 0.8)
    fleet.report(anomaly(reading("a", 2, 0.8, 600.0), 0.75))
    assert fleet.row("a").since == 600.0
    assert scores(fleet, *[0.1] * 11).since == 600.0
    assert scores(fleet, 0.1).since is None


@pytest.mark.parametrize("detector", [Scripted(), Late()])
def test_every_detector_finds_the_same_trouble(detector: Any) -> None:
    row = scores(Fleet(detector, keep=100), 0.1, 0.1, 0.7, 0.9, 0.7, 0.6)
    assert (row.since, row.trouble.peak, row.trouble.last) == (600.0, 900.0, 1500.0)


@given(st.floats(1.0, 3000.0), st.integers(1, 10), st.floats(0, 1e6), st.booleans())
def test_who_misses_readings_is_silent(
    step: float, missing: int, passed: float, excepted: bool
) -> None:
    rules = Silence(missing, 300.0, DAY, ("a*",) if excepted else ())
    fleet = Fleet(Scripted(), keep=100, silence=rules)
    scores(fleet, *[0.1] * 10, step=step)
    limit = missing * (step if step > 600 else 300)
    row = fleet.row("a", 9 * step + passed)
    if passed > limit + 0.01:
        gone = excepted or passed > limit + DAY
        assert row.state == (State.GONE if gone else State.TROUBLED)
        assert row.silent == pytest.approx(passed)
        assert row.since == 9 * step
    elif passed < limit - 0.01:
        assert (row.state, row.silent, row.since) == (State.ORDINARY, None, None)
