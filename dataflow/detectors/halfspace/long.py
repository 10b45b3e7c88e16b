"""Half-space trees over windows of any length, of one feature or several, with the early stop.

Every cell (of one feature) or leaf (of several) has a number on one axis, on which a node of a tree
is an interval. The last full window is a sorted array of such numbers: a node's mass is the
difference of two bisects. What a walk down the trees adds up to is then a step function along the
axis. It is worked out once a window, at the first score, from the nodes that hold a tenth of the
window or more (at most ten a level), and a score is one bisect more.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterable, Mapping
from itertools import accumulate
from typing import Any

from dataflow.detectors.base import Verdict
from dataflow.detectors.halfspace.trees import Forest, Line
from dataflow.detectors.sealing import seal, unseal

__all__ = ["LongWindows", "WideWindows", "Window"]


class Window:
    """What one key has learned: the last full window (None at first) and the present one.

    Copies share the last window and its steps, which are replaced and never changed.
    """

    __slots__ = ("last", "present", "steps")

    def __init__(self, last: array[int] | None, present: array[int]) -> None:
        self.last = last
        self.present = present
        self.steps: tuple[array[int], array[int]] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Window:
        twin = Window(self.last, self.present[:])
        twin.steps = self.steps
        return twin

    def __reduce__(self) -> tuple[type[Window], tuple[array[int] | None, array[int]]]:
        return Window, (self.last, self.present)


class _Windows:
    """What the two forms share: numbers on the axis, and the steps along it.

    A tree is given as its splits in heap order (a number under node i's split goes left), the part
    of the axis that is its own, and the part of a sorted full window that falls there.
    """

    __slots__ = ("_fingerprint", "_full", "_limit", "_max", "_top", "_trees", "_typecode")

    kind: int

    def __init__(
        self,
        forest: Forest,
        trees: list[tuple[list[int], tuple[int, int], tuple[int, int]]],
        full: int,
    ) -> None:
        self._trees = trees
        self._full = full
        self._top = trees[-1][1][1]
        self._typecode = "B" if self._top < 1 << 8 else "H" if self._top < 1 << 16 else "I"
        self._limit = forest.size_limit
        self._max = forest.max_score
        self._fingerprint = forest.fingerprint()

    @property
    def start(self) -> Window:
        """The state before the first reading."""
        return Window(None, array(self._typecode))

    def _turn(self, window: Window) -> None:
        window.last = array(self._typecode, sorted(window.present))
        window.present = array(self._typecode)
        window.steps = None

    def _walk_all(self, last: array[int]) -> tuple[array[int], array[int]]:
        """Return where the sum changes along the axis, and the sum from each such place on."""
        limit = self._limit
        changes: dict[int, int] = {}
        for splits, (begin, end), (low, high) in self._trees:
            before = 0
            ahead = [(1, begin, low, high, 0, 1)]
            while ahead:
                node, begin, low, high, total, weight = ahead.pop()
                mass = high - low
                total += mass * weight
                if mass < limit or node >= len(splits):
                    if total != before:
                        changes[begin] = changes.get(begin, 0) + total - before
                        before = total
                else:
                    split = splits[node]
                    middle = bisect_left(last, split, low, high)
                    ahead.append((2 * node + 1, split, middle, high, total, 2 * weight))
                    ahead.append((2 * node, begin, low, middle, total, 2 * weight))
            changes[end] = changes.get(end, 0) - before
        places = sorted(changes)
        sums = accumulate(map(changes.__getitem__, places))
        return array(self._typecode, places), array("q", sums)

    def _steps(self, window: Window) -> tuple[array[int], array[int]]:
        steps = window.steps
        if steps is None:
            assert window.last is not None
            steps = window.steps = self._walk_all(window.last)
        return steps

    def dump(self, state: Window) -> bytes:
        """Return a state as bytes: 7 and 1, 2 or 4 for each number in it, under two windows."""
        numbers = array(self._typecode)
        if state.last is not None:
            numbers.extend(state.last)
        numbers.extend(state.present)
        if sys.byteorder == "big":
            numbers.byteswap()
        return seal(self.kind, self._fingerprint, numbers.tobytes())

    def load(self, data: bytes) -> Window:
        """Read `dump`'s bytes; ValueError if they are another forest's or damaged."""
        numbers = array(self._typecode)
        numbers.frombytes(unseal(self.kind, self._fingerprint, data))
        if sys.byteorder == "big":
            numbers.byteswap()
        if len(numbers) < self._full:
            return Window(None, numbers)
        return Window(numbers[: self._full], numbers[self._full :])


class LongWindows(_Windows):
    """A forest of one feature: a reading is its cell."""

    __slots__ = ("cuts", "feature", "line")

    kind = 2

    def __init__(self, forest: Forest, feature: Hashable) -> None:
        self.feature = feature
        self.line = Line(forest)
        self.cuts = self.line.cuts
        axis = (0, len(self.cuts) + 1)
        window = (0, forest.window_size)
        trees = [(splits, axis, window) for splits in self.line.splits]
        super().__init__(forest, trees, forest.window_size)

    def place(self, state: Window, x: Mapping[Hashable, float]) -> int:
        """Return a reading's cell; KeyError if it lacks the feature."""
        return bisect_right(self.cuts, x[self.feature])

    def learn(self, state: Window, cell: int) -> Window:
        """Count a cell in; the state, changed in place."""
        present = state.present
        present.append(cell)
        if len(present) == self._full:
            self._turn(state)
        return state

    def score(self, state: Window, cell: int) -> float:
        """Score a cell by the last full window: 0 (the integer, as in River) if there is none."""
        if state.last is None:
            return 0
        places, sums = state.steps or self._steps(state)
        return 1 - sums[bisect_right(places, cell) - 1] / self._max

    def step(self, state: Window, value: float) -> tuple[Window, Verdict]:
        """Place, learn, then score a value."""
        cell = bisect_right(self.cuts, value)
        state = self.learn(state, cell)
        return state, Verdict(self.score(state, cell))

    def cells(self, state: Window) -> tuple[list[int] | None, list[int]]:
        """Return the cells of the last full window (None if there is none) and the present one."""
        return None if state.last is None else list(state.last), list(state.present)


class WideWindows(_Windows):
    """A forest of any features, some of which a reading may lack: a reading is a leaf per tree.

    Leaf j of tree t has the number t 2^height + j. Where a node's feature is missing, River goes
    to the child that more readings of the present window went to, the left one if they are even.
    """

    __slots__ = ("_features", "_height", "_roots", "_thresholds")

    kind = 3

    def __init__(self, forest: Forest) -> None:
        self._features = forest.features
        self._thresholds = forest.thresholds
        leaves, window = 2**forest.height, forest.window_size
        trees = []
        # Trees of (feature, threshold, left, right), with a leaf's number in place of a leaf.
        self._roots: list[Any] = []
        for tree in range(forest.n_trees):
            axis = (tree * leaves, (tree + 1) * leaves)
            splits = [0]
            for depth in range(forest.height):
                width = leaves >> depth
                splits += range(axis[0] + width // 2, axis[1], width)
            trees.append((splits, axis, (tree * window, (tree + 1) * window)))
            nodes: list[Any] = [None] * leaves + list(range(*axis))
            for i in range(leaves - 1, 0, -1):
                cut = forest.features[tree][i], forest.thresholds[tree][i]
                nodes[i] = (*cut, nodes[2 * i], nodes[2 * i + 1])
            self._roots.append(nodes[1])
        self._height = range(forest.height)
        super().__init__(forest, trees, forest.n_trees * window)

    def place(self, state: Window, x: Mapping[Hashable, float]) -> list[int]:
        """Return the number of a reading's leaf in each tree."""
        numbers = []
        height = self._height
        try:
            for node in self._roots:
                for _ in height:
                    feature, threshold, left, right = node
                    node = left if x[feature] < threshold else right
                numbers.append(node)
        except KeyError:
            return self._place_by_masses(state, x)
        return numbers

    def _place_by_masses(self, state: Window, x: Mapping[Hashable, float]) -> list[int]:
        present = sorted(state.present)
        numbers = []
        for (splits, (begin, end), _), features, thresholds in zip(
            self._trees, self._features, self._thresholds, strict=True
        ):
            node = 1
            while node < len(splits):
                split = splits[node]
                try:
                    right = not x[features[node]] < thresholds[node]
                except KeyError:
                    middle = bisect_left(present, split)
                    left_mass = middle - bisect_left(present, begin)
                    right = left_mass < bisect_left(present, end) - middle
                if right:
                    begin = split
                    node = 2 * node + 1
                else:
                    end = split
                    node = 2 * node
            numbers.append(begin)
        return numbers

    def learn(self, state: Window, numbers: Iterable[int]) -> Window:
        """Count a reading's leaves in; the state, changed in place."""
        present = state.present
        present.extend(numbers)
        if len(present) == self._full:
            self._turn(state)
        return state

    def score(self, state: Window, numbers: Iterable[int]) -> float:
        """Score leaves by the last full window: 0 (the integer, as in River) if there is none."""
        if state.last is None:
            return 0
        places, sums = state.steps or self._steps(state)
        return 1 - sum(sums[bisect_right(places, n) - 1] for n in numbers) / self._max

    def widen(self, line: Line, last: list[int] | None, present: list[int]) -> Window:
        """Return the state that a one-feature form of the same trees has in cells."""

        def numbers(cells: list[int]) -> array[int]:
            return array(
                self._typecode,
                (
                    axis[0] + leaf
                    for cell in cells
                    for (_, axis, _), leaf in zip(self._trees, line.leaves(cell), strict=True)
                ),
            )

        window = Window(None, numbers(last or []))
        if last is not None:
            self._turn(window)
        window.present = numbers(present)
        return window
