"""What short windows do with each reading: the hot path, compiled where that can be."""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from dataflow.detectors.base import Verdict

__all__ = ["Step"]

# Before the first window is full.
UNKNOWN: Final = Verdict(0)


class Step:
    """Places, learns, then scores a value: three calls of `ShortWindows` in one."""

    __slots__ = ("_cuts", "_marks", "_verdicts", "_weights", "_window")

    def __init__(
        self,
        window: int,
        cuts: list[float],
        weights: list[list[int]],
        verdicts: list[Verdict],
    ) -> None:
        """Take what `ShortWindows` has worked out.

        `weights[a][b]` is what a reading of the last window in cell b adds to the sum of one in
        cell a, and `verdicts` are those of each sum.
        """
        self._window = window
        self._cuts = cuts
        self._marks = [bytes((cell,)) for cell in range(len(weights))]
        self._weights = weights
        self._verdicts = verdicts

    def take(self, state: bytes, value: float) -> tuple[bytes, Verdict]:
        """Return the state after a value, and its verdict."""
        cell = bisect_right(self._cuts, value)
        state += self._marks[cell]
        window = self._window
        size = len(state)
        if size < window:
            return state, UNKNOWN
        if size == 2 * window:
            state = state[window:]
        weights = self._weights[cell]
        total = 0
        # Compiled, far less than sum(map(...)); else as much.
        for at in range(window):
            total += weights[state[at]]
        return state, self._verdicts[total]
