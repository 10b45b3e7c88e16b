"""Readings with made-up scores, judged as the flow judges them; and an independent recount."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence

from dataflow.alerts.episode import EpisodeRules, Watched
from dataflow.detectors.base import Verdict
from dataflow.incidents.rules import Judged
from dataflow.records import Reading
from dataflow.steps.score import Scored

THRESHOLD = 0.5
STEP = 300.0


class Judge:
    """The episodes of the instances whose readings it is given, one after the other."""

    def __init__(self, quiet: float, threshold: float = THRESHOLD, interval: float = STEP) -> None:
        self._rules = EpisodeRules(threshold, interval, quiet)
        self._watched: dict[str, Watched | None] = {}

    def scored(self, reading: Reading, score: float | None, near: bool = False) -> Scored:
        """What leaves the step `score`; a score of None is an ordinary one."""
        score = 0.0 if score is None else score
        before = self._watched.get(reading.instance)
        after, finding = self._rules.take(before, reading, score, None, near=near)
        self._watched[reading.instance] = after
        return reading, Verdict(score, 0.1, near=near), finding

    def judged(self, reading: Reading, score: float | None, near: bool = False) -> Judged | None:
        """What the incidents of an instance take."""
        _, verdict, finding = self.scored(reading, score, near)
        return None if finding is None else Judged(finding, verdict.score, verdict.expected)


def judge_all(
    history: Iterable[tuple[Reading, float | None]], quiet: float
) -> Iterator[tuple[Reading, Judged | None]]:
    """Judge the readings of one instance."""
    judge = Judge(quiet)
    for reading, score in history:
        yield reading, judge.judged(reading, score)


def alerts(
    scores: Sequence[float], threshold: float, near: Collection[int] = frozenset()
) -> set[int]:
    """The places of the alerts, of readings 300 s apart.

    Above the threshold, and twice as bad as what is known: the trouble of which the last anomaly is
    less than 84 readings ago, or what came on two of the last three days within an hour of this.
    None less than 12 readings after another, and none whose value is near what is expected.
    """
    found: set[int] = set()
    troubles: list[tuple[int, int]] = []
    last, level = -math.inf, -1
    for at, score in enumerate(scores):
        if score <= threshold or at in near:
            continue
        odds = score / (1 - score) * (1 - threshold) / threshold if score < 1 else math.inf
        bad = math.ceil(math.log2(odds)) if odds < math.inf else 10_000
        known = at - last < 84 and bad <= level
        last = at
        if known:
            continue
        level = bad
        days = {
            day
            for begun, covered in troubles
            for day in (1, 2, 3)
            if abs(at - begun - 288 * day) <= 12 and bad <= covered
        }
        troubles.append((at, bad))
        if len(days) < 2 and not found.intersection(range(at - 11, at)):
            found.add(at)
    return found


def episodes(
    history: Sequence[tuple[Reading, float]], threshold: float, quiet: float
) -> list[tuple[int, int | None]]:
    """The first and the last reading of each episode, the last None if it has not ended."""
    found: list[tuple[int, int | None]] = []
    low = 2 * threshold / (3 - threshold)  # two thirds of the odds
    begun: int | None = None
    trouble = 0
    for at, (reading, score) in enumerate(history):
        if begun is None:
            if score > threshold:
                begun = trouble = at
            continue
        if score > low:
            trouble = at
            continue
        times = [one.time for one, _ in history[begun : at + 1]]
        assert reading.time is not None
        if max(times) - max(times[: trouble - begun + 1]) >= quiet:  # type: ignore[type-var, operator]
            found.append((begun, at))
            begun = None
    return found if begun is None else [*found, (begun, None)]
