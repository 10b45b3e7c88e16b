"""In which partitions of the input the running epoch is new.

Bytewax has an epoch for each partition, and does not say when one ends. It asks the partition for
its snapshot then.
"""

from __future__ import annotations

from collections import defaultdict, deque

__all__ = ["begins", "end", "of"]

KEPT = 100
"""Ends of epochs to keep of each partition: records are decoded soon after they are read."""

_begun: set[int] = set()
"""Partitions whose running epoch has had a batch."""

_ends: defaultdict[int, deque[int]] = defaultdict(lambda: deque(maxlen=KEPT))
"""By partition, the offsets with which its last epochs ended, those that `of` has not passed."""

_passed: defaultdict[int, int] = defaultdict(int)
"""By partition, how many ends `of` has passed."""


def end(partition: int, offset: int) -> None:
    """Note that the epoch of a partition ends before an offset: Bytewax takes its snapshot."""
    _begun.discard(partition)
    ends = _ends[partition]
    if ends and offset < ends[-1]:  # it is read again
        ends.clear()
    if not ends or ends[-1] != offset:
        ends.append(offset)


def of(partition: int, offset: int) -> int:
    """Return a number of the epoch in which the record at an offset was read.

    It rises from epoch to epoch with records, within this process, as the offsets of a partition
    do. Where an epoch ends with a batch, Bytewax takes the snapshot before it passes the batch on,
    so the running epoch does not say which one a batch is of.
    """
    ends = _ends[partition]
    while ends and ends[0] <= offset:
        ends.popleft()
        _passed[partition] += 1
    return _passed[partition]


def begins(partition: int) -> bool:
    """Return whether this is the first call in the running epoch of the partition."""
    if partition in _begun:
        return False
    _begun.add(partition)
    return True
