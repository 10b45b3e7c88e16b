"""The pattern of an anomaly: which other readings of its series are the same. Pure.

The same are readings at the same time of the day, off in the same direction, and about as far.
Scores stay high for a while after a trouble, so what follows the same belongs to it. The constants
were chosen on made-up fleets, by `benchmarks/verdicts.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import msgspec

from dataflow.calendars.clock import Clock
from dataflow.records import ALL, Anomaly, seconds

__all__ = ["Case", "Pattern", "Same", "case_of", "pattern_of"]

DAY = 86_400.0

AROUND = 2_700.0
"""Seconds by which the same may come earlier or later in the day; an interval, if that is more."""

AFTER = 7_200.0
INTERVALS_AFTER = 6
"""Seconds after the same, or intervals if these are longer, in which readings still follow it."""

LARGER = 0.35
"""The same may be larger by this share of its size."""

SMALLER = 0.5
"""The share of its size that the same has at least; what is less far off can only follow it."""


class Pattern(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of an episode of anomalies of a metric of an instance.

    `size` is how far the worst reading, `value`, lay from what was `expected`, in the unit of an
    anomaly's `value`: 0 to 1 for CPU; `direction` is the side. `since` and `until` are the times,
    in UTC, of the first and the last anomaly that had at least half of the size on that side.
    `anomalies` counts all that were seen.
    """

    instance: str
    metric: str
    direction: Literal["high", "low"]
    size: float
    value: float
    expected: float
    since: datetime
    until: datetime
    anomalies: int


class Case(NamedTuple):
    """A reading: its time in seconds since 1970, its value, and the expected one."""

    time: float
    value: float
    expected: float


def case_of(anomaly: Anomaly) -> Case | None:
    """Return the case of an anomaly that the flow has written; None if it has no time or size."""
    if anomaly.timestamp is None or anomaly.expected is None:
        return None
    try:
        time = seconds(anomaly.timestamp)
    except (ValueError, OverflowError):
        return None
    return Case(time, anomaly.value, anomaly.expected)


def pattern_of(anomalies: Sequence[Anomaly]) -> Pattern:
    """Return the pattern of the anomalies of one episode, in their order.

    Raises `ValueError`, with what keeps them from having one.

    >>> from dataflow.records import Source
    >>> def anomaly(timestamp: str, value: float) -> Anomaly:
    ...     rest = (None, value, 0.8, 0.5, 0.2, 0.1, 0.3, "calibrated", "", Source("cpu", 0, 0))
    ...     return Anomaly("web-1", timestamp, *rest)
    >>> found = pattern_of([anomaly("2026-03-01 02:00", 0.9), anomaly("2026-03-01 02:30", 0.2)])
    >>> found.direction, round(found.size, 3), found.until.minute, found.anomalies
    ('high', 0.7, 0, 2)
    """
    first = anomalies[0]
    if first.metric == ALL:
        raise ValueError("it is of all metrics of an instance together")
    cases = [case for one in anomalies if (case := case_of(one)) is not None]
    if not cases:
        missing = "time" if first.timestamp is None else "expected value"
        raise ValueError(f"it has no {missing}")
    worst = max(cases, key=lambda case: abs(case.value - case.expected))
    most = worst.value - worst.expected
    if most == 0.0:
        raise ValueError("its value is the expected one")
    side = 1 if most > 0 else -1
    times = [
        case.time for case in cases if (case.value - case.expected) * side >= SMALLER * abs(most)
    ]
    return Pattern(
        instance=first.instance,
        metric=first.metric,
        direction="high" if most > 0 else "low",
        size=abs(most),
        value=worst.value,
        expected=worst.expected,
        since=datetime.fromtimestamp(min(times), UTC),
        until=datetime.fromtimestamp(max(times), UTC),
        anomalies=len(anomalies),
    )


class Same:
    """Which readings of a series are the same pattern, and which only follow it.

    `clock` is that of the instance: the time of the day is local; None: UTC. `interval` is the
    usual time between two readings in seconds.

    >>> from datetime import timedelta
    >>> night = datetime(2026, 3, 1, 2, tzinfo=UTC)
    >>> seen = Pattern(instance="web-1", metric="cpu", direction="high", size=0.6, value=0.8,
    ...                expected=0.2, since=night, until=night + timedelta(hours=1), anomalies=12)
    >>> same, later = Same(seen), (night + timedelta(days=9)).timestamp()
    >>> same.is_itself(Case(later, 0.9, 0.2)), same.is_itself(Case(later + 7200, 0.9, 0.2))
    (True, False)
    >>> same.is_itself(Case(later, 1.2, 0.2)), same.follows(Case(later + 7200, 0.3, 0.2), later)
    (False, True)
    """

    def __init__(self, pattern: Pattern, clock: Clock | None = None, interval: float = 300) -> None:
        """Prepare the comparisons."""
        self._size = pattern.size
        self._side = 1 if pattern.direction == "high" else -1
        self._clock = clock
        self._around = max(AROUND, interval)
        self._after = max(AFTER, INTERVALS_AFTER * interval)
        since = pattern.since.timestamp()
        self._begins = self._local(since) - self._around
        self._lasts = pattern.until.timestamp() - since + 2 * self._around

    def _local(self, time: float) -> float:
        return time if self._clock is None else self._clock(time)

    def is_itself(self, case: Case) -> bool:
        """Return whether a reading is the same."""
        by = (case.value - case.expected) * self._side
        if not SMALLER * self._size <= by <= (1 + LARGER) * self._size:
            return False
        return (self._local(case.time) - self._begins) % DAY <= self._lasts

    def follows(self, case: Case, last: float) -> bool:
        """Return whether a reading follows the same, of which the last one was at `last`."""
        by = (case.value - case.expected) * self._side
        return -self._size <= by < SMALLER * self._size and 0 <= case.time - last <= self._after

    def is_over(self, case: Case, last: float) -> bool:
        """Return whether a reading comes too late to follow the same, as do those after it."""
        return case.time - last > self._after
