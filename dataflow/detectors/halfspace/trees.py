"""The trees of a half-space forest: drawn once by River's own builder, then only read.

River draws its trees from nothing but their number, height, limits and seed, so all the keys of a
flow can share them. A perfect tree of height h is kept in heap order: node 1 is the root, node i
has the children 2i (value < threshold) and 2i + 1 (anything else, NaN too), and the nodes from 2^h
on are the leaves.
"""

from __future__ import annotations

import importlib
import random
import struct
import sys
from bisect import bisect_left
from collections.abc import Hashable
from hashlib import blake2b
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

import river

__all__ = ["Forest", "Limits", "Line", "Seed", "draw"]

Limits: TypeAlias = tuple[tuple[Hashable, tuple[float, float]], ...]
"""Each feature with the range that its cut points are drawn from, in sorted order."""

Seed: TypeAlias = int | float | str | bytes
"""What `random.Random` takes as a seed, None apart."""


def _rivers_builder() -> Any:
    """Return River's `make_padded_tree`, without the rest of `river.tree`.

    That package imports all of River's trees, and with them scikit-learn: a second or
    more of every start. An empty package of its name stands in while the one module is loaded.
    """
    name = "river.tree"
    if name in sys.modules:
        return importlib.import_module(f"{name}.padded").make_padded_tree
    stand_in = ModuleType(name)
    stand_in.__path__ = [f"{folder}/tree" for folder in river.__path__]
    sys.modules[name] = stand_in
    try:
        return importlib.import_module(f"{name}.padded").make_padded_tree
    finally:
        del sys.modules[name]


_make_tree = _rivers_builder()

# River leaves this share of a node's range free of cut points on either side.
PADDING = 0.15


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

    @property
    def size_limit(self) -> float:
        """The mass under which a walk stops (River's and the paper's constant)."""
        return 0.1 * self.window_size

    def fingerprint(self) -> bytes:
        """Four bytes that differ between forests: of the trees themselves, so of River's draw."""
        digest = blake2b(digest_size=4)
        digest.update(struct.pack("<3q", self.n_trees, self.height, self.window_size))
        for features, thresholds in zip(self.features, self.thresholds, strict=True):
            digest.update(repr(features).encode())
            digest.update(struct.pack(f"<{len(thresholds)}d", *thresholds))
        return digest.digest()


def draw(n_trees: int, height: int, window_size: int, limits: Limits, seed: Seed) -> Forest:
    """Draw trees as `river.anomaly.HalfSpaceTrees` (0.26.1) does for the same parameters.

    Raises ValueError where no tree can be drawn: a count that is not a positive integer (a height:
    not negative), no feature, limits that are not finite and ascending.

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
        raise ValueError("The first reading has no features: half-space trees need one to cut.")
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
        nodes: list[Any] = [
            None,
            _make_tree(dict(limits), height, PADDING, rng, l_mass=0, r_mass=0),
        ]
        for i in range(1, 2**height):
            nodes.extend(nodes[i].children)
        branches = nodes[1 : 2**height]
        features.append((None, *(node.feature for node in branches)))
        thresholds.append((0.0, *(node.threshold for node in branches)))
    forest = Forest(n_trees, height, window_size, tuple(features), tuple(thresholds))
    if forest.max_score >= 2**53:
        raise ValueError(
            f"n_trees={n_trees}, height={height}, window_size={window_size} make sums that a "
            "double cannot hold exactly: take a smaller window."
        )
    return forest


class Line:
    """The trees of one feature, laid over each other: their cuts part the line into cells.

    `cuts` are the thresholds of all trees, ascending; a value's cell is
    `bisect_right(cuts, value)`, the number of cuts that it is not under. All values of a cell fall
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
