"""Which version of a control document applies to which reading, as `decode` passes it on."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from operator import attrgetter
from typing import Any, TypeVar

from dataflow.errors import UserError
from dataflow.records import Raw
from dataflow.recovery.places import Places, are_kept
from dataflow.recovery.store import Store
from dataflow.settings import Settings

__all__ = ["marked", "places", "refreshed"]

T = TypeVar("T")

_partition = attrgetter("partition")


def places(
    settings: Settings, store: Store | None, ends: Callable[[int], int] | None
) -> Places | None:
    """Return the log of places; None if no control document is set, or was set before.

    `ends` returns, by partition, the first offset that was not yet written at the start; None if
    the input is no topic.

    Raises `UserError` if the log cannot be used, or if it cannot be known what was read of a file.
    """
    kept = are_kept(store)
    if not (settings.rules or settings.verdicts or kept):
        return None
    if store is not None and store.resumed and not kept and ends is None:
        name = "ANOMALY_RULES" if settings.rules else "ANOMALY_VERDICTS"
        raise UserError(
            f"{name} is set, and the recovery store was made without it, when a part of the file "
            "was read: leave it out, or start with a new store."
        )
    return Places(store, ends)


def marked(
    decode: Callable[[list[Raw]], list[T]], places: Places | None
) -> Callable[[list[Raw]], list[T]]:
    """Return the step `decode` that first writes which versions apply to its readings."""
    if places is None:
        return decode
    reach = places.reach

    def reach_and_decode(batch: list[Raw]) -> list[T]:
        # Bytewax may put batches of several partitions together.
        for partition, raws in groupby(batch, _partition):
            read = list(raws)
            reach(partition, read[0].offset, read[-1].offset)
        return decode(batch)

    return reach_and_decode


def refreshed(
    step: Callable[[list[Any]], list[T]], places: Places | None
) -> Callable[[list[Any]], list[T]]:
    """Return a step that first reads which versions other processes have let apply."""
    if places is None:
        return step
    refresh = places.refresh

    def refresh_and_take(batch: list[Any]) -> list[T]:
        refresh()
        return step(batch)

    return refresh_and_take
