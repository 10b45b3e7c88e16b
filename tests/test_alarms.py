"""Counts, alarms and the tuned threshold, against the definitions written straight down."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.evaluation.alarms import Counts, alarms, count, tune
from dataflow.evaluation.nab import Series, probation

FIVE_MINUTES = 300.0


def series(readings: int, *windows: tuple[int, int], labels: tuple[int, ...] = ()) -> Series:
    at = [(a * FIVE_MINUTES, b * FIVE_MINUTES) for a, b in windows]
    times = np.arange(readings) * FIVE_MINUTES
    moments = tuple(label * FIVE_MINUTES for label in labels)
    return Series("i", times, np.zeros(readings), tuple(at), moments)


def alerts(readings: int, *at: int) -> np.ndarray:
    return np.isin(np.arange(readings), at)


def test_a_small_case_counted_by_hand():
    one = series(400, (100, 120), (200, 220), labels=(110, 210))
    # The probation is 60 readings; 300 to 312 is an hour, 313 begins another alarm.
    counts = count(one, alerts(400, 5, 104, 116, 150, 300, 312, 313))
    assert (counts.tp, counts.fn, counts.fp) == (1, 1, 3)
    assert counts.delays == pytest.approx((-0.5,))
    assert counts.days == pytest.approx(339 * FIVE_MINUTES / 86_400)
    assert counts.precision == 1 / 4
    assert counts.recall == 1 / 2
    assert counts.f1 == pytest.approx(2 / 6)
    assert counts.false_alarms_per_day == pytest.approx(3 / counts.days)


def test_a_window_counts_that_reaches_out_of_the_probation():
    one = series(400, (40, 80))
    assert count(one, alerts(400, 50)).fn == 1
    assert count(one, alerts(400, 50, 60)).delays == pytest.approx((20 / 12,))
    assert count(series(400, (40, 59)), alerts(400, 50)).fn == 0


def test_without_a_label_the_delay_is_from_the_beginning_of_the_window():
    assert count(series(400, (100, 120)), alerts(400, 112)).delays == (1.0,)


def test_a_delay_counts_from_the_label_of_its_own_window():
    one = series(400, (1, 5), (100, 120), (200, 220), labels=(2, 110, 210))
    assert count(one, alerts(400, 222, 204)).delays == pytest.approx((-0.5,))


def test_silence_has_no_precision_and_no_delay_but_a_recall():
    counts = count(series(400, (100, 120)), alerts(400))
    assert (counts.precision, counts.recall, counts.f1, counts.delay_hours) == (None, 0, 0, None)
    assert counts.false_alarms_per_day == 0


def test_counts_add_up():
    one = Counts(1, 2, 3, 4.0, (5.0,))
    assert one + Counts() == one
    assert one + one == Counts(2, 4, 6, 8.0, (5.0, 5.0))


def test_an_hour_put_back_begins_no_new_alarm():
    assert alarms(np.array([7000.0, 3600.0, 7000.0])) == [7000.0]


def test_the_rate_that_was_asked_for_is_kept_when_met_exactly():
    scores = np.select([alerts(2372, n) for n in (500, 900, 1300)], [0.9, 0.8, 0.7], 0.1)
    assert tune([series(2372)], [[scores]], 2) == (0.7, 2.0)  # a week after the probation


scored = st.lists(
    st.lists(st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.75, 1.0]), min_size=60, max_size=60),
    min_size=1,
    max_size=3,
)


@given(scored, st.sampled_from([0, 5, 20, 100, 1000]))
def test_tune_finds_the_lowest_threshold_of_all_that_keeps_the_rate(runs, rate):
    one = series(60)
    start = probation(60)
    weeks = (59 - start) * FIVE_MINUTES / 604_800

    def reached(threshold: float) -> float:
        begun = 0
        for scores in runs:
            last = -np.inf
            for i in range(start, 60):
                if scores[i] > threshold and i * FIVE_MINUTES - last > 3600:
                    begun, last = begun + 1, i * FIVE_MINUTES
        return begun / weeks / len(runs)

    threshold, found = tune([one], [[np.array(scores)] for scores in runs], rate)
    assert found == pytest.approx(reached(threshold))
    assert found <= rate
    lower = [level for scores in runs for level in scores[start:] if level < threshold]
    assert all(reached(level) > rate for level in lower)
