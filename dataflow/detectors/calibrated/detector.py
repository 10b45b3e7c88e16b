"""The default detector: half-space trees over what an instance's habit does not explain."""

from __future__ import annotations

from math import log2, sqrt
from typing import ClassVar, Final

from dataflow.detectors.base import Explanation, Habit, Kind, Reason, Verdict
from dataflow.detectors.calibrated import masses
from dataflow.detectors.calibrated.habit import NOT_SEEN, expect, learn, start_over
from dataflow.detectors.calibrated.memory import BEYOND, LEAVES, TREES, Memory, begin, read
from dataflow.detectors.calibrated.places import CLOSEST, UNSEEN
from dataflow.detectors.calibrated.runs import NEAR, NEARER, RUN, sharp, weight
from dataflow.detectors.calibrated.trees import Trees
from dataflow.detectors.calibrated.view import (
    BONUS,
    BONUS_HALF,
    HALF,
    LARGEST,
    SPREAD,
    WIDTH,
    YOUNG,
    View,
    follow,
    quietness,
)

__all__ = ["Calibrated"]

FLAT: Final = 1e-9
FLAT_STEP: Final = 0.002
FLAT_RANGE: Final = 0.1
"""Smallest usual size and range of a still instance: absolute, and as shares of its level."""

MOST: Final = 1.5
"""Of an instance that is often surprising, a surprise counts as little as this part of it."""

OFTEN: Final = 0.5
ASTRAY: Final = 6.0
"""A trouble lasts while the surprise is above this part of that of a score of one half, or the
readings miss the level of their hour by more than this many times the usual miss before it."""

CALM: Final = 4
"""Each reading without takes back this many with trouble."""

STUCK: Final = 4
"""A value that stays this many times longer than any before adds the bonus too."""

YOUNG_DAYS: Final = 3
"""What the hours of the day usually have is learned faster in these first days."""

BAND: Final = 3.0
"""Usual misses from the expected level to `lower` and `upper`."""

AS_EXPECTED: Final = 2.0
"""A value that misses the level of its hour by less than this many usual misses is no alert. Where
readings come more rarely than each 300 s, a trouble may be found only once it is over."""


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
    interval
        Usual seconds between two readings of an instance. The constants are times at 300 s: for
        shorter intervals they become more readings, for longer ones as many. The readings whose
        surprise is averaged change with the square root. Readings that stand out are anomalies too:
        three in a row, or a single one for intervals of up to two minutes and from half an hour
        on. It is never inferred from the readings' times, which only give the hour.
    threshold
        The score above which a reading is an anomaly, between 0 and 1. Scores do not depend on it.

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

    def __init__(self, interval: float = 300.0, threshold: float = 0.5) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"The threshold must lie between 0 and 1, not at {threshold!r}.")
        if not 0 < interval < float("inf"):
            raise ValueError(f"The interval must be a number of seconds above 0, not {interval!r}.")
        self.interval = float(interval)
        self.threshold = threshold
        ratio = min(300.0 / self.interval, 30.0)
        scale = max(1.0, ratio)
        root = sqrt(ratio)
        self._alarm = HALF * threshold / (1 - threshold)
        self._explained = self._alarm
        self._as_expected = AS_EXPECTED if self.interval <= 300.0 else 0.0
        self._level_rate = 1 / (208 * scale)  # a half-life of 12 hours
        self._first = round(150 * scale)
        self._size_rate = 1 / (2016 * scale)
        self._fortnight = round(4032 * scale)
        self._smooth = 1 / max(24 * root, 3.0)
        self._calibrate = round(100 * scale)
        self._memory = round(3000 * scale)
        # 200 readings, but no more than five days, if these are 120 readings.
        self._start = min(round(200 * scale), max(round(5 * 86_400 / self.interval), 120))
        self._day = max(round(86_400 / self.interval), 1)
        self._four_days = 4 * self._day
        # How many readings must stand out in a row, by how many usual sizes, and by how many times
        # what the most that a day has usually does.
        self._run, self._sharp, self._sharp_day = RUN, 6.0, 2.25
        self._beside_rate, self._unseen = NEAR, 0.0
        if self.interval <= CLOSEST:
            # What is usual is learned by places; see there.
            self._run, self._beside_rate, self._unseen = 1, NEARER, UNSEEN
        elif self.interval >= 1800.0:
            self._run, self._sharp, self._sharp_day = 1, 5.0, 1.5
        self._hour = round(3600.0 / self.interval)
        # A level falls by a step an hour at a minute, and by two a day in an hour of the day.
        self._minute_falls = max(round(60.0 / self.interval), 1)
        self._half_hour = self._hour // 2
        self._young = YOUNG_DAYS * self._day
        # 23 hours: no hour of the day has come twice.
        self._new_habit = round(276 * scale)
        self._settle = round(36 * scale)
        self._stuck = round(72 * scale)
        # The most that a leaf, or all of them, can hold: masses are halved each fortnight.
        most = 2 * self._fortnight
        self._residual_trees = Trees(0)
        self._step_trees = Trees(TREES * LEAVES)
        self._signature = (self.interval, masses.code_for(most))
        # log2 of every mass that can occur, once: the leaf's share is compared with 1/32.
        self._all_bits = [log2(mass + 1.0) for mass in range(most + 1)]
        self._leaf_bits = masses.table(
            self._signature[1], most, lambda mass: log2(LEAVES * mass + 1.0) / TREES
        )

    @classmethod
    def create(cls, *, seed: int, interval: float, threshold: float | None) -> Calibrated:
        """Return a detector for these settings; a threshold of None is the default one.

        Nothing here is random: the seed has no effect.
        """
        if threshold is None:
            return cls(interval)
        return cls(interval, threshold)

    def ignore_runs(self) -> None:
        """Let no run of three readings be an anomaly; what is learned stays the same.

        For metrics that are judged together: of many, one nearly always has a run.
        """
        if self._run > 1:
            self._sharp = LARGEST

    def __reduce__(self) -> tuple[type[Calibrated], tuple[float, float]]:
        return type(self), (self.interval, self.threshold)

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
        seconds = seen * self.interval if time is None else time
        hour = int(seconds // 3600)
        day = hour % 24
        week = 24 + hour % 168
        minute = 0 if memory.places is None else minute_of(seconds, hour)

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
        same, longest = memory.same, memory.longest
        if offset == memory.previous:
            memory.same += 1
        else:
            if memory.same > memory.longest:
                memory.longest = memory.same
            memory.same = 0
        # What the next line changes; an anomaly is explained by what was known before.
        total = memory.total
        residual_size, step_size = memory.residual_size, memory.step_size
        residual_scale, step_scale = memory.residual_scale, memory.step_scale
        residual_bits, step_bits = memory.residual_bits, memory.step_bits
        residual_mean, step_mean = memory.residual_mean, memory.step_mean
        residual_variance, step_variance = memory.residual_variance, memory.step_variance
        least = FLAT_STEP * largest + FLAT
        residual = offset - expected
        step = offset - memory.previous
        # The running level is near any value of a series that no hour explains.
        near = expected != memory.level and abs(residual) < self._as_expected * miss
        sharpness = sharp(memory, residual, offset, least, self._run)
        found, bits = self._surprise(memory, residual, step, least)
        surprise = found / quietness(memory)
        if seen < self._start or (memory.since < self._settle and memory.since < seen):
            surprise = 0.0
        else:
            outside = offset - high if offset > high else low - offset
            if outside > 0.0:
                outside /= max(high - low, FLAT_RANGE * largest, FLAT)
                surprise += BONUS * outside / (outside + self._bonus_half(memory))
            stuck = STUCK * memory.longest
            if memory.same == (stuck if stuck > self._stuck else self._stuck):
                surprise += BONUS
                near = False
            places = memory.places
            # Most readings stand out too little for any bar: their own is not looked up.
            if (
                sharpness > self._unseen
                and (places is None or sharpness * HALF > surprise * places.elsewhere)
                and self._knows_sizes(memory)
            ):
                by_itself = sharpness * HALF / self._bar(memory, minute, day)
                if self._run > 1:
                    by_itself *= weight(memory, bits)
                if by_itself > surprise:
                    surprise = by_itself
                    # By its minute, not by its hour, which has jobs in it.
                    near = near and places is None

        if surprise > self._explained:
            before = memory.copy()
            before.total, before.same, before.longest = total, same, longest
            before.residual_size, before.step_size = residual_size, step_size
            before.residual_scale, before.step_scale = residual_scale, step_scale
            before.residual_bits, before.step_bits = residual_bits, step_bits
            before.residual_mean, before.step_mean = residual_mean, step_mean
            before.residual_variance, before.step_variance = residual_variance, step_variance
            view = self._view(before, expected, high, low, largest, minute, day)
            before.masses.take_back(self._residual_trees.leaves(view.residual_place(offset)))
            before.masses.take_back(self._step_trees.leaves(view.step_place(offset)))
            memory.before = before
        memory.since += 1
        bounded = memory.since > self._start
        astray = abs(offset - by_day) > ASTRAY * memory.trouble_miss and memory.trouble > 0
        troubled = surprise > OFTEN * HALF or astray
        if seen >= self._start and self._lasts(memory, offset, troubled, miss):
            start_over(memory, offset)
            by_day = by_week = NOT_SEEN
        learn(memory, offset, day, week, by_day, by_week, self._level_rate, bounded)
        self._learn_peaks(memory, residual, found, sharpness, minute, day)
        memory.previous_3 = memory.previous_2
        memory.previous_2 = memory.previous
        memory.previous = offset
        memory.residual_2 = memory.residual_1
        memory.residual_1 = residual
        memory.bits_2 = memory.bits_1
        memory.bits_1 = bits
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
            Verdict,
            (surprise / (surprise + HALF), expected, expected - miss, expected + miss, near),
        )

    def _surprise(
        self, memory: Memory, residual: float, step: float, least: float
    ) -> tuple[float, float]:
        """Return how rare the last readings were, in deviations of this instance; learn it.

        And how rare this reading's residual is, in bits. `least` is the smallest scale of a
        feature.
        """
        seen, since = memory.seen, memory.since
        residual_distance = abs(residual)
        step_distance = abs(step)
        rate = self._size_rate if since >= self._first else 1.0 / since if since else 0.0
        memory.residual_size += rate * (residual_distance - memory.residual_size)
        memory.step_size += rate * (step_distance - memory.step_size)
        if since < self._first:
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
        rare = information - memory.masses.visit(
            self._residual_trees.leaves(place), self._leaf_bits
        )
        memory.residual_bits += self._smooth * (rare - memory.residual_bits)
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
            counted = (seen - self._calibrate if since == seen else since) + 1
            rate = 1.0 / (counted if counted < self._memory else self._memory)
            memory.residual_mean += rate * residual_excess
            memory.residual_variance += rate * (
                residual_excess * residual_excess * (1.0 - rate) - memory.residual_variance
            )
            memory.step_mean += rate * step_excess
            memory.step_variance += rate * (
                step_excess * step_excess * (1.0 - rate) - memory.step_variance
            )
        return surprise, rare

    def _bonus_half(self, memory: Memory) -> float:
        """Return by what share of the known range a reading must leave it for half the bonus."""
        if memory.since == memory.seen:
            return BONUS_HALF
        return BONUS_HALF * (1.0 + YOUNG * self._day / memory.since)

    def _knows_sizes(self, memory: Memory) -> bool:
        """Return whether the usual sizes are known: not on the first day of a new habit."""
        return memory.since >= self._day or memory.since == memory.seen

    def _bar(self, memory: Memory, minute: int, day: int) -> float:
        """Return by how many usual sizes readings must stand out to be an anomaly.

        At this minute of the hour and this hour of the day.
        """
        if memory.places is not None:
            return memory.places.bar(minute, day)
        usual = self._sharp_day * memory.usual_peak
        return usual if usual > self._sharp else self._sharp

    def _lasts(self, memory: Memory, offset: float, troubled: bool, miss: float) -> bool:
        """Return whether a trouble has lasted for so long that it is a new habit.

        Its sizes and levels are then learned from nothing, and the known range is that of the
        trouble.
        """
        if troubled:
            if memory.trouble == 0:
                memory.trouble_high = memory.trouble_low = offset
                memory.trouble_miss = miss
            memory.trouble += 1
        else:
            memory.trouble = memory.trouble - CALM if memory.trouble > CALM else 0
        if offset > memory.trouble_high:
            memory.trouble_high = offset
        if offset < memory.trouble_low:
            memory.trouble_low = offset
        if memory.trouble < self._new_habit:
            return False
        memory.trouble = memory.since = 0
        memory.high, memory.low = memory.trouble_high, memory.trouble_low
        memory.last_high, memory.last_low = -BEYOND, BEYOND
        return True

    def _learn_peaks(
        self,
        memory: Memory,
        residual: float,
        found: float,
        sharpness: float,
        minute: int,
        day: int,
    ) -> None:
        """Learn how surprising an instance usually is at most, and how far readings stand out.

        `found` is the surprise of its last readings.
        """
        past = memory.seen - self._start
        if past >= 0:
            if found > memory.most:
                memory.most = found
            if past % self._four_days == self._four_days - 1:
                count = past // self._four_days + 1
                most = memory.most if memory.most < MOST * HALF else MOST * HALF
                memory.usual_most += (most - memory.usual_most) / (count if count < 5 else 5)
                memory.most = 0.0
        past = memory.seen - self._calibrate
        places = memory.places
        if places is not None:
            falls = self._minute_falls == 1 or memory.seen % self._minute_falls == 0
            if sharpness > UNSEEN:
                explained = places.learn_minute(minute, sharpness, falls)
                if past >= 0 and not explained:
                    places.learn_hour(day, sharpness, memory.seen < self._young)
                    if sharpness > memory.peak:
                        memory.peak = sharpness
            elif falls:
                places.fall_minute(minute)
            if past >= 0:
                rest = past % self._hour
                if rest == self._half_hour:
                    places.fall_hour(day)
                elif rest == self._hour - 1:
                    places.fall_hour(day)
                    places.learn_peak(memory.peak, past // self._hour + 1)
                    memory.peak = 0.0
        elif past >= 0:
            if sharpness > memory.peak:
                memory.peak = sharpness
            if past % self._day == self._day - 1:
                count = past // self._day + 1
                peak = memory.peak
                if count > 1 and peak > 2.0 * memory.usual_peak:
                    peak = 2.0 * memory.usual_peak
                memory.usual_peak += (peak - memory.usual_peak) / (count if count < 10 else 10)
                memory.peak = 0.0
        since = memory.since if memory.since else 1
        rate = self._size_rate if since > self._first else 1.0 / since
        memory.beside_size += rate * (abs(residual - memory.beside) - memory.beside_size)
        # The mean is that of the readings before the run, of which this may be the first.
        last = residual if self._run == 1 else memory.residual_2
        memory.beside += self._beside_rate * (last - memory.beside)

    def _view(
        self,
        before: Memory,
        expected: float,
        high: float,
        low: float,
        largest: float,
        minute: int,
        day: int,
    ) -> View:
        rate = self._size_rate if before.since >= self._first else 1.0 / max(before.since, 1)
        stuck = STUCK * before.longest
        return View(
            before,
            expected,
            high,
            low,
            FLAT_STEP * largest + FLAT,
            max(high - low, FLAT_RANGE * largest, FLAT),
            before.since < self._first,
            rate,
            self._smooth,
            self._all_bits[before.total],
            self._leaf_bits,
            self._residual_trees,
            self._step_trees,
            stuck if stuck > self._stuck else self._stuck,
            self._bonus_half(before),
            self._run,
            self._bar(before, minute, day) if self._knows_sizes(before) else LARGEST,
            self._unseen,
        )

    def explain_from(self, score: float) -> None:
        """Keep the states before readings with a score above this one too; it is below 1."""
        # A bit less, as a score and its surprise are rounded apart.
        self._explained = min(self._explained, (1.0 - 1e-9) * HALF * score / (1.0 - score))

    def before(self, state: Memory) -> Memory | None:
        """Return the state before the last reading if that was an anomaly; once."""
        before = state.before
        state.before = None
        return before

    def explain(
        self, before: Memory, value: float, time: float | None, ordinary: bool
    ) -> Explanation | None:
        """Return why a reading is an anomaly to the state before it.

        The surprise is that of one forest and the bonuses. Of the forest's, what earlier readings
        have left in its running mean is `lately`; of a run that stands out, half is.
        """
        value = min(max(value, -LARGEST), LARGEST)
        offset = value - before.origin
        seconds = before.seen * self.interval if time is None else time
        hour = int(seconds // 3600)
        expected, _ = expect(before, before.hours[hour % 24], before.hours[24 + hour % 168])
        high = max(before.high, before.last_high)
        low = min(before.low, before.last_low)
        largest = max(abs(high + before.origin), abs(low + before.origin))
        view = self._view(before, expected, high, low, largest, minute_of(seconds, hour), hour % 24)
        by_residual, by_step = view.residual(offset), view.step(offset)
        found = max(by_residual, by_step, 0.0)
        if by_residual >= by_step:
            kind: Kind = "level" if expected == before.level else "hour"
            left = before.residual_bits - before.residual_mean
            spread = sqrt(before.residual_variance + SPREAD * SPREAD) * view.quietness
        else:
            kind = "jump"
            left = before.step_bits - before.step_mean
            spread = sqrt(before.step_variance + SPREAD * SPREAD) * view.quietness
        lately = min(max((1.0 - self._smooth) * left / spread, 0.0), found)
        parts: list[tuple[Kind, float]] = [
            (kind, found - lately),
            ("lately", lately),
            ("range", view.bonus(offset)),
            ("stuck", BONUS if view.is_stuck(offset) else 0.0),
        ]
        total = sum([part for _, part in parts])
        sharpness = view.sharpness(offset)
        if sharpness > total:
            # Of a run, as much comes of the readings before.
            own = sharpness if self._run == 1 else sharpness / 2
            parts, total = [("jump", own), ("lately", sharpness - own)], sharpness
        if total <= 0.0:
            return None
        parts.sort(key=lambda part: -part[1])
        reasons = tuple([Reason(kind, part / total) for kind, part in parts if part > 0.0])
        seen = before.seen
        known = seen % self._fortnight + (self._fortnight if seen >= self._fortnight else 0)
        return Explanation(
            reasons,
            view.ordinary(self._alarm) if ordinary else None,
            known * self.interval,
        )

    @property
    def warm_up(self) -> int:
        """The readings of a new instance that are never anomalies: the first 200, or five days."""
        return self._start

    def habit(self, state: Memory) -> Habit:
        """Return how many readings the state has learned, and their running level."""
        return Habit(state.seen, state.origin + state.level)

    def dump(self, state: Memory) -> bytes:
        """Return the state as bytes: 2.2 kB, or 3.2 for less than 37 s between two readings."""
        return state.dump()

    def load(self, data: bytes) -> Memory:
        """Read the bytes of `dump`.

        Raises ValueError if another detector, version or interval wrote them, or if they are
        damaged.
        """
        state = read(data)
        if state.signature != self._signature:
            raise ValueError(
                f"This state of detector 'calibrated' was learned with interval "
                f"{state.signature[0]:g} s; this detector has interval {self.interval:g} s. Set "
                "ANOMALY_INTERVAL as it was, or start with an empty recovery store."
            )
        return state


def minute_of(seconds: float, hour: int) -> int:
    """Return the minute of the hour of a time in this hour, 0 to 59."""
    rest = seconds - 3600.0 * hour
    # Rounding, or times of millions of years, can lead out of the hour.
    return int(rest / 60.0) if 0.0 <= rest < 3600.0 else 0


def turn(memory: Memory) -> None:
    """Start another fortnight: halve the masses, forget the range before the last fortnight."""
    memory.masses.halve()
    memory.total >>= 1
    memory.last_high = memory.high
    memory.last_low = memory.low
    memory.high = -BEYOND
    memory.low = BEYOND
