"""Judges an instance of several metrics as one: by which alerts, on which moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataflow.alerts.news import Heard, News
from dataflow.evaluation.nab import Floats, Series

__all__ = ["AnyOf", "Scored", "held"]


class Scored(NamedTuple):
    """The score of each reading of a series, and whether its value is as expected."""

    scores: Floats
    near: NDArray[np.bool_]

    @classmethod
    def by(cls, scores: Sequence[float] | Floats) -> Scored:
        """Return scores of a detector that expects nothing."""
        return cls(np.asarray(scores, float), np.zeros(len(scores), bool))


def held(scored: Scored, threshold: float, interval: float) -> Floats:
    """Return the scores of one series with all that is no news held down, as `news.held` does.

    Those above the threshold are its alerts.

    >>> held(Scored.by([0.1, 0.6, 0.6]), 0.5, 300)
    array([0.1, 0.6, 0.2])
    >>> held(Scored(np.array([0.1, 0.6, 0.6]), np.array([False, True, False])), 0.5, 300)
    array([0.1, 0. , 0.6])
    """
    scores = np.where(scored.near, 0.0, scored.scores)
    news, heard = News(threshold, interval), Heard()
    found = np.minimum(scores, news.floor)
    # What is clearly below the floor is no news; the rule only counts such readings.
    before = -1
    for place in np.flatnonzero(~(scores < 0.999 * news.floor)).tolist():
        heard.passed(place - before - 1)
        before = place
        score = float(scores[place])
        if news.take(heard, score):
            found[place] = score
    return found


class AnyOf:
    """An alert of any metric is one of its instance, whose score is the highest of its metrics.

    The windows are the same for all metrics of an instance. With one series each, all stays as it
    is: scores that are of all metrics together already are judged as those of a single one.

    `instances` have a moment for each reading of any metric. The arguments `run` have one element
    per series, what is returned has one per instance, with a score for each of its moments.

    >>> times = np.arange(3.0)
    >>> judged = AnyOf([Series("a", times, times, metric=name) for name in ("cpu", "disk")])
    >>> [one.instance for one in judged.instances]
    ['a']
    >>> judged.ranked([Scored.by([0, 0.2, 0]), Scored.by([0.1, 0, 0])])
    [array([0.1, 0.2, 0. ])]
    """

    def __init__(self, series: Sequence[Series]) -> None:
        places: dict[str, list[int]] = {}
        for place, one in enumerate(series):
            places.setdefault(one.instance, []).append(place)
        self._places = list(places.values())
        # Where each metric's readings are among the moments of the instance; None: it has all.
        self._moments: list[list[np.ndarray | None]] = []
        instances = []
        for found in self._places:
            metrics = [series[place] for place in found]
            first = metrics[0]
            if all(np.array_equal(first.times, one.times) for one in metrics):
                self._moments.append([None] * len(metrics))
                instances.append(replace(first, metric="") if len(metrics) > 1 else first)
                continue
            times = np.unique(np.concatenate([one.times for one in metrics]))
            self._moments.append([np.searchsorted(times, one.times) for one in metrics])
            instances.append(replace(first, metric="", times=times, values=np.zeros(len(times))))
        self.instances = tuple(instances)

    def ranked(self, run: Sequence[Scored]) -> list[Floats]:
        """Return the highest score of the metrics at each moment of each instance."""
        return self._together([one.scores for one in run])

    def alerts(self, run: Sequence[Scored], threshold: float, interval: float) -> list[Floats]:
        """Return the same of scores that are held back, each metric for itself."""
        return self._together([held(one, threshold, interval) for one in run])

    def _together(self, scores: Sequence[Floats]) -> list[Floats]:
        return [
            self._highest([scores[place] for place in places], moments, len(whole.times))
            for places, moments, whole in zip(
                self._places, self._moments, self.instances, strict=True
            )
        ]

    @staticmethod
    def _highest(
        scores: Sequence[Floats], moments: Sequence[np.ndarray | None], length: int
    ) -> Floats:
        if len(scores) == 1:
            return scores[0]
        highest = np.zeros(length)
        for one, places in zip(scores, moments, strict=True):
            if places is None:
                np.maximum(highest, one, out=highest)
            else:
                np.maximum.at(highest, places, one)
        return highest
