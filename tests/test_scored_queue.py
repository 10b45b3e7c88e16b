"""A flow that judges what another one has scored, against a flow that scores by itself."""

from __future__ import annotations

from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.alerts.episode import EpisodeRules
from dataflow.detectors.base import Detector, Verdict
from dataflow.records import Reading
from dataflow.steps.judge import Judge, Series
from dataflow.steps.score import ScoredQueue, scorer


class Said(Detector[list[float]]):
    """The score of a reading is its value; the state is all values."""

    def __init__(self, threshold: float) -> None:
        self.explained = threshold
        self.known: list[float] | None = None

    def explain_from(self, score: float) -> None:
        self.explained = score

    def update(
        self, state: list[float] | None, value: float, time: float | None
    ) -> tuple[list[float], Verdict]:
        before = state or []
        self.known = list(before) if value > self.explained else None
        return [*before, value], Verdict(value, 0.2, 0.15, 0.55, near=value > 0.85)

    def before(self, state: list[float]) -> list[float] | None:
        return self.known

    def score(self, state: list[float] | None, value: float, time: float | None) -> Verdict:
        # Of the state, so that another one is seen.
        return Verdict(value, 0.2, 0.15, 0.25 + 0.3 * (len(state or []) % 2))


class Least:
    """A judge with a threshold of its own that lets the scores of odd readings count for less."""

    def __init__(self, threshold: float, quiet: float) -> None:
        self.floor = threshold
        self._rules = EpisodeRules(threshold, 300.0, quiet)

    def __call__(self, reading: Reading, verdict: Verdict) -> tuple[Verdict, EpisodeRules]:
        if reading.offset % 2:
            verdict = verdict._replace(score=min(verdict.score, self._rules.keep))
        return verdict, self._rules


class Each:
    """The judge of a series that looks at each reading, as that of verdicts does."""

    floor = -1.0

    def __init__(self, judge: Judge | None, rules: EpisodeRules) -> None:
        self._judge = judge
        self._rules = rules
        self.seen: list[tuple[int, float]] = []

    def over(self, judge: Judge | None, series: Series, readings: list[Reading]) -> Judge | None:
        return self if readings[0].instance == "b" else judge

    def __call__(self, reading: Reading, verdict: Verdict) -> tuple[Verdict, EpisodeRules]:
        self.seen.append((reading.offset, verdict.score))
        return (verdict, self._rules) if self._judge is None else self._judge(reading, verdict)


class Flow(NamedTuple):
    """What differs between two flows."""

    threshold: float
    quiet: float
    lower: float | None
    each: bool

    def scorer(self, to: ScoredQueue | None, of: ScoredQueue | None) -> tuple[Any, Each | None]:
        rules = EpisodeRules(self.threshold, 300.0, self.quiet)
        judge = None if self.lower is None else Least(self.lower * self.threshold, self.quiet)
        each = Each(judge, rules) if self.each else None
        made = scorer(
            *(Said(self.threshold), rules, lambda _: None, None, judge, None, each),
            scores_to=to,
            scores_from=of,
        )
        return made.score, each


FLOWS = st.builds(
    Flow,
    threshold=st.sampled_from([0.4, 0.5, 0.6]),
    quiet=st.sampled_from([600.0, 3600.0]),
    lower=st.sampled_from([None, 0.7, 1.0]),
    each=st.booleans(),
)
SCORES = st.sampled_from([0.1, 0.1, 0.1, 0.3, 0.35, 0.45, 0.55, 0.7, 0.9])
BATCH = st.tuples(st.sampled_from("ab"), st.lists(SCORES, min_size=0, max_size=12))
STEPS = st.sampled_from([300.0, 300.0, 2000.0])


@settings(max_examples=400)
@given(FLOWS, FLOWS, st.lists(st.tuples(BATCH, STEPS), max_size=25))
def test_a_flow_finds_in_the_scores_of_another_what_it_finds_in_its_own(
    first: Flow, second: Flow, batches: list[tuple[tuple[str, list[float]], float]]
) -> None:
    queue = ScoredQueue()
    runs = [
        (second.scorer(None, None), second.scorer(queue, None)),
        (first.scorer(None, None), first.scorer(None, queue)),
    ]
    kept: dict[tuple[int, int, str], Any] = {}
    time, offset = 0.0, 0
    for (name, values), step in batches:
        readings = []
        for value in values:
            readings.append(Reading(name, time, offset, value, time, 0, offset))
            time, offset = time + step, offset + 1
        for number, ways in enumerate(runs):
            found = []
            for way, (score, _) in enumerate(ways):
                state, scored = score(kept.get((number, way, name)), readings)
                kept[number, way, name] = state
                left = state and (
                    *(state.watched, state.passed),
                    *(state.habit and state.habit.state,),
                )
                found.append((scored, repr(left)))
            assert found[0] == found[1]
    assert not queue.batches
    for (_, alone), (_, beside) in runs:
        assert (alone and alone.seen) == (beside and beside.seen)
