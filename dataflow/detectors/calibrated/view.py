"""What a state says of any value in the reading's place: its surprise, and the ordinary range."""

from __future__ import annotations

from math import nextafter, sqrt
from typing import Final

from dataflow.detectors.calibrated.memory import Memory
from dataflow.detectors.calibrated.runs import RAREST, farther, sharp, weight
from dataflow.detectors.calibrated.trees import Trees

__all__ = [
    "BONUS",
    "BONUS_HALF",
    "HALF",
    "LARGEST",
    "SPREAD",
    "WIDTH",
    "YOUNG",
    "View",
    "follow",
    "quietness",
]

LARGEST: Final = 1e30
"""Values beyond it count as this one, so that no sum or square overflows."""

WIDTH: Final = 16.0
"""A feature of this many times its usual size lies halfway to the end of the trees' range."""

SLACK: Final = 1.5
"""The scale of a feature stays until its usual size has changed by this factor."""

SPREAD: Final = 0.3
"""Bits of deviation that are added for every instance."""

BONUS: Final = 6.0
BONUS_HALF: Final = 0.08
YOUNG: Final = 4
"""Leaving the known range by this share of it adds half the bonus; since a new habit, by this share
times 1 + 4 / days: the range is not known yet."""

HALF: Final = 3.0
"""Deviations that give a score of one half."""

CLOSE: Final = 1e-7
"""The share of the known range to which the limits of ordinary values are found."""

NO_CELL: Final = 1_000_000
"""More than a forest's cells."""


class View:
    """One state, looked at with any value in place of the reading: what its score would be.

    Values count from the instance's first one. Nothing here changes the state. Within a cell of
    both forests the surprise of the forests is the same for all values, so the range of ordinary
    values is found from cell to cell.
    """

    def __init__(
        self,
        memory: Memory,
        expected: float,
        high: float,
        low: float,
        least: float,
        width: float,
        young: bool,
        rate: float,
        smooth: float,
        information: float,
        leaf_bits: list[float],
        residual_trees: Trees,
        step_trees: Trees,
        stuck: int,
        bonus_half: float,
        run: int,
        bar: float,
        unseen: float,
    ) -> None:
        self.memory = memory
        self.expected = expected
        self.high = high
        self.low = low
        self.least = least
        self.width = width
        self.young = young
        self.rate = rate
        self.smooth = smooth
        self.information = information
        self.leaf_bits = leaf_bits
        self.residual_trees = residual_trees
        self.step_trees = step_trees
        self.stuck = stuck
        self.quietness = quietness(memory)
        self.bonus_half = bonus_half
        self.run = run
        self.bar = bar
        self.unseen = unseen
        self.within = expected

    def residual_place(self, offset: float) -> float:
        """Return where the residual of a value lies in its forest, 0 to 1."""
        memory = self.memory
        return self._place(offset - self.expected, memory.residual_size, memory.residual_scale)

    def step_place(self, offset: float) -> float:
        """Return where the step to a value lies in its forest, 0 to 1."""
        memory = self.memory
        return self._place(offset - memory.previous, memory.step_size, memory.step_scale)

    def _place(self, feature: float, size: float, scale: float) -> float:
        distance = abs(feature)
        size += self.rate * (distance - size)
        scale = size if self.young else follow(scale, size)
        width = WIDTH * (scale if scale > self.least else self.least)
        return 0.5 + 0.5 * feature / (width + distance)

    def residual(self, offset: float) -> float:
        """Return the surprise of the residual's forest at a value, in deviations."""
        return self._of_residual(self.residual_trees.cell(self.residual_place(offset)))

    def step(self, offset: float) -> float:
        """Return the surprise of the step's forest at a value, in deviations."""
        return self._of_step(self.step_trees.cell(self.step_place(offset)))

    def _of_residual(self, cell: int) -> float:
        memory = self.memory
        seen = memory.masses.look(self.residual_trees.leaves_of(cell), self.leaf_bits)
        bits = memory.residual_bits
        bits += self.smooth * (self.information - seen - bits)
        found = (bits - memory.residual_mean) / sqrt(memory.residual_variance + SPREAD * SPREAD)
        return found / self.quietness

    def _of_step(self, cell: int) -> float:
        memory = self.memory
        seen = memory.masses.look(self.step_trees.leaves_of(cell), self.leaf_bits)
        bits = memory.step_bits
        bits += self.smooth * (self.information - seen - bits)
        found = (bits - memory.step_mean) / sqrt(memory.step_variance + SPREAD * SPREAD)
        return found / self.quietness

    def sharpness(self, offset: float) -> float:
        """Return the surprise of a value that stands out, with the readings just before it."""
        found = sharp(self.memory, offset - self.expected, offset, self.least, self.run)
        if found <= self.unseen:
            return 0.0
        cell = self.residual_trees.cell(self.residual_place(offset))
        return found * HALF / self.bar * self._weight(cell)

    def _weight(self, cell: int) -> float:
        if self.run == 1:
            return 1.0
        memory = self.memory
        seen = memory.masses.look(self.residual_trees.leaves_of(cell), self.leaf_bits)
        return weight(memory, self.information - seen)

    def bonus(self, offset: float) -> float:
        """Return the surprise of leaving the range of the last weeks."""
        outside = offset - self.high if offset > self.high else self.low - offset
        if outside <= 0.0:
            return 0.0
        outside /= self.width
        return BONUS * outside / (outside + self.bonus_half)

    def is_stuck(self, offset: float) -> bool:
        """Return whether a value is stuck just now."""
        memory = self.memory
        return offset == memory.previous and memory.same + 1 == self.stuck

    def surprise(self, offset: float) -> float:
        """Return the surprise of a value, but for being stuck and for standing out."""
        found = self.residual(offset)
        by_step = self.step(offset)
        if by_step > found:
            found = by_step
        if found < 0.0:
            found = 0.0
        return found + self.bonus(offset)

    def calm(self, alarm: float, sign: int) -> float:
        """Return the last value above (or with a sign of -1, below) that does not stand out.

        The expected value does not.
        """
        memory = self.memory
        size = memory.beside_size if memory.beside_size > self.least else self.least
        step_size = memory.step_size if memory.step_size > self.least else self.least
        usual = self.expected + memory.beside
        start = memory.previous if self.run == 1 else memory.previous_3
        # Values nearer than where the rarest would stand out do not matter.
        needed = max(self.bar * alarm / HALF, self.unseen)
        at = farther(usual, size, start, step_size, needed / RAREST, sign)
        if (at - self.expected) * sign < 0.0:
            at = self.expected
        while abs(at) < LARGEST:
            cell = self.residual_trees.cell(self.residual_place(at))
            times = self._weight(cell)
            end = self._first(at, sign, cell, sign * NO_CELL)
            if (
                times > 0.0
                and sharp(memory, self.within - self.expected, self.within, self.least, self.run)
                * times
                > needed
            ):
                edge = farther(usual, size, start, step_size, needed / times, sign)
                return edge if (edge - at) * sign > 0.0 else at
            at = end
        return sign * LARGEST

    def ordinary(self, alarm: float) -> tuple[float, float] | None:
        """Return the range around the expected value in which no value surprises above `alarm`.

        In the unit of the values. None if the expected value itself does.
        """
        center = self.expected
        if self.surprise(center) > alarm or self.sharpness(center) > alarm:
            return None
        high, low = self._edge(center, alarm, 1), self._edge(center, alarm, -1)
        # The last digits of the ends depend on the order of the arithmetic.
        close = CLOSE * self.width
        calm = self.calm(alarm, 1) - close
        if calm < high:
            high = max(calm, center)
        calm = self.calm(alarm, -1) + close
        if calm > low:
            low = min(calm, center)
        previous = self.memory.previous
        if self.is_stuck(previous) and low <= previous <= high:
            if previous - low > high - previous:
                high = toward(previous, -1)
            else:
                low = toward(previous, 1)
        origin = self.memory.origin
        return low + origin, high + origin

    def _edge(self, center: float, alarm: float, sign: int) -> float:
        """Return the last ordinary value above (or with a sign of -1, below) the center."""
        limit = self.high if sign > 0 else self.low
        if (limit - center) * sign > 0.0:
            # Within the known range, the cells alone decide.
            residual_cell = self.residual_trees.cell(self.residual_place(center))
            step_cell = self.step_trees.cell(self.step_place(center))
            last = self.residual_trees.last
            while 0 <= residual_cell + sign <= last and (
                self._of_residual(residual_cell + sign) <= alarm
            ):
                residual_cell += sign
            last = self.step_trees.last
            while 0 <= step_cell + sign <= last and self._of_step(step_cell + sign) <= alarm:
                step_cell += sign
            end = self._first(center, sign, residual_cell, step_cell)
            if (end - limit) * sign <= 0.0:
                return self.within
            center = limit
        at = center
        while True:
            end = self._first(
                at,
                sign,
                self.residual_trees.cell(self.residual_place(at)),
                self.step_trees.cell(self.step_place(at)),
            )
            last_of_cell = self.within
            if self.surprise(last_of_cell) > alarm:
                return self._last(at, last_of_cell, alarm)
            if abs(end) >= LARGEST or self.surprise(end) > alarm:
                return last_of_cell
            at = end

    def _last(self, good: float, bad: float, alarm: float) -> float:
        """Return the last ordinary value between an ordinary and another one, by halving."""
        close = CLOSE * self.width
        while abs(bad - good) > close:
            middle = good + (bad - good) / 2
            if middle in (good, bad):
                break
            if self.surprise(middle) > alarm:
                bad = middle
            else:
                good = middle
        return good

    def _first(self, at: float, sign: int, residual_cell: int, step_cell: int) -> float:
        """Return the first value found beyond `at` in a cell beyond either of these, by halving.

        `within` is then the last one found in these cells: no value lies between that matters.
        """
        good = at
        bad = at
        stride = self.least
        close = CLOSE * self.width
        while True:
            bad += sign * stride
            if abs(bad) >= LARGEST:
                self.within = sign * LARGEST
                return sign * LARGEST
            stride *= 4.0
            if self._beyond(bad, sign, residual_cell, step_cell):
                break
            good = bad
        while abs(bad - good) > close:
            middle = good + (bad - good) / 2
            if middle in (good, bad):
                break
            if self._beyond(middle, sign, residual_cell, step_cell):
                bad = middle
            else:
                good = middle
        self.within = good
        return bad

    def _beyond(self, offset: float, sign: int, residual_cell: int, step_cell: int) -> bool:
        cell = self.residual_trees.cell(self.residual_place(offset))
        if (cell - residual_cell) * sign > 0:
            return True
        cell = self.step_trees.cell(self.step_place(offset))
        return (cell - step_cell) * sign > 0


def quietness(memory: Memory) -> float:
    """Return what the surprise of an instance is divided by: above 1 if it is often surprising."""
    return memory.usual_most / HALF if memory.usual_most > HALF else 1.0


def follow(scale: float, size: float) -> float:
    """Return a scale that stays within a factor of SLACK of the usual size."""
    if size > SLACK * scale:
        return size / SLACK
    if size * SLACK < scale:
        return size * SLACK
    return scale


def toward(value: float, sign: int) -> float:
    """Return the next number above a value, or with a sign of -1 below it."""
    return nextafter(value, sign * LARGEST)
