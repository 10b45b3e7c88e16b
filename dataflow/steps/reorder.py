"""Readings of one instance, put back into the order of their indexes.

For producers that cannot key by instance: its readings lie on several partitions, each in order,
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
    """The order of one instance: index 0 first, then always the next.

    A reading whose index is not the next one is held until those before it are out, or until more
    than `size` are held, or until it has been held for `seconds`; then the smallest held goes on,
    and what lies between is given up. A reading below the next index is late, and passes as it
    comes; so does one whose index is no whole number from 0. Nothing is dropped or repeated.

    A counter that begins anew below the next index is late until it has caught up: it is not put
    into order. Waiting is counted anew after `load`: the time that a flow stood still is not the
    producer's.

    >>> def reading(index: int) -> Reading:
    ...     return Reading("host-a", "2024-03-01", index, 0.5, 1709251200.0, 0, index)
    >>> order = ReorderBuffer(size=2, seconds=30.0)
    >>> [[r.index for r in order.add(reading(index), 0.0)] for index in (0, 2, 1, 5, 4, 7, 3)]
    [[0], [], [1, 2], [], [], [4, 5], [3]]
    >>> [r.index for r in order.expire(30.0)]
    [7]
    """

    __slots__ = ("_held", "_next", "_number", "_oldest", "_seconds", "_size")

    def __init__(self, size: int, seconds: float) -> None:
        self._size = size
        self._seconds = seconds
        self._next = 0
        self._number = 0
        self._held: list[Held] = []
        # A lower bound of the times of arrival: the one that had it may be out already.
        self._oldest = 0.0

    def add(self, reading: Reading, now: float) -> list[Reading]:
        """Take a reading that arrives at `now` (seconds); return those that go on, in order."""
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
        return list(self._go_on()) if len(self._held) > self._size else []

    def due(self) -> float | None:
        """Return when to call `expire` next, None if nothing is held."""
        return self._oldest + self._seconds if self._held else None

    def expire(self, now: float) -> list[Reading]:
        """Return what goes on because it, or a later one, has been held for too long."""
        out: list[Reading] = []
        latest = now - self._seconds
        overdue = [index for index, _, arrived, _ in self._held if arrived <= latest]
        if overdue:
            last = max(overdue)
            while self._held and self._held[0][0] <= last:
                out += self._go_on()
        if self._held:
            self._oldest = min(arrived for _, _, arrived, _ in self._held)
        return out

    def finish(self) -> list[Reading]:
        """Return all that is held, in order: nothing more will come."""
        out: list[Reading] = []
        while self._held:
            out += self._go_on()
        return out

    def _go_on(self) -> Iterator[Reading]:
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
        """Return the next index and what is held, as bytes that name their version."""
        held = sorted(self._held)
        return _encode(_Saved(VERSION, self._next, [(index, kept) for index, _, _, kept in held]))

    def load(self, data: bytes, now: float) -> None:
        """Continue from `dump`'s bytes at `now`; ValueError if they are of another version."""
        try:
            saved = _decode(data)
        except msgspec.DecodeError:
            saved = None
        if saved is None or saved.version != VERSION:
            raise ValueError("These bytes are no order that this version has saved.")
        self._next = saved.next
        # Sorted as they are, they are a heap.
        self._held = [(index, at, now, kept) for at, (index, kept) in enumerate(saved.held)]
        self._number = len(self._held)
        self._oldest = now


def _whole(index: str | int | float) -> int | None:
    """Return an index as a whole number from 0, None if it is none."""
    if isinstance(index, int):
        return index if index >= 0 else None
    if isinstance(index, float) and index >= 0 and index.is_integer():
        return int(index)
    return None


Logic: TypeAlias = StatefulBatchLogic[list[Reading], list[Reading], bytes]


def reorderer(settings: Settings) -> Callable[[bytes | None], Logic]:
    """Return what makes the step's logic of an instance, from its last snapshot if there is one."""

    def build(saved: bytes | None) -> Logic:
        order = ReorderBuffer(settings.reorder_size, settings.reorder_seconds)
        if saved is not None:
            order.load(saved, time.time())
        return _Reorder(order)

    return build


class _Reorder(Logic):
    def __init__(self, order: ReorderBuffer) -> None:
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
        return _together([] if shutdown.asked() else self._order.finish())

    def notify_at(self) -> datetime | None:
        due = self._order.due()
        return None if due is None else datetime.fromtimestamp(due, UTC)

    def snapshot(self) -> bytes:
        return self._order.dump()


def _together(readings: list[Reading]) -> tuple[Iterable[list[Reading]], bool]:
    return [readings] if readings else [], Logic.RETAIN
