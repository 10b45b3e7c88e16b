"""The steps of the flow between reading and writing, one small function each.

What every reading passes takes a batch at a time: a call for each costs more than the work.
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeGuard

from dataflow import tally
from dataflow.detectors import AnyDetector, Detector, Verdict, make
from dataflow.index_name import index_namer
from dataflow.records import Anomaly, Reading, Rejected, Source, anomaly_id
from dataflow.refusal import Refusal
from dataflow.settings import Settings

__all__ = [
    "Judged",
    "Keyed",
    "Scored",
    "above",
    "bounder",
    "detector",
    "form_of_states",
    "is_reading",
    "keyed",
    "normalizer",
    "origin",
    "reporter",
    "scorer",
]

Scored = tuple[Reading, Verdict]
Keyed = tuple[str, list[Reading]]
"""An instance, and its readings in a batch: they stay together up to the filter."""
Judged = tuple[str, list[Scored]]


def detector(settings: Settings) -> AnyDetector:
    """Make the detector that the settings name; a Refusal if it cannot work with them."""
    try:
        return make(
            settings.detector,
            seed=settings.seed,
            interval=settings.interval,
            threshold=settings.threshold,
        )
    except ValueError as wrong:
        raise Refusal(f"the detector {settings.detector} cannot work so: {wrong}") from None


def form_of_states(detector: AnyDetector) -> str:
    """Return a mark of the detector's version, trees and parameters: of what a first state holds.

    A detector that learns otherwise than it did, or whose trees River draws otherwise, has another.
    """
    state, _ = detector.update(None, 0.25, 0.0)
    return hashlib.blake2b(detector.dump(state), digest_size=8).hexdigest()


def is_reading(record: Reading | Rejected) -> TypeGuard[Reading]:
    """Tell a reading from a refused record."""
    return isinstance(record, Reading)


def keyed(readings: list[Reading]) -> list[Keyed]:
    """Key readings by their instances: those of each together, in their order.

    >>> batch = [Reading(name, None, at, 0.5, None, 0, at) for at, name in enumerate("abab")]
    >>> [(name, [reading.index for reading in readings]) for name, readings in keyed(batch)]
    [('a', [0, 2]), ('b', [1, 3])]
    """
    groups: defaultdict[str, list[Reading]] = defaultdict(list)
    for reading in readings:
        groups[reading.instance].append(reading)
    return list(groups.items())


def origin(rejected: Rejected) -> str:
    """Return what refused records are keyed by: there may be no instance in them."""
    return str(rejected.source.partition)


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
    sizes = tally.STATES

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
        mine = tally.worker()
        mine.score(scores)
        if max(scores, default=0.0) <= threshold:
            return []
        found = [
            (instance, one) for instance, scored in batch for one in scored if one[1][0] > threshold
        ]
        mine.find([instance for instance, _ in found], time.time())
        return found

    return keep


def bounder(scale: float | None) -> Callable[[float | None], float | None]:
    """Return what keeps an expected value in the range that values have, if they have one."""
    # CPU below nothing or above all is nothing to expect.
    if scale is None:
        return lambda value: value
    return lambda value: None if value is None else min(max(value, 0.0), 1.0)


def reporter(
    settings: Settings, detector: AnyDetector, threshold: float
) -> Callable[[Scored], Anomaly]:
    """Return the step from a scored reading to the anomaly that is written."""
    topic = settings.topic if settings.input == "kafka" else settings.input
    name = detector.name
    named = index_namer(settings.index_field)
    bounded = bounder(settings.scale)

    def report(scored: Scored) -> Anomaly:
        reading, verdict = scored
        anomaly = Anomaly(
            instance=reading.instance,
            timestamp=reading.timestamp,
            index=reading.index,
            value=reading.value,
            score=verdict.score,
            threshold=threshold,
            expected=bounded(verdict.expected),
            lower=bounded(verdict.lower),
            upper=bounded(verdict.upper),
            detector=name,
            id=anomaly_id(reading.instance, reading.index, reading.timestamp),
            source=Source(topic, reading.partition, reading.offset),
        )
        return named(anomaly)

    return report
