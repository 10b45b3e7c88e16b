"""The step `score`: one detector state per instance, updated by each reading."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from dataflow.detectors import make
from dataflow.detectors.base import PICKLED, AnyDetector, Detector, Verdict
from dataflow.errors import UserError
from dataflow.metrics import counters
from dataflow.records import Reading
from dataflow.settings import Settings

__all__ = ["Scored", "ScoredBatch", "detector", "form_of_states", "scorer"]

Scored = tuple[Reading, Verdict]

ScoredBatch = tuple[str, list[Scored]]
"""An instance, and its readings in a batch with their verdicts."""


def detector(settings: Settings) -> AnyDetector:
    """Return the detector that the settings name.

    Raises `UserError` if it cannot work with them.
    """
    try:
        return make(
            settings.detector,
            seed=settings.seed,
            interval=settings.interval,
            threshold=settings.threshold,
        )
    except ValueError as error:
        raise UserError(
            f"the detector {settings.detector} cannot work with these settings: {error}"
        ) from None


def form_of_states(detector: AnyDetector) -> str:
    """Return a fingerprint of the detector's version, trees and parameters: of its first state.

    It changes if the detector learns differently or if River draws its trees differently.
    """
    state, _ = detector.update(None, 0.25, 0.0)
    data = detector.dump(state)
    if data.startswith(PICKLED):
        # The pickle itself can differ from process to process: the order of a set does.
        data = data.partition(b"\n")[0]
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def scorer(
    detector: Detector[Any],
) -> Callable[[Any, list[Reading]], tuple[Any, list[Scored]]]:
    """Return the stateful step: an instance's state and readings to the next state and verdicts.

    It takes all readings of an instance in a batch: a call for each would cost more than the work.
    """
    update = detector.update
    sizes = counters.STATES

    def score(state: Any, readings: list[Reading]) -> tuple[Any, list[Scored]]:
        scored = []
        for reading in readings:
            state, verdict = update(state, reading.value, reading.time)
            scored.append((reading, verdict))
        if sizes.wanted:
            sizes.add(len(detector.dump(state)))
        return state, scored

    return score
