"""The step `filter`: only readings with a score above the threshold pass. It counts all scores.

And the step `filter_together`, of all metrics of an instance; and `ends`: of each episode the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from dataflow.metrics import counters
from dataflow.records import Over
from dataflow.steps.score import Scored, ScoredBatch
from dataflow.steps.worst import Follow

__all__ = ["above", "above_together", "ends"]


def above(
    threshold: float | None, follow: Follow | None = None
) -> Callable[[list[ScoredBatch]], list[tuple[str, Scored]]]:
    """Return the filter of a batch. A score at the threshold does not pass.

    A threshold of None is that of each reading, by the rules.

    It also counts the scores for Prometheus, and lets `follow` follow those with an anomaly:
    together with the filter that costs almost nothing.
    """

    def keep(batch: list[ScoredBatch]) -> list[tuple[str, Scored]]:
        # `verdict[0]` is faster than `verdict.score`.
        scores = [verdict[0] for _, scored in batch for _, verdict, _ in scored]
        counters.READINGS_SCORED.inc(len(scores))
        counters.SCORES.observe(scores)
        if threshold is not None and max(scores, default=0.0) <= threshold:
            if follow is not None and counters.WORST.followed:
                follow(batch, ())
            return []
        anomalies = _counted(batch, threshold)
        if follow is not None and (anomalies or counters.WORST.followed):
            follow(batch, {key for key, _ in anomalies})
        return anomalies

    return keep


def above_together(
    threshold: float | None,
) -> Callable[[list[ScoredBatch]], list[tuple[str, Scored]]]:
    """Return the filter of a batch of what is said of all metrics: no reading of its own.

    A threshold of None is that of each, by the rules.
    """
    return lambda batch: _counted(batch, threshold)


def _counted(batch: list[ScoredBatch], threshold: float | None) -> list[tuple[str, Scored]]:
    """Return the anomalies of a batch, and count them."""
    if threshold is None:
        anomalies = [
            (key, one)
            for key, scored in batch
            for one in scored
            if one[2] is not None and one[2].anomaly
        ]
    else:
        anomalies = [(key, one) for key, scored in batch for one in scored if one[1][0] > threshold]
    if anomalies:
        counters.ANOMALIES_FOUND.inc(len(anomalies))
        counters.ALERTS_FOUND.inc(sum(1 for _, one in anomalies if one[2] and one[2].alert))
        counters.ANOMALOUS.add([one[0].instance for _, one in anomalies], time.time())
    return anomalies


def ends(batch: list[ScoredBatch]) -> list[tuple[str, Over]]:
    """Return the ends of those episodes in a batch of which there was an alert."""
    return [
        (
            key,
            Over(
                *(reading.instance, found.episode, reading.time, found.ended, found.duration),
                reading.metric,
            ),
        )
        for key, scored in batch
        for reading, _, found in scored
        if found is not None and found.ended is not None and found.alerted
    ]
