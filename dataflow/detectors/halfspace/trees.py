"""The trees of a half-space forest: drawn once, then only read.

The trees depend on their number, height, limits and seed, not on the readings, so that all
instances share them. They equal those of `river.anomaly.HalfSpaceTrees` for the same parameters;
drawing them here keeps `river.tree`, and scikit-learn with it, out of every start (2 s). A perfect
tree of height h is kept in heap order: node 1 is the root, node i has the children 2i (value <
threshold) and 2i + 1 (any other value, NaN too), and the nodes from 2^h on are the leaves.

References
----------
Tan, Ting and Liu, "Fast Anomaly Detection for Streaming Data", IJCAI 2011.
"""

from __future__ import annotations

import random
import struct
from bisect import bisect_left
from collections.abc import Hashable
from hashlib import blake2b
from typing import NamedTuple, TypeAlias

__all__ = ["Forest", "Limits", "Line", "Seed", "draw"]

Limits: TypeAlias = tuple[tuple[Hashable, tuple[float, float]], ...]
"""Each feature with the range in which its cuts are drawn, in sorted order of the features."""

Seed: TypeAlias = int | float | str | bytes
"""What `random.Random` takes as a seed, except None."""


PADDING = 0.15
"""Share of a node's range, on either side, in which River places no cut."""


class Forest(NamedTuple):
    """Drawn trees, and the window that their masses are counted over.

    `features[t][i]` and `thresholds[t][i]` are those of node i (1 to 2^height - 1) of tree t.
    """

    n_trees: int
    height: int
    window_size: int
    features: tuple[tuple[Hashable, ...], ...]
    thresholds: tuple[tuple[float, ...], ...]

    @property
    def max_score(self) -> int:
        """The largest sum of weighted masses, by which River divides."""
        return self.n_trees * self.window_size * ((2 << self.height) - 1)

    def fingerprint(self) -> bytes:
        """Return four bytes that differ between forests: a hash of the trees themselves."""
        digest = blake2b(digest_size=4)
        digest.update(struct.pack("<3q", self.n_trees, self.height, self.window_size))
        for features, thresholds in zip(self.features, self.thresholds, strict=True):
            digest.update(repr(features).encode())
            digest.update(struct.pack(f"<{len(thresholds)}d", *thresholds))
        return digest.digest()


def draw(n_trees: int, height: int, window_size: int, limits: Limits, seed: Seed) -> Forest:
    """Draw trees as `river.anomaly.HalfSpaceTrees` (0.26.1) does for the same parameters.

    Raises ValueError if a count is not a positive integer (a height may be 0), if there is no
    feature, or if limits are not finite and ascending.

    >>> forest = draw(1, 2, 5, (("x", (0.0, 1.0)),), seed=42)
    >>> [round(threshold, 3) for threshold in forest.thresholds[0][1:]]
    [0.168, 0.051, 0.687]
    """
    for name, number, least in (
        ("n_trees", n_trees, 1),
        ("height", height, 0),
        ("window_size", window_size, 1),
    ):
        if not isinstance(number, int) or number < least:
            raise ValueError(f"{name} must be an integer of at least {least}, not {number!r}.")
    if not limits:
        raise ValueError("There is no feature: half-space trees need one to cut.")
    for feature, (low, high) in limits:
        if not float("-inf") < low <= high < float("inf"):
            raise ValueError(
                f"The limits of {feature!r} must be two finite numbers, "
                f"the lower one first, not {(low, high)!r}."
            )
    if not any(low < high for _, (low, high) in limits):
        raise ValueError("The limits of every feature coincide: there is nothing to cut.")
    rng = random.Random(seed)
    features, thresholds = [], []
    for _ in range(n_trees):
        tree_features, tree_thresholds = _draw_tree(limits, height, rng)
        features.append(tree_features)
        thresholds.append(tree_thresholds)
    forest = Forest(n_trees, height, window_size, tuple(features), tuple(thresholds))
    if forest.max_score >= 2**53:
        raise ValueError(
            f"n_trees={n_trees}, height={height}, window_size={window_size} make sums that a "
            "double cannot hold exactly: use a smaller window."
        )
    return forest


def _draw_tree(
    limits: Limits, height: int, rng: random.Random
) -> tuple[tuple[Hashable, ...], tuple[float, ...]]:
    """Return the feature and the threshold of each inner node, in heap order from place 1 on."""
    leaves = 2**height
    features: list[Hashable] = [None] * leaves
    thresholds = [0.0] * leaves
    # Depth first, the left half of a box before the right one: River's order of random draws.
    boxes = [(1, dict(limits))]
    while boxes:
        node, box = boxes.pop()
        if node >= leaves:
            continue
        # The wider the remaining range of a feature, the more likely it is drawn.
        (feature,) = rng.choices(list(box), [high - low for low, high in box.values()])
        low, high = box[feature]
        margin = PADDING * (high - low)
        threshold = rng.uniform(low + margin, high - margin)
        features[node], thresholds[node] = feature, threshold
        boxes.append((2 * node + 1, {**box, feature: (threshold, high)}))
        boxes.append((2 * node, {**box, feature: (low, threshold)}))
    return tuple(features), tuple(thresholds)


class Line:
    """The trees of one feature, laid over each other: their cuts divide the line into cells.

    `cuts` are the thresholds of all trees, ascending; a value's cell is
    `bisect_right(cuts, value)`, the number of cuts at or below it. All values of a cell fall
    into the same leaf of every tree. `splits[t][i]` is node i's threshold in cells: a cell under it
    goes left.
    """

    __slots__ = ("cuts", "splits")

    def __init__(self, forest: Forest) -> None:
        self.cuts = sorted(cut for thresholds in forest.thresholds for cut in thresholds[1:])
        self.splits = [
            [0, *(bisect_left(self.cuts, cut) + 1 for cut in thresholds[1:])]
            for thresholds in forest.thresholds
        ]

    def leaves(self, cell: int) -> list[int]:
        """Return the leaf (0 to 2^height - 1) of every tree that a cell lies in."""
        leaves = []
        for splits in self.splits:
            node = 1
            while node < len(splits):
                node = 2 * node + (cell >= splits[node])
            leaves.append(node - len(splits))
        return leaves
