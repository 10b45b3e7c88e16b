"""In which partitions of the input the running epoch is new.

Bytewax has an epoch for each partition, and does not say when one ends. It asks the partition for
its snapshot then.
"""

from __future__ import annotations

__all__ = ["begins", "end"]

_begun: set[int] = set()
"""Partitions whose running epoch has had a batch."""


def end(partition: int) -> None:
    """Note that the epoch of a partition ends: Bytewax takes its snapshot."""
    _begun.discard(partition)


def begins(partition: int) -> bool:
    """Return whether this is the first call in the running epoch of the partition."""
    if partition in _begun:
        return False
    _begun.add(partition)
    return True
