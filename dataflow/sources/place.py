"""Decides at which offset a partition is read on, when the broker no longer has the saved one."""

from __future__ import annotations

from dataclasses import dataclass

from dataflow.kafka.reading import Range

__all__ = ["Place", "place"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a partition is read on, and what is wrong with it."""

    offset: int
    """The next offset to read."""
    lost: int = 0
    """Number of offsets that were not read and are gone."""
    problem: str | None = None
    """Why the partition cannot be read on at the saved offset; None if it can."""


def place(saved: int, held: Range) -> Place:
    """Return where to read on, given the saved offset and the offsets that the partition holds.

    A saved offset below 0 says that nothing was read and no offset was known.

    >>> place(547, (547, 547))
    Place(offset=547, lost=0, problem=None)
    >>> place(500, (547, 560)).lost
    47
    """
    first, end = held
    if saved < 0:
        return Place(first)
    if saved < first:
        problem = f"retention deleted unread records, the offsets {saved} to {first - 1}"
        return Place(first, first - saved, problem)
    if saved > end:
        return Place(end, 0, f"the broker lost the offsets {end} to {saved - 1}, which were read")
    return Place(saved)
