"""Why a reading is an anomaly: shares that add up, and the range in which it would be none."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import KINDS, START, Instance, instance

from dataflow.alerts.sentence import Metric, sentence
from dataflow.detectors.base import Explanation
from dataflow.detectors.calibrated.detector import Calibrated
from dataflow.detectors.calibrated.memory import Memory
from dataflow.records import Reason


def anomalies(
    detector: Calibrated, made: Instance, least: float | None = None
) -> Iterator[tuple[Memory, float, float, Explanation]]:
    """The state before each anomaly, its value, its time, and why.

    `least` is the score above which a reading is one; None: the detector's own threshold.
    """
    state: Memory | None = None
    for value, time in zip(made.values, made.times, strict=True):
        was = None if state is None else detector.dump(state)
        state, verdict = detector.update(state, value, time)
        if verdict.score > (detector.threshold if least is None else least):
            before = detector.before(state)
            assert before is not None
            assert detector.dump(before) == was
            explanation = detector.explain(before, value, time, ordinary=True)
            assert explanation is not None
            yield before, value, time, explanation
        assert detector.before(state) is None


def test_what_is_kept_for_a_lower_threshold_changes_nothing_else() -> None:
    made, detector, plain = instance("weekly", 5, days=22), Calibrated(), Calibrated()
    detector.explain_from(0.3)
    detector.explain_from(0.35)  # the lowest one counts
    found = list(anomalies(detector, made, 0.3))
    assert len(found) > len(list(anomalies(plain, made)))
    ours: Memory | None = None
    theirs: Memory | None = None
    for value, time in zip(made.values, made.times, strict=True):
        ours, one = detector.update(ours, value, time)
        theirs, other = plain.update(theirs, value, time)
        assert one == other
    assert ours is not None
    assert theirs is not None
    assert detector.dump(ours) == plain.dump(theirs)
    lower = Calibrated(threshold=0.3)
    for before, value, time, why in found:
        again = lower.explain(before, value, time, ordinary=True)
        assert again is not None
        assert again.reasons == why.reasons
        if again.ordinary is not None:
            assert not again.ordinary[0] <= value <= again.ordinary[1]


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.integers(0, 10_000),
    st.sampled_from([0.4, 0.5, 0.6]),
    st.sampled_from([300.0, 300.0, 60.0, 3600.0]),
)
def test_every_value_in_the_ordinary_range_is_none_and_every_one_beside_it_is(
    kind: str, seed: int, threshold: float, interval: float
) -> None:
    """About ten thousand values agree with a score on the state that was frozen."""
    detector, rng = Calibrated(interval, threshold), random.Random(seed)
    made = instance(kind, seed, days=22)
    made.times = [START + interval * at for at in range(len(made.times))]
    for before, value, time, why in anomalies(detector, made):
        assert sum(reason.share for reason in why.reasons) == pytest.approx(1)
        assert all(0 < reason.share <= 1 for reason in why.reasons)
        expected = detector.score(before, value, time).expected
        assert expected is not None
        if why.ordinary is None:
            assert detector.score(before, expected, time).score > threshold
            continue
        low, high = why.ordinary
        assert low <= expected <= high
        assert not low <= value <= high
        # Its limits are found to a ten-millionth of the range of the last weeks.
        width = 1e-7
        for _ in range(30):
            inside = rng.uniform(low, high)
            assert detector.score(before, inside, time).score <= threshold, inside
        for beside in (low - width, high + width):
            assert detector.score(before, beside, time).score > threshold, beside


def test_the_ordinary_range_of_a_minute_knows_its_job() -> None:
    """A minute apart: of spikes at any minute, and of jobs that are thrice as large."""
    detector, rng = Calibrated(60.0), random.Random(1)
    values = [500 + rng.gauss(0, 1) + 40 * (at % 60 == 7) for at in range(4 * 1_440)]
    for at in range(3_000, len(values), 97):
        values[at] += rng.choice((30, 100))
    made = Instance(values, [START + 60.0 * at for at in range(len(values))])
    found = 0
    for before, value, time, why in anomalies(detector, made):
        expected = detector.score(before, value, time).expected
        assert expected is not None
        if why.ordinary is None:
            continue
        low, high = why.ordinary
        assert not low <= value <= high
        assert detector.score(before, high, time).score <= 0.5
        assert detector.score(before, high + 1e-4, time).score > 0.5
        found += 1
    assert found > 15


def first_reasons(values: list[float], trouble: int) -> list[str]:
    """The reasons of the first anomaly in the last readings, which are the trouble."""
    made = Instance(values, [300.0 * at for at in range(len(values))])
    begins = 300.0 * (len(values) - trouble)
    why = next(why for _, _, time, why in anomalies(Calibrated(), made) if time >= begins)
    return [reason.kind for reason in why.reasons]


def steady(count: int = 1_500, size: float = 0.02) -> list[float]:
    rng = random.Random(3)
    return [0.3 + rng.gauss(0, size) for _ in range(count)]


def test_each_kind_of_reason_is_given_for_its_shape() -> None:
    assert first_reasons([*steady(), 0.9], 1)[0] == "range"
    assert first_reasons([*steady(2_000), *[0.31] * 150], 150)[0] == "stuck"
    assert first_reasons([*steady(), *[0.345, 0.255] * 40], 80)[:2] == ["lately", "jump"]
    daily = instance("daily", 1, days=25)
    flat = [*daily.values[: 20 * 288], *[daily.values[288 // 2]] * 100]
    assert "hour" in first_reasons(flat, 100)


def test_a_state_asked_for_reasons_is_the_same_afterwards() -> None:
    detector = Calibrated()
    for before, value, time, _ in anomalies(detector, instance("weekly", 5, days=22)):
        was = detector.dump(before)
        detector.explain(before, value, time, ordinary=True)
        assert detector.dump(before) == was


@pytest.mark.parametrize(
    ("metric", "value", "bounds", "reasons", "expected"),
    [
        (
            Metric("CPU", 100.0),
            0.898,
            (0.30, 0.51),
            "hour range",
            "CPU 89.8%, expected 30 to 51% at this hour; highest in 4 weeks",
        ),
        (
            Metric("CPU", 100.0),
            0.001,
            (0.30, 0.51),
            "jump",
            "CPU 0.1%, expected 30 to 51%; a jump down",
        ),
        (
            Metric("CPU", 100.0),
            0.4,
            (0.0, 0.002),
            "stuck",
            "CPU 40.0%, expected 0.0 to 0.2%; unchanged for far longer than ever",
        ),
        (
            Metric("rx", None),
            12_345.0,
            (100.0, 2_000.0),
            "lately",
            "rx 12,340, expected 100 to 2,000; unusual for the last hours",
        ),
        (Metric("CPU", 100.0), 0.4, None, "", "CPU 40.0%"),
    ],
)
def test_the_sentence(
    metric: Metric,
    value: float,
    bounds: tuple[float, float] | None,
    reasons: str,
    expected: str,
) -> None:
    kinds = reasons.split()
    why = Explanation(
        tuple(Reason(kind, 1 / len(kinds)) for kind in kinds),  # type: ignore[arg-type]
        None,
        28 * 86_400.0,
    )
    middle = None if bounds is None else sum(bounds) / 2
    assert sentence(metric, value, middle, bounds, why) == expected
