"""The trees of `calibrated`, in the form that its hot path reads."""

from __future__ import annotations

from dataflow.detectors.calibrated_state import LEAVES, TREES
from dataflow.detectors.halfspace_trees import Line, draw

__all__ = ["Trees"]


class Trees:
    """A forest over one number from 0 to 1, drawn by River: a bisection finds all its leaves.

    `leaves[bisect_right(cuts, place)]` are the places of a number's leaves, one of each tree, in
    the list of masses, in which the forest's stand from `first` on.
    """

    __slots__ = ("cuts", "fingerprint", "leaves")

    def __init__(self, seed: str, first: int) -> None:
        # The window's size counts for nothing here: these masses are kept otherwise.
        forest = draw(TREES, LEAVES.bit_length() - 1, 1, (("place", (0.0, 1.0)),), seed)
        line = Line(forest)
        # Typed, so that what is compiled from here on knows numbers for numbers.
        self.cuts: list[float] = line.cuts
        self.fingerprint: bytes = forest.fingerprint()
        self.leaves: list[tuple[int, ...]] = [
            tuple(first + LEAVES * tree + leaf for tree, leaf in enumerate(line.leaves(cell)))
            for cell in range(len(line.cuts) + 1)
        ]
