"""One score of an instance from the scores of all its metrics: how much they surprise together.

Pure: no I/O, no Bytewax, no clock. `docs/detectors.md` has the formulas and the figures.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec

from dataflow.alerts.news import odds
from dataflow.records import ALL, MetricShare, Reading

__all__ = ["THRESHOLD", "Combined", "Memory", "Together"]

THRESHOLD = 0.5
"""The threshold that is used if no other is set: a score above it is an anomaly."""

POWER = 1.5
"""The exponent of the mean: a few metrics far off count for more than many a little off."""

MOST = 9.0
"""The surprise that counts at most of one metric, in thresholds of its detector."""

FLOOR = 0.1
"""The least deviation of the mean surprise, in thresholds: the habit of a calm instance."""

HALF = 4.0
"""Habitual deviations above the habit that give a score of one half."""

BAND = 2.0
"""Habitual deviations that are ordinary."""

LEARNED = 5.0
"""Habitual deviations up to which the habit learns: a trouble that lasts does not become habit."""

WARM = 288
"""Steps of 300 s, a day, before the first score."""

MEMORY = 2016
"""Steps of 300 s, a week, that the habit remembers."""

SAME = 0.75
"""The share of the interval within which readings belong to one step."""

MISSING = 12
"""Steps for which the last score of a metric without a reading counts."""


class _Metric(msgspec.Struct, array_like=True, gc=False):
    """The last reading of one metric: its surprise, score, time and step; `since` is its first."""

    surprise: float
    score: float
    time: float
    step: int
    since: int


class Memory(msgspec.Struct, array_like=True):
    """What is kept of one instance: the last readings of its metrics, a step, and the habit.

    `step` counts the steps, `began` is the time of the reading that began the last one, which is
    `open` while `waiting` metrics are awaited. `first` is its earliest reading of a metric that
    counts, and `place` the partition, offset and number of the last one. `late` counts readings in
    a row that are older than the last one of their metric. `count`, `mean` and `variance` are those
    of the mean surprise.
    """

    metrics: dict[str, _Metric] = {}
    step: int = 0
    began: float | None = None
    open: bool = False
    waiting: int = 0
    first: Reading | None = None
    place: tuple[int, int, int] = (0, 0, 0)
    late: int = 0
    count: int = 0
    mean: float = 0.0
    variance: float = 0.0


class Combined(NamedTuple):
    """The score of an instance in one step, from 0 to 1.

    `reading` has the metric `ALL`, the time of the earliest reading of the step, the place of the
    last one, and as its value the mean surprise of the metrics in thresholds of their detector.
    `expected` is the habit of that, and `upper` its bound; None while the habit is learned.
    `metrics` are all that count, by their shares.
    """

    reading: Reading
    score: float
    expected: float | None
    upper: float | None
    metrics: tuple[MetricShare, ...]


class Together:
    """Combines the scores of the metrics of an instance, one rule for all instances.

    The surprise of a metric is the odds of its score over the odds of its detector's threshold. A
    step is complete when all metrics have a reading, or when the next one begins. The mean surprise
    (with exponent 1.5) of its metrics, less its habit, in habitual deviations is the surprise of
    the instance: correlated metrics vary together, so their deviations are large.

    A metric counts from its second reading on. One without a reading in a step counts with its last
    score, for 12 steps. The order of the readings of a step does not matter if they lie within a
    quarter of the interval.

    `interval` are the usual seconds between two readings of a metric, `threshold` that of the
    detector, and `default` names the metric of readings without one.

    >>> together, memory = Together(threshold=0.5), Memory()
    >>> def step(at: int, *scores: float) -> list[Combined]:
    ...     out = []
    ...     for metric, score in zip(("load", "mem", "disk"), scores):
    ...         reading = Reading("a", at, None, 0.5, 300.0 * at, 0, at, metric=metric)
    ...         out += together.take(memory, reading, score)
    ...     return out
    >>> for at in range(400):
    ...     found = step(at, 0.1, 0.2, 0.1)
    >>> round(found[0].score, 2), found[0].reading.metric
    (0.0, '*')
    >>> (one,) = step(400, 0.7, 0.2, 0.5)
    >>> round(one.score, 2), [(it.metric, round(it.share, 2)) for it in one.metrics]
    (0.75, [('load', 0.76), ('disk', 0.21), ('mem', 0.03)])
    """

    def __init__(
        self, interval: float = 300.0, threshold: float = 0.5, default: str = "cpu"
    ) -> None:
        # As with the detectors, fewer readings are never counted than of 300 s.
        scale = max(1.0, 300.0 / interval)
        self._warm = round(WARM * scale)
        self._memory = round(MEMORY * scale)
        self._same = SAME * interval
        self._odds = max(odds(threshold), 1e-9)
        self._default = default

    def take(self, memory: Memory, reading: Reading, score: float) -> list[Combined]:
        """Take the score of a reading, changing `memory`; return the steps that it completes.

        At most two: the one before, and that of an instance with a single metric. The reading must
        have a time.
        """
        time = reading.time
        assert time is not None
        name = self._default if reading.metric is None else reading.metric
        metric = memory.metrics.get(name)
        if metric is not None and time <= metric.time:
            memory.late += 1
            if memory.late <= len(memory.metrics):
                return []
            # So many in a row: the clock was set back.
            for one in memory.metrics.values():
                one.time = -math.inf
            memory.began = None
        memory.late = 0
        out: list[Combined] = []
        began = memory.began
        again = metric is not None and metric.step == memory.step
        place = memory.step
        if began is None or again or time - began >= self._same:
            out += self._close(memory)
            self._begin(memory, time)
            place += 1
        elif began - time >= self._same:
            place -= 1
        counts = metric is not None and self._counts(memory, metric)
        surprise = min(odds(score) / self._odds, MOST)
        since = metric.since if metric is not None and counts else memory.step
        memory.metrics[name] = _Metric(surprise, score, time, place, since)
        if counts and memory.open and place == memory.step:
            first = memory.first
            if first is None or (time, name) < (first.time, first.metric):
                memory.first = msgspec.structs.replace(reading, index=None, metric=name)
            memory.place = reading.partition, reading.offset, reading.number
            memory.waiting -= 1
            if not memory.waiting:
                out += self._close(memory)
        return out

    def forget(self, memory: Memory, metric: str | None) -> None:
        """Forget a metric; None is the one of readings without a metric."""
        name = self._default if metric is None else metric
        gone = memory.metrics.pop(name, None)
        if gone is not None and gone.step < memory.step:
            memory.waiting -= self._counts(memory, gone)

    @staticmethod
    def _counts(memory: Memory, metric: _Metric) -> bool:
        return metric.since < memory.step and memory.step - metric.step <= MISSING

    def _begin(self, memory: Memory, time: float) -> None:
        memory.step += 1
        memory.began, memory.open, memory.first = time, True, None
        memory.waiting = sum(self._counts(memory, one) for one in memory.metrics.values())

    def _close(self, memory: Memory) -> list[Combined]:
        """Return the score of the step, if it is open, and learn it."""
        first = memory.first
        if not memory.open or first is None:
            return []
        memory.open, memory.first = False, None
        counted = [one for one in memory.metrics.items() if self._counts(memory, one[1])]
        if not counted:
            return []
        parts = [one.surprise**POWER for _, one in counted]
        # The exact sum: the order of the metrics is that of their first readings.
        whole = math.fsum(parts)
        mean = (whole / len(parts)) ** (1.0 / POWER)
        score, expected, upper = self._judge(memory, mean)
        shares = [
            MetricShare(name, part / whole if whole else 0.0, one.score)
            for (name, one), part in zip(counted, parts, strict=True)
        ]
        shares.sort(key=lambda one: (-one.share, one.metric))
        partition, offset, number = memory.place
        reading = Reading(
            *(first.instance, first.timestamp, None, mean, first.time, partition, offset, number),
            metric=ALL,
            labels=first.labels,
        )
        return [Combined(reading, score, expected, upper, tuple(shares))]

    def _judge(self, memory: Memory, mean: float) -> tuple[float, float | None, float | None]:
        """Return the score of a mean surprise, its habit and the bound of that; then learn it."""
        score, expected, upper = 0.0, None, None
        if memory.count >= self._warm:
            size = math.sqrt(memory.variance + FLOOR * FLOOR)
            expected, upper = memory.mean, memory.mean + BAND * size
            above = max((mean - expected) / size, 0.0)
            score = above / (above + HALF)
            mean = min(mean, expected + LEARNED * size)
        # Detectors score 0 until they know a metric.
        if mean or memory.count:
            memory.count += 1
            rate = 1.0 / min(memory.count, self._memory)
            off = mean - memory.mean
            memory.mean += rate * off
            memory.variance += rate * (off * off * (1.0 - rate) - memory.variance)
        return score, expected, upper
