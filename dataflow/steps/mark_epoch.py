"""The step `mark_epoch`: writes a mark of each epoch to every file of the recovery store.

Bytewax resumes from the epoch that the files of the store agree on. Where one file is a copy from
some epochs before, it loads old states of some instances and new ones of the others. The marks show
that: each epoch with readings has one in every file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeGuard

import msgspec
from bytewax import operators as op
from bytewax.dataflow import Stream
from bytewax.operators import StatefulBatchLogic

from dataflow.records import Raw, Rejected
from dataflow.recovery.store import Store
from dataflow.runtime import epochs

__all__ = ["Mark", "marked", "take_marks"]


class Mark(msgspec.Struct, frozen=True, gc=False):
    """Its key decides to which file Bytewax writes it."""

    key: str


Decode = Callable[[list[Raw]], list[Any]]


def marked(decode: Decode, store: Store | None) -> Decode:
    """Return the step `decode` that adds marks to the first batch of each epoch.

    Without a recovery store, it is `decode` itself.
    """
    if store is None:
        return decode
    marks = [Mark(key) for key in store.epoch_marks()]

    def decode_and_mark(batch: list[Raw]) -> list[Any]:
        records = decode(batch)
        if batch and epochs.begins(batch[0].partition):
            return [*records, *marks]
        return records

    return decode_and_mark


def take_marks(others: Stream[Any], store: Store | None) -> Stream[Rejected]:
    """Return the rejected records among what `decode` returns beside readings; keep the marks."""
    if store is None:
        return others
    split = op.branch("check_mark", others, _is_mark)
    op.stateful_batch("mark_epoch", op.key_on("key_mark", split.trues, _key), lambda _: _Mark())
    return split.falses


def _is_mark(record: Rejected | Mark) -> TypeGuard[Mark]:
    return isinstance(record, Mark)


def _key(mark: Mark) -> str:
    return mark.key


class _Mark(StatefulBatchLogic[Mark, None, bool]):
    def on_batch(self, values: list[Mark]) -> tuple[list[None], bool]:
        return [], self.RETAIN

    def snapshot(self) -> bool:
        """Bytewax stores it with the epoch of the mark."""
        return True
