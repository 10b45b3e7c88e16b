"""The rolling z-score against NumPy over the same window."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.detectors.zscore import ZScore

values = st.floats(-1e6, 1e6) | st.sampled_from([0.0, 0.25, 1e12])


@given(st.lists(values, min_size=1, max_size=80))
def test_scores_are_those_of_the_mean_and_deviation_of_the_readings_before(stream):
    detector = ZScore(window=12, start=4)
    state = None
    for i, value in enumerate(stream):
        state, verdict = detector.update(state, value, None)
        before = np.array(stream[max(0, i - 12) : i])
        if len(before) < 4:
            assert verdict == (0.0, None, None, None, False)
            continue
        mean, scale = before.mean(), np.abs(before).max()
        deviation = max(before.std(), 1e-3 * abs(mean), 1e-12)
        # What rounding leaves of a window that held a giant.
        slack = 1e-3 * deviation + 1e-5 * scale
        assert verdict.expected == pytest.approx(mean, abs=slack)
        assert verdict.upper - verdict.expected == pytest.approx(3 * deviation, abs=3 * slack)
        z = abs(value - verdict.expected) / ((verdict.upper - verdict.expected) / 3 or np.inf)
        assert verdict.score == pytest.approx(z / (z + 3), abs=1e-6)


def test_after_a_giant_has_left_the_deviation_is_exact_again():
    detector = ZScore(window=12, start=4)
    stream = [0.1, 0.3] * 6 + [1e12] + [0.1, 0.3] * 6 + [0.1]
    state = None
    for value in stream:
        state, verdict = detector.update(state, value, None)
    assert verdict.upper - verdict.expected == pytest.approx(0.3)


def test_three_deviations_are_half_a_score():
    detector = ZScore()
    state = None
    for value in [0.0, 2.0] * 144:
        state, _ = detector.update(state, value, None)
    assert detector.score(state, 4.0, None).score == pytest.approx(detector.threshold)
    assert detector.score(state, 4.01, None).score > detector.threshold
