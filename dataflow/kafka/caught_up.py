"""Whether the flow has read all that a partition holds, asked only while it matters.

An instance whose readings are on the broker and not read yet, because the broker was away or the
flow is behind, is not silent. Before the machine's clock decides, the step `incidents` asks here;
the source then asks the broker for the end of the partition (`sources/watch.py`).
"""

from __future__ import annotations

import time
from typing import NamedTuple

__all__ = ["CaughtUp"]

SLOW = 1.0
"""Seconds after which an answer says that the broker was away, and has come back."""

ASKED = 150.0
"""Seconds for which a partition is looked at after somebody has asked."""

STILL = 10.0
"""Seconds without a change, of the end and of what was read, after which all was read that can be:
at the end lie marks of transactions, which are no records."""


class _Look(NamedTuple):
    asked: float
    end: int | None
    position: int | None
    same_since: float


class CaughtUp:
    """How far partitions were read, and where the broker said that they end. Thread-safe.

    Times are seconds of a monotonic clock.

    >>> caught_up = CaughtUp()
    >>> caught_up.at_end(0, since=1.0)
    >>> caught_up.wanted(time.monotonic())
    [0]
    >>> caught_up.answer(0, 2.0, 2.0, end=9, position=8)  # one more record
    >>> caught_up.at_end(0, since=1.0)
    >>> caught_up.answer(0, 4.0, 4.0, end=9, position=9)
    >>> caught_up.at_end(0, since=1.0)
    True
    >>> caught_up.answer(0, 5.0, 5.0, end=10, position=9)
    >>> caught_up.answer(0, 15.0, 15.0, end=10, position=9)  # it is not read on
    >>> caught_up.at_end(0, since=14.0), caught_up.is_read(0, since=14.0)
    (True, False)
    >>> caught_up.answer(0, 16.0, 18.0, end=None, position=9)
    >>> caught_up.at_end(0, since=1.0), caught_up.away(0)
    (False, 18.0)
    """

    def __init__(self) -> None:
        self._asked: dict[int, float] = {}
        self._looks: dict[int, _Look] = {}
        self._away: dict[int, float] = {}

    def at_end(self, partition: int, since: float) -> bool | None:
        """Return whether all was read that the partition held at some time after `since`.

        False if the broker did not answer, None if it is not known yet. From now on, the broker is
        asked for the end of the partition.
        """
        look = self._look(partition, since)
        if look is None:
            return None
        if look.end is None:
            return False
        if look.position is None or look.position >= look.end:
            return True
        return True if look.asked - look.same_since >= STILL else None

    def is_read(self, partition: int, since: float) -> bool:
        """Return whether it is known that the flow was at the end of a partition after `since`.

        `at_end` also takes a partition for read that is not read on for a while. This does not: a
        flow that is far behind reads one partition after the other.
        """
        look = self._look(partition, since)
        if look is None or look.end is None:
            return False
        return look.position is None or look.position >= look.end

    def _look(self, partition: int, since: float) -> _Look | None:
        """Return the last look at a partition, if it was after `since`; let it be looked at."""
        self._asked[partition] = time.monotonic()
        look = self._looks.get(partition)
        return None if look is None or look.asked < since else look

    def away(self, partition: int) -> float:
        """Return when the broker last did not answer for a partition; 0 if it always did."""
        return self._away.get(partition, 0.0)

    def wanted(self, now: float) -> list[int]:
        """Return the partitions to ask the broker for: `at_end` was called for them recently."""
        return [
            partition
            for partition, asked in list(self._asked.items())
            if asked > now - ASKED or self._is_away(partition)
        ]

    def answer(
        self, partition: int, asked: float, now: float, end: int | None, position: int | None
    ) -> None:
        """Note the offset after the last record, None if the broker does not answer.

        It was asked for at `asked`, and answered, or did not, until `now`. `position` is the next
        offset to read, None if this process does not read the partition: how far another one has
        read is not known, and an answer of the broker is enough.
        """
        if end is None or now - asked > SLOW:
            self._away[partition] = now
            end = None
        before = self._looks.get(partition)
        same = before is not None and (before.end, before.position) == (end, position)
        since = before.same_since if same and before is not None else asked
        self._looks[partition] = _Look(asked, end, position, since)

    def _is_away(self, partition: int) -> bool:
        """Return whether the broker did not answer the last time."""
        look = self._looks.get(partition)
        return look is not None and look.end is None
