"""The first readings of a new member of a group, judged by the habit of another member.

Pure: no I/O, no Bytewax, no clock. `docs/detectors.md` has the rules and the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median
from typing import Any, NamedTuple

import msgspec

from dataflow.alerts.news import odds
from dataflow.detectors.base import Detector, Explanation, Lender, Verdict

__all__ = ["Known", "Newcomer", "explain", "middle"]

SETTLE = 0.06
"""The share of the warm-up in which the habit is compared only: 12 of 200 readings."""

FAR = 4 / 3
NOISY = 2.5 / 3
"""A habit whose expected values are off by more than 4/3 of their band, in the median of the first
readings, or by more than .83 of it around that in the mean, is not that of the new member."""

FOLLOW = 0.18
"""The share of the warm-up in which the difference of the levels follows the readings."""

MISFIT = 0.36
"""The same for how large the misses are, in bands."""

CAREFUL = 1.4
BY_MISFIT = 6.0
"""The odds of a score are divided by 1.4, or by six times the usual miss in bands, which is 2 for
readings that miss as the other member's did."""

LARGEST = 1e9
"""Larger odds count as these."""

FLAT = 1e-9
FLAT_STEP = 0.006
"""The narrowest half of a band: absolute, and as a share of the expected value."""


class _Saved(msgspec.Struct, array_like=True):
    state: bytes
    taken: int
    shift: float
    misfit: float
    waiting: list[tuple[float, float | None]]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Saved).decode


class Known(NamedTuple):
    """A state of the detector, and by how much the new member's values are above that state's."""

    state: Any
    shift: float


def middle(levels: Sequence[tuple[float, str]]) -> int:
    """Return the place of the member with the median level, of pairs of level and name.

    Of an even number, the lower one of the two; of equal levels, the first name.

    >>> middle([(0.5, "web-1"), (0.2, "web-2"), (0.9, "web-3"), (0.4, "web-4")])
    3
    """
    return sorted(range(len(levels)), key=levels.__getitem__)[(len(levels) - 1) // 2]


class Newcomer:
    """A new member of a group in its warm-up, with a copy of another member's state.

    Its own state learns from the first reading on as ever, and scores from the end of the warm-up
    on. Until then, readings are scored against the other member's state, minus the difference of
    the two levels, which the first readings show. The scores are lower than the state gives, by how
    badly it fits. A state that does not fit is dropped: then there is no score before the end of
    the warm-up.

    >>> from dataflow.detectors.calibrated.detector import Calibrated
    >>> detector, other = Calibrated(), None
    >>> for i in range(600):
    ...     other, _ = detector.update(other, 0.3 + i * 7 % 10 / 100, 300.0 * i)
    >>> newcomer, own = Newcomer(detector, other), None
    >>> for i in range(600, 650):
    ...     own, verdict = newcomer.update(own, 0.35 + i * 7 % 10 / 100, 300.0 * i)
    >>> verdict.score > 0.5
    False
    >>> own, verdict = newcomer.update(own, 0.95, 300.0 * 650)
    >>> verdict.score > 0.5, round(verdict.expected, 2)
    (True, 0.4)
    """

    __slots__ = (
        "_before_shift",
        "_detector",
        "_follow",
        "_misfit",
        "_misfit_rate",
        "_settle",
        "_shift",
        "_state",
        "_taken",
        "_waiting",
    )

    def __init__(self, detector: Lender[Any], state: Any) -> None:
        """Begin with a copy of another member's state, which changes from here on."""
        self._detector = detector
        self._state: Any = state
        self._taken = 0
        self._shift = self._misfit = self._before_shift = 0.0
        self._waiting: list[tuple[float, float | None]] = []
        warm_up = detector.warm_up
        self._settle = max(round(SETTLE * warm_up), 3)
        self._follow = 1 / max(FOLLOW * warm_up, 1.0)
        self._misfit_rate = 1 / max(MISFIT * warm_up, 1.0)

    @property
    def over(self) -> bool:
        """Whether the other member's state is no longer used."""
        return self._state is None

    def update(self, own: Any, value: float, time: float | None) -> tuple[Any, Verdict]:
        """Score a reading, then learn it; return the instance's own state and the verdict."""
        own, verdict = self._detector.update(own, value, time)
        if self._state is None:
            return own, verdict
        self._taken += 1
        if self._taken >= self._detector.warm_up:
            self._state = None
            return own, verdict
        if self._taken <= self._settle:
            self._waiting.append((value, time))
            if self._taken == self._settle:
                self._compare()
            return own, verdict
        return own, self._judge(value, time) or verdict

    def _compare(self) -> None:
        """Find the difference of the levels; drop a state that does not fit."""
        detector, state = self._detector, self._state
        misses, bands = [], []
        for value, time in self._waiting:
            found = detector.score(state, value, time)
            if found.expected is None:
                self._state = None
                return
            misses.append(value - found.expected)
            bands.append(half_of(found))
        shift, band = median(misses), fmean(bands)
        spread = fmean([abs(miss - shift) for miss in misses])
        if abs(shift) > FAR * band or spread > NOISY * band:
            self._state = None
            return
        self._shift, self._misfit = shift, spread / band
        for value, time in self._waiting:
            state, _ = detector.update(state, value - shift, time)
        self._state, self._waiting = state, []

    def _judge(self, value: float, time: float | None) -> Verdict | None:
        detector, shift = self._detector, self._shift
        self._state, found = detector.update(self._state, value - shift, time)
        if found.expected is None or found.lower is None or found.upper is None:
            return None
        band = half_of(found)
        miss = value - shift - found.expected
        self._before_shift = shift
        self._shift += self._follow * min(max(miss, -band), band)
        far = min(abs(miss) / band, FAR)
        least = min(odds(found.score), LARGEST) / max(CAREFUL, BY_MISFIT * self._misfit)
        # What is an anomaly is no misfit: else its trouble would end while it lasts.
        if least <= odds(detector.threshold):
            self._misfit += self._misfit_rate * (far - self._misfit)
        return Verdict(
            least / (least + 1.0),
            found.expected + shift,
            found.lower + shift,
            found.upper + shift,
            found.near,
        )

    def before(self) -> Known | None:
        """Return the other member's state before the last reading if that was an anomaly; once."""
        if self._state is None:
            return None
        found = self._detector.before(self._state)
        return None if found is None else Known(found, self._before_shift)

    def dump(self) -> bytes:
        """Return the other member's state and how it fits, as bytes."""
        state = self._detector.dump(self._state)
        return _encode(_Saved(state, self._taken, self._shift, self._misfit, self._waiting))

    @classmethod
    def load(cls, detector: Lender[Any], data: bytes) -> Newcomer:
        """Read the bytes of `dump`; the newcomer continues as the dumped one would have."""
        saved = _decode(data)
        self = cls(detector, detector.load(saved.state))
        self._taken, self._shift, self._misfit = saved.taken, saved.shift, saved.misfit
        self._waiting = saved.waiting
        return self


def explain(
    detector: Detector[Any], known: Known, value: float, time: float | None
) -> Explanation | None:
    """Return why a reading is an anomaly to another member's state; see `Detector.explain`.

    Without the range of ordinary values, which is that of undivided odds, and without how long the
    other member is known.
    """
    found = detector.explain(known.state, value - known.shift, time, False)
    return None if found is None else Explanation(found.reasons)


def half_of(verdict: Verdict) -> float:
    """Return half of the width of a verdict's band."""
    assert verdict.expected is not None
    if verdict.lower is None or verdict.upper is None:
        return FLAT
    return max((verdict.upper - verdict.lower) / 2, FLAT_STEP * abs(verdict.expected), FLAT)
