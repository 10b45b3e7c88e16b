"""Up to which time of the readings all records have come, from all partitions. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeAlias

__all__ = ["IDLE", "IsRead", "Watermark"]

IDLE = 30.0
"""Seconds without a mark after which a partition is not waited for: nothing is written to it."""

BLOCKED = 600.0
"""The same where not all was read that it holds: it cannot be read."""

PASSES = 5.0
"""Seconds that records take at most from the source to here."""

IsRead: TypeAlias = Callable[[int, float], bool]
"""Whether it is known that all of a partition was read at some time after another one."""


class Watermark:
    """Takes marks: a mark says that a partition had come to `time` before the present epoch.

    Bytewax brings all that an epoch causes before anything of the next one. When the second mark of
    a partition comes, those of the others of the epoch before are there too. `partitions` are those
    of which marks are expected. `now` is in seconds of a clock that never steps back. A partition
    without marks is not waited for; with `is_read`, only once that says that it has been read: a
    flow that is far behind reads one after the other.

    >>> watermark = Watermark(0.0, [0, 1])
    >>> for partition, time in [(0, 900.0), (1, 300.0), (0, 1200.0)]:
    ...     watermark.mark(partition, time, 1.0)
    >>> watermark.until(1.0), watermark.until(1.0 + 40.0)
    (300.0, 1210.0)
    """

    def __init__(
        self, now: float, partitions: Iterable[int] = (), is_read: IsRead | None = None
    ) -> None:
        self._until = -math.inf
        self._newest = -math.inf
        self._moved = now
        self._round: set[int] = set()
        self._count: Counter[int] = Counter()
        self._marks = dict.fromkeys(partitions, (-math.inf, now))
        self._is_read = is_read
        # Since when all of a partition is known to be read.
        self._read: dict[int, float] = {}

    def mark(self, partition: int, time: float, now: float) -> None:
        """Take a mark."""
        if partition in self._round:
            waited = [
                reached
                for number, (reached, came) in self._marks.items()
                if number in self._round or not self._is_idle(number, came, now)
            ]
            self._until = max(self._until, min(waited))
            self._round.clear()
        self._round.add(partition)
        self._count[partition] += 1
        self._marks[partition] = (max(time, self.of(partition)), now)
        self._moved = now
        self._newest = max(self._newest, time)

    def _is_idle(self, partition: int, came: float, now: float) -> bool:
        """Return whether a partition is not waited for, whose last mark came at `came`."""
        waited = now - came
        if self._is_read is None or waited >= BLOCKED:
            return waited >= IDLE
        if not self._is_read(partition, now - IDLE):
            self._read.pop(partition, None)
            return False
        read = self._read.setdefault(partition, now)
        return waited >= IDLE and now - read >= PASSES

    def of(self, partition: int) -> float:
        """Return how far a partition has come."""
        return self._marks.get(partition, (-math.inf, 0.0))[0]

    def marks(self, partition: int) -> int:
        """Return how many marks of a partition have come: epochs in which it had readings."""
        return self._count[partition]

    def seen(self, time: float, now: float) -> None:
        """Take the time of a record that has come."""
        self._newest = max(self._newest, time)
        self._moved = now

    def until(self, now: float) -> float:
        """Return the time before which no record is missing.

        While no marks come, the time of the readings passes as that of the clock does.
        """
        idle = now - self._moved - IDLE
        if idle < 0:
            return self._until
        # Each is asked, so that for each it is known as soon as it can be.
        others = [self._is_idle(number, came, now) for number, (_, came) in self._marks.items()]
        return max(self._until, self._newest + idle) if all(others) else self._until
