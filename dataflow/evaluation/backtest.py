"""Replays labeled series through detectors and computes figures of their alerts and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from dataflow.detectors.base import AnyDetector, Verdict, WindowedDetector
from dataflow.evaluation import alarms
from dataflow.evaluation.alarms import Counts
from dataflow.evaluation.datasets import to_unit_range
from dataflow.evaluation.instances import AnyOf, Scored
from dataflow.evaluation.nab import Corpus, Floats, Scores, Series

__all__ = [
    "FIGURES",
    "Figures",
    "Outcome",
    "alerts_at",
    "average_precision",
    "average_precisions",
    "best_f1",
    "counts",
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
    "alerts_per_day",
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
) -> list[Scored]:
    """Return what is said of each reading, by series; `done` gets each series' length."""
    run = []
    for one in series:
        said = [(verdict.score, verdict.near) for verdict in verdicts(detector, one)]
        scores = np.fromiter((score for score, _ in said), float, len(said))
        run.append(Scored(scores, np.fromiter((near for _, near in said), bool, len(said))))
        done(len(one.values))
    return run


def average_precision(series: Sequence[Series], scores: Sequence[Floats]) -> float | None:
    """Return how well the scores of readings rank those in labeled windows first, 0 to 1.

    It is the mean over the series with labels of the area under precision over recall, each reading
    counted if it is not skipped; no threshold and no rule of alerts has a part in it. A score that
    knows nothing has the share of readings in windows. None without scikit-learn, or labels.
    """
    found = [one for one in average_precisions(series, scores) if one is not None]
    return fmean(found) if found else None


def average_precisions(series: Sequence[Series], scores: Sequence[Floats]) -> list[float | None]:
    """Return the average precision of each series, None without scikit-learn, or labels."""
    try:
        from sklearn.metrics import average_precision_score
    except ModuleNotFoundError:
        return [None] * len(series)
    found: list[float | None] = []
    for one, score in zip(series, scores, strict=True):
        inside = np.zeros(len(score), bool)
        for left, right in one.spans().values():
            inside[left : right + 1] = True
        start = one.start
        known = inside[start:].any()
        found.append(
            float(average_precision_score(inside[start:], score[start:])) if known else None
        )
    return found


def judge(
    corpus: Corpus,
    judged: AnyOf,
    runs: Sequence[Sequence[Scored]],
    threshold: float,
    interval: float = 300.0,
) -> Outcome:
    """Return the outcome of a detector whose runs (one per seed) gave these scores.

    `corpus` has the instances of `judged`, and a run what `replay` returns.
    """
    ranked = [average_precision(corpus.series, judged.ranked(run)) for run in runs]
    known = [one for one in ranked if one is not None]
    alerts = [judged.alerts(run, threshold, interval) for run in runs]
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
    """Return the figures of alerts of the corpus' series at one threshold, as in `Outcome`."""
    return _over_runs(
        [_figures(corpus, scores, threshold, corpus.score(scores, threshold)) for scores in runs]
    )


def best_f1(
    corpus: Corpus,
    judged: AnyOf,
    runs: Sequence[Sequence[Scored]],
    threshold: float,
    interval: float,
) -> tuple[float, Figures]:
    """Return the threshold with the highest F1, mean of all runs, and the figures there.

    Some sixty thresholds are tried, the detector's own `threshold` among them, from above the
    highest score to below the highest quarter; at each one, alerts are held back anew.
    """
    pooled = np.concatenate(
        [
            scores[one.start :]
            for run in runs
            for one, scores in zip(corpus.series, judged.ranked(run), strict=True)
        ]
    )
    falling = -np.sort(-pooled)

    def f1(level: float) -> float:
        found = [_count(corpus, judged.alerts(run, level, interval), level).f1 for run in runs]
        return fmean(one or 0.0 for one in found)

    tried = {threshold: f1(threshold)}
    first, last = 0, len(falling) // 4
    for steps in (40, 20):
        ranks = np.unique(np.geomspace(first + 1, last + 1, steps).astype(int)) - 1
        levels = [float(level) for level in falling[ranks[ranks < len(falling)]]]
        tried |= {level: f1(level) for level in levels if level not in tried and level < 1}
        # Between the neighbors of the best.
        best = max(tried, key=lambda level: (tried[level], level))
        higher = [level for level in levels if level > best]
        lower = [level for level in levels if level < best]
        first = int(np.searchsorted(-falling, -higher[-1])) if higher else 0
        last = int(np.searchsorted(-falling, -lower[0])) if lower else last
    alerts = [judged.alerts(run, best, interval) for run in runs]
    return best, judge_at(corpus, alerts, best)


def alerts_at(corpus: Corpus, runs: Sequence[Sequence[Floats]], threshold: float) -> Figures:
    """Return what can be said of alerts without labels, whether right or wrong.

    `alerts_per_day` are per instance and day, `instances_alerting` is how many instances have any.
    """
    found = [counts(corpus, scores, threshold) for scores in runs]
    return _over_runs(
        [
            {
                "alerts_per_day": sum(run, Counts()).alerts_per_day,
                "instances_alerting": float(sum(one.alarms > 0 for one in run)),
            }
            for run in found
        ]
    )


def counts(corpus: Corpus, scores: Sequence[Floats], threshold: float) -> list[Counts]:
    """Count the alerts of each series."""
    pairs = zip(corpus.series, scores, strict=True)
    return [alarms.count(one, found > threshold) for one, found in pairs]


def _count(corpus: Corpus, scores: Sequence[Floats], threshold: float) -> Counts:
    return sum(counts(corpus, scores, threshold), Counts())


def _figures(
    corpus: Corpus, scores: Sequence[Floats], threshold: float, nab: Scores
) -> dict[str, float | None]:
    found = _count(corpus, scores, threshold)
    return {name: getattr(nab if name in Scores._fields else found, name) for name in FIGURES}


def _over_runs(runs: Sequence[Figures]) -> Figures:
    """Return the mean of each figure over the runs that have it, and its standard deviation."""
    summary: dict[str, float | None] = {}
    for name in runs[0]:
        known = [value for run in runs if (value := run[name]) is not None]
        summary[name] = fmean(known) if known else None
        summary[f"{name}_sd"] = (stdev(known) if len(known) > 1 else 0.0) if known else None
    return summary
