"""The rule of news, and episodes, against what they say in words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from judging import STEP, Judge, alerts, episodes

from dataflow.alerts.decision import decisions
from dataflow.alerts.episode import EpisodeRules, Finding
from dataflow.alerts.news import Heard, News, held
from dataflow.evaluation import instances
from dataflow.records import Reading

thresholds = st.sampled_from([0.3, 0.5, 0.7])
# Not just at a step of the ladder, where rounding decides.
scores = st.sampled_from([0.0, 0.13, 0.26, 0.42, 0.51, 0.61, 0.71, 0.83, 0.92, 0.96, 0.99])


def readings(count: int) -> list[Reading]:
    return [Reading("a", STEP * at, at, 0.5, STEP * at, 0, at) for at in range(count)]


@given(st.lists(st.tuples(scores, st.sampled_from([1, 1, 5, 40, 288])), max_size=60), thresholds)
def test_an_alert_is_twice_as_bad_as_what_was_known_or_comes_hours_later(
    stretches: list[tuple[float, int]], threshold: float
) -> None:
    found = [one for score, calm in stretches for one in (score, *[0.0] * (calm - 1))]
    expected = alerts(found, threshold)
    kept = held(found, threshold)
    assert {at for at, score in enumerate(kept) if score > threshold} == expected
    # The flow gives the rule only scores above the threshold.
    judge = Judge(3600.0, threshold)
    judged = [
        judge.judged(reading, score)
        for reading, score in zip(readings(len(found)), found, strict=True)
    ]
    assert {at for at, one in enumerate(judged) if one and one.finding.alert} == expected
    assert {at for at, one in enumerate(judged) if one and one.finding.anomaly} == {
        at for at, score in enumerate(found) if score > threshold
    }


@given(st.lists(st.tuples(scores, st.booleans(), st.sampled_from([1, 5, 40])), max_size=60))
def test_a_value_that_is_as_expected_is_no_alert_and_hides_none(
    stretches: list[tuple[float, bool, int]],
) -> None:
    found = [(one, near) for one, near, calm in stretches for one in (one, *[0.0] * (calm - 1))]
    scores, near = [score for score, _ in found], {at for at, (_, it) in enumerate(found) if it}
    judge = Judge(3600.0)
    judged = [
        judge.judged(reading, score, it)
        for reading, (score, it) in zip(readings(len(found)), found, strict=True)
    ]
    expected = alerts(scores, 0.5, near)
    assert {at for at, one in enumerate(judged) if one and one.finding.alert} == expected
    assert not expected & near
    # It belongs to the trouble as any other anomaly does.
    assert {at for at, one in enumerate(judged) if one and one.finding.anomaly} == {
        at for at, score in enumerate(scores) if score > 0.5
    }
    decided = list(decisions(found, 0.5))
    assert {at for at, one in enumerate(decided) if one and one.alert} == expected
    assert {at for at, one in enumerate(decided) if one and one.rule == "near"} == {
        at for at in near if scores[at] > 0.5
    }
    kept = instances.held(
        instances.Scored(np.array(scores), np.array([it for _, it in found], bool)), 0.5, STEP
    )
    assert {at for at, score in enumerate(kept) if score > 0.5} == expected


@given(st.lists(scores, max_size=80), thresholds, st.sampled_from([300.0, 900.0, 3600.0]))
def test_episodes_are_what_a_recount_of_the_whole_history_finds(
    found: list[float], threshold: float, quiet: float
) -> None:
    history = list(zip(readings(len(found)), found, strict=True))
    judge = Judge(quiet, threshold)
    judged = [judge.judged(reading, score) for reading, score in history]
    ends = [at for at, one in enumerate(judged) if one and one.finding.ended]
    expected = episodes(history, threshold, quiet)
    assert ends == [end for _, end in expected if end is not None]
    for first, end in expected:
        inside = judged[first : None if end is None else end + 1]
        assert len({one and one.finding.episode for one in inside}) == 1
        last = max(
            at for at, one in enumerate(inside, first) if one is not None and one.finding.trouble
        )
        assert inside[-1] is not None
        assert inside[-1].finding.duration == (last - first) * STEP


@pytest.mark.parametrize(("interval", "readings"), [(300, 84), (60, 420), (3600, 24), (1, 2520)])
def test_readings_further_apart_hold_back_longer(interval: float, readings: int) -> None:
    found = held([0.6, *[0.1] * (readings - 2), 0.6, *[0.1] * (readings - 1), 0.6], 0.5, interval)
    assert [at for at, score in enumerate(found) if score > 0.5] == [0, 2 * readings - 1]


def test_what_comes_each_night_is_no_news_from_the_third_time_on() -> None:
    nightly = [0.6, *[0.1] * 287] * 6
    found = held(nightly, 0.5)
    assert [at for at, score in enumerate(found) if score > 0.5] == [0, 288]
    # Twice as bad is news, and so is another hour.
    nightly[4 * 288] = 0.7
    nightly[5 * 288 + 100] = 0.6
    found = held(nightly, 0.5)
    assert [at // 288 for at, score in enumerate(found) if score > 0.5] == [0, 1, 4, 5]
    # The days go on while readings pass that are no anomalies.
    rules, watched, said = EpisodeRules(0.5, STEP, 900.0), None, []
    for at, reading in zip(range(0, 6 * 288, 288), readings(6), strict=True):
        watched, finding = rules.take(watched, reading, 0.6, None, passed=287 if at else 0)
        said.append(finding is not None and finding.alert)
    assert said == [True, True, False, False, False, False]


@pytest.mark.parametrize(("threshold", "count"), [(0.0, 2), (1.0, 0)])
def test_the_thresholds_0_and_1(threshold: float, count: int) -> None:
    found = held([0.0, 1e-12, 0.5, 0.4, 1.0, 1.0], threshold)
    assert sum(score > threshold for score in found) >= count
    assert News(threshold).take(Heard(), 0.0) is False


def taken(scores: list[float], inside: bool) -> list[Finding | None]:
    """What is found of an instance whose values all lie in, or outside, the band of before."""
    rules = EpisodeRules(0.5, STEP, 900.0)
    watched, said = None, []
    for reading, score in zip(readings(len(scores)), scores, strict=True):
        watched, finding = rules.take(watched, reading, score, lambda value, time: inside)
        said.append(finding)
    return said


@pytest.mark.parametrize(("inside", "ended"), [(True, "recovered"), (False, "adapted")])
def test_an_episode_says_whether_the_instance_is_as_before(inside: bool, ended: str) -> None:
    said = taken([0.9, 0.7, 0.3, 0.3, 0.3, 0.3], inside)
    assert [one and one.ended for one in said] == [None] * 4 + [ended, None]


def test_who_has_adapted_lately_adapts_again_only_after_a_longer_calm() -> None:
    calm = [0.3] * 10
    said = taken([0.9, *calm, 0.9, *calm], inside=False)
    # 900 s are 3 readings.
    assert [at for at, one in enumerate(said) if one and one.ended] == [3, 11 + 9]
    back = taken([0.9, *calm, 0.9, *calm], inside=True)
    assert [at for at, one in enumerate(back) if one and one.ended] == [3, 11 + 3]


@pytest.mark.parametrize("inside", [True, False])
def test_a_score_between_belongs_to_the_trouble_unless_the_value_is_as_before(
    inside: bool,
) -> None:
    said = taken([0.9, 0.45, 0.45, 0.45], inside)
    assert [one is not None and one.trouble for one in said] == [True, False, *[not inside] * 2]
