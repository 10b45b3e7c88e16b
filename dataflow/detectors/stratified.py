"""Half-space trees over one number, drawn so that few of them do: their cuts are stratified."""

from __future__ import annotations

import random
from bisect import bisect_right
from typing import NamedTuple

__all__ = ["HEIGHT", "LEAVES", "TREES", "Leaves", "Trees", "draw"]

TREES = 8
"""Trees in a forest."""

HEIGHT = 5
LEAVES = 2**HEIGHT
PADDING = 0.15


Leaves = tuple[int, ...]
"""One leaf of each tree, as places in a list of masses."""


class Trees(NamedTuple):
    """A forest as one sorted list: the leaves of all its trees are found by one bisection.

    `cuts` are the cut points of all trees, ascending; between two of them lies a *cell*, in which
    every tree has one leaf. `leaves[cell]` are the places of those leaves in a list of all masses,
    tree after tree: `leaves[bisect_right(cuts, u)]`. A number equal to a cut goes to its right.
    """

    cuts: list[float]
    leaves: list[Leaves]


def draw(seed: int, name: str, first: int = 0) -> Trees:
    """Draw the eight trees of height 5 that seed and name stand for, over 0 to 1.

    Their masses stand together in a list, from place `first` on.

    Each node halves its interval at a random point that keeps 15% clear of both ends, as in
    River's padded trees. There all points are drawn independently; here the eight trees' points
    at the same node come from the eight eighths of the allowed stretch, one each, in random
    order (a Latin hypercube), so that eight trees vary with the seed no more than twelve
    independent ones.

    >>> trees = draw(42, "residual")
    >>> len(trees.cuts), len(trees.leaves)
    (248, 249)
    >>> trees.leaves[0]
    (0, 32, 64, 96, 128, 160, 192, 224)
    """
    rng = random.Random(f"{name}:{seed}")
    cuts: list[list[float]] = [[] for _ in range(TREES)]

    def halve(bounds: list[tuple[float, float]], height: int) -> None:
        if not height:
            return
        strata = list(range(TREES))
        rng.shuffle(strata)
        left, right = [], []
        for tree, (low, high) in enumerate(bounds):
            share = (strata[tree] + rng.random()) / TREES
            cut = low + (PADDING + (1 - 2 * PADDING) * share) * (high - low)
            cuts[tree].append(cut)
            left.append((low, cut))
            right.append((cut, high))
        halve(left, height - 1)
        halve(right, height - 1)

    halve([(0.0, 1.0)] * TREES, HEIGHT)
    for tree in cuts:
        tree.sort()
    merged = sorted(cut for tree in cuts for cut in tree)
    cells = [0.0, *merged]  # a number in each cell: its left end
    leaves = []
    for cell in cells:
        leaves.append(
            tuple(
                first + tree * LEAVES + (bisect_right(points, cell) if cell else 0)
                for tree, points in enumerate(cuts)
            )
        )
    return Trees(merged, leaves)
