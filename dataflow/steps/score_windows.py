"""The step `score_windows`: a detector that scores many readings of an instance at a time.

Readings wait here, and in the recovery store across restarts, until they are scored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import msgspec
from bytewax.operators import StatefulBatchLogic

from dataflow.alerts.episode import EpisodeRules, Watched
from dataflow.detectors.base import Verdict, WindowedDetector
from dataflow.errors import stop_process
from dataflow.metrics import counters
from dataflow.records import Reading
from dataflow.runtime import shutdown
from dataflow.steps.repeats import Times
from dataflow.steps.score import Scored
from dataflow.steps.times import Backwards

__all__ = ["windower"]

VERSION = 1

Logic: TypeAlias = StatefulBatchLogic[list[Reading], list[Scored], bytes]


class _Saved(msgspec.Struct, array_like=True):
    """`waiting` has the fields of each reading except the instance, which they share."""

    version: int
    detector: bytes
    instance: str
    waiting: list[tuple[Any, ...]]
    # What earlier versions neither wrote nor read.
    times: bytes | None = None
    watched: Watched | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Saved).decode


def windower(
    detector: WindowedDetector[Any], rules: EpisodeRules, backwards: Backwards
) -> Callable[[bytes | None], Logic]:
    """Return the builder of the step's logic: for a new instance, or from its last snapshot.

    `backwards` is called with each reading that is older than the one before it.
    """

    def build(saved: bytes | None) -> Logic:
        logic = _Windows(detector, rules, backwards)
        if saved is not None:
            try:
                logic.load(saved)
            except ValueError as error:
                stop_process(
                    f"the recovery store cannot be read ({error}): resume with the version and "
                    "detector that wrote it, or start with a new store."
                )
        return logic

    return build


class _Windows(Logic):
    """The readings of one instance that are not scored yet, and its detector's state."""

    def __init__(
        self, detector: WindowedDetector[Any], rules: EpisodeRules, backwards: Backwards
    ) -> None:
        self._detector = detector
        self._rules = rules
        self._watched: Watched | None = None
        self._backwards = backwards
        self._last = math.nan
        self._state: Any = None
        self._instance = ""
        self._waiting: list[Reading] = []
        self._times: Times | None = None

    def on_batch(self, values: list[list[Reading]]) -> tuple[Iterable[list[Scored]], bool]:
        scored: list[list[Scored]] = []
        for readings in values:
            if not readings:  # the instance is forgotten
                scored += [*self._finish(), []]
                self._state, self._watched = None, None
                self._last, self._times = math.nan, None
            for reading in readings:
                self._add(reading, scored)
        return scored, not values[-1]

    def _add(self, reading: Reading, scored: list[list[Scored]]) -> None:
        self._instance = reading.instance
        if reading.index is None:
            if self._times is None:
                self._times = Times()
            news = self._times.take(reading)
            if news is None:
                return
            reading = news
        if reading.time is not None:
            if reading.time < self._last:
                self._backwards(reading)
            self._last = reading.time
        self._waiting.append(reading)
        self._state, verdicts = self._detector.update(self._state, reading.value, reading.time)
        if verdicts:
            scored.append(self._pair(verdicts))

    def on_eof(self) -> tuple[Iterable[list[Scored]], bool]:
        # A stopped flow also gets here, but its resume fills the window.
        return [] if shutdown.asked() else self._finish(), self.RETAIN

    def _finish(self) -> list[list[Scored]]:
        if not self._waiting:
            return []
        self._state, verdicts = self._detector.finish(self._state)
        return [self._pair(verdicts)]

    def _pair(self, verdicts: Sequence[Verdict]) -> list[Scored]:
        scored: list[Scored] = []
        for reading, verdict in zip(self._waiting, verdicts, strict=True):
            # What it knew at the start of an episode is in no state: a window is scored as a whole.
            self._watched, finding = self._rules.take(
                self._watched, reading, verdict.score, None, near=verdict.near
            )
            scored.append((reading, verdict, finding))
        self._waiting = []
        return scored

    def snapshot(self) -> bytes:
        state = self._detector.dump(self._state)
        waiting = [msgspec.structs.astuple(reading)[1:] for reading in self._waiting]
        times = None if self._times is None else self._times.save()
        saved = _encode(_Saved(VERSION, state, self._instance, waiting, times, self._watched))
        counters.STATES.add(len(saved))
        return saved

    def load(self, data: bytes) -> None:
        """Continue from a snapshot.

        Raises `ValueError` if it is of another version or detector.
        """
        try:
            saved = _decode(data)
        except msgspec.DecodeError:
            saved = None
        if saved is None or saved.version != VERSION:
            raise ValueError("a window was saved by another version")
        self._state = self._detector.load(saved.detector)
        self._instance = saved.instance
        self._watched = saved.watched
        self._waiting = [Reading(saved.instance, *fields) for fields in saved.waiting]
        self._times = None if saved.times is None else Times.restore(saved.times)
