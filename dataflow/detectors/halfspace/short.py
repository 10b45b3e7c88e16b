"""Half-space trees of one feature over a short window: a state of a few immutable bytes.

Up to a window of 10 the early stop (a mass under a tenth of the window, so an empty node) changes
no sum. A reading's sum is then that of one integer for each reading of the last window: the
weights of the nodes that the two have in common, a fixed table over pairs of cells.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Mapping

from dataflow.detectors.base import Verdict
from dataflow.detectors.halfspace.short_step import Step
from dataflow.detectors.halfspace.trees import Forest, Line
from dataflow.detectors.sealing import seal, unseal

__all__ = ["ShortWindows"]

KIND = 1


class ShortWindows:
    """A forest whose state is `bytes`: the cells of the last full window, then of the present one.

    Fewer bytes than a window: the first is not full yet.
    """

    __slots__ = (
        "_bytes",
        "_fingerprint",
        "_scores",
        "_weights",
        "_window",
        "cuts",
        "feature",
        "hot",
        "line",
    )

    start = b""

    def __init__(self, forest: Forest, feature: Hashable) -> None:
        self.feature = feature
        self.line = Line(forest)
        self.cuts = self.line.cuts
        self._window = forest.window_size
        self._fingerprint = forest.fingerprint()
        cells = range(len(self.cuts) + 1)
        self._bytes = [bytes((cell,)) for cell in cells]
        # Two leaves whose numbers first differ in bit b (from below, 1 on) share the nodes of the
        # levels 0 to height - b, which weigh 1, 2, 4...: 2^(height - b + 1) - 1 together.
        shared = [(2 << forest.height - bits) - 1 for bits in range(forest.height + 1)]
        leaves = [self.line.leaves(cell) for cell in cells]
        # By cell: what one reading of the last window, by its cell, adds to the sum.
        self._weights = [
            [
                sum(shared[(a ^ b).bit_length()] for a, b in zip(here, there, strict=True))
                for there in leaves
            ]
            for here in leaves
        ]
        most = forest.max_score
        self._scores: list[float] = [1 - total / most for total in range(most + 1)]
        verdicts = [Verdict(score) for score in self._scores]
        self.hot = Step(self._window, self.cuts, self._weights, verdicts)

    @staticmethod
    def fits(forest: Forest) -> bool:
        """Tell whether this form holds for a forest, and its table is small enough to make."""
        cells = forest.n_trees * (2**forest.height - 1) + 1
        return forest.size_limit <= 1 and cells <= 128

    def place(self, state: bytes, x: Mapping[Hashable, float]) -> int:
        """Return a reading's cell; KeyError if it lacks the feature."""
        return bisect_right(self.cuts, x[self.feature])

    def learn(self, state: bytes, cell: int) -> bytes:
        """Count a cell in; the state after."""
        state += self._bytes[cell]
        window = self._window
        return state[window:] if len(state) == 2 * window else state

    def score(self, state: bytes, cell: int) -> float:
        """Score a cell by the last full window: 0 (the integer, as in River) if there is none."""
        window = self._window
        if len(state) < window:
            return 0
        return self._scores[sum(map(self._weights[cell].__getitem__, state[:window]))]

    def cells(self, state: bytes) -> tuple[list[int] | None, list[int]]:
        """Return the cells of the last full window (None if there is none) and the present one."""
        if len(state) < self._window:
            return None, list(state)
        return list(state[: self._window]), list(state[self._window :])

    def dump(self, state: bytes) -> bytes:
        """Return a state as bytes: 7 and one for each reading in it, under two windows of them."""
        return seal(KIND, self._fingerprint, state)

    def load(self, data: bytes) -> bytes:
        """Read `dump`'s bytes; ValueError if they are another forest's or damaged."""
        return unseal(KIND, self._fingerprint, data)
