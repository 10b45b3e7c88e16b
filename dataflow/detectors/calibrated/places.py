"""Where in the hour and in the day readings usually stand out, for readings a minute apart.

A job of every hour stands out at its minute, one of every night in its hour. A reading at another
time must not be compared with them.
"""

from __future__ import annotations

from math import exp, log
from typing import Final

from librt.vecs import vec
from mypy_extensions import u8

__all__ = ["CLOSEST", "PLACES", "UNSEEN", "Places", "none_yet", "read"]

CLOSEST: Final = 120.0
"""Only instances with at most this many seconds between two readings have places: with more, a
minute says nothing."""

MINUTES: Final = 60
PLACES: Final = MINUTES + 24

STEPS: Final = 16
LEVELS: Final[list[float]] = [2.0 ** (step / STEPS) for step in range(256)]
IN_STEPS: Final = STEPS / log(2.0)
"""How far readings stand out at a place is kept in a byte: from 1 usual size on, 16 steps for each
doubling."""

BESIDE: Final = 4
"""The level of a neighboring minute counts by this many steps less."""

AT_ONCE: Final = 12
"""Steps that the level of an hour of the day rises by at most: a single anomaly makes no habit."""

UNSEEN: Final = 1.0
"""Readings that stand out by at most one usual size do not count as doing so."""

TIMES: Final = 1.5
"""A reading stands out if it does so by this many times what is usual at its place."""

OF_A_JOB: Final = 3.5
"""A minute explains its readings if they usually stand out by more than this."""

LEAST_BAR: Final = 4.0
SPREADS: Final = 4.8
SMALLEST: Final = 0.1
"""Elsewhere, it stands out by more sizes than the most in an hour usually does: of the logarithms
of these, the mean and this many mean deviations, which are at least the smallest."""

HIGHEST: Final = 700.0
"""No state has such a logarithm of the bar, but other bytes than a state's may."""

FIRST_MEAN: Final = 1.0
FIRST_SPREAD: Final = 0.2
"""The mean and the deviation before there are any."""

BOUND: Final = 2.0
WEIGHT: Final = 20
MEMORY: Final = 240
"""An hour counts as if it was off the mean by at most this many deviations; the first deviation has
the weight of this many hours; what is older than this many hours, ten days, is forgotten."""


class Places:
    """How far readings of an instance stand out: at its 60 minutes, in its 24 hours, and elsewhere.

    The levels of minutes and hours are bytes. `mean` and `spread` are those of the logarithm of
    the most that an hour has elsewhere, and `elsewhere` is the bar there.
    """

    __slots__ = ("_steps", "elsewhere", "mean", "spread")

    def __init__(self, steps: vec[u8], mean: float, spread: float) -> None:
        self._steps = steps
        self.mean = mean
        self.spread = spread
        self.elsewhere = bar_of(mean, spread)

    def bar(self, minute: int, hour: int) -> float:
        """Return by how many usual sizes a reading must stand out to be an anomaly."""
        bar = self.elsewhere
        usual = TIMES * self._at(minute)
        if usual > bar:
            bar = usual
        usual = TIMES * LEVELS[self._steps[MINUTES + hour]]
        return usual if usual > bar else bar

    def _at(self, minute: int) -> float:
        """Return the level of a minute, or nearly that of a neighbor: jobs can be late."""
        steps = self._steps
        step = int(steps[minute])
        other = int(steps[minute - 1 if minute > 0 else MINUTES - 1]) - BESIDE
        if other > step:
            step = other
        other = int(steps[minute + 1 if minute < MINUTES - 1 else 0]) - BESIDE
        return LEVELS[other if other > step else step]

    def learn_minute(self, minute: int, sharpness: float, falls: bool) -> bool:
        """Learn a reading that stood out; return whether that is usual at its minute.

        The level of the minute is at least that, or `falls` by a step.
        """
        steps = self._steps
        step = int(steps[minute])
        usual = self._at(minute)
        if sharpness > LEVELS[step]:
            steps[minute] = u8(step_of(sharpness))
        elif falls and step > 0:
            steps[minute] = u8(step - 1)
        return usual > OF_A_JOB and sharpness <= TIMES * usual

    def learn_hour(self, hour: int, sharpness: float, young: bool) -> None:
        """Learn how far a reading stood out that its minute does not explain.

        If that is more, the level of the hour goes halfway there, and by at most 12 steps unless it
        is `young`.
        """
        steps = self._steps
        step = int(steps[MINUTES + hour])
        if sharpness > LEVELS[step]:
            up = (step_of(sharpness) - step + 1) >> 1
            if up > AT_ONCE and not young:
                up = AT_ONCE
            steps[MINUTES + hour] = u8(step + up)

    def fall_minute(self, minute: int) -> None:
        """Let the level of a minute fall by a step."""
        steps = self._steps
        if steps[minute] > 0:
            steps[minute] = steps[minute] - 1

    def fall_hour(self, hour: int) -> None:
        """Let the level of an hour of the day fall by a step."""
        self.fall_minute(MINUTES + hour)

    def learn_peak(self, peak: float, count: int) -> None:
        """Learn the most that the hour number `count` had."""
        peak = log(peak) if peak > UNSEEN else 0.0
        if count == 1:
            self.mean = peak
            self.spread = FIRST_SPREAD
        else:
            off = peak - self.mean
            most = BOUND * (self.spread if self.spread > SMALLEST else SMALLEST)
            if off > most:
                off = most
            elif off < -most:
                off = -most
            weight = count + WEIGHT
            self.mean += off / (count if count < MEMORY else MEMORY)
            self.spread += (abs(off) - self.spread) / (weight if weight < MEMORY else MEMORY)
        self.elsewhere = bar_of(self.mean, self.spread)

    def copy(self) -> Places:
        """Return a copy that can change on its own."""
        return Places(self._steps[:], self.mean, self.spread)

    def view(self) -> memoryview:
        """Return the bytes of the levels, without copying them."""
        return memoryview(self._steps)


def step_of(sharpness: float) -> int:
    """Return the byte of a level of more than 1: that of the next lower step."""
    step = int(IN_STEPS * log(sharpness))
    return step if step < 255 else 255


def bar_of(mean: float, spread: float) -> float:
    """Return by how many usual sizes a reading must stand out where nothing usually does."""
    power = mean + SPREADS * (spread if spread > SMALLEST else SMALLEST)
    bar = exp(power) if power < HIGHEST else exp(HIGHEST)
    return bar if bar > LEAST_BAR else LEAST_BAR


def none_yet(bar: float = UNSEEN) -> Places:
    """Return the places of an instance before its first reading, or with this bar for all."""
    spread = (log(bar) - FIRST_MEAN) / SPREADS if bar > UNSEEN else FIRST_SPREAD
    return Places(vec[u8]([0] * PLACES), FIRST_MEAN, spread if spread > SMALLEST else SMALLEST)


def read(data: bytes, mean: float, spread: float) -> Places:
    """Return the places from the bytes of a `view`."""
    return Places(vec[u8](data), mean, spread)
