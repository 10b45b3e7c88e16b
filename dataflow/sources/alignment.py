"""The partitions of one process, read abreast: none runs far ahead of the others.

An instance whose readings lie on several partitions is put back into order by holding those that
came too early. How many that are is how far the partitions are apart, and while a flow catches up
with a long topic nothing else would keep them together.
"""

from __future__ import annotations

__all__ = ["PartitionAlignment"]

Place = tuple[int, int]
"""Timestamp of the last record read, and how many had this timestamp: bulk writes share one."""


class PartitionAlignment:
    """Says which partition may be read next: one that no other is behind.

    A partition at its end does not count, nor does one that gave nothing for `seconds` though it
    might have been read: its broker may be away. Places are compared by the timestamps that the
    topic gives its records, in milliseconds; without any, by the number of records read.

    >>> pace = PartitionAlignment(seconds=30.0)
    >>> for partition in (0, 1):
    ...     pace.join(partition, now=0.0)
    >>> pace.advance(0, timestamp=1000, records=5, now=0.1)
    >>> pace.may_read(0, now=0.1), pace.may_read(1, now=0.1)
    (False, True)
    >>> pace.advance(1, timestamp=1001, records=5, now=0.2)
    >>> pace.may_read(0, now=0.2), pace.may_read(1, now=0.2)
    (True, False)
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._places: dict[int, Place] = {}
        self._ended: set[int] = set()
        self._seen: dict[int, float] = {}

    def join(self, partition: int, now: float) -> None:
        """Take part from `now` on (seconds)."""
        self._seen[partition] = now
        self._places[partition] = (-1, 0)

    def may_read(self, partition: int, now: float) -> bool:
        """Tell whether no other partition is behind this one."""
        mine = self._places[partition]
        # A copy: the partitions of other workers join in other threads.
        for other, place in tuple(self._places.items()):
            if (
                place < mine
                and other not in self._ended
                and now - self._seen[other] < self._seconds
            ):
                self._seen[partition] = now
                return False
        return True

    def advance(self, partition: int, timestamp: int, records: int, now: float) -> None:
        """Note how many records were read, and the timestamp of the last."""
        last, before = self._places[partition]
        self._places[partition] = (timestamp, records + (before if timestamp == last else 0))
        self._seen[partition] = now
        self._ended.discard(partition)

    def end(self, partition: int) -> None:
        """Note that a partition has nothing more at present."""
        self._ended.add(partition)
