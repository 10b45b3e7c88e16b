"""The scorer against NAB's published scores, and against its definition written straight down."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.evaluation.datasets import load_nab
from dataflow.evaluation.nab import Corpus, Scores, Series, probation

CORPORA = {"all 50 files": "**/*.csv", "realAWSCloudwatch (9 files)": "realAWSCloudwatch/*.csv"}


@pytest.mark.parametrize("name", CORPORA)
@pytest.mark.parametrize("detector", ["numenta", "windowedGaussian", "null"])
def test_published_scores_are_reproduced(shared, name, detector):
    nab = shared / "nab"
    series = load_nab(nab, CORPORA[name])
    scores = []
    for one in series:
        folder, file = one.instance.split("/")
        column = nab / "results" / detector / folder / f"{detector}_{file}.gz"
        scores.append(
            np.full(len(one.times), 0.5)
            if detector == "null"
            else pd.read_csv(column)["anomaly_score"].to_numpy(dtype=float)
        )
    expected = json.loads((nab / "expected_scores.json").read_text())[detector][name]
    best = Corpus(series).best(scores)
    assert best.scores == pytest.approx(tuple(expected.values()), abs=5.1e-5)
    assert Corpus(series).score(scores, best.threshold).standard == best.scores.standard


def minutes(readings: int, *windows: tuple[int, int]) -> Series:
    """A reading a second, so that times are positions."""
    return Series("i", np.arange(float(readings)), np.zeros(readings), windows)


def alerts(readings: int, *at: int) -> np.ndarray:
    return np.isin(np.arange(readings), at).astype(float)


def test_a_small_case_worked_out_by_hand():
    corpus = Corpus([minutes(40, (20, 23))])
    # Second of four readings: p = -3/4. Three readings past, in widths of three: p = 1. One early.
    hit = (2 / (1 + math.exp(-3.75)) - 1) / (2 / (1 + math.exp(-5)) - 1)
    behind = 2 / (1 + math.exp(5)) - 1
    found = corpus.score([alerts(40, 2, 10, 21, 22, 26)], 0.5)  # 2 lies in the probation of 6
    assert found.standard == pytest.approx(100 * (hit + 0.11 * (behind - 1) + 1) / 2)
    assert found.low_fp == pytest.approx(100 * (hit + 0.22 * (behind - 1) + 1) / 2)
    assert found.low_fn == pytest.approx(100 * (hit + 0.11 * (behind - 1) + 2) / 3)


def test_beyond_three_widths_a_false_alarm_costs_all():
    corpus = Corpus([minutes(60, (20, 23))])
    near, far, early = (
        corpus.score([alerts(60, at)], 0.5).standard for at in (23 + 9, 23 + 10, 12)
    )
    assert far == early == pytest.approx(-100 * 0.11 / 2)
    assert early < near < -100 * 0.11 / 2 * 0.999


def test_a_window_of_one_reading_has_no_width_to_measure_by():
    corpus = Corpus([minutes(60, (20, 20))])
    assert corpus.score([alerts(60, 20)], 0.5).standard == pytest.approx(100)
    assert corpus.score([alerts(60, 21)], 0.5).standard == pytest.approx(-5.5)


def test_a_window_in_the_probation_or_without_readings_is_neither_hit_nor_missed():
    series = minutes(40, (1, 4), (20, 23), (90, 95))
    corpus = Corpus([series])
    assert corpus.windows == 1
    assert corpus.score([alerts(40, 20)], 0.5).standard == pytest.approx(100)


def test_the_clock_may_step_back():
    times = np.array([*range(20), *range(16, 40)], dtype=float)
    series = Series("i", times, np.zeros(len(times)), ((14.0, 18.0),))
    # It ends where the time first passes its end; the second 16, 17, 18 lie outside.
    assert series.spans() == {0: (14, 18)}
    series = Series("i", times, np.zeros(len(times)), ((14.0, 22.0),))
    assert series.spans() == {0: (14, 26)}


def test_the_threshold_lies_below_what_it_lets_through_even_between_neighbouring_floats():
    high = 0.5
    low = float(np.nextafter(high, 0))
    scores = np.where(alerts(40, 20) > 0, high, low)
    corpus = Corpus([minutes(40, (20, 23))])
    best = corpus.best([scores])
    assert best.scores.standard == pytest.approx(100)
    assert ((scores > best.threshold) == alerts(40, 20)).all()


def test_where_silence_is_best_the_threshold_lets_nothing_through():
    scores = np.full(40, 0.3) + 0.6 * alerts(40, 10, 12)
    best = Corpus([minutes(40, (38, 39))]).best([scores])
    assert best.scores.standard == 0
    assert best.threshold == 1.0


def test_scores_that_do_not_fit_are_an_error():
    with pytest.raises(ValueError, match="one number per reading"):
        Corpus([minutes(40, (20, 23))]).score([np.zeros(39)], 0.5)


def straight(series: list[Series], scores: list[np.ndarray], threshold: float) -> list[float]:
    """The definition, reading by reading, as `score > threshold` alerts."""

    def sigmoid(p: float) -> float:
        return -1.0 if p > 3 else 2 / (1 + math.exp(5 * p)) - 1

    raw = [0.0, 0.0, 0.0]
    windows = 0
    for one, found in zip(series, scores, strict=True):
        start = min(math.floor(0.15 * len(found)), 750)
        spans = [(int(a), int(b)) for a, b in one.windows]
        for left, right in spans:
            if right < start:
                continue
            windows += 1
            hits = [i for i in range(max(left, start), right + 1) if found[i] > threshold]
            for k, miss in enumerate((1, 1, 2)):
                p = -(right - hits[0] + 1) / (right - left + 1) if hits else 0
                raw[k] += sigmoid(p) / sigmoid(-1) if hits else -miss
        for i in range(start, len(found)):
            if found[i] <= threshold or any(left <= i <= right for left, right in spans):
                continue
            before = [(left, right) for left, right in spans if right < i]
            cost = -1.0
            if before and before[-1][1] > before[-1][0]:
                left, right = before[-1]
                cost = sigmoid((i - right) / (right - left))
            for k, weight in enumerate((0.11, 0.22, 0.11)):
                raw[k] += weight * cost
    return [
        100 * (raw[k] + miss * windows) / (windows + miss * windows)
        for k, miss in enumerate((1, 1, 2))
    ]


@st.composite
def corpora(draw, in_probation=False):
    series, scores = [], []
    for _ in range(draw(st.integers(1, 3))):
        n = draw(st.integers(10, 60))
        start = 0 if in_probation else probation(n)
        edges = draw(st.lists(st.integers(start, n - 1), unique=True, max_size=6).map(sorted))
        windows = tuple(zip(edges[::2], edges[1::2], strict=False))
        series.append(minutes(n, *windows))
        level = st.sampled_from([0.0, 0.1, 0.35, 0.5, 0.75, 1.0])
        scores.append(np.array(draw(st.lists(level, min_size=n, max_size=n))))
    series.append(minutes(20, (10, 12)))
    scores.append(np.zeros(20))
    return series, scores


@given(corpora(in_probation=True))
def test_the_sweep_equals_the_definition_at_every_threshold(case):
    series, scores = case
    corpus = Corpus(series)
    levels = sorted({-1.0, *np.concatenate(scores).tolist()})
    truths = [straight(series, scores, level) for level in levels]
    for level, truth in zip(levels, truths, strict=True):
        assert corpus.score(scores, level) == pytest.approx(tuple(truth))
    best = corpus.best(scores)
    assert best.scores == pytest.approx([max(column) for column in zip(*truths, strict=True)])
    at = straight(series, scores, best.threshold)
    assert at[0] == pytest.approx(best.scores.standard)


@given(corpora())
def test_silence_is_0_and_alerts_at_every_left_edge_are_100(case):
    series, scores = case
    corpus = Corpus(series)
    assert corpus.score(scores, 1.0) == Scores(0, 0, 0)
    edges = [alerts(len(s.times), *(int(left) for left, _ in s.windows)) for s in series]
    assert corpus.score(edges, 0.5) == pytest.approx((100, 100, 100))
    assert corpus.best(edges).scores == pytest.approx((100, 100, 100))


@given(corpora(), st.data())
def test_another_false_alarm_never_raises_a_score(case, data):
    series, scores = case
    outside = [
        (k, i)
        for k, one in enumerate(series)
        for i in range(len(one.times))
        if not any(a <= i <= b for a, b in one.windows)
    ]
    corpus = Corpus(series)
    before = corpus.score(scores, 0.5)
    k, i = data.draw(st.sampled_from(outside))
    worse = [one.copy() for one in scores]
    worse[k][i] = 1.0
    after = corpus.score(worse, 0.5)
    assert all(new <= old + 1e-9 for new, old in zip(after, before, strict=True))
