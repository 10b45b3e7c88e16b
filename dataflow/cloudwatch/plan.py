"""What to ask CloudWatch for, how many times, and what that costs. Pure.

The limits and prices are those of GetMetricData in AWS's documentation.
"""

from __future__ import annotations

from datetime import datetime, timedelta

__all__ = ["LATE", "Window", "Written", "calls", "dollars", "duration", "kept", "metrics_per_call"]

MOST_METRICS = 500
"""Metrics in a call."""

MOST_POINTS = 100_800
"""Data points in an answer."""

DOLLARS = 0.01 / 1000
"""Price of a metric in a call."""

LATE = timedelta(minutes=15)
"""How late data may come: each poll asks for this time again."""

KEPT = ((60, timedelta(days=15)), (300, timedelta(days=63)), (3600, timedelta(days=455)))
"""For how long CloudWatch keeps data of a period of at least so many seconds."""

Window = tuple[datetime, datetime]
"""From the first time to before the second."""


def duration(text: str) -> timedelta:
    """Return a duration such as `14d`, `36h` or `90m`. Raises `ValueError` if it is none.

    >>> duration("14d"), duration("90m")
    (datetime.timedelta(days=14), datetime.timedelta(seconds=5400))
    """
    units = {"d": "days", "h": "hours", "m": "minutes"}
    number, unit = text[:-1], text[-1:]
    whole = number.isascii() and number.isdigit() and len(number) < 6
    if unit not in units or not whole or not int(number):
        raise ValueError(f"{text!r} is no duration such as 14d, 36h or 90m")
    return timedelta(**{units[unit]: int(number)})


def kept(period: int) -> timedelta:
    """Return for how long CloudWatch keeps data of a period, in seconds.

    >>> kept(60).days, kept(300).days
    (15, 63)
    """
    return [span for least, span in KEPT if period >= least][-1]


def points(window: Window, period: int) -> int:
    """Return how many data points of a metric lie in a window, at most."""
    return int((window[1] - window[0]).total_seconds() // period) + 1


def metrics_per_call(window: Window, period: int) -> int:
    """Return how many metrics to ask for in a call, so that the answer is one page.

    >>> start = datetime(2025, 3, 1)
    >>> metrics_per_call((start, start + timedelta(hours=1)), 300)
    500
    >>> metrics_per_call((start, start + timedelta(days=14)), 300)
    24
    """
    return max(1, min(MOST_METRICS, MOST_POINTS // points(window, period)))


def calls(metrics: int, window: Window, period: int) -> int:
    """Return how many calls ask for so many metrics."""
    return -(-metrics // metrics_per_call(window, period))


def dollars(metrics: int, times: float = 1.0) -> float:
    """Return the price of asking for so many metrics so many times.

    >>> round(dollars(1000, times=288), 2)
    2.88
    """
    return metrics * times * DOLLARS


class Written:
    """The readings that were written, so that a poll writes only those that are new.

    >>> written, at = Written(), datetime(2025, 3, 1)
    >>> [written.is_new("i-1", time) for time in (at, at, at - timedelta(minutes=5))]
    [True, False, True]
    """

    def __init__(self) -> None:
        self._times: dict[str, set[datetime]] = {}

    def is_new(self, instance: str, time: datetime) -> bool:
        """Note a reading; return whether it was not there yet."""
        times = self._times.setdefault(instance, set())
        if time in times:
            return False
        times.add(time)
        return True

    def forget(self, before: datetime) -> None:
        """Forget what no poll asks for again."""
        for instance, times in list(self._times.items()):
            left = {time for time in times if time >= before}
            if left:
                self._times[instance] = left
            else:
                del self._times[instance]
