"""The rule of news: an anomaly is an alert if a person does not know of it yet.

It looks at scores only, and is the same for every detector. The scores themselves stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

__all__ = ["Heard", "News", "held"]

HOLD = 84
"""Readings, 300 s apart, that an alert holds back: seven hours."""

LEAST = 0.25
"""Below this share of the threshold, nothing is held back."""

SMALLEST = 1e-9
"""Odds that count as those of a threshold of 0."""


class Heard(msgspec.Struct, array_like=True):
    """What is known of one instance: readings since the last news, and the odds that it covers."""

    since: int = 0
    bar: float = 0.0


class News:
    """Tells news from what is known already, by scores from 0 to 1.

    Scores are compared as odds, s / (1 - s). A score whose odds lie between two steps, threshold x
    2^i and threshold x 2^(i + 1), is news, and covers all up to the upper step for the next
    `hold` readings. The threshold is such a step, so an alert is followed by another only if that
    is twice as bad, or comes later. Scores below the threshold never keep one above it from being
    news.

    `threshold` is the score above which a reading is an anomaly, `interval` the usual seconds
    between two readings of an instance: for shorter intervals, as much time is held back, and for
    longer ones fewer readings, by the square root.

    >>> news, heard = News(0.5), Heard()
    >>> [news.take(heard, score) for score in (0.3, 0.6, 0.8, 0.6, 0.81, 0.7)]
    [True, True, True, False, False, False]
    >>> [news.take(heard, 0.6) for _ in range(81)] == 80 * [False] + [True]
    True
    """

    def __init__(self, threshold: float, interval: float = 300.0) -> None:
        ratio = min(300.0 / interval, 30.0)
        self.hold = round(HOLD * min(math.sqrt(ratio), 1.0) * max(1.0, ratio))
        self._least = LEAST * max(odds(threshold), SMALLEST)

    @property
    def floor(self) -> float:
        """The score up to which nothing is news."""
        return self._least / (self._least + 1.0)

    def take(self, heard: Heard, score: float) -> bool:
        """Take the next score, changing `heard`; return whether it is news."""
        heard.since += 1
        if heard.since >= self.hold:
            heard.bar = self._least
        found = odds(score)
        if found <= self._least or found <= heard.bar:
            return False
        heard.since = 0
        bar = self._least
        while bar < found:
            bar *= 2.0
        heard.bar = bar
        return True


def odds(score: float) -> float:
    """Return a score's odds.

    >>> odds(0.75), odds(1.0)
    (3.0, inf)
    """
    return score / (1.0 - score) if score < 1.0 else math.inf


def held(scores: Iterable[float], threshold: float, interval: float = 300.0) -> list[float]:
    """Return the scores of one instance with all that is no news held down.

    Those above the threshold are its alerts.

    >>> held([0.1, 0.6, 0.6], 0.5)
    [0.1, 0.6, 0.2]
    """
    news, heard = News(threshold, interval), Heard()
    floor = news.floor
    return [score if news.take(heard, score) else min(score, floor) for score in scores]
