"""The step `filter`: only readings with a score above the threshold pass. It counts all scores."""

from __future__ import annotations

import time
from collections.abc import Callable

from dataflow.metrics import counters
from dataflow.steps.score import Scored, ScoredBatch

__all__ = ["above"]


def above(threshold: float) -> Callable[[list[ScoredBatch]], list[tuple[str, Scored]]]:
    """Return the filter of a batch. A score at the threshold does not pass.

    It also counts the scores for Prometheus: together with the filter that costs almost nothing.
    """

    def keep(batch: list[ScoredBatch]) -> list[tuple[str, Scored]]:
        # `verdict[0]` is faster than `verdict.score`.
        scores = [verdict[0] for _, scored in batch for _, verdict in scored]
        counters.READINGS_SCORED.inc(len(scores))
        counters.SCORES.observe(scores)
        if max(scores, default=0.0) <= threshold:
            return []
        anomalies = [
            (instance, one) for instance, scored in batch for one in scored if one[1][0] > threshold
        ]
        counters.ANOMALIES_FOUND.inc(len(anomalies))
        counters.ANOMALOUS.add([instance for instance, _ in anomalies], time.time())
        return anomalies

    return keep
