"""The steps `normalize`, `score` and `filter`, one small function each.

What every reading passes takes a batch at a time: a call for each costs more than the work.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dataflow.detectors import make
from dataflow.detectors.base import AnyDetector, Detector, Verdict
from dataflow.errors import UserError
from dataflow.metrics import counters
from dataflow.records import Reading
from dataflow.settings import Settings

if TYPE_CHECKING:
    from dataflow.steps.exchange import Keyed

__all__ = ["Judged", "Scored", "above", "detector", "form_of_states", "normalizer", "scorer"]

Scored = tuple[Reading, Verdict]
Judged = tuple[str, list[Scored]]


def detector(settings: Settings) -> AnyDetector:
    """Make the detector that the settings name; a UserError if it cannot work with them."""
    try:
        return make(
            settings.detector,
            seed=settings.seed,
            interval=settings.interval,
            threshold=settings.threshold,
        )
    except ValueError as wrong:
        raise UserError(f"the detector {settings.detector} cannot work so: {wrong}") from None


def form_of_states(detector: AnyDetector) -> str:
    """Return a mark of the detector's version, trees and parameters: of what a first state holds.

    A detector that learns otherwise than it did, or whose trees River draws otherwise, has another.
    """
    state, _ = detector.update(None, 0.25, 0.0)
    return hashlib.blake2b(detector.dump(state), digest_size=8).hexdigest()


def normalizer(scale: float | None) -> Callable[[list[Keyed]], list[Keyed]]:
    """Return the step from 0..scale to 0..1, in place; a scale of None leaves values alone."""
    if scale is None:
        return lambda batch: batch

    def normalize(batch: list[Keyed]) -> list[Keyed]:
        for _, readings in batch:
            for reading in readings:
                reading.value /= scale
        return batch

    return normalize


def scorer(
    detector: Detector[Any],
) -> Callable[[Any, list[Reading]], tuple[Any, list[Scored]]]:
    """Return the stateful step: an instance's state and readings to the next state and verdicts."""
    update = detector.update
    sizes = counters.STATES

    def score(state: Any, readings: list[Reading]) -> tuple[Any, list[Scored]]:
        scored = []
        for reading in readings:
            state, verdict = update(state, reading.value, reading.time)
            scored.append((reading, verdict))
        if sizes.wanted:
            sizes.take(len(detector.dump(state)))
        return state, scored

    return score


def above(threshold: float) -> Callable[[list[Judged]], list[tuple[str, Scored]]]:
    """Return the filter of a batch: an anomaly is a score above the threshold, not at it.

    It also counts the scores: in one go with the filter, that costs next to nothing.
    """

    def keep(batch: list[Judged]) -> list[tuple[str, Scored]]:
        # By position: by name it takes longer.
        scores = [verdict[0] for _, scored in batch for _, verdict in scored]
        mine = counters.worker()
        mine.score(scores)
        if max(scores, default=0.0) <= threshold:
            return []
        found = [
            (instance, one) for instance, scored in batch for one in scored if one[1][0] > threshold
        ]
        mine.find([instance for instance, _ in found], time.time())
        return found

    return keep
