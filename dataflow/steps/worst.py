"""Follows anomalous instances for Prometheus: a part of the step `filter`."""

from __future__ import annotations

import time
from collections.abc import Callable, Container

from dataflow.metrics.counters import RECENT, WORST
from dataflow.metrics.instances import Figures
from dataflow.settings import Settings
from dataflow.steps.anomaly import bounder, metrics_of
from dataflow.steps.score import ScoredBatch

__all__ = ["Follow", "follower"]

Follow = Callable[[list[ScoredBatch], Container[str]], None]
"""Takes a batch, and the keys of those that have an anomaly in it."""


def follower(settings: Settings) -> Follow | None:
    """Return what follows instances; None if the settings ask for none, or nothing is served."""
    WORST.limit = 0 if settings.metrics_port is None else settings.metrics_instances
    # An instance that sends must not come and go between two readings.
    WORST.patience = max(RECENT, 3 * settings.interval)
    if not WORST.limit:
        return None
    metrics = metrics_of(settings)
    default = settings.default_metric

    def follow(batch: list[ScoredBatch], anomalous: Container[str]) -> None:
        followed = WORST.followed
        now = time.time()
        for key, scored in batch:
            if key not in followed and key not in anomalous:
                continue
            if not scored:  # the instance is forgotten
                WORST.forget(key)
                continue
            reading, verdict, finding = scored[-1]
            bounded = bounder(metrics(reading).scale)
            WORST.take(
                key,
                (reading.instance, default if reading.metric is None else reading.metric),
                Figures(
                    verdict.score,
                    reading.value,
                    bounded(verdict.expected),
                    bounded(verdict.lower),
                    bounded(verdict.upper),
                ),
                max(one[1].score for one in scored),
                now=now,
                lasts=finding is not None and finding.ended is None,
            )

    return follow
