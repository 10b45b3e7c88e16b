"""Counts what a person on call would: anomalies found, false alarms a day, hours of delay.

What is skipped (see `Series.start`) does not count. A labeled window with an alert is a true
positive, one without a false negative. Alerts outside windows form false alarms of at most one hour
each, so that an incident of ten readings counts once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from dataflow.evaluation.nab import Floats, Series

__all__ = ["Counts", "alarms", "alarms_per_week", "count", "tune"]

DAY = 86_400.0
WEEK = 7 * DAY
ALARM = 3_600.0


@dataclass(frozen=True)
class Counts:
    """The counts of a detector's alerts: true positives, false negatives, false positives.

    `alarms` are all, right and wrong, by the hour as well. `days` are instance-days that count.
    `delays` are the hours from each true positive's labeled time to its first alert: negative where
    the alert came first, which is possible because windows begin before the labeled time.
    """

    tp: int = 0
    fn: int = 0
    fp: int = 0
    days: float = 0.0
    delays: tuple[float, ...] = ()
    alarms: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.tp + other.tp,
            self.fn + other.fn,
            self.fp + other.fp,
            self.days + other.days,
            self.delays + other.delays,
            self.alarms + other.alarms,
        )

    @property
    def precision(self) -> float | None:
        """The share of alarms that were right, 0 to 1; None without any alarm."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else None

    @property
    def recall(self) -> float | None:
        """The share of labeled windows that were found, 0 to 1; None without any window."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else None

    @property
    def f1(self) -> float | None:
        """The harmonic mean of precision and recall; None without any alarm or window."""
        errors = self.fp + self.fn
        return 2 * self.tp / (2 * self.tp + errors) if self.tp + errors else None

    @property
    def false_alarms_per_day(self) -> float | None:
        """False alarms per instance and day; None if no time passed."""
        return self.fp / self.days if self.days else None

    @property
    def alerts_per_day(self) -> float | None:
        """All alarms, right and wrong, per instance and day; None if no time passed."""
        return self.alarms / self.days if self.days else None

    @property
    def delay_hours(self) -> float | None:
        """The mean of `delays`; None if nothing was found."""
        return fmean(self.delays) if self.delays else None


def count(series: Series, alerts: NDArray[np.bool_]) -> Counts:
    """Count the alerts of one series, given as True or False for each reading.

    >>> hourly = Series("a", np.arange(100) * 3600.0, np.zeros(100), ((180_000, 190_000),))
    >>> found = np.isin(np.arange(100), [3, 51, 52, 70, 71, 80])  # 3 is in the probation
    >>> counts = count(hourly, found)
    >>> counts.tp, counts.fn, counts.fp, counts.delays
    (1, 0, 2, (1.0,))
    """
    start = series.start
    counted = alerts.copy()
    counted[:start] = False
    every = len(alarms(series.times[counted]))
    delays: list[float] = []
    missed = 0
    for number, (left, right) in series.spans().items():
        if right < start:
            continue
        hits = np.flatnonzero(counted[left : right + 1])
        if len(hits):
            began = series.labels[number] if series.labels else series.windows[number][0]
            delays.append(float(series.times[left + hits[0]] - began) / 3600)
        else:
            missed += 1
        counted[left : right + 1] = False
    return Counts(
        tp=len(delays),
        fn=missed,
        fp=len(alarms(series.times[counted])),
        days=_span(series) / DAY,
        delays=tuple(delays),
        alarms=every,
    )


def alarms(times: Floats) -> list[float]:
    """Return the start times of the alarms that these alerts form, of at most one hour each.

    >>> alarms(np.array([0.0, 300.0, 3600.0, 3900.0, 90_000.0]))
    [0.0, 3900.0, 90000.0]
    """
    begun: list[float] = []
    for time in times.tolist():
        # The clock may step back by an hour (daylight saving): this starts no new alarm.
        if not begun or abs(time - begun[-1]) > ALARM:
            begun.append(time)
    return begun


def tune(
    series: Sequence[Series], runs: Sequence[Sequence[Floats]], rate: float
) -> tuple[float, float]:
    """Return the lowest threshold with at most `rate` alarms per instance and week, and its rate.

    Labels have no effect: every alarm counts, right or wrong. `runs` are the scores of one or
    more runs (seeds), each with one array per series; the rate is their mean. Raises ValueError if
    no time passes that counts.

    >>> week = Series("a", np.arange(2016) * 300.0, np.zeros(2016))
    >>> scores = np.where(np.arange(2016) % 500 == 499, np.arange(2016) / 2016, 0.1)
    >>> threshold, reached = tune([week], [[scores]], rate=3)
    >>> threshold, round(reached, 2)  # of readings 499, 999, 1499, 1999 the last two
    (0.495536, 2.35)
    """
    counted = _counted(series, runs)
    weeks = _weeks(series, runs)

    def reached(threshold: float) -> float:
        return sum(len(alarms(times[scores > threshold])) for times, scores in counted) / weeks

    levels = np.unique(np.concatenate([scores for _, scores in counted]))
    # A lower threshold never gives fewer alarms, so bisection finds the lowest.
    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        if reached(float(levels[middle])) <= rate:
            high = middle
        else:
            low = middle + 1
    # Rounded up, so that the printed threshold is the counted one.
    threshold = math.ceil(float(levels[low]) * 1e6) / 1e6
    return threshold, reached(threshold)


def alarms_per_week(
    series: Sequence[Series], runs: Sequence[Sequence[Floats]], threshold: float
) -> float:
    """Return the alarms per instance and week at a threshold; `runs` as for `tune`."""
    found = sum(len(alarms(times[scores > threshold])) for times, scores in _counted(series, runs))
    return found / _weeks(series, runs)


def _counted(
    series: Sequence[Series], runs: Sequence[Sequence[Floats]]
) -> list[tuple[Floats, Floats]]:
    """Return times and scores that count, of all series and runs."""
    return [
        (one.times[one.start :], scores[one.start :])
        for run in runs
        for one, scores in zip(series, run, strict=True)
    ]


def _weeks(series: Sequence[Series], runs: Sequence[Sequence[Floats]]) -> float:
    weeks = sum(_span(one) for one in series) / WEEK * len(runs)
    if not weeks:
        raise ValueError("The series are too short to count alerts per week: give longer ones.")
    return weeks


def _span(series: Series) -> float:
    """Return the seconds from the first reading that counts to the last."""
    counted = series.times[series.start :]
    return float(counted.max() - counted.min()) if len(counted) else 0.0
