"""The figures of the worst instances, for Prometheus: bounded, however many instances there are."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Container, Iterator
from typing import NamedTuple

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["LABELS", "Figures", "WorstInstances"]

LABELS = ("instance_name", "metric")
"""Not `instance`: Prometheus gives that label to the process that it asks."""

SPARE = 4
"""Instances kept for each that is shown, at most twice as many: one may become the worst."""

FAMILIES = (
    ("anomaly_score", "Newest score of one of the worst instances, from 0 to 1."),
    ("anomaly_value", "Newest value of one of the worst instances, as anomalies have it."),
    ("anomaly_expected", "The value that was expected of it."),
    ("anomaly_expected_lower", "The lower bound of the values that were expected of it."),
    ("anomaly_expected_upper", "The upper bound of the values that were expected of it."),
)


class Figures(NamedTuple):
    """The figures of one reading, in the order of `FAMILIES`; None where there is none."""

    score: float
    value: float
    expected: float | None = None
    lower: float | None = None
    upper: float | None = None


class _Followed:
    __slots__ = ("figures", "labels", "peak", "until")

    def __init__(self, labels: tuple[str, str], until: float) -> None:
        self.labels = labels
        self.until = until
        self.peak = -1.0
        self.figures = Figures(0.0, 0.0)


class WorstInstances(Collector):
    """Follows instances from an anomaly on until a while after its episode.

    Of these it exposes the `limit` with the highest scores since then, and no others: at most
    five times `limit` series. `patience` are the seconds, by the clock, for which an instance is
    followed after its last reading in the episode.

    >>> worst = WorstInstances(limit=1)
    >>> worst.take("a", ("a", "cpu"), Figures(0.75, 0.5), 0.75, now=0.0, lasts=True)
    >>> worst.take("b", ("b", "cpu"), Figures(0.25, 0.5), 0.25, now=0.0, lasts=True)
    >>> [(it.labels["instance_name"], it.value) for it in next(worst.at(60.0)).samples]
    [('a', 0.75)]
    >>> next(worst.at(601.0)).samples
    []
    """

    def __init__(self, limit: int = 0, patience: float = 600.0) -> None:
        self.limit = limit
        self.patience = patience
        self._lock = threading.Lock()
        self._followed: dict[str, _Followed] = {}

    @property
    def followed(self) -> Container[str]:
        """The keys of the instances that are followed; false if there are none."""
        return self._followed

    def take(
        self,
        key: str,
        labels: tuple[str, str],
        figures: Figures,
        peak: float,
        *,
        now: float,
        lasts: bool,
    ) -> None:
        """Take the newest reading of an instance that is followed, or to be followed from now on.

        `labels` are its name and metric, `peak` the highest score in the batch, and `now` is in
        seconds since 1970. `lasts` says that the reading is in an episode that has not ended.
        """
        with self._lock:
            one = self._followed.get(key)
            if one is None:
                one = self._followed[key] = _Followed(labels, now + self.patience)
            one.figures = figures
            if peak > one.peak:
                one.peak = peak
            if lasts:
                one.until = now + self.patience
            if len(self._followed) > 2 * SPARE * self.limit:
                self._forget(now)
                self._followed = dict(self._worst(SPARE * self.limit))

    def forget(self, key: str) -> None:
        """Follow an instance no longer."""
        with self._lock:
            self._followed.pop(key, None)

    def collect(self) -> Iterator[Metric]:
        """Yield the families as of now."""
        return self.at(time.time())

    def at(self, now: float) -> Iterator[Metric]:
        """Yield the families as of `now`, in seconds since 1970."""
        with self._lock:
            self._forget(now)
            shown = [(one.labels, one.figures) for _, one in self._worst(self.limit)]
        for place, (name, about) in enumerate(FAMILIES):
            family = GaugeMetricFamily(name, about, labels=LABELS)
            for labels, figures in shown:
                value = figures[place]
                if value is not None:
                    family.add_metric(labels, value)
            yield family

    def _worst(self, count: int) -> list[tuple[str, _Followed]]:
        # By name where scores are equal, so that the choice does not change between two scrapes.
        return heapq.nsmallest(count, self._followed.items(), key=lambda it: (-it[1].peak, it[0]))

    def _forget(self, now: float) -> None:
        over = [key for key, one in self._followed.items() if one.until < now]
        for key in over:
            del self._followed[key]
