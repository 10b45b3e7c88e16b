"""The score of the Numenta Anomaly Benchmark (NAB), which rewards early alerts in labeled windows.

A detector that never alerts scores 0, one that alerts at the left edge of every window and nowhere
else scores 100; false alarms can bring a score far below 0. Pure: no files, no clock.

Source: Lavin and Ahmad, "Evaluating Real-time Anomaly Detection Algorithms - the Numenta Anomaly
Benchmark" (2015), and NAB's `sweeper.py`, whose published scores this reproduces. One difference:
NAB alerts at a score of at least the threshold, this package at a score above it, so the thresholds
given here lie between NAB's and the next lower score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["PROFILES", "Best", "Corpus", "Profile", "Scores", "Series", "probation"]

Floats = NDArray[np.float64]


class Profile(NamedTuple):
    """The cost of each mistake, in units of a perfectly early hit."""

    false_alarm: float
    miss: float


class Scores(NamedTuple):
    """A detector's score in each of NAB's profiles: 0 for silence, 100 for perfection."""

    standard: float
    low_fp: float
    low_fn: float


class Best(NamedTuple):
    """The highest score of any threshold, and the highest such threshold.

    `scores` has each profile at its own best threshold, as NAB publishes them; `threshold` is
    that of the standard profile.
    """

    threshold: float
    scores: Scores


#: NAB's profiles: standard, reward_low_FP_rate, reward_low_FN_rate.
PROFILES = Scores._fields
_COSTS = (Profile(0.11, 1.0), Profile(0.22, 1.0), Profile(0.11, 2.0))


@dataclass(frozen=True)
class Series:
    """The readings of an instance's metric in their order of arrival, and where its anomalies are.

    Times are in seconds since 1970, UTC, and may repeat or step back. `windows` are the labeled
    spans, first and last moment included, in order of time. `labels` are the moments at which the
    anomalies of those windows began, one per window; if empty, the starts of the windows count.
    `skip` are the seconds from the first reading on that do not count; None is NAB's probation.
    """

    instance: str
    times: Floats
    values: Floats
    windows: tuple[tuple[float, float], ...] = ()
    labels: tuple[float, ...] = ()
    metric: str = ""
    skip: float | None = None

    @property
    def start(self) -> int:
        """The position of the first reading that counts; the length if none does.

        >>> hours = np.arange(100) * 3600.0
        >>> Series("a", hours, hours).start, Series("a", hours, hours, skip=86_400).start
        (15, 24)
        """
        if self.skip is None:
            return probation(len(self.times))
        return _first(self.times >= self.times[0] + self.skip) if len(self.times) else 0

    def spans(self) -> dict[int, tuple[int, int]]:
        """Return the positions of the first and last reading of each window that has any.

        >>> Series("a", np.arange(5.0), np.zeros(5), ((1, 2), (9, 9))).spans()
        {0: (1, 2)}
        """
        found: dict[int, tuple[int, int]] = {}
        after = 0
        for number, (start, end) in enumerate(self.windows):
            first = after + _first(self.times[after:] >= start)
            # The clock may step back within a window (daylight saving): it ends where the
            # time first passes its end, as in NAB.
            past = first + _first(self.times[first:] > end)
            if past > first:
                found[number] = (first, past - 1)
                after = past
        return found


def probation(readings: int) -> int:
    """Return how many readings at the start of a series do not count: 15%, at most 750.

    >>> probation(4032), probation(22695)
    (604, 750)
    """
    return int(min(0.15 * readings, 750))


class Corpus:
    """Labeled series, prepared for scoring detectors.

    Scores of a detector are given as one array per series, one number per reading, in the order of
    `series`.

    >>> quiet = Series("a", np.arange(100.0), np.zeros(100), windows=((50, 59),))
    >>> corpus = Corpus([quiet])
    >>> corpus.score([np.zeros(100)], threshold=0.5)
    Scores(standard=0.0, low_fp=0.0, low_fn=0.0)
    >>> early = np.where(quiet.times == 50, 0.9, 0.1)
    >>> corpus.best([early])
    Best(threshold=0.5, scores=Scores(standard=100.0, low_fp=100.0, low_fn=100.0))
    """

    def __init__(self, series: Sequence[Series]) -> None:
        self.series = tuple(series)
        credits, windows, counted = [], [], []
        self.windows = 0
        for one in self.series:
            credit, window = _credits(len(one.times), list(one.spans().values()))
            start = one.start
            # A window inside the probation cannot be hit, so it is not a miss either.
            _, numbered = np.unique(window[start:], return_inverse=True)
            numbered = numbered.astype(np.int64) - (1 if (window[start:] < 0).any() else 0)
            credits.append(credit[start:])
            windows.append(np.where(numbered < 0, -1, numbered + self.windows))
            counted.append(start)
            self.windows += int(numbered.max(initial=-1)) + 1
        self._starts = counted
        self._credit = np.concatenate([*credits, np.empty(0)])
        self._window = np.concatenate([*windows, np.empty(0, np.int64)])

    def score(self, scores: Sequence[Floats], threshold: float) -> Scores:
        """Return the score of alerts at every reading whose score lies above the threshold."""
        levels, raw = self._sweep(self._flatten(scores))
        above = int(np.searchsorted(-levels, -threshold, side="left"))
        return Scores(*(float(row[above]) for row in raw))

    def best(self, scores: Sequence[Floats]) -> Best:
        """Return the best score over all thresholds that change an alert."""
        levels, raw = self._sweep(self._flatten(scores))
        # The first of equal scores has the highest threshold, so the fewest alerts.
        at = [int(np.argmax(row)) for row in raw]
        scores_at = (float(row[i]) for row, i in zip(raw, at, strict=True))
        return Best(_between(levels, at[0]), Scores(*scores_at))

    def _flatten(self, scores: Sequence[Floats]) -> Floats:
        if [len(s) for s in scores] != [len(s.times) for s in self.series]:
            raise ValueError(
                "Scores do not fit the series: give one array per series, one number per reading."
            )
        parts = [s[start:] for s, start in zip(scores, self._starts, strict=True)]
        return np.concatenate([*parts, np.empty(0)])

    def _sweep(self, flat: Floats) -> tuple[Floats, Floats]:
        """Return the distinct scores, falling, and for each profile a row: the score when
        the first k of them raise an alert, k = 0 (silence) to all."""
        order = np.argsort(-flat, kind="stable")
        score, credit, window = flat[order], self._credit[order], self._window[order]
        outside = window < 0
        false = np.where(outside, credit, 0.0)
        hit = np.zeros(len(flat))
        earlier = np.zeros(len(flat))
        inside = np.flatnonzero(~outside)
        # The readings of each window, by falling score: what each adds to the window's credit.
        inside = inside[np.argsort(window[inside], kind="stable")]
        bounds = np.flatnonzero(np.diff(window[inside])) + 1
        for readings in np.split(inside, bounds):
            if len(readings):
                hit[readings[0]] = 1.0
                earlier[readings] = np.diff(np.maximum.accumulate(credit[readings]), prepend=0.0)
        last = np.flatnonzero(np.append(score[1:] != score[:-1], True)[: len(score)])
        sums = [np.append(0.0, np.cumsum(a)[last]) for a in (earlier, hit, false)]
        rows = [
            100
            * (sums[0] + cost.miss * sums[1] + cost.false_alarm * sums[2])
            / ((1 + cost.miss) * max(self.windows, 1))
            for cost in _COSTS
        ]
        return score[last], np.array(rows)


def _credits(readings: int, spans: Sequence[tuple[int, int]]) -> tuple[Floats, NDArray[np.int64]]:
    """Return what an alert at each reading is worth, and the window it lies in, -1 for none.

    In a window 1 at its left edge to nearly 0 at its right; outside nearly 0 just past a window
    to -1 beyond three of its widths, and -1 before the first.
    """
    credit = np.full(readings, -1.0)
    window = np.full(readings, -1, np.int64)
    at = np.arange(readings)
    for number, (left, right) in enumerate(spans):
        width = right - left + 1
        credit[left : right + 1] = _sigmoid((at[left : right + 1] - right - 1) / width)
        credit[left : right + 1] /= _sigmoid(np.array(-1.0))
        window[left : right + 1] = number
        end = spans[number + 1][0] if number + 1 < len(spans) else readings
        # In widths of the window before; a window of a single reading has no width.
        past = (at[right + 1 : end] - right) / (width - 1) if width > 1 else np.inf
        credit[right + 1 : end] = np.where(past > 3, -1.0, _sigmoid(past))
    return credit, window


def _sigmoid(position: Floats | float) -> Floats:
    # Far away from a narrow window, the exponential would overflow.
    return np.asarray(2 / (1 + np.exp(np.minimum(5 * np.asarray(position), 700))) - 1)


def _first(found: NDArray[np.bool_]) -> int:
    """Return the position of the first True, or the length where there is none."""
    return int(np.argmax(found)) if found.any() else len(found)


def _between(levels: Floats, above: int) -> float:
    """Return a threshold that lets the first `above` of the falling levels through, and no more."""
    if above == 0:
        return max(1.0, float(levels[0])) if len(levels) else 1.0
    high = float(levels[above - 1])
    low = float(levels[above]) if above < len(levels) else float(np.nextafter(high, -np.inf))
    middle = (low + high) / 2
    return middle if middle < high else low  # neighboring floats have no middle
