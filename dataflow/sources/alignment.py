"""Reads the partitions of one process at the same pace, so that none gets far ahead.

Where an instance's readings lie on several partitions, the step `reorder` holds the early ones. The
number of held readings grows with the distance between partitions, which alignment limits while
the flow catches up with a long topic.
"""

from __future__ import annotations

__all__ = ["PartitionAlignment"]

Place = tuple[int, int]
"""Timestamp of the last record read (ms), and the number of records read with this timestamp:
bulk writes share one."""


class PartitionAlignment:
    """Decides which partition may be read next: one that is ahead of no other.

    A partition does not count while it is at its end, or if it returned nothing for `seconds`
    although it was allowed to: its broker may be down. Partitions are compared by the broker's
    timestamps of their records, in milliseconds; without timestamps, by the number of records read.

    >>> alignment = PartitionAlignment(seconds=30.0)
    >>> for partition in (0, 1):
    ...     alignment.join(partition, now=0.0)
    >>> alignment.advance(0, timestamp=1000, records=5, now=0.1)
    >>> alignment.may_read(0, now=0.1), alignment.may_read(1, now=0.1)
    (False, True)
    >>> alignment.advance(1, timestamp=1001, records=5, now=0.2)
    >>> alignment.may_read(0, now=0.2), alignment.may_read(1, now=0.2)
    (True, False)
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._places: dict[int, Place] = {}
        self._ended: set[int] = set()
        self._seen: dict[int, float] = {}

    def join(self, partition: int, now: float) -> None:
        """Add a partition at `now` (seconds of a monotonic clock)."""
        self._seen[partition] = now
        self._places[partition] = (-1, 0)

    def may_read(self, partition: int, now: float) -> bool:
        """Return whether no other partition is behind this one."""
        own_place = self._places[partition]
        # A copy, because other workers add their partitions in other threads.
        for other, place in tuple(self._places.items()):
            if (
                place < own_place
                and other not in self._ended
                and now - self._seen[other] < self._seconds
            ):
                self._seen[partition] = now
                return False
        return True

    def advance(self, partition: int, timestamp: int, records: int, now: float) -> None:
        """Note how many records were read, and the timestamp of the last one (ms)."""
        last, before = self._places[partition]
        self._places[partition] = (timestamp, records + (before if timestamp == last else 0))
        self._seen[partition] = now
        self._ended.discard(partition)

    def end(self, partition: int) -> None:
        """Note that a partition has no more records for now."""
        self._ended.add(partition)
