"""The detector of Bytewax's tutorial on anomalies in EC2 metrics: River's half-space trees."""

from __future__ import annotations

from bisect import bisect_right
from typing import ClassVar, Final

from dataflow.detectors.base import Explanation, Verdict
from dataflow.detectors.halfspace.trees import Line, Seed, draw
from dataflow.detectors.sealing import CRC16, seal, unseal

__all__ = ["Tutorial"]

INFINITY: Final = float("inf")
LARGEST_WINDOW: Final = 10
MOST_CELLS: Final = 128
MARK: Final = b"\x11"
"""Begins a state's bytes: version 1 of their form, in 4 bits, and kind 1 of half-space trees."""

FIRST: Final = Verdict(0)
"""Before the first window is full: 0, an integer, as in River."""


class Tutorial:
    """Half-space trees in the tutorial's order: a reading is learned first, then scored.

    Values lie in 0 to 1; values outside are no error. The scores are those of
    `river.anomaly.HalfSpaceTrees(n_trees, height, window_size, seed=seed)`, bit for bit;
    `expected`, `lower` and `upper` are None. The defaults are the tutorial's.

    `update` scores a reading by the state *after* learning it, `score` by the state as it is given
    (River's `score_one`): the two differ for a reading that fills a window.

    A state is `bytes`: one for each reading of the last full window, then of the present one, 9 at
    most for the tutorial's window of 5. In windows of up to 10 readings River's early stop (at a
    mass under a tenth of the window, so at an empty node) changes no sum. So the sum of a reading
    is that of one integer for each reading of the last window: the weights of the nodes that both
    pass, a fixed table over pairs of cells.

    Raises ValueError for a window above 10 readings, for trees with more than 127 cuts together,
    and where no tree can be drawn.

    >>> detector = Tutorial()
    >>> state = None
    >>> for value in (0.5, 0.45, 0.43, 0.44, 0.445, 0.9):
    ...     state, verdict = detector.update(state, value, None)
    >>> verdict.score
    0.8266666666666667
    """

    name: ClassVar[str] = "tutorial"
    threshold: ClassVar[float] = 0.7
    needs_range: ClassVar[bool] = True
    compilable: ClassVar[bool] = True

    def __init__(
        self, n_trees: int = 5, height: int = 3, window_size: int = 5, seed: Seed = 42
    ) -> None:
        forest = draw(n_trees, height, window_size, (("value", (0.0, 1.0)),), seed)
        line = Line(forest)
        cells = range(len(line.cuts) + 1)
        if window_size > LARGEST_WINDOW or len(cells) > MOST_CELLS:
            raise ValueError(
                f"window_size={window_size}, n_trees={n_trees}, height={height} are too large: "
                f"a window has at most {LARGEST_WINDOW} readings, and all trees together at most "
                f"{MOST_CELLS - 1} cuts."
            )
        self._parameters = (n_trees, height, window_size, seed)
        # Typed, so that compiled code reads numbers without calling Python.
        self._window: int = window_size
        self._mark: bytes = MARK + forest.fingerprint()
        self._cuts: list[float] = line.cuts
        self._cell_bytes = [bytes((cell,)) for cell in cells]
        # Two leaves whose numbers first differ in bit b (from below, 1 on) share the nodes of the
        # levels 0 to height - b, which weigh 1, 2, 4...: 2^(height - b + 1) - 1 together.
        shared = [(2 << height - bits) - 1 for bits in range(height + 1)]
        leaves: list[list[int]] = [line.leaves(cell) for cell in cells]
        # _weights[a][b]: what a reading of the last window in cell b adds to the sum of one in a.
        self._weights: list[list[int]] = [
            [
                sum([shared[(a ^ b).bit_length()] for a, b in zip(here, there, strict=True)])
                for there in leaves
            ]
            for here in leaves
        ]
        most: int = forest.max_score
        self._verdicts = [Verdict(1 - total / most) for total in range(most + 1)]

    @classmethod
    def create(cls, *, seed: int, interval: float, threshold: float | None) -> Tutorial:
        """Return a detector with this seed; it uses neither interval nor threshold."""
        return cls(seed=seed)

    def __reduce__(self) -> tuple[type[Tutorial], tuple[int, int, int, Seed]]:
        return type(self), self._parameters

    def score(self, state: bytes | None, value: float, time: float | None = None) -> Verdict:
        """Score a reading by the last full window of a state, leaving the state as it is."""
        cell = self._cell(value)
        if state is None or len(state) < self._window:
            return FIRST
        return self._judge(state, cell)

    def update(
        self, state: bytes | None, value: float, time: float | None = None
    ) -> tuple[bytes, Verdict]:
        """Learn a reading, then score it; return the state after it and the verdict."""
        cell = self._cell(value)
        after = self._cell_bytes[cell] if state is None else state + self._cell_bytes[cell]
        window = self._window
        size = len(after)
        if size < window:
            return after, FIRST
        if size == 2 * window:
            after = after[window:]
        return after, self._judge(after, cell)

    def _cell(self, value: float) -> int:
        if not -INFINITY < value < INFINITY:
            raise ValueError(f"A reading's value must be a finite number, not {value!r}.")
        return bisect_right(self._cuts, value)

    def _judge(self, state: bytes, cell: int) -> Verdict:
        weights = self._weights[cell]
        total = 0
        # Compiled, far faster than sum(map(...)); as Python, as fast.
        for position in range(self._window):
            total += weights[state[position]]
        return self._verdicts[total]

    def explain_from(self, score: float) -> None:
        """Change nothing: no reading is explained."""

    def before(self, state: bytes) -> bytes | None:
        """Return None: a window of readings has no reasons."""
        return None

    def explain(
        self, before: bytes, value: float, time: float | None, ordinary: bool
    ) -> Explanation | None:
        """Return None."""
        return None

    def dump(self, state: bytes) -> bytes:
        """Return a state as bytes: 7, and one for each reading in it (under two windows)."""
        data: bytes = seal(self._mark, state, CRC16)
        return data

    def load(self, data: bytes) -> bytes:
        """Read the bytes of `dump`; raises ValueError if they are another detector's or damaged."""
        state: bytes = unseal(self._mark, data, "tutorial", CRC16)
        return state
