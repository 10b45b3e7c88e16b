"""The default detector: half-space trees over what is left when habit is taken away."""

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
"""Values beyond are taken for this, so that no sum or square overflows."""

WIDTH: Final = 16.0
"""At this many times its usual size, a feature is halfway to the end of the trees' range."""

SLACK: Final = 1.5
"""The scale of a feature stays until its usual size has changed by this factor."""

FLAT: Final = 1e-9
FLAT_STEP: Final = 0.001
FLAT_RANGE: Final = 0.1
"""However still an instance was: the least usual size and range, as shares of its level."""

SPREAD: Final = 0.3
"""Bits of deviation that every instance is granted."""

BONUS: Final = 6.0
BONUS_HALF: Final = 0.08
"""Leaving the known range by this share of it brings half the bonus."""

STUCK: Final = 4
"""A value that stays this many times longer than any did brings the bonus too."""

HALF: Final = 3.0
"""Deviations that are a score of one half."""

LEAST: Final = 0.25
"""Below this share of an alert, nothing is held back after one."""

BAND: Final = 3.0
"""Usual misses from the expected level to `lower` and `upper`."""


class Calibrated:
    """Half-space trees at the core, made useful for many instances at one threshold.

    A reading is taken apart into its *residual*, from the level that explained this instance best
    of late (a running mean, the same hour's of other days or of other weeks), and its *step* from
    the reading before. Each has a forest of half-space trees over it; the bits of surprise of the
    last readings in either forest, in standard deviations of that instance's own habit, are the
    score, with a bonus for leaving the range of the last two to four weeks. `docs/detectors.md`
    has the formulae, what each piece is worth, and the limits.

    Nothing has to be known of the values: they are scaled by the instance's own habit.

    Parameters
    ----------
    seed
        Of the trees' cuts.
    interval
        Usual seconds between two readings of an instance. The constants are times at 300 s; for
        shorter intervals they are more readings, for longer ones as many, but for the readings
        whose surprise is averaged, and those that an alert holds back: they go with the square
        root. It is never inferred from the readings' times, which only say the hour.
    threshold
        The score above which a reading is to be an anomaly: an episode is one alert at this
        threshold. At a lower one it still is about one; at a higher one fewer are found than
        by a detector that knows of it.

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
            raise ValueError(f"A threshold lies between 0 and 1, not at {threshold!r}.")
        if not 0 < interval < float("inf"):
            raise ValueError(f"An interval is a number of seconds above 0, not {interval!r}.")
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
        most = (
            2 * self._fortnight
        )  # that a leaf or all of them can hold: half is forgotten each fortnight
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
        """Score a reading, then learn it. The state that was given is changed."""
        if not -LARGEST <= value <= LARGEST:
            if not abs(value) < float("inf"):
                raise ValueError(f"A reading's value must be a finite number, not {value!r}.")
            value = LARGEST if value > 0 else -LARGEST
        m = begin(self._signature, float(value)) if state is None else state
        n = m.seen
        x = value - m.origin
        hour = int((n * self.interval if time is None else time) // 3600)
        day = hour % 24
        week = 24 + hour % 168

        by_day = m.hours[day]
        by_week = m.hours[week]
        expected, miss = expect(m, by_day, by_week)
        high = m.high if m.high > m.last_high else m.last_high
        low = m.low if m.low < m.last_low else m.last_low
        top = 0.0
        if n:
            # Comparisons, here and below: a call of max takes longer than all the rest of its line.
            top = abs(high + m.origin)
            bottom = abs(low + m.origin)
            if bottom > top:
                top = bottom
        if x == m.previous:
            m.same += 1
        else:
            if m.same > m.longest:
                m.longest = m.same
            m.same = 0
        y = self._surprise(m, x - expected, x - m.previous, FLAT_STEP * top + FLAT)
        if n < self._start:
            y = 0.0
        else:
            outside = x - high if x > high else low - x
            if outside > 0.0:
                outside /= max(high - low, FLAT_RANGE * top, FLAT)
                y += BONUS * outside / (outside + BONUS_HALF)
            stuck = STUCK * m.longest
            if m.same == (stuck if stuck > self._stuck else self._stuck):
                y += BONUS
            y = once(m, y, self._least, self._quiet)

        learn(m, x, day, week, by_day, by_week, self._level_rate)
        m.previous = x
        if x > m.high:
            m.high = x
        if x < m.low:
            m.low = x
        m.seen = n = n + 1
        if n % self._fortnight == 0:
            turn(m)
        expected += m.origin
        miss *= BAND
        # What Verdict(...) returns, without the call in Python.
        return m, tuple.__new__(
            Verdict, (y / (y + HALF), expected, expected - miss, expected + miss)
        )

    def _surprise(self, m: Memory, residual: float, step: float, least: float) -> float:
        """Return how rare the last readings were, in deviations of this instance; learn it."""
        n = m.seen
        residual_off = abs(residual)
        step_off = abs(step)
        rate = self._size_rate if n >= self._first else 1.0 / n if n else 0.0
        m.residual_size += rate * (residual_off - m.residual_size)
        m.step_size += rate * (step_off - m.step_size)
        if n < self._first:
            m.residual_scale = m.residual_size
            m.step_scale = m.step_size
        else:
            m.residual_scale = follow(m.residual_scale, m.residual_size)
            m.step_scale = follow(m.step_scale, m.step_size)
        residual_wide = WIDTH * (m.residual_scale if m.residual_scale > least else least)
        step_wide = WIDTH * (m.step_scale if m.step_scale > least else least)

        information = self._all_bits[m.total]
        m.total += 1
        place = 0.5 + 0.5 * residual / (residual_wide + residual_off)
        bits = information - m.masses.visit(self._residual_trees.leaves(place), self._leaf_bits)
        m.residual_bits += self._smooth * (bits - m.residual_bits)
        place = 0.5 + 0.5 * step / (step_wide + step_off)
        bits = information - m.masses.visit(self._step_trees.leaves(place), self._leaf_bits)
        m.step_bits += self._smooth * (bits - m.step_bits)

        apart = m.residual_bits - m.residual_mean
        other = m.step_bits - m.step_mean
        y = apart / sqrt(m.residual_variance + SPREAD * SPREAD)
        also = other / sqrt(m.step_variance + SPREAD * SPREAD)
        if also > y:
            y = also
        if y < 0.0:
            y = 0.0
        if n >= self._calibrate:
            n += 1 - self._calibrate
            rate = 1.0 / (n if n < self._memory else self._memory)
            m.residual_mean += rate * apart
            m.residual_variance += rate * (apart * apart * (1.0 - rate) - m.residual_variance)
            m.step_mean += rate * other
            m.step_variance += rate * (other * other * (1.0 - rate) - m.step_variance)
        return y

    def dump(self, state: Memory) -> bytes:
        """Return the state as bytes, less than 3 kB."""
        return state.dump()

    def load(self, data: bytes) -> Memory:
        """Read `dump`'s bytes; ValueError if another detector, version, seed or interval wrote."""
        state = read(data)
        if state.signature != self._signature:
            seed, interval, *_ = state.signature
            raise ValueError(
                f"This state of detector 'calibrated' was learned with seed {seed} and interval "
                f"{interval:g} s; this detector has seed {self._signature[0]} and interval "
                f"{self.interval:g} s, or River draws other trees for the seed by now. Set them "
                "as they were, or start with an empty recovery store."
            )
        return state


def follow(scale: float, size: float) -> float:
    """Return a scale that stays within a factor of SLACK of the usual size."""
    if size > SLACK * scale:
        return size / SLACK
    if size * SLACK < scale:
        return size * SLACK
    return scale


def once(m: Memory, y: float, least: float, quiet: int) -> float:
    """Return y if it is news, or what is let through of it: one alert an episode.

    A y in least * 2**i to least * 2**(i + 1) holds back all up to the end of that step for the
    next `quiet` readings. An alert begins at such an end, so that it is followed by another only
    if that is twice as much, or later.
    """
    m.since += 1
    if m.since >= quiet:
        m.bar = least
    if y <= least:
        return y
    if y <= m.bar:
        return least
    m.since = 0
    bar = least
    while bar < y:
        bar *= 2.0
    m.bar = bar
    return y


def turn(m: Memory) -> None:
    """Start another fortnight: halve the masses, forget the range before the last fortnight."""
    m.masses.halve()
    m.total >>= 1
    m.last_high = m.high
    m.last_low = m.low
    m.high = -BEYOND
    m.low = BEYOND
