"""In which partitions of the input the running epoch is new.

Bytewax has an epoch for each partition, and does not say when one ends. It asks the partition for
its snapshot then.
"""

from __future__ import annotations

from collections import Counter

__all__ = ["begins", "end", "ended"]

_begun: set[int] = set()
"""Partitions whose running epoch has had a batch."""

_ended: Counter[int] = Counter()
"""How many epochs of each partition have ended."""


def end(partition: int) -> None:
    """Note that the epoch of a partition ends: Bytewax takes its snapshot."""
    _begun.discard(partition)
    _ended[partition] += 1


def ended(partition: int) -> int:
    """Return how many epochs of a partition have ended in this process."""
    return _ended[partition]


def begins(partition: int) -> bool:
    """Return whether this is the first call in the running epoch of the partition."""
    if partition in _begun:
        return False
    _begun.add(partition)
    return True
