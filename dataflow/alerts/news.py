"""The rule of news: an anomaly is an alert if a person does not know of it yet.

It looks at scores only, and is the same for every detector. The scores themselves stay as they are.
Anomalies whose value is near what is expected are not asked about: none of them is news.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import msgspec

__all__ = ["Heard", "News", "held"]

HOLD = 84
"""Readings, 300 s apart, that an anomaly holds back: seven hours."""

DAYS = 3
TIMES = 2
AROUND = 3_600.0
"""What came on two of the last three days within an hour of this time is no news."""

SOON = 3_600.0
"""For this many seconds after an alert, a worse score is none: who reads it looks already."""

LEAST = 0.25
"""Below this share of the threshold, nothing is held back."""

SMALLEST = 1e-9
"""Odds that count as those of a threshold of 0."""


class Heard(msgspec.Struct, array_like=True):
    """What is known of one instance.

    `since` counts the readings since the last anomaly that was news or no news, and `bar` is the
    odds that are covered. `daily` has, of each trouble of the last days, the readings since it
    began and the odds that it covered. `usual`: the last of these comes about daily. `soon` counts
    down the readings after an alert in which a worse score is none.
    """

    since: int = 0
    bar: float = 0.0
    daily: list[tuple[int, float]] = []
    usual: bool = False
    soon: int = 0

    def passed(self, readings: int) -> None:
        """Count readings that are no anomalies."""
        self.since += readings
        self.soon = self.soon - readings if self.soon > readings else 0
        if self.daily:
            self.daily = [(age + readings, bar) for age, bar in self.daily]


class News:
    """Tells news from what is known already, by scores from 0 to 1.

    Scores are compared as odds, s / (1 - s). A score whose odds lie between two steps, threshold x
    2^i and threshold x 2^(i + 1), is news, and covers all up to the upper step for the next
    `hold` readings. Each anomaly among them begins the `hold` anew. The threshold is such a step,
    so an alert is followed by another only if that is twice as bad and not within an hour, or comes
    after a pause of `hold` readings. Scores below the threshold never keep one above it from being
    news.

    What came at this time of the day, within an hour, on two of the last three days is known too,
    unless it is twice as bad.

    `threshold` is the score above which a reading is an anomaly, `interval` the usual seconds
    between two readings of an instance: for shorter intervals, as much time is held back, and for
    longer ones fewer readings, by the square root.

    >>> news, heard = News(0.5), Heard()
    >>> [news.take(heard, score) for score in (0.3, 0.6, 0.8, 0.6, 0.81, 0.7)]
    [True, True, False, False, False, False]
    >>> heard.passed(12)
    >>> news.take(heard, 0.9)
    True
    >>> heard.passed(82)
    >>> news.take(heard, 0.6), news.take(heard, 0.6)
    (False, False)
    >>> heard.passed(83)
    >>> news.take(heard, 0.6)
    True
    """

    def __init__(self, threshold: float, interval: float = 300.0) -> None:
        ratio = min(300.0 / interval, 30.0)
        self.hold = round(HOLD * min(math.sqrt(ratio), 1.0) * max(1.0, ratio))
        self._alarm = max(odds(threshold), SMALLEST)
        self._least = LEAST * self._alarm
        self._day = round(86_400 / interval)
        self._around = AROUND / interval
        self._soon = round(SOON / interval)
        # Readings after which nothing is kept. With less than one reading an hour, no day is known.
        self.memory = self.hold
        if interval <= AROUND:
            self.memory = max(self.hold, round(DAYS * self._day + self._around))

    @property
    def floor(self) -> float:
        """The score up to which nothing is news."""
        return self._least / (self._least + 1.0)

    def take(self, heard: Heard, score: float) -> bool:
        """Take the next score, changing `heard`; return whether it is news."""
        heard.passed(1)
        if heard.since >= self.hold:
            heard.bar = self._least
        found = odds(score)
        if found <= self._least:
            return False
        if found <= heard.bar:
            if found > self._alarm:
                heard.since = 0
            return False
        heard.since = 0
        bar = self._least
        while bar < found:
            bar *= 2.0
        heard.bar = bar
        if found <= self._alarm:
            heard.usual = False
            return True
        heard.usual = self._daily(heard, found)
        if heard.usual or heard.soon > 0:
            return False
        heard.soon = self._soon
        return True

    def _daily(self, heard: Heard, found: float) -> bool:
        """Return whether this comes about daily, and remember that it came."""
        if self.memory == self.hold:
            return False
        days = set()
        kept = []
        for age, bar in heard.daily:
            if age > self.memory:
                continue
            kept.append((age, bar))
            day = round(age / self._day)
            if day and abs(age - day * self._day) <= self._around and found <= bar:
                days.add(day)
        heard.daily = [*kept, (0, heard.bar)]
        return len(days) >= TIMES


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
