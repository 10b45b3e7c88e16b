"""The default detector: half-space trees over what is left when habit is taken away."""

from __future__ import annotations

from bisect import bisect_right
from math import log2, sqrt

from dataflow.detectors import Verdict
from dataflow.detectors.calibrated_state import SIGNATURE, Memory, read, signature, start
from dataflow.detectors.stratified import LEAVES, TREES, draw

__all__ = ["Calibrated"]

LARGEST = 1e30
"""Values beyond are taken for this, so that no square or sum overflows."""

HOUR_RATE = 0.05
WEEK_RATE = 0.1
WIDTH = 16.0
BITS_FLOOR = 0.3
BONUS = 6.0
BONUS_HALF = 0.08
BAR = 0.75
ALERT = 3.0


class Calibrated:
    """Half-space trees at the core, made useful for many instances at one threshold.

    A reading is taken apart into its *residual*, from the level that explained this instance best
    of late (a running mean, the same hour's of other days or of other weeks), and its *step* from
    the reading before. Each has a forest of half-space trees over it; the bits of surprise of the
    last readings in either forest, in standard deviations of that instance's own habit, are the
    score, with a bonus for leaving the range of the last one to two weeks. `docs/detectors.md`
    has the formulae, what each piece is worth, and the limits.

    Nothing has to be known of the values: they are scaled by the instance's own habit.

    Parameters
    ----------
    seed
        Of the trees' cuts.
    interval
        Usual seconds between two readings of an instance. The constants are times at 300 s; they
        are scaled for shorter intervals, and left as counts of readings for longer ones. It is
        never inferred from the readings' times, which only say the hour.

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

    name = "calibrated"
    threshold = ALERT / (ALERT + ALERT)

    def __init__(self, seed: int = 42, interval: float = 300.0) -> None:
        if not 0 < interval < float("inf"):
            raise ValueError(f"An interval is a number of seconds above 0, not {interval!r}.")
        self.seed = seed
        self.interval = float(interval)
        self._signature = signature(seed, self.interval)
        self._residual_trees = draw(seed, "residual")
        self._step_trees = draw(seed, "step")
        scale = max(1.0, 300.0 / self.interval)
        self._level_rate = 1 / (208 * scale)  # a half-life of 12 hours
        self._first = round(150 * scale)
        self._size_rate = 1 / (2016 * scale)
        self._week = round(2016 * scale)
        self._smooth = 1 / (20 * scale)
        self._calibrate = round(100 * scale)
        self._memory = round(3000 * scale)
        self._start = round(200 * scale)
        self._quiet = round(84 * scale)

    def __reduce__(self) -> tuple[type[Calibrated], tuple[int, float]]:
        return type(self), (self.seed, self.interval)

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
        if state is None:
            state = start(float(value), self._signature)
        m = state
        n = m.seen
        x = value - m.origin
        hour = int((n * self.interval if time is None else time) // 3600)
        day_cell = hour % 24
        week_cell = 24 + hour % 168

        # What habit explains: the level that has been nearest of late, by a clear margin.
        hours = m.hours
        level = m.level
        by_hour = hours[day_cell]
        by_week = hours[week_cell]
        hour_known = by_hour == by_hour
        week_known = by_week == by_week
        off_level = m.off_level
        off_hour = m.off_hour
        off_week = m.off_week
        expected = level
        spread = off_level
        if hour_known and off_hour < 0.8 * off_level:
            expected = by_hour
            spread = off_hour
        if week_known and off_week < 0.8 * (off_hour if off_hour < off_level else off_level):
            expected = by_week
            spread = off_week
        residual = x - expected
        step = x - m.previous

        # Both features on the scale of their own usual size, squeezed into 0 to 1. The scale
        # stays what it was in the beginning until the size has changed by half: masses learned
        # on another scale say little.
        residual_off = abs(residual)
        step_off = abs(step)
        if n >= self._first:
            rate = self._size_rate
            residual_size = m.residual_size + rate * (residual_off - m.residual_size)
            step_size = m.step_size + rate * (step_off - m.step_size)
            residual_scale = m.residual_scale
            if residual_size > 1.5 * residual_scale:
                residual_scale = residual_size / 1.5
            elif 1.5 * residual_size < residual_scale:
                residual_scale = residual_size * 1.5
            step_scale = m.step_scale
            if step_size > 1.5 * step_scale:
                step_scale = step_size / 1.5
            elif 1.5 * step_size < step_scale:
                step_scale = step_size * 1.5
        else:
            if n:
                residual_size = m.residual_size + (residual_off - m.residual_size) / n
                step_size = m.step_size + (step_off - m.step_size) / n
            else:
                residual_size = step_size = 0.0
            m.residual_scale = residual_scale = residual_size
            m.step_scale = step_scale = step_size
        m.residual_size = residual_size
        m.step_size = step_size
        high = m.high if m.high > m.last_high else m.last_high
        low = m.low if m.low < m.last_low else m.last_low
        top = abs(high + m.origin)
        bottom = abs(low + m.origin)
        if bottom > top:
            top = bottom
        least = 0.016 * top if n else 0.0
        if least < 1e-9:
            least = 1e-9
        wide = WIDTH * residual_scale
        if wide < least:
            wide = least
        u = 0.5 + 0.5 * residual / (wide + residual_off)
        wide = WIDTH * step_scale
        if wide < least:
            wide = least
        v = 0.5 + 0.5 * step / (wide + step_off)

        # Surprise in bits: how rare the leaves are that the features fall into.
        total = m.total
        information = log2(total + 1.0)
        trees = self._residual_trees
        a, b, c, d, e, f, g, h = trees.leaves[bisect_right(trees.cuts, u)]
        w = m.residual_masses
        product = w[a] * w[b] * w[c] * w[d] * w[e] * w[f] * w[g] * w[h]
        w[a] += LEAVES
        w[b] += LEAVES
        w[c] += LEAVES
        w[d] += LEAVES
        w[e] += LEAVES
        w[f] += LEAVES
        w[g] += LEAVES
        w[h] += LEAVES
        residual_bits = m.residual_bits
        residual_bits += self._smooth * (information - log2(product) / TREES - residual_bits)
        m.residual_bits = residual_bits
        trees = self._step_trees
        a, b, c, d, e, f, g, h = trees.leaves[bisect_right(trees.cuts, v)]
        w = m.step_masses
        product = w[a] * w[b] * w[c] * w[d] * w[e] * w[f] * w[g] * w[h]
        w[a] += LEAVES
        w[b] += LEAVES
        w[c] += LEAVES
        w[d] += LEAVES
        w[e] += LEAVES
        w[f] += LEAVES
        w[g] += LEAVES
        w[h] += LEAVES
        step_bits = m.step_bits
        step_bits += self._smooth * (information - log2(product) / TREES - step_bits)
        m.step_bits = step_bits
        m.total = total + 1.0

        # ... in units of this instance's own habit.
        apart = residual_bits - m.residual_mean
        other = step_bits - m.step_mean
        z = apart / sqrt(m.residual_variance + BITS_FLOOR * BITS_FLOOR)
        y = other / sqrt(m.step_variance + BITS_FLOOR * BITS_FLOOR)
        if z > y:
            y = z
        if y < 0.0:
            y = 0.0
        if n >= self._calibrate:
            rate = 1.0 / (min(n - self._calibrate + 1, self._memory))
            m.residual_mean += rate * apart
            m.residual_variance += rate * (apart * apart * (1.0 - rate) - m.residual_variance)
            m.step_mean += rate * other
            m.step_variance += rate * (other * other * (1.0 - rate) - m.step_variance)

        # Outside the range of this week and the last?
        outside = x - high if x > high else low - x
        if outside > 0.0 and n >= self._start:
            least = 0.01 * top
            span = high - low
            if span < least:
                span = least
            if span < 1e-9:
                span = 1e-9
            outside /= span
            y += BONUS * outside / (outside + BONUS_HALF)

        # One alert an episode: for a while after one, only twice as much is another.
        if n < self._start:
            y = 0.0
        else:
            m.since = since = m.since + 1
            if since >= self._quiet:
                m.bar = BAR
            if y > m.bar:
                if y > BAR:
                    m.since = 0
                    bar = BAR
                    while bar < y:
                        bar *= 2.0
                    m.bar = bar
            elif y > BAR:
                y = BAR

        # Learn.
        if x > m.high:
            m.high = x
        if x < m.low:
            m.low = x
        m.previous = x
        away = x - level
        m.level = level + self._level_rate * away
        rate = self._level_rate
        away = abs(away)
        m.off_level = off_level + rate * (away - off_level)
        if hour_known:
            m.off_hour = off_hour + rate * (abs(x - by_hour) - off_hour)
            hours[day_cell] = by_hour + HOUR_RATE * (x - by_hour)
        else:
            m.off_hour = off_hour + rate * (1.5 * away - off_hour)
            hours[day_cell] = x
        if week_known:
            m.off_week = off_week + rate * (abs(x - by_week) - off_week)
            hours[week_cell] = by_week + WEEK_RATE * (x - by_week)
        else:
            m.off_week = off_week + rate * (1.5 * away - off_week)
            hours[week_cell] = x
        m.seen = n = n + 1
        if n % self._week == 0:
            turn(m)
        expected += m.origin
        spread *= 3.0
        return m, Verdict(y / (y + ALERT), expected, expected - spread, expected + spread)

    def dump(self, state: Memory) -> bytes:
        """Return the state as bytes, less than 3 kB."""
        return state.dump()

    def load(self, data: bytes) -> Memory:
        """Read `dump`'s bytes; ValueError if another detector, version, seed or interval wrote."""
        state = read(data)
        if state.signature != self._signature:
            seed, interval = SIGNATURE.unpack(state.signature)
            raise ValueError(
                f"This state of detector 'calibrated' was learned with seed {seed} and interval "
                f"{interval:g} s; this detector has seed {self.seed} and interval "
                f"{self.interval:g} s. Set them as they were, or start with an empty recovery "
                "store."
            )
        return state


def turn(m: Memory) -> None:
    """Start another week: forget half of what the forests hold, and the range before the last."""
    for masses in (m.residual_masses, m.step_masses):
        masses[:] = [(weight - 1.0) // (2 * LEAVES) * LEAVES + 1.0 for weight in masses]
    m.total //= 2.0
    m.last_high = m.high
    m.last_low = m.low
    m.high = -1e300
    m.low = 1e300
