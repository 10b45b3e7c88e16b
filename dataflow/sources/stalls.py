"""Finds the partitions that return no records although they hold some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["STALLED", "Seen", "Stalls", "named"]

STALLED = 6.0
"""Seconds without a record, while there are some, after which a partition is named."""

NAMED = 5
"""Partitions to name in a line; of more, their number."""


class Seen(NamedTuple):
    """What is known of a partition at one moment."""

    position: int
    """The next offset to read."""
    end: int
    """The offset of the next record to be written."""
    waits: bool
    """Whether its reader has asked for records and got none."""


class Stalls:
    """Compares what is seen of partitions every few seconds.

    >>> stalls = Stalls()
    >>> blocked = {3: Seen(position=10, end=20, waits=True)}
    >>> [stalls.update(now, blocked) for now in (0.0, 3.0, 6.0, 9.0)]
    [([], []), ([], []), ([3], []), ([], [])]
    >>> stalls.update(12.0, {3: Seen(position=20, end=20, waits=True)})
    ([], [3])
    """

    def __init__(self) -> None:
        self._behind: dict[int, tuple[int, float]] = {}
        self._named: set[int] = set()
        self._updated = 0.0

    def update(self, now: float, seen: Mapping[int, Seen]) -> tuple[list[int], list[int]]:
        """Return the partitions that have stalled since the last call, and those that go on.

        `now` is in seconds of a monotonic clock.
        """
        if now - self._updated > STALLED:
            # The process itself was stopped: what it has not read says nothing of the broker.
            self._behind.clear()
        self._updated = now
        stalled, again = [], []
        for partition, one in seen.items():
            if not one.waits or one.position >= one.end:
                self._behind.pop(partition, None)
            elif self._behind.get(partition, (None, 0.0))[0] != one.position:
                self._behind[partition] = one.position, now
            elif now - self._behind[partition][1] >= STALLED and partition not in self._named:
                stalled.append(partition)
            if partition in self._named and partition not in self._behind:
                again.append(partition)
        self._named |= set(stalled)
        self._named -= set(again)
        return stalled, again


def named(partitions: list[int]) -> str:
    """Return text that names partitions.

    >>> named([3]), named([0, 1]), named(list(range(200)))
    ('partition 3', 'partitions 0, 1', 'partitions 0, 1, 2, 3, 4 and 195 more')
    """
    shown = ", ".join(map(str, partitions[:NAMED]))
    more = f" and {len(partitions) - NAMED} more" if len(partitions) > NAMED else ""
    return f"partition{'s' if len(partitions) > 1 else ''} {shown}{more}"
