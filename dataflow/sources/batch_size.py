"""Chooses the number of records in a batch while the flow catches up with a topic."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["BatchSize"]

FEW = 300
"""Usual batch size in records: larger batches leave the CPU cache before the next step."""

FEW_OF_SEVERAL = 1_000
"""Usual batch size where the flow has several workers, which exchange items once per batch."""

MOST = 10_000
"""Largest batch size in records."""

TOGETHER = 4
"""Readings that an instance should have in a batch.

They pass the steps together, and an instance costs more than a reading.
"""

SAMPLE = 10_000
"""Number of records at the start of a partition whose instances are counted."""


class BatchSize:
    """The batch size of a partition: enough records for `TOGETHER` readings of each instance.

    Where that is more than `MOST`, a batch is small. Only speed depends on it.

    >>> size = BatchSize(several=False)
    >>> size.look([b"i-%d" % (number % 500) for number in range(10_000)])
    >>> size.records, size.sampling
    (2000, False)
    """

    __slots__ = ("_few", "_instances", "_sampled", "records", "sampling")

    def __init__(self, *, several: bool) -> None:
        """Start to count; `several` says whether the flow has several workers."""
        self.records = FEW
        self.sampling = True
        """Whether `look` needs the keys of more records."""
        self._few = FEW_OF_SEVERAL if several else FEW
        self._sampled = 0
        self._instances: set[bytes | str | None] = set()

    def look(self, keys: Iterable[bytes | str | None]) -> None:
        """Count the instances in the keys of records."""
        batch = list(keys)
        self._sampled += len(batch)
        self._instances.update(batch)
        if self._sampled >= SAMPLE:
            self.records = self._wanted(len(self._instances))
            self.sampling = False
            self._instances.clear()

    def _wanted(self, instances: int) -> int:
        if TOGETHER * instances > MOST:
            return FEW  # with so many instances, no batch holds several readings of one
        return max(self._few, TOGETHER * instances)
