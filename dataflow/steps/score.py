"""The step `score`: one detector state per instance, updated by each reading."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from dataflow.detectors import make
from dataflow.detectors.base import PICKLED, AnyDetector, Detector, Verdict
from dataflow.errors import UserError
from dataflow.metrics import counters
from dataflow.records import Reading
from dataflow.settings import Settings
from dataflow.steps.repeats import Times
from dataflow.steps.times import Backwards

__all__ = ["Scored", "ScoredBatch", "Scorer", "detector", "form_of_states", "scorer"]

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


class _Instance:
    """The detector's state of one instance, and the time of its last reading (NaN: not known).

    `times` has the times of its readings, if they have no index.
    """

    __slots__ = ("last", "state", "times")

    def __init__(self, state: Any, times: Times | None = None) -> None:
        self.state = state
        self.last = math.nan
        self.times = times


class Scorer(NamedTuple):
    """The stateful step, and how its states are written as bytes: those of the detector."""

    score: Callable[[_Instance | None, list[Reading]], tuple[_Instance | None, list[Scored]]]
    dump: Callable[[_Instance], bytes]
    load: Callable[[bytes], _Instance]


def scorer(detector: Detector[Any], backwards: Backwards) -> Scorer:
    """Return the stateful step: an instance's state and readings to the next state and verdicts.

    It takes all readings of an instance in a batch: a call for each would cost more than the work.
    Readings without an index whose time was there already, and first counters, are dropped.
    No readings say that the instance is forgotten: its state is discarded. `backwards` is called
    with each reading that is older than the one before it.
    """
    update = detector.update
    dump = detector.dump
    sizes = counters.STATES

    def score(
        instance: _Instance | None, readings: list[Reading]
    ) -> tuple[_Instance | None, list[Scored]]:
        if not readings:
            return None, []
        if instance is None:
            instance = _Instance(None)
        state, last = instance.state, instance.last
        scored = []
        for reading in readings:
            time = reading.time
            if reading.index is None:
                if instance.times is None:
                    instance.times = Times()
                news = instance.times.take(reading)
                if news is None:
                    continue
                reading, time = news, news.time
            if time is not None:
                if time < last:
                    backwards(reading)
                last = time
            state, verdict = update(state, reading.value, time)
            scored.append((reading, verdict))
        instance.state, instance.last = state, last
        if sizes.wanted:
            sizes.add(len(dump(state)))
        return instance, scored

    def dump_instance(instance: _Instance) -> bytes:
        state = dump(instance.state)
        return state if instance.times is None else instance.times.dump(state)

    def load(data: bytes) -> _Instance:
        times, state = Times.load(data)
        return _Instance(detector.load(state), times)

    return Scorer(score, dump_instance, load)
