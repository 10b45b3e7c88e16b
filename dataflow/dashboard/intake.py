"""Decodes, checks, orders and normalizes raw records, as the flow does before it scores them."""

from __future__ import annotations

import time
from collections.abc import Iterator

from msgspec.structs import replace

from dataflow.records import Anomaly, Raw, Reading, key_of
from dataflow.settings import Settings
from dataflow.steps import admit
from dataflow.steps.decode import decoder, is_reading
from dataflow.steps.normalize import normalizer
from dataflow.steps.reorder_buffer import ReorderBuffer
from dataflow.steps.repeats import Times, in_order

__all__ = ["Intake", "row_name"]


class Intake:
    """The steps of the flow before `score`, without Bytewax."""

    def __init__(self, settings: Settings) -> None:
        self.rejected = 0
        self._admit = admit.admitter(settings, decoder(settings))
        self._scale = normalizer(settings.scale, several=settings.several_metrics)
        self._settings = settings
        self._buffers: dict[str, ReorderBuffer] = {}
        self._times: dict[str, Times] = {}

    def readings(self, raw: Raw) -> Iterator[Reading]:
        """Yield the readings that a record releases: none if it is rejected or held."""
        records = self._admit([raw])
        readings = [record for record in records if is_reading(record)]
        self.rejected += len(records) - len(readings)
        if readings and readings[-1].index is None:
            readings = in_order(readings)
        for reading in readings:
            yield from self._ordered(reading)

    def _ordered(self, record: Reading) -> Iterator[Reading]:
        if record.index is None:
            times = self._times.setdefault(key_of(record), Times())
            news = times.take(record)
            if news is None:
                return
            record = news
        if not self._settings.reorder:
            yield self._normalize(record)
            return
        key = key_of(record)
        buffer = self._buffers.get(key)
        if buffer is None:
            buffer = self._buffers[key] = ReorderBuffer(
                self._settings.reorder_size,
                self._settings.reorder_seconds,
                by_time=self._settings.ordered_by_time,
            )
        yield from map(self._normalize, buffer.add(record, time.monotonic()))

    def _normalize(self, reading: Reading) -> Reading:
        self._scale([(reading.instance, [reading])])
        return reading

    def named(self, anomaly: Anomaly) -> Anomaly:
        """Return an anomaly with the name of the row of its metric."""
        settings = self._settings
        if not settings.several_metrics or anomaly.metric == settings.default_metric:
            return anomaly
        return replace(anomaly, instance=row_name(anomaly.instance, anomaly.metric))

    def overdue(self) -> Iterator[Reading]:
        """Yield the readings whose wait for earlier ones has timed out."""
        now = time.monotonic()
        for buffer in self._buffers.values():
            due = buffer.due()
            if due is not None and due <= now:
                yield from map(self._normalize, buffer.expire(now))

    def rest(self) -> Iterator[Reading]:
        """Yield all readings that are still held: the input has ended."""
        for buffer in self._buffers.values():
            yield from map(self._normalize, buffer.finish())


def row_name(instance: str, metric: str | None) -> str:
    """Return what the page calls a metric of an instance: it has a row for each.

    >>> row_name("web-1", None), row_name("web-1", "load")
    ('web-1', 'web-1 load')
    """
    return instance if metric is None else f"{instance} {metric}"
