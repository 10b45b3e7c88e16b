"""The trees of `calibrated`, in the form that its hot path reads."""

from __future__ import annotations

from bisect import bisect_right
from typing import Final

from dataflow.detectors.calibrated.memory import LEAVES, TREES
from dataflow.detectors.halfspace.trees import Line, draw

__all__ = ["Trees"]

GRID: Final = 1024
"""Number of equal parts of the line from 0 to 1. A power of two, so that multiplying is exact."""


class Trees:
    """A forest over one number from 0 to 1; the trees are those that River draws for the seed.

    `leaves(place)` returns the positions among the masses of the number's leaves, one of each tree.
    Those of this forest begin at `first`.
    """

    __slots__ = ("_cells", "_cuts", "_leaves", "fingerprint")

    def __init__(self, seed: str, first: int) -> None:
        # The window of 1 has no effect: `calibrated` counts its masses itself.
        forest = draw(TREES, LEAVES.bit_length() - 1, 1, (("place", (0.0, 1.0)),), seed)
        line = Line(forest)
        cuts: list[float] = line.cuts
        # Typed, so that compiled code handles them as numbers.
        self.fingerprint: bytes = forest.fingerprint()
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
