"""The instances that send, up to a limit: those that have stopped make room for new ones. Pure.

Where machines come and go, names are used for a day or an hour and never again. Time is that of
the readings: a backlog of a month that is read in a minute is a month.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TypeAlias

__all__ = ["DAY", "Living", "Periods"]

DAY = 86_400.0

Sample: TypeAlias = tuple[str, float]
"""An instance, and the time of one of its readings."""


class Periods:
    """The periods of one partition, of `length` seconds by the times of its readings.

    A period is over when two instances have readings beyond it, so that one with a wrong clock
    ends none. Times that step back change nothing: a period can only become longer by them.

    >>> periods = Periods(3600.0)
    >>> samples = [("a", 0.0), ("b", 10.0), ("a", 4e9), ("b", 3000.0), ("b", 3700.0), ("c", 3700.0)]
    >>> [periods.over(instance, time) for instance, time in samples]
    [False, False, False, False, True, False]
    """

    __slots__ = ("_end", "_length", "_one")

    def __init__(self, length: float) -> None:
        self._length = length
        # Below every time, so that the first two instances begin the first period.
        self._end = -math.inf
        self._one: Sample | None = None

    def over(self, instance: str, time: float) -> bool:
        """Note a reading; return whether a period has ended with it."""
        if time < self._end:
            return False
        if self._one is None or self._one[0] == instance:
            # The earlier time of an instance: a wrong clock that has been set right is forgotten.
            if self._one is None or time < self._one[1]:
                self._one = instance, time
            return False
        began = self._end > -math.inf
        self._end = min(time, self._one[1]) + self._length
        self._one = None
        return began


class Living:
    """The instances that have sent within the last one or two periods of their partition.

    `recent` holds those of the current period, with the partition that they came from first: the
    caller may look them up without a call. An instance that has sent nothing for a whole period
    gives its place back; after `forget` seconds `forgotten` names it, once, so that its state can
    be discarded. With a period of 0 every instance keeps its place. What is known begins anew with
    each process. Not thread-safe but for `recent`.

    >>> living = Living(limit=2, period=3600.0, forget=7200.0)
    >>> [living.admit(name, 0) for name in ("a", "b", "c")]
    [0, 0, None]
    >>> for hour in range(4):
    ...     for name in ("a", "x"):
    ...         if name == "a":
    ...             _ = living.admit(name, 0)
    ...         _ = living.passed(0, name, hour * 3600.0)
    >>> living.admit("c", 0), living.size, living.forgotten(0)
    (0, 2, ['b'])
    """

    def __init__(self, limit: int, period: float, forget: float) -> None:
        self.recent: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self._limit = limit
        self._period = period
        self._waits = max(0, math.ceil(forget / period) - 1) if period else 0
        self._members: dict[int, list[str]] = {}
        self._resting: dict[int, list[str]] = {}
        self._periods: dict[int, Periods] = {}
        # The instances that gave back their places in each of the last periods, with a number, and
        # for each the number of the last time: who has come back since is not in it.
        self._gone: dict[int, deque[tuple[int, list[str]]]] = {}
        self._left: dict[str, int] = {}
        self._number = 0
        self._forgotten: dict[int, list[str]] = {}

    @property
    def size(self) -> int:
        """The number of instances that have a place."""
        return len(self.recent) + len(self._before)

    def admit(self, instance: str, partition: int) -> int | None:
        """Return the partition that the instance came from first; None if there is no place."""
        first = self.recent.get(instance)
        if first is not None:
            return first
        first = self._before.pop(instance, None)
        if first is None:
            if self.size >= self._limit:
                return None
            first = partition
            self._left.pop(instance, None)
        self.recent[instance] = first
        self._members.setdefault(first, []).append(instance)
        return first

    def passed(self, partition: int, instance: str, time: float) -> bool:
        """Note a reading's time; return whether places became free or instances are forgotten."""
        if not self._period:
            return False
        periods = self._periods.get(partition)
        if periods is None:
            periods = self._periods[partition] = Periods(self._period)
        if not periods.over(instance, time):
            return False
        self._number += 1
        gone = []
        for name in self._resting.get(partition, ()):
            if self._before.get(name) == partition:
                del self._before[name]
                self._left[name] = self._number
                gone.append(name)
        members = self._members.pop(partition, [])
        for name in members:
            self._before[name] = self.recent.pop(name)
        self._resting[partition] = members
        waiting = self._gone.setdefault(partition, deque())
        waiting.append((self._number, gone))
        if len(waiting) > self._waits:
            self._forget(partition, *waiting.popleft())
        return True

    def _forget(self, partition: int, number: int, names: list[str]) -> None:
        forgotten = [name for name in names if self._left.get(name) == number]
        for name in forgotten:
            del self._left[name]
        if forgotten:
            self._forgotten.setdefault(partition, []).extend(forgotten)

    def forgotten(self, partition: int) -> list[str]:
        """Return the instances of a partition that are to be forgotten now, each once."""
        return self._forgotten.pop(partition, [])
