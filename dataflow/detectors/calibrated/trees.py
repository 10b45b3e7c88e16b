"""The trees of `calibrated`, in the form that its hot path reads."""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from dataflow.detectors.calibrated.memory import LEAVES, TREES
from dataflow.detectors.halfspace.trees import Forest, Line

__all__ = ["Trees"]

HEIGHT: Final = LEAVES.bit_length() - 1

HALVES: Final = [
    (2 * node + 1) / (2 << depth) for depth in range(HEIGHT) for node in range(1 << depth)
]
"""The cuts of a tree as parts of its range, in heap order."""

GRID: Final = 1024
"""Number of equal parts of the line from 0 to 1. A power of two, so that multiplying is exact."""


class Trees:
    """A forest over one number from 0 to 1.

    As in the paper on half-space trees, each tree halves its range, and the halves again, down to
    32 leaves. The ranges of the trees are a little longer than 0 to 1 and shifted against each
    other by equal parts of a leaf, not at random, so that nothing depends on luck.

    `leaves(place)` returns the positions among the masses of the number's leaves, one of each tree.
    Those of this forest begin at `first`.

    Source: Tan, Ting and Liu, "Fast Anomaly Detection for Streaming Data" (2011).
    """

    __slots__ = ("_cells", "_cuts", "_leaves")

    def __init__(self, first: int) -> None:
        line = Line(halved())
        cuts: list[float] = line.cuts
        # Typed, so that compiled code handles them as numbers.
        self._cells = [bisect_right(cuts, part / GRID) for part in range(GRID + 1)]
        self._cuts = [*cuts, float("inf")]
        self._leaves: list[tuple[int, ...]] = [
            tuple([first + LEAVES * tree + leaf for tree, leaf in enumerate(line.leaves(cell))])
            for cell in range(len(cuts) + 1)
        ]

    def cell(self, place: float) -> int:
        """Return the number of the interval between cuts that a number falls in."""
        # Finds what bisect_right(cuts, place) does, from the start of the place's part of the line:
        # compiled, in a tenth of the time.
        cuts = self._cuts
        cell = self._cells[int(place * GRID)]
        while place >= cuts[cell]:
            cell += 1
        return cell

    def leaves_of(self, cell: int) -> tuple[int, ...]:
        """Return the positions of a cell's leaves among the masses."""
        return self._leaves[cell]

    def cut(self, cell: int) -> float:
        """Return where a cell ends and the next begins; infinity for the last one."""
        return self._cuts[cell]

    @property
    def last(self) -> int:
        """The number of the last cell."""
        return len(self._leaves) - 1

    def leaves(self, place: float) -> tuple[int, ...]:
        """Return the positions of a number's leaves among the masses."""
        return self._leaves[self.cell(place)]


def halved() -> Forest:
    """Return trees that halve ranges which are shifted against each other by parts of a leaf."""
    width = 1.0 / (LEAVES - 1)
    thresholds = []
    for tree in range(TREES):
        low = -width * (tree + 0.5) / TREES
        thresholds.append((0.0, *[low + LEAVES * width * part for part in HALVES]))
    return Forest(TREES, HEIGHT, 1, ((None, *["place"] * (LEAVES - 1)),) * TREES, tuple(thresholds))
