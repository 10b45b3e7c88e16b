"""Compares two detectors, or two versions of one, on the same instances, with the uncertainty.

The uncertainty is that of the choice of instances: they are drawn again and again, with
replacement, the same for both (paired bootstrap, Efron and Tibshirani 1993). It says nothing of
anomalies of other kinds than theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from dataflow.evaluation.alarms import Counts
from dataflow.evaluation.backtest import average_precisions, counts
from dataflow.evaluation.nab import Corpus, Floats

__all__ = ["Difference", "Tally", "compare", "from_json", "tally", "to_json"]

DRAWS = 2_000
SEED = 42
INTERVAL = (5.0, 95.0)
"""Percentiles."""

Tally: TypeAlias = Mapping[str, Floats]
"""What is counted, by name: for each run (seed) a row with a number for each instance.

`tp`, `fn`, `fp`, `alarms` and `days` as in `Counts`, `best_tp`, `best_fn` and `best_fp` the same at
the threshold of the best F1, `average_precision` for `ranked` instances (1, or 0 for those whose
precision is unknown), and NAB's standard score as `points` of all `windows`.
"""


class Difference(NamedTuple):
    """A figure of a detector and of another, and the first minus the second with its interval.

    The bounds are those of 90%; they are None for fewer than two instances.
    """

    value: float
    against: float
    difference: float
    low: float | None
    high: float | None


def tally(
    corpus: Corpus,
    ranked: Sequence[Sequence[Floats]],
    alerts: Sequence[Sequence[Floats]],
    threshold: float,
    best: tuple[float, Sequence[Sequence[Floats]]] | None = None,
) -> dict[str, Floats]:
    """Count for each instance: `ranked` scores, and `alerts` at a threshold, one for each run.

    `best` is the threshold of the best F1 and the alerts there; None without labels.
    """
    found = _counted(corpus, alerts, threshold, ("alarms", "days", "tp", "fn", "fp"))
    if best is None:
        return {name: found[name] for name in ("alarms", "days")}
    level, at_best = best
    again = _counted(corpus, at_best, level, ("tp", "fn", "fp"))
    alone = [Corpus([one]) for one in corpus.series]
    windows = np.array([float(one.windows) for one in alone])
    scores = [
        [one.score([found], threshold).standard for one, found in zip(alone, run, strict=True)]
        for run in alerts
    ]
    precisions = np.array([average_precisions(corpus.series, run) for run in ranked], dtype=float)
    return {
        **found,
        **{f"best_{name}": values for name, values in again.items()},
        "average_precision": np.nan_to_num(precisions),
        "ranked": (~np.isnan(precisions)).astype(float),
        "points": np.array(scores) * np.maximum(windows, 1),
        "windows": np.tile(windows, (len(alerts), 1)),
    }


def _counted(
    corpus: Corpus, runs: Sequence[Sequence[Floats]], threshold: float, names: Sequence[str]
) -> dict[str, Floats]:
    rows: list[list[Counts]] = [counts(corpus, scores, threshold) for scores in runs]
    return {
        name: np.array([[getattr(one, name) for one in row] for row in rows], dtype=float)
        for name in names
    }


def to_json(names: Sequence[str], found: Tally) -> dict[str, dict[str, list[float]]]:
    """Return what is counted by instance, a list of numbers (a run each) by name."""
    return {
        instance: {name: values[:, place].tolist() for name, values in found.items()}
        for place, instance in enumerate(names)
    }


def from_json(instances: Mapping[str, Mapping[str, Sequence[Any]]]) -> dict[str, Floats]:
    """Return what `to_json` wrote. Raises `ValueError`, `TypeError` or the like if it did not."""
    first, *_ = instances.values()
    return {
        name: np.array([one[name] for one in instances.values()], dtype=float).T for name in first
    }


def compare(one: Tally, other: Tally) -> dict[str, Difference]:
    """Return the differences of the figures that both have, of the same instances in one order.

    >>> ten = np.ones((1, 10))
    >>> found = compare({"alarms": 3 * ten, "days": ten}, {"alarms": 2 * ten, "days": ten})
    >>> found["alerts_per_day"]
    Difference(value=3.0, against=2.0, difference=1.0, low=1.0, high=1.0)
    """
    instances = one["days"].shape[1]
    everything = np.ones((1, instances))
    drawn = (
        np.random.default_rng(SEED)
        .multinomial(instances, np.full(instances, 1 / instances), DRAWS)
        .astype(float)
    )
    found = {}
    for name, (needed, figure) in _FIGURES.items():
        if not (needed <= one.keys() and needed <= other.keys()):
            continue
        value, against = (float(_mean(figure, each, everything)[0]) for each in (one, other))
        if np.isnan(value) or np.isnan(against):
            continue
        spread = _mean(figure, one, drawn) - _mean(figure, other, drawn)
        low, high = np.nanpercentile(spread, INTERVAL).tolist() if instances > 1 else (None, None)
        found[name] = Difference(value, against, value - against, low, high)
    return found


def _mean(figure: Callable[[Sums], Floats], found: Tally, weights: Floats) -> Floats:
    """Return the mean of a figure over the runs that have it, for each row of weights."""
    with np.errstate(divide="ignore", invalid="ignore"):
        runs = figure(lambda name: weights @ found[name].T)
    known = np.isfinite(runs)  # instances without a window have no NAB score, nor recall
    total = np.where(known, runs, 0).sum(axis=1)
    return np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan)


Sums: TypeAlias = Callable[[str], Floats]


def _f1(prefix: str) -> Callable[[Sums], Floats]:
    def figure(of: Sums) -> Floats:
        right = 2 * of(f"{prefix}tp")
        return right / (right + of(f"{prefix}fp") + of(f"{prefix}fn"))

    return figure


_FIGURES: dict[str, tuple[set[str], Callable[[Sums], Floats]]] = {
    "standard": ({"points", "windows"}, lambda of: of("points") / of("windows")),
    "precision": ({"tp", "fp"}, lambda of: of("tp") / (of("tp") + of("fp"))),
    "recall": ({"tp", "fn"}, lambda of: of("tp") / (of("tp") + of("fn"))),
    "f1": ({"tp", "fp", "fn"}, _f1("")),
    "false_alarms_per_day": ({"fp", "days"}, lambda of: of("fp") / of("days")),
    "alerts_per_day": ({"alarms", "days"}, lambda of: of("alarms") / of("days")),
    "best_f1": ({"best_tp", "best_fp", "best_fn"}, _f1("best_")),
    "best_f1_false_alarms_per_day": (
        {"best_fp", "days"},
        lambda of: of("best_fp") / of("days"),
    ),
    "average_precision": (
        {"average_precision", "ranked"},
        lambda of: of("average_precision") / of("ranked"),
    ),
}
"""What a figure needs, and how it is computed of sums over the instances, a run a column."""
