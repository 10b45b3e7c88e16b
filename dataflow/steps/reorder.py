"""The step `reorder`: puts the readings of each instance back into their order.

For producers that cannot key by instance: its readings are on several partitions, in order on each,
and arrive out of order between them. A detector's scores depend on the order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TypeAlias

from bytewax.operators import StatefulBatchLogic

from dataflow.errors import stop_process
from dataflow.records import Reading
from dataflow.runtime import shutdown
from dataflow.settings import Settings
from dataflow.steps.reorder_buffer import ReorderBuffer

__all__ = ["reorderer"]

Logic: TypeAlias = StatefulBatchLogic[list[Reading], list[Reading], bytes]


def reorderer(settings: Settings) -> Callable[[bytes | None], Logic]:
    """Return the builder of the step's logic: for a new instance, or from its last snapshot."""

    def empty() -> ReorderBuffer:
        return ReorderBuffer(
            settings.reorder_size, settings.reorder_seconds, by_time=settings.ordered_by_time
        )

    def build(saved: bytes | None) -> Logic:
        logic = _Reorder(empty)
        if saved is not None:
            try:
                logic.buffer.load(saved, time.time())
            except ValueError as error:
                stop_process(
                    f"the recovery store cannot be read ({error}): resume with that version, or "
                    "start with a new store."
                )
        return logic

    return build


class _Reorder(Logic):
    def __init__(self, empty: Callable[[], ReorderBuffer]) -> None:
        self._empty = empty
        self.buffer = empty()

    def on_batch(self, values: list[list[Reading]]) -> tuple[Iterable[list[Reading]], bool]:
        now = time.time()
        batches: list[list[Reading]] = []
        passed: list[Reading] = []
        for readings in values:
            if readings:
                add = self.buffer.add
                passed += [out for one in readings for out in add(one, now)]
            else:
                # The instance is forgotten, which the next steps must know too.
                batches += [*_as_batch(passed + self.buffer.finish()), []]
                passed = []
                self.buffer = self._empty()
        return batches + _as_batch(passed), not values[-1]

    def on_notify(self) -> tuple[Iterable[list[Reading]], bool]:
        # Bytewax also calls this at times that were asked for before and no longer apply.
        return _as_batch(self.buffer.expire(time.time())), self.RETAIN

    def on_eof(self) -> tuple[Iterable[list[Reading]], bool]:
        # A stopped flow will be resumed, and the missing readings may come then.
        held = [] if shutdown.asked() else self.buffer.finish()
        return _as_batch(held), self.RETAIN

    def notify_at(self) -> datetime | None:
        due = self.buffer.due()
        return None if due is None else datetime.fromtimestamp(due, UTC)

    def snapshot(self) -> bytes:
        return self.buffer.dump()


def _as_batch(readings: list[Reading]) -> list[list[Reading]]:
    return [readings] if readings else []
