"""Replays labeled series through detectors and computes figures of their alerts and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from dataflow.alerts import news
from dataflow.detectors.base import AnyDetector, Verdict, WindowedDetector
from dataflow.evaluation import alarms
from dataflow.evaluation.alarms import Counts
from dataflow.evaluation.datasets import to_unit_range
from dataflow.evaluation.nab import Corpus, Floats, Scores, Series, probation

__all__ = [
    "FIGURES",
    "Figures",
    "Outcome",
    "average_precision",
    "held",
    "judge",
    "judge_at",
    "replay",
    "series_for",
    "verdicts",
]

#: The figures of a detector, in this order.
FIGURES = (
    *Scores._fields,
    "precision",
    "recall",
    "f1",
    "false_alarms_per_day",
    "delay_hours",
)
#: A figure is None where it is undefined: the precision and delay of a detector without alerts.
Figures = Mapping[str, float | None]


@dataclass(frozen=True)
class Outcome:
    """The figures of a detector: at its threshold, and at the best one for the labels.

    Figures are means over the runs (one per seed); those named `..._sd` are standard deviations.
    In `at_best`, each of NAB's scores is at its own best threshold, as NAB publishes them; the
    counts are at that of the standard score, chosen for each run. `average_precision` is that of
    the scores themselves, without a threshold or alerts; None without scikit-learn.
    """

    threshold: float
    at_threshold: Figures
    at_best: Figures
    average_precision: float | None = None


def series_for(detector: AnyDetector, series: Sequence[Series], raw: bool) -> list[Series]:
    """Return the series in the range that the detector needs; `raw` ones have any range."""
    if raw and detector.needs_range:
        return [to_unit_range(one) for one in series]
    return list(series)


def verdicts(detector: AnyDetector, series: Series) -> Iterator[Verdict]:
    """Yield the detector's verdict on each reading, from the first on, with an empty state.

    Each verdict counts at its own reading, however late it came: the delays of a windowed detector
    do not include the wait until the window is full.
    """
    state = None
    if isinstance(detector, WindowedDetector):
        for value, time in zip(series.values.tolist(), series.times.tolist(), strict=True):
            state, due = detector.update(state, value, time)
            yield from due
        if state is not None:
            yield from detector.finish(state)[1]
        return
    update = detector.update
    for value, time in zip(series.values.tolist(), series.times.tolist(), strict=True):
        state, verdict = update(state, value, time)
        yield verdict


def replay(
    detector: AnyDetector,
    series: Sequence[Series],
    done: Callable[[int], object] = lambda readings: None,
) -> list[Floats]:
    """Return the score of each reading, one array per series; `done` gets each series' length."""
    scores = []
    for one in series:
        found = (verdict.score for verdict in verdicts(detector, one))
        scores.append(np.fromiter(found, float, len(one.values)))
        done(len(one.values))
    return scores


def held(runs: Sequence[Sequence[Floats]], threshold: float, interval: float) -> list[list[Floats]]:
    """Return the scores with all that is no news held down: those above `threshold` are alerts."""
    return [
        [np.array(news.held(scores.tolist(), threshold, interval)) for scores in run]
        for run in runs
    ]


def average_precision(series: Sequence[Series], scores: Sequence[Floats]) -> float | None:
    """Return how well the scores of readings rank those in labeled windows first, 0 to 1.

    It is the mean over the series with labels of the area under precision over recall, each reading
    counted after the probation; no threshold and no rule of alerts has a part in it. A score that
    knows nothing has the share of readings in windows. None without scikit-learn, or labels.
    """
    try:
        from sklearn.metrics import average_precision_score
    except ModuleNotFoundError:
        return None
    found = []
    for one, score in zip(series, scores, strict=True):
        inside = np.zeros(len(score), bool)
        for left, right in one.spans().values():
            inside[left : right + 1] = True
        start = probation(len(score))
        if inside[start:].any():
            found.append(float(average_precision_score(inside[start:], score[start:])))
    return fmean(found) if found else None


def judge(
    corpus: Corpus, runs: Sequence[Sequence[Floats]], threshold: float, interval: float = 300.0
) -> Outcome:
    """Return the outcome of a detector whose runs (one per seed) gave these scores."""
    ranked = [average_precision(corpus.series, scores) for scores in runs]
    known = [one for one in ranked if one is not None]
    alerts = held(runs, threshold, interval)
    best: list[Figures] = []
    for scores in alerts:
        found = corpus.best(scores)
        figures = _figures(corpus, scores, found.threshold, found.scores)
        best.append({"threshold": found.threshold, **figures})
    return Outcome(
        threshold,
        judge_at(corpus, alerts, threshold),
        _over_runs(best),
        fmean(known) if known else None,
    )


def judge_at(corpus: Corpus, runs: Sequence[Sequence[Floats]], threshold: float) -> Figures:
    """Return the figures of `held` scores at one threshold, as in `Outcome`."""
    return _over_runs(
        [_figures(corpus, scores, threshold, corpus.score(scores, threshold)) for scores in runs]
    )


def _count(corpus: Corpus, scores: Sequence[Floats], threshold: float) -> Counts:
    """Count the alerts of all series together."""
    pairs = zip(corpus.series, scores, strict=True)
    return sum((alarms.count(one, found > threshold) for one, found in pairs), Counts())


def _figures(
    corpus: Corpus, scores: Sequence[Floats], threshold: float, nab: Scores
) -> dict[str, float | None]:
    counts = _count(corpus, scores, threshold)
    return {name: getattr(nab if name in Scores._fields else counts, name) for name in FIGURES}


def _over_runs(runs: Sequence[Figures]) -> Figures:
    """Return the mean of each figure over the runs that have it, and its standard deviation."""
    summary: dict[str, float | None] = {}
    for name in runs[0]:
        known = [value for run in runs if (value := run[name]) is not None]
        summary[name] = fmean(known) if known else None
        summary[f"{name}_sd"] = (stdev(known) if len(known) > 1 else 0.0) if known else None
    return summary
