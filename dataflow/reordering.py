"""The step `reorder`: one `Order` an instance, between the partitions and the detector."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TypeAlias

from bytewax.operators import StatefulBatchLogic

from dataflow import stopping
from dataflow.order import Counts, Order
from dataflow.records import Reading
from dataflow.settings import Settings

__all__ = ["COUNTS", "reorderer"]

COUNTS = Counts()
"""What this process has held, given up and found late, exactly: see `dataflow.admission`."""


Logic: TypeAlias = StatefulBatchLogic[list[Reading], list[Reading], bytes]


def reorderer(settings: Settings) -> Callable[[bytes | None], Logic]:
    """Return what makes the step's logic of an instance, from its last snapshot if there is one."""

    def build(saved: bytes | None) -> Logic:
        order = Order(settings.reorder_size, settings.reorder_seconds, COUNTS)
        if saved is not None:
            order.load(saved, time.time())
        return _Reorder(order)

    return build


class _Reorder(Logic):
    def __init__(self, order: Order) -> None:
        self._order = order

    def on_batch(self, values: list[list[Reading]]) -> tuple[Iterable[list[Reading]], bool]:
        now = time.time()
        add = self._order.add
        return _together([out for each in values for one in each for out in add(one, now)])

    def on_notify(self) -> tuple[Iterable[list[Reading]], bool]:
        # Bytewax also calls this at a time that was once asked for and is no longer.
        return _together(self._order.expire(time.time()))

    def on_eof(self) -> tuple[Iterable[list[Reading]], bool]:
        # A flow that is stopped will be resumed, and those before may come then.
        return _together([] if stopping.asked() else self._order.finish())

    def notify_at(self) -> datetime | None:
        due = self._order.due()
        return None if due is None else datetime.fromtimestamp(due, UTC)

    def snapshot(self) -> bytes:
        return self._order.dump()


def _together(readings: list[Reading]) -> tuple[Iterable[list[Reading]], bool]:
    return [readings] if readings else [], Logic.RETAIN
