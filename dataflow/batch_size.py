"""How many records to take at a time from a backlog."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["BatchSize"]

FEW = 300
"""Records at a time, usually: more leave the processor's cache before the next step."""

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

    >>> size = BatchSize()
    >>> size.look([b"i-%d" % (number % 500) for number in range(10_000)])
    >>> size.records, size.sampling
    (2000, False)
    """

    __slots__ = ("_instances", "_looked", "records", "sampling")

    def __init__(self) -> None:
        self.records = FEW
        self.sampling = True
        """Whether more keys are to be looked at."""
        self._looked = 0
        self._instances: set[bytes | str | None] = set()

    def look(self, keys: Iterable[bytes | str | None]) -> None:
        """Note the keys of records, for their instances: nothing but speed depends on them."""
        noted = list(keys)
        self._looked += len(noted)
        self._instances.update(noted)
        if self._looked >= SAMPLE:
            wanted = TOGETHER * len(self._instances)
            # Of very many instances, the readings are each alone in any batch.
            self.records = max(FEW, wanted) if wanted <= MOST else FEW
            self.sampling = False
            self._instances.clear()
