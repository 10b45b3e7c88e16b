"""The default detector: half-space trees over what an instance's habit does not explain."""

from __future__ import annotations

from math import log2, sqrt
from typing import ClassVar, Final

from dataflow.detectors.base import Verdict
from dataflow.detectors.calibrated import masses
from dataflow.detectors.calibrated.habit import expect, learn
from dataflow.detectors.calibrated.memory import BEYOND, LEAVES, TREES, Memory, begin, read
from dataflow.detectors.calibrated.trees import Trees

__all__ = ["Calibrated"]

LARGEST: Final = 1e30
"""Values beyond it count as this one, so that no sum or square overflows."""

WIDTH: Final = 16.0
"""A feature of this many times its usual size lies halfway to the end of the trees' range."""

SLACK: Final = 1.5
"""The scale of a feature stays until its usual size has changed by this factor."""

FLAT: Final = 1e-9
FLAT_STEP: Final = 0.001
FLAT_RANGE: Final = 0.1
"""Smallest usual size and range of a still instance: absolute, and as shares of its level."""

SPREAD: Final = 0.3
"""Bits of deviation that are added for every instance."""

BONUS: Final = 6.0
BONUS_HALF: Final = 0.08
"""Leaving the known range by this share of it adds half the bonus."""

STUCK: Final = 4
"""A value that stays this many times longer than any before adds the bonus too."""

HALF: Final = 3.0
"""Deviations that give a score of one half."""

LEAST: Final = 0.25
"""Below this share of the threshold, nothing is held back after an alert."""

BAND: Final = 3.0
"""Usual misses from the expected level to `lower` and `upper`."""


class Calibrated:
    """Half-space trees with one threshold for many instances.

    A reading has a *residual*, its distance from the level that recently explained this instance
    best (a running mean, that of the same hour of other days, or of other weeks), and a *step*, its
    distance from the reading before. Each has a forest of half-space trees. The score is the bits
    of surprise of the last readings in either forest, in standard deviations of that instance's own
    habit, with a bonus for leaving the range of the last two to four weeks. `docs/detectors.md`
    has the formulas, what each piece is worth, and the limits.

    Values need no range: they are scaled by the instance's own habit.

    Parameters
    ----------
    seed
        Draws the trees' cuts.
    interval
        Usual seconds between two readings of an instance. The constants are times at 300 s: for
        shorter intervals they become more readings, for longer ones as many. The readings whose
        surprise is averaged, and those that an alert holds back, change with the square root. It is
        never inferred from the readings' times, which only give the hour.
    threshold
        The score above which a reading is an anomaly, between 0 and 1: an episode is one alert at
        this threshold. Compared with a lower threshold, an episode is still about one alert; with a
        higher one, fewer are found than by a detector made for it.

    Raises ValueError for a threshold or an interval out of range.

    >>> detector = Calibrated()
    >>> state = None
    >>> for i in range(600):
    ...     state, verdict = detector.update(state, 0.3 + i * 7 % 10 / 100, 300.0 * i)
    >>> verdict.score > detector.threshold
    False
    >>> verdict = detector.score(state, 0.9, 300.0 * 600)
    >>> verdict.score > detector.threshold
    True
    >>> round(verdict.lower, 2), round(verdict.expected, 2), round(verdict.upper, 2)
    (0.27, 0.34, 0.42)
    """

    name: ClassVar[str] = "calibrated"
    needs_range: ClassVar[bool] = False
    compilable: ClassVar[bool] = True

    def __init__(self, seed: int = 42, interval: float = 300.0, threshold: float = 0.5) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"The threshold must lie between 0 and 1, not at {threshold!r}.")
        if not 0 < interval < float("inf"):
            raise ValueError(f"The interval must be a number of seconds above 0, not {interval!r}.")
        self.seed = seed
        self.interval = float(interval)
        self.threshold = threshold
        self._least = LEAST * HALF * threshold / (1 - threshold)
        ratio = min(300.0 / self.interval, 30.0)
        scale = max(1.0, ratio)
        root = sqrt(ratio)
        self._level_rate = 1 / (208 * scale)  # a half-life of 12 hours
        self._first = round(150 * scale)
        self._size_rate = 1 / (2016 * scale)
        self._fortnight = round(4032 * scale)
        self._smooth = 1 / max(24 * root, 3.0)
        self._calibrate = round(100 * scale)
        self._memory = round(3000 * scale)
        self._start = round(200 * scale)
        self._quiet = round(84 * min(root, 1.0) * scale)
        self._stuck = round(72 * scale)
        # The most that a leaf, or all of them, can hold: masses are halved each fortnight.
        most = 2 * self._fortnight
        self._residual_trees = Trees(f"residual {seed}", 0)
        self._step_trees = Trees(f"step {seed}", TREES * LEAVES)
        self._signature = (
            seed & (1 << 64) - 1,
            self.interval,
            self._residual_trees.fingerprint + self._step_trees.fingerprint,
            masses.code_for(most),
        )
        # log2 of every mass that can occur, once: the leaf's share is compared with 1/32.
        self._all_bits = [log2(mass + 1.0) for mass in range(most + 1)]
        self._leaf_bits = masses.table(
            self._signature[3], most, lambda mass: log2(LEAVES * mass + 1.0) / TREES
        )

    @classmethod
    def create(cls, *, seed: int, interval: float, threshold: float | None) -> Calibrated:
        """Return a detector for these settings; a threshold of None is the default one."""
        if threshold is None:
            return cls(seed, interval)
        return cls(seed, interval, threshold)

    def __reduce__(self) -> tuple[type[Calibrated], tuple[int, float, float]]:
        return type(self), (self.seed, self.interval, self.threshold)

    def score(self, state: Memory | None, value: float, time: float | None = None) -> Verdict:
        """Score a reading against a state, leaving the state as it is."""
        return self.update(state and state.copy(), value, time)[1]

    def update(
        self, state: Memory | None, value: float, time: float | None = None
    ) -> tuple[Memory, Verdict]:
        """Score a reading, then learn it. The given state is changed in place."""
        if not -LARGEST <= value <= LARGEST:
            if not abs(value) < float("inf"):
                raise ValueError(f"A reading's value must be a finite number, not {value!r}.")
            value = LARGEST if value > 0 else -LARGEST
        memory = begin(self._signature, float(value)) if state is None else state
        seen = memory.seen
        # From here on, values count from the instance's first one.
        offset = value - memory.origin
        hour = int((seen * self.interval if time is None else time) // 3600)
        day = hour % 24
        week = 24 + hour % 168

        by_day = memory.hours[day]
        by_week = memory.hours[week]
        expected, miss = expect(memory, by_day, by_week)
        # Comparisons, here and below: a call of max takes longer than all the rest of its line.
        high = memory.high if memory.high > memory.last_high else memory.last_high
        low = memory.low if memory.low < memory.last_low else memory.last_low
        largest = 0.0
        if seen:
            largest = abs(high + memory.origin)
            lowest = abs(low + memory.origin)
            if lowest > largest:
                largest = lowest
        if offset == memory.previous:
            memory.same += 1
        else:
            if memory.same > memory.longest:
                memory.longest = memory.same
            memory.same = 0
        surprise = self._surprise(
            memory, offset - expected, offset - memory.previous, FLAT_STEP * largest + FLAT
        )
        if seen < self._start:
            surprise = 0.0
        else:
            outside = offset - high if offset > high else low - offset
            if outside > 0.0:
                outside /= max(high - low, FLAT_RANGE * largest, FLAT)
                surprise += BONUS * outside / (outside + BONUS_HALF)
            stuck = STUCK * memory.longest
            if memory.same == (stuck if stuck > self._stuck else self._stuck):
                surprise += BONUS
            surprise = once(memory, surprise, self._least, self._quiet)

        learn(memory, offset, day, week, by_day, by_week, self._level_rate)
        memory.previous = offset
        if offset > memory.high:
            memory.high = offset
        if offset < memory.low:
            memory.low = offset
        memory.seen = seen = seen + 1
        if seen % self._fortnight == 0:
            turn(memory)
        expected += memory.origin
        miss *= BAND
        # What Verdict(...) returns, without the call in Python.
        return memory, tuple.__new__(
            Verdict, (surprise / (surprise + HALF), expected, expected - miss, expected + miss)
        )

    def _surprise(self, memory: Memory, residual: float, step: float, least: float) -> float:
        """Return how rare the last readings were, in deviations of this instance; learn it.

        `least` is the smallest scale of a feature.
        """
        seen = memory.seen
        residual_distance = abs(residual)
        step_distance = abs(step)
        rate = self._size_rate if seen >= self._first else 1.0 / seen if seen else 0.0
        memory.residual_size += rate * (residual_distance - memory.residual_size)
        memory.step_size += rate * (step_distance - memory.step_size)
        if seen < self._first:
            memory.residual_scale = memory.residual_size
            memory.step_scale = memory.step_size
        else:
            memory.residual_scale = follow(memory.residual_scale, memory.residual_size)
            memory.step_scale = follow(memory.step_scale, memory.step_size)
        residual_width = WIDTH * (memory.residual_scale if memory.residual_scale > least else least)
        step_width = WIDTH * (memory.step_scale if memory.step_scale > least else least)

        information = self._all_bits[memory.total]
        memory.total += 1
        place = 0.5 + 0.5 * residual / (residual_width + residual_distance)
        bits = information - memory.masses.visit(
            self._residual_trees.leaves(place), self._leaf_bits
        )
        memory.residual_bits += self._smooth * (bits - memory.residual_bits)
        place = 0.5 + 0.5 * step / (step_width + step_distance)
        bits = information - memory.masses.visit(self._step_trees.leaves(place), self._leaf_bits)
        memory.step_bits += self._smooth * (bits - memory.step_bits)

        residual_excess = memory.residual_bits - memory.residual_mean
        step_excess = memory.step_bits - memory.step_mean
        surprise = residual_excess / sqrt(memory.residual_variance + SPREAD * SPREAD)
        step_surprise = step_excess / sqrt(memory.step_variance + SPREAD * SPREAD)
        if step_surprise > surprise:
            surprise = step_surprise
        if surprise < 0.0:
            surprise = 0.0
        if seen >= self._calibrate:
            counted = seen + 1 - self._calibrate
            rate = 1.0 / (counted if counted < self._memory else self._memory)
            memory.residual_mean += rate * residual_excess
            memory.residual_variance += rate * (
                residual_excess * residual_excess * (1.0 - rate) - memory.residual_variance
            )
            memory.step_mean += rate * step_excess
            memory.step_variance += rate * (
                step_excess * step_excess * (1.0 - rate) - memory.step_variance
            )
        return surprise

    def dump(self, state: Memory) -> bytes:
        """Return the state as bytes, less than 3 kB."""
        return state.dump()

    def load(self, data: bytes) -> Memory:
        """Read the bytes of `dump`.

        Raises ValueError if another detector, version, seed or interval wrote them, or if they are
        damaged.
        """
        state = read(data)
        if state.signature != self._signature:
            seed, interval, *_ = state.signature
            raise ValueError(
                f"This state of detector 'calibrated' was learned with seed {seed} and interval "
                f"{interval:g} s; this detector has seed {self._signature[0]} and interval "
                f"{self.interval:g} s, or draws other trees. Set ANOMALY_SEED and "
                "ANOMALY_INTERVAL as they were, or start with an empty recovery store."
            )
        return state


def follow(scale: float, size: float) -> float:
    """Return a scale that stays within a factor of SLACK of the usual size."""
    if size > SLACK * scale:
        return size / SLACK
    if size * SLACK < scale:
        return size * SLACK
    return scale


def once(memory: Memory, surprise: float, least: float, quiet: int) -> float:
    """Return the surprise if it is new, or what is let through of it: one alert an episode.

    A surprise of least * 2**i to least * 2**(i + 1) holds back all up to the end of that step for
    the next `quiet` readings. The threshold is such an end, so an alert is followed by another only
    if that is twice as large, or later.
    """
    memory.since += 1
    if memory.since >= quiet:
        memory.bar = least
    if surprise <= least:
        return surprise
    if surprise <= memory.bar:
        return least
    memory.since = 0
    bar = least
    while bar < surprise:
        bar *= 2.0
    memory.bar = bar
    return surprise


def turn(memory: Memory) -> None:
    """Start another fortnight: halve the masses, forget the range before the last fortnight."""
    memory.masses.halve()
    memory.total >>= 1
    memory.last_high = memory.high
    memory.last_low = memory.low
    memory.high = -BEYOND
    memory.low = BEYOND
