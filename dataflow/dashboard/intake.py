"""From raw records to readings as the flow scores them: decoded, bounded, in order, normalized."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dataflow.metrics import counters
from dataflow.records import Raw, Reading
from dataflow.settings import Settings
from dataflow.steps import admit
from dataflow.steps.decode import decoder, is_reading
from dataflow.steps.score import normalizer

if TYPE_CHECKING:
    from dataflow.steps.reorder import ReorderBuffer

__all__ = ["Intake"]


class Intake:
    """The steps of the flow before `score`, without Bytewax."""

    def __init__(self, settings: Settings) -> None:
        self.refused = 0
        self._admit = admit.admitter(settings, decoder(settings), counters.AdmissionCounts())
        self._scale = normalizer(settings.scale)
        self._settings = settings
        self._orders: dict[str, ReorderBuffer] = {}

    def readings(self, raw: Raw) -> Iterator[Reading]:
        """Yield what goes on because of a record: itself as a rule, nothing if it is refused."""
        (record,) = self._admit([raw])
        if not is_reading(record):
            self.refused += 1
            return
        if not self._settings.reorder:
            yield self._normalize(record)
            return
        order = self._orders.get(record.instance)
        if order is None:
            # Here, because this module needs Bytewax.
            from dataflow.steps.reorder import ReorderBuffer

            order = ReorderBuffer(self._settings.reorder_size, self._settings.reorder_seconds)
            self._orders[record.instance] = order
        yield from map(self._normalize, order.add(record, time.monotonic()))

    def _normalize(self, reading: Reading) -> Reading:
        self._scale([(reading.instance, [reading])])
        return reading

    def overdue(self) -> Iterator[Reading]:
        """Yield what was held for those before it, long enough."""
        now = time.monotonic()
        for order in self._orders.values():
            due = order.due()
            if due is not None and due <= now:
                yield from map(self._normalize, order.expire(now))

    def rest(self) -> Iterator[Reading]:
        """Yield all that is still held: the input has ended."""
        for order in self._orders.values():
            yield from map(self._normalize, order.finish())
