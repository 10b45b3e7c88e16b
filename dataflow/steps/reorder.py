"""The step `reorder`: puts the readings of each instance back into the order of their indexes.

For producers that cannot key by instance: its readings are on several partitions, in order on each,
and arrive out of order between them. A detector's scores depend on the order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from heapq import heappop, heappush
from typing import TypeAlias

import msgspec
from bytewax.operators import StatefulBatchLogic

from dataflow.errors import stop_process
from dataflow.metrics import counters
from dataflow.records import Reading
from dataflow.runtime import shutdown
from dataflow.settings import Settings

__all__ = ["ReorderBuffer", "reorderer"]

VERSION = 1

Held: TypeAlias = tuple[int, int, float, Reading]
"""Index, number of arrival, time of arrival, reading."""


class _Saved(msgspec.Struct, array_like=True):
    version: int
    next: int
    held: list[tuple[int, Reading]]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Saved).decode


class ReorderBuffer:
    """The buffer of one instance: index 0 passes first, then always the next.

    A reading with a higher index is held until those before it have passed, more than `size`
    readings are held, or it has been held for `seconds`. Then the smallest held index passes, and
    the gap before it is given up. A reading below the next index is late and passes at once; so
    does one whose index is not a whole number from 0. Nothing is dropped or repeated.

    If a producer's counter restarts below the next index, its readings are late, so not reordered,
    until the counter has caught up. After `load`, waiting starts at 0 again: the time while the
    flow stood still does not count.

    >>> def reading(index: int) -> Reading:
    ...     return Reading("host-a", "2024-03-01", index, 0.5, 1709251200.0, 0, index)
    >>> buffer = ReorderBuffer(size=2, seconds=30.0)
    >>> [[r.index for r in buffer.add(reading(index), 0.0)] for index in (0, 2, 1, 5, 4, 7, 3)]
    [[0], [], [1, 2], [], [], [4, 5], [3]]
    >>> [r.index for r in buffer.expire(30.0)]
    [7]
    """

    __slots__ = ("_held", "_next", "_number", "_oldest", "_seconds", "_size")

    def __init__(self, size: int, seconds: float) -> None:
        self._size = size
        self._seconds = seconds
        self._next = 0
        self._number = 0
        self._held: list[Held] = []
        # A lower bound of the arrival times of held readings: the oldest may have passed already.
        self._oldest = 0.0

    def add(self, reading: Reading, now: float) -> list[Reading]:
        """Take a reading that arrives at `now` (seconds); return those that pass, in order."""
        index = _whole(reading.index)
        if index == self._next:
            self._next += 1
            return [reading, *self._run()] if self._held else [reading]
        if index is None:
            return [reading]
        if index < self._next:
            counters.REORDER_LATE.inc()
            return [reading]
        if not self._held:
            self._oldest = now
            self._number = 0
        heappush(self._held, (index, self._number, now, reading))
        self._number += 1
        counters.REORDER_HELD.inc()
        return list(self._pass_gap()) if len(self._held) > self._size else []

    def due(self) -> float | None:
        """Return when to call `expire` next, in seconds; None if nothing is held."""
        return self._oldest + self._seconds if self._held else None

    def expire(self, now: float) -> list[Reading]:
        """Return the readings that pass because they, or later ones, were held too long."""
        out: list[Reading] = []
        latest = now - self._seconds
        overdue = [index for index, _, arrived, _ in self._held if arrived <= latest]
        if overdue:
            last = max(overdue)
            while self._held and self._held[0][0] <= last:
                out += self._pass_gap()
        if self._held:
            self._oldest = min(arrived for _, _, arrived, _ in self._held)
        return out

    def finish(self) -> list[Reading]:
        """Return all held readings, in order, at the end of the input."""
        out: list[Reading] = []
        while self._held:
            out += self._pass_gap()
        return out

    def _pass_gap(self) -> Iterator[Reading]:
        counters.REORDER_GAPS_GIVEN_UP.inc()
        self._next = self._held[0][0]
        return self._run()

    def _run(self) -> Iterator[Reading]:
        held = self._held
        while held and held[0][0] <= self._next:
            index, _, _, reading = heappop(held)
            self._next = index + 1
            yield reading

    def dump(self) -> bytes:
        """Return the state as bytes, with their version."""
        held = sorted(self._held)
        return _encode(_Saved(VERSION, self._next, [(index, kept) for index, _, _, kept in held]))

    def load(self, data: bytes, now: float) -> None:
        """Continue from the bytes of `dump` at `now`.

        Raises `ValueError` if this version cannot read them.
        """
        try:
            saved = _decode(data)
        except msgspec.DecodeError:
            saved = None
        if saved is None or saved.version != VERSION:
            raise ValueError("a reorder buffer was saved by another version")
        self._next = saved.next
        # A sorted list is a heap.
        self._held = [(index, at, now, kept) for at, (index, kept) in enumerate(saved.held)]
        self._number = len(self._held)
        self._oldest = now


def _whole(index: str | int | float) -> int | None:
    """Return an index that is a whole number from 0, else None."""
    if isinstance(index, int):
        return index if index >= 0 else None
    if isinstance(index, float) and index >= 0 and index.is_integer():
        return int(index)
    return None


Logic: TypeAlias = StatefulBatchLogic[list[Reading], list[Reading], bytes]


def reorderer(settings: Settings) -> Callable[[bytes | None], Logic]:
    """Return the builder of the step's logic: for a new instance, or from its last snapshot."""

    def build(saved: bytes | None) -> Logic:
        buffer = ReorderBuffer(settings.reorder_size, settings.reorder_seconds)
        if saved is not None:
            try:
                buffer.load(saved, time.time())
            except ValueError as error:
                stop_process(
                    f"the recovery store cannot be read ({error}): resume with that version, or "
                    "start with a new store."
                )
        return _Reorder(buffer)

    return build


class _Reorder(Logic):
    def __init__(self, buffer: ReorderBuffer) -> None:
        self._buffer = buffer

    def on_batch(self, values: list[list[Reading]]) -> tuple[Iterable[list[Reading]], bool]:
        now = time.time()
        add = self._buffer.add
        return _as_batch([out for each in values for one in each for out in add(one, now)])

    def on_notify(self) -> tuple[Iterable[list[Reading]], bool]:
        # Bytewax also calls this at times that were asked for before and no longer apply.
        return _as_batch(self._buffer.expire(time.time()))

    def on_eof(self) -> tuple[Iterable[list[Reading]], bool]:
        # A stopped flow will be resumed, and the missing readings may come then.
        return _as_batch([] if shutdown.asked() else self._buffer.finish())

    def notify_at(self) -> datetime | None:
        due = self._buffer.due()
        return None if due is None else datetime.fromtimestamp(due, UTC)

    def snapshot(self) -> bytes:
        return self._buffer.dump()


def _as_batch(readings: list[Reading]) -> tuple[Iterable[list[Reading]], bool]:
    return [readings] if readings else [], Logic.RETAIN
