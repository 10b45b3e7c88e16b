"""How many records to take at a time from a backlog."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["BatchSize"]

FEW = 300
"""Records at a time, usually: more leave the processor's cache before the next step."""

FEW_OF_SEVERAL = 1_000
"""The same where the flow has several workers, which hand over to each other with each batch."""

MOST = 10_000
"""Records at a time, however many instances there are."""

TOGETHER = 4
"""Readings that an instance should have in a batch.

They go on together, and an instance costs more than a reading.
"""

SAMPLE = 10_000
"""Records, the first of a partition, whose instances are counted."""


class BatchSize:
    """Records to take at a time: so many that an instance has some, if that can be had.

    >>> size = BatchSize(several=False)
    >>> size.look([b"i-%d" % (number % 500) for number in range(10_000)])
    >>> size.records, size.sampling
    (2000, False)
    """

    __slots__ = ("_few", "_instances", "_looked", "records", "sampling")

    def __init__(self, *, several: bool) -> None:
        """Begin to count; `several` says whether the flow has several workers."""
        self.records = FEW
        self.sampling = True
        """Whether more keys are to be looked at."""
        self._few = FEW_OF_SEVERAL if several else FEW
        self._looked = 0
        self._instances: set[bytes | str | None] = set()

    def look(self, keys: Iterable[bytes | str | None]) -> None:
        """Note the keys of records, for their instances: nothing but speed depends on them."""
        noted = list(keys)
        self._looked += len(noted)
        self._instances.update(noted)
        if self._looked >= SAMPLE:
            self.records = self._wanted(len(self._instances))
            self.sampling = False
            self._instances.clear()

    def _wanted(self, instances: int) -> int:
        if TOGETHER * instances > MOST:
            return FEW  # of so many instances, the readings are each alone in any batch
        return max(self._few, TOGETHER * instances)
