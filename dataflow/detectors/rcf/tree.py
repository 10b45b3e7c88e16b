"""One tree of the random cut forest, with the sample of readings that it holds.

Over numbers, a node of a random cut tree is a run of the sorted sample, its bounding box is the
run's first and last point, and a cut falls into one of the gaps between neighbors, the longer the
likelier. That is so if each gap is cut at a random time, exponential with the gap's length as its
rate, and a run at the earliest time of its gaps. Hence the sample and the times are the tree. Where
in its gap a cut lies is uniform and independent of all else: it is drawn, or averaged over, only
when a value falls into the gap.
"""

from __future__ import annotations

from math import exp, log
from typing import Final

from librt.vecs import vec
from mypy_extensions import i64, u8

from dataflow.detectors.rcf.draws import draw

__all__ = ["Tree"]

NEVER: Final = float("inf")
NONE: Final = 255
"""Stands for no gap."""


class Tree:
    """A random cut tree over a sample that favors recent readings, of at most 254.

    `points` are sorted. `weights[i]` decides how long point i stays. `times[i]` is when the gap
    after point i is cut.
    """

    __slots__ = (
        "_left",
        "_right",
        "_root",
        "_size",
        "_worst",
        "count",
        "points",
        "times",
        "weights",
    )

    def __init__(
        self, count: i64, points: vec[float], weights: vec[float], times: vec[float]
    ) -> None:
        size = len(points)
        self.count: i64 = count
        self.points = points
        self.weights = weights
        self.times = times
        # The gaps cut next on either side of a gap, and the one cut first: from the times.
        self._left = vec[u8]([NONE] * size)
        self._right = vec[u8]([NONE] * size)
        self._root: i64 = NONE
        self._size: i64 = size
        self._worst: float = 0.0
        if count > 0:
            self._link()

    def displacement(self, value: float) -> float:
        """Return the expected collusive displacement of a value that is not in the tree yet.

        Were it inserted, the points beside it would lie deeper: their number, over that of the
        points (the new one among them) that would have to go for it. It is the largest of these
        quotients over the nodes above the new leaf, from 0 to the size of the sample, and the
        expectation is over the place of the new leaf.
        """
        if self.count == 0:
            return 0.0
        points = self.points
        first: i64 = 0
        last: i64 = self.count - 1
        node: int = self._root
        if value < points[first] or value > points[last]:
            return self._outside(value, node, first, last, 0.0)
        highest = 0.0
        while points[first] < points[last]:
            below = float(node - first + 1)
            above = float(last - node)
            left = above / (below + 1.0)
            right = below / (above + 1.0)
            if left < highest:
                left = highest
            if right < highest:
                right = highest
            if value <= points[node]:
                highest = left
                last = node
                node = self._left[node]
            elif value >= points[node + 1]:
                highest = right
                first = node + 1
                node = self._right[node]
            else:
                share = (value - points[node]) / (points[node + 1] - points[node])
                return share * self._outside(value, self._right[node], node + 1, last, right) + (
                    1.0 - share
                ) * self._outside(value, self._left[node], first, node, left)
        return highest

    def _outside(self, value: float, node: int, first: i64, last: i64, highest: float) -> float:
        """Return the expectation for a value outside of a node's box."""
        points = self.points
        above = value > points[last]
        found = 0.0
        chance = 1.0
        while True:
            mass = float(last - first + 1)
            if mass < highest:
                mass = highest
            low = points[first]
            high = points[last]
            if low == high:
                return found + chance * mass
            apart = (value - high) / (value - low) if above else (low - value) / (high - value)
            found += chance * apart * mass
            chance *= 1.0 - apart
            if above:
                beside = float(node - first + 1) / float(last - node + 1)
                first = node + 1
                node = self._right[node]
            else:
                beside = float(last - node) / float(node - first + 2)
                last = node
                node = self._left[node]
            if beside > highest:
                highest = beside

    def learn(self, value: float, age: float, key: i64, place: i64) -> None:
        """Take a value into the sample if its weight is among the least; the greatest goes.

        `age` grows by one over the window with each reading. The numbers drawn for the reading's
        `key` are those from `place` on, three at most.
        """
        if self.count == self._size:
            chance = draw(key, place)
            # Most are refused here: without the two logarithms.
            if chance <= 1.0 - exp(self._worst + age):
                return
            weight = log(-log(chance)) - age
            if weight >= self._worst:
                return
            at: i64 = 0
            while self.weights[at] < self._worst:
                at += 1
            self._remove(at)
        else:
            weight = log(-log(draw(key, place))) - age
        self._insert(value, weight, key, place + 1)
        self._link()

    def _insert(self, value: float, weight: float, key: i64, place: i64) -> None:
        points = self.points
        weights = self.weights
        times = self.times
        at: i64 = self.count
        while at > 0 and points[at - 1] > value:
            points[at] = points[at - 1]
            weights[at] = weights[at - 1]
            times[at] = times[at - 1]
            at -= 1
        points[at] = value
        weights[at] = weight
        self.count += 1
        lower = value - points[at - 1] if at > 0 else 0.0
        upper = points[at + 1] - value if at + 1 < self.count else 0.0
        if at == 0:
            times[0] = later(0.0, upper, draw(key, place))
        elif at + 1 == self.count:
            times[at - 1] = later(0.0, lower, draw(key, place))
        else:
            # The cut of the gap between them lies on one side; the other is cut after it.
            time = times[at - 1]
            if draw(key, place) * (lower + upper) < lower:
                times[at] = later(time, upper, draw(key, place + 1))
            else:
                times[at - 1] = later(time, lower, draw(key, place + 1))
                times[at] = time

    def _remove(self, at: i64) -> None:
        points = self.points
        weights = self.weights
        times = self.times
        # The gaps before and after it become one, cut when either was.
        if 0 < at < self.count - 1 and times[at] < times[at - 1]:
            times[at - 1] = times[at]
        self.count -= 1
        while at < self.count:
            points[at] = points[at + 1]
            weights[at] = weights[at + 1]
            times[at] = times[at + 1]
            at += 1

    def _link(self) -> None:
        """Find the order of the cuts by their times, and the weight of the next to go."""
        times = self.times
        left = self._left
        right = self._right
        # The gap before, those that are cut before it, and so on: `right` leads from each to the
        # next until it is known which gap is cut next on that side.
        top: int = NONE
        gap: int = 0
        while gap < self.count - 1:
            under: int = NONE
            while top != NONE and times[top] > times[gap]:
                above: int = right[top]
                right[top] = u8(under)
                under = top
                top = above
            left[gap] = u8(under)
            right[gap] = u8(top)
            top = gap
            gap += 1
        under = NONE
        while top != NONE:
            above = right[top]
            right[top] = u8(under)
            under = top
            top = above
        self._root = under
        worst = self.weights[0]
        at: i64 = 1
        while at < self.count:
            if self.weights[at] > worst:
                worst = self.weights[at]
            at += 1
        self._worst = worst


def later(time: float, length: float, chance: float) -> float:
    """Return when a gap is cut that was not cut before `time`; never if it has no length."""
    return time - log(chance) / length if length > 0.0 else NEVER
