"""The rolling z-score: how many standard deviations a reading lies from the day before it.

A baseline for other detectors. It ignores the hour and the weekday, and an anomaly that lasts
raises the deviation by which it is scored.
"""

from __future__ import annotations

import math
import struct
from array import array
from dataclasses import dataclass

from dataflow.detectors.base import Detector, Verdict
from dataflow.detectors.sealing import damaged, seal, unseal

__all__ = ["Window", "ZScore"]

_MARK = b"zscore\x01"
_HEAD = struct.Struct("<IIdd")
_SIGMAS = 3.0
# Smallest standard deviation, as a share of the level: a still instance may move a little.
_FLOOR = 1e-3


class Window:
    """The last readings of one instance, their mean, and the sum of squared distances from it."""

    __slots__ = ("mean", "next", "squares", "values")

    def __init__(self, values: array[float], next_: int, mean: float, squares: float) -> None:
        self.values = values
        self.next = next_
        self.mean = mean
        self.squares = squares


@dataclass(frozen=True)
class ZScore(Detector[Window]):
    """Scores z / (z + 3), where z is a reading's distance from the mean in standard deviations.

    Mean and deviation are those of the `window` readings before it (one day of CloudWatch); the
    first `start` readings of an instance score 0. Three deviations are a score of 0.5, the
    threshold. The band reaches three deviations from the mean.

    >>> detector = ZScore()
    >>> state = None
    >>> for value in [0.2, 0.4] * 20:
    ...     state, verdict = detector.update(state, value, None)
    >>> [round(number, 3) for number in verdict[:4]]
    [0.255, 0.297, -0.002, 0.597]
    >>> round(detector.score(state, 1.0, None).score, 3)  # seven deviations
    0.7
    """

    window: int = 288
    start: int = 30

    @property
    def name(self) -> str:
        """What `ANOMALY_DETECTOR` calls it."""
        return "zscore"

    @property
    def threshold(self) -> float:
        """The score at three standard deviations."""
        return 0.5

    def score(self, state: Window | None, value: float, time: float | None) -> Verdict:
        """Score a reading against a state, leaving the state as it is."""
        if not math.isfinite(value):
            raise ValueError(f"A reading's value must be a finite number, not {value!r}.")
        if state is None or len(state.values) < self.start:
            return Verdict(0.0)
        if not math.isfinite(state.squares):  # readings beyond 1e150
            return Verdict(0.0)
        mean = state.mean
        deviation = math.sqrt(state.squares / len(state.values))
        deviation = max(deviation, _FLOOR * abs(mean), 1e-12)
        z = abs(value - mean) / deviation
        reach = _SIGMAS * deviation
        # z / (z + 3), written so that an infinite z does not give NaN.
        return Verdict(1 - _SIGMAS / (z + _SIGMAS), mean, mean - reach, mean + reach)

    def update(
        self, state: Window | None, value: float, time: float | None
    ) -> tuple[Window, Verdict]:
        """Score a reading, then learn it."""
        verdict = self.score(state, value, time)
        if state is None:
            state = Window(array("d"), 0, 0.0, 0.0)
        values = state.values
        if len(values) < self.window:
            values.append(value)
            step = value - state.mean
            state.mean += step / len(values)
            state.squares += step * (value - state.mean)
            return state, verdict
        old = values[state.next]
        values[state.next] = value
        state.next = (state.next + 1) % self.window
        before, mean = state.squares, state.mean
        state.mean = mean + (value - old) / self.window
        state.squares += (value - old) * (value - state.mean + old - mean)
        # Rounding errors add up, and a huge value that leaves takes the digits of the others along.
        if state.next == 0 or state.squares < 1e-6 * before:
            state.mean = sum(values) / self.window
            state.squares = sum((v - state.mean) * (v - state.mean) for v in values)
        return state, verdict

    def dump(self, state: Window) -> bytes:
        """Return the state as bytes that name their version."""
        head = _HEAD.pack(self.window, state.next, state.mean, state.squares)
        body = head + struct.pack(f"<{len(state.values)}d", *state.values)
        return seal(_MARK, body)

    def load(self, data: bytes) -> Window:
        """Read the bytes of `dump`; raises ValueError if they are another detector's or damaged."""
        body = unseal(_MARK, data, self.name)
        if len(body) < _HEAD.size:
            raise damaged(data, self.name)
        window, next_, mean, squares = _HEAD.unpack_from(body)
        if window != self.window:
            raise ValueError(
                f"This state of detector 'zscore' has a window of {window} readings, this "
                f"detector one of {self.window}: start with an empty recovery store."
            )
        values = array("d", struct.unpack(f"<{(len(body) - _HEAD.size) // 8}d", body[_HEAD.size :]))
        return Window(values, next_, mean, squares)
