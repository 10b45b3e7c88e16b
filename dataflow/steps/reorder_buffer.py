"""The buffers that put the readings of one instance into order. Pure: times are arguments.

A reading whose index is a whole number is ordered by it: what comes next is known. Any other is
ordered by its time: what comes next follows from the usual step between two readings.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import TypeAlias

import msgspec

from dataflow.metrics import counters
from dataflow.records import Reading

__all__ = ["ReorderBuffer", "TimeOrder"]

VERSION = 1
WITH_TIMES = 2
"""Version of a buffer that holds readings by their times, which earlier programs cannot read."""

Held: TypeAlias = tuple[int, int, float, Reading]
"""Index, number of arrival, time of arrival, reading."""

HeldByTime: TypeAlias = tuple[float, int, float, Reading]
"""Time of the reading, number of arrival, time of arrival, reading."""

FIRST_STEPS = 8
"""Steps between readings that show the usual one."""

NEXT = 1.5
"""A reading within so many usual steps of the last one is the next: none lies between them."""


class _Saved(msgspec.Struct, array_like=True):
    """What comes after `held` is missing in stores of before; then it is not known."""

    version: int
    next: int
    held: list[tuple[int, Reading]]
    newest: float | None = None
    began: Restart | None = None
    times: _SavedTimes | None = None


class Restart(msgspec.Struct, array_like=True, frozen=True):
    """The first reading of a producer that has started again, and the newest time before it."""

    index: int
    time: float
    before: float


class _SavedTimes(msgspec.Struct, array_like=True):
    last: float | None
    step: float | None
    steps: int
    held: list[Reading]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Saved).decode


class ReorderBuffer:
    """The buffer of one instance: index 0 passes first, then always the next.

    A reading with a higher index is held until those before it have passed, more than `size`
    readings are held, or it has been held for `seconds`. Then the smallest held index passes, and
    the gap before it is given up. A reading below the next index is late and passes at once.
    Nothing is dropped or repeated.

    If a producer starts again, its indexes do too: a reading below the next index that is newer,
    by its time, than all before it. Then all that is held passes first, and index 0 is the next.

    If the indexes are not whole numbers from 0, or if `by_time`, readings are ordered by their
    times instead: see `TimeOrder`. A single one of this kind among whole numbers passes at once, as
    does a reading without a time. After `load`, waiting starts at 0 again: the time while the flow
    stood still does not count.

    >>> def reading(index: int, time: float = 0.0) -> Reading:
    ...     return Reading("host-a", time, index, 0.5, time, 0, index)
    >>> buffer = ReorderBuffer(size=2, seconds=30.0)
    >>> [[r.index for r in buffer.add(reading(index), 0.0)] for index in (0, 2, 1, 5, 4, 7, 3)]
    [[0], [], [1, 2], [], [], [4, 5], [3]]
    >>> [r.index for r in buffer.expire(30.0)]
    [7]
    >>> later = [reading(9, 300.0), reading(0, 600.0), reading(1, 900.0)]
    >>> [[r.index for r in buffer.add(each, 31.0)] for each in later]
    [[], [9, 0], [1]]
    """

    __slots__ = (
        "_began",
        "_by_time",
        "_held",
        "_newest",
        "_next",
        "_number",
        "_oldest",
        "_seconds",
        "_size",
        "_times",
    )

    def __init__(self, size: int, seconds: float, *, by_time: bool = False) -> None:
        self._size = size
        self._seconds = seconds
        self._by_time = by_time
        self._next = 0
        self._number = 0
        self._held: list[Held] = []
        # A lower bound of the arrival times of held readings: the oldest may have passed already.
        self._oldest = 0.0
        self._newest: float | None = None
        self._began: Restart | None = None
        self._times: TimeOrder | None = None

    def add(self, reading: Reading, now: float) -> list[Reading]:
        """Take a reading that arrives at `now` (seconds); return those that pass, in order."""
        index = None if self._by_time else _whole(reading.index)
        if index is None:
            return self._add_by_time(reading, now)
        time, newest = reading.time, self._newest
        if time is not None and (newest is None or time > newest):
            self._newest = time
        out: list[Reading] = []
        if self._began is not None and self._is_from_before(self._began, index, time):
            counters.REORDER_LATE.inc()
            return [reading]
        if index < self._next:
            if time is None or newest is None or time <= newest:
                counters.REORDER_LATE.inc()
                return [reading]
            out = self._restart(Restart(index, time, newest))
        if index == self._next:
            self._next += 1
            return [*out, reading, *self._run()] if self._held or out else [reading]
        if not self._held:
            self._oldest = now
            self._number = 0
        heappush(self._held, (index, self._number, now, reading))
        self._number += 1
        counters.REORDER_HELD.inc()
        return [*out, *self._pass_gap()] if len(self._held) > self._size else out

    @staticmethod
    def _is_from_before(restart: Restart, index: int, time: float | None) -> bool:
        # Since the restart, an earlier time has a smaller index.
        return time is not None and (
            time <= restart.before or (time < restart.time and index > restart.index)
        )

    def _restart(self, began: Restart) -> list[Reading]:
        counters.REORDER_RESTARTS.inc()
        out = [reading for *_, reading in sorted(self._held, key=lambda held: held[:2])]
        self._held = []
        self._began = began
        self._next = 0
        return out

    def _add_by_time(self, reading: Reading, now: float) -> list[Reading]:
        time = reading.time
        if time is None or self._next or self._held:
            return [reading]
        if self._times is None:
            self._times = TimeOrder(self._size, self._seconds)
        return self._times.add(reading, time, now)

    def due(self) -> float | None:
        """Return when to call `expire` next, in seconds; None if nothing is held."""
        due = self._oldest + self._seconds if self._held else None
        by_time = None if self._times is None else self._times.due()
        if due is None or by_time is None:
            return by_time if due is None else due
        return min(due, by_time)

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
        return out if self._times is None else [*out, *self._times.expire(now)]

    def finish(self) -> list[Reading]:
        """Return all held readings, in order, at the end of the input."""
        out: list[Reading] = []
        while self._held:
            out += self._pass_gap()
        return out if self._times is None else [*out, *self._times.finish()]

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
        held = [(index, kept) for index, _, _, kept in sorted(self._held, key=lambda one: one[:2])]
        if self._times is None:
            return _encode(_Saved(VERSION, self._next, held, self._newest, self._began))
        times = self._times.save()
        return _encode(_Saved(WITH_TIMES, self._next, held, self._newest, self._began, times))

    def load(self, data: bytes, now: float) -> None:
        """Continue from the bytes of `dump` at `now`.

        Raises `ValueError` if this version cannot read them.
        """
        try:
            saved = _decode(data)
        except msgspec.DecodeError:
            saved = None
        by_time = saved is not None and saved.times is not None
        if saved is None or saved.version != (WITH_TIMES if by_time else VERSION):
            raise ValueError("a reorder buffer was saved by another version")
        self._next = saved.next
        # A sorted list is a heap.
        self._held = [(index, at, now, kept) for at, (index, kept) in enumerate(saved.held)]
        self._number = len(self._held)
        self._oldest = now
        self._newest, self._began = saved.newest, saved.began
        if saved.times is not None:
            self._times = TimeOrder(self._size, self._seconds)
            self._times.load(saved.times, now)


def _whole(index: str | int | float | None) -> int | None:
    """Return an index that is a whole number from 0, else None."""
    if isinstance(index, int):
        return index if index >= 0 else None
    if isinstance(index, float) and index >= 0 and index.is_integer():
        return int(index)
    return None


class TimeOrder:
    """Orders the readings of one instance by their times, in seconds.

    A reading passes at once if it is within one and a half usual steps of the last that passed, for
    then none lies between them. Any other is held until those before it have passed, more than
    `size` readings are held, or it has been held for `seconds`. The usual step is the smallest of
    those seen; until a few of them are known, nothing is the next. A reading that is older than one
    that has passed is late and passes at once. Nothing is dropped or repeated.

    >>> order = TimeOrder(size=8, seconds=30.0)
    >>> def add(minute: int) -> list[int]:
    ...     reading = Reading("host-a", None, "", 0.5, 60.0 * minute, 0, minute)
    ...     return [passed.offset for passed in order.add(reading, 60.0 * minute, 0.0)]
    >>> [add(minute) for minute in (1, 0, 2, 3, 6, 5, 4, 7, 8)]
    [[], [], [], [], [], [], [], [], [0, 1, 2, 3, 4, 5, 6, 7, 8]]
    >>> [add(minute) for minute in (10, 9, 11, 3)]
    [[], [9, 10], [11], [3]]
    """

    __slots__ = ("_held", "_last", "_number", "_seconds", "_size", "_step", "_steps")

    def __init__(self, size: int, seconds: float) -> None:
        self._size = size
        self._seconds = seconds
        self._held: list[HeldByTime] = []
        self._number = 0
        self._last: float | None = None
        self._step: float | None = None
        self._steps = 0

    def add(self, reading: Reading, time: float, now: float) -> list[Reading]:
        """Take a reading of this time that arrives at `now`; return those that pass, in order."""
        last = self._last
        if last is not None and time <= last:
            if time < last:
                counters.REORDER_LATE.inc()
                self._measure(last - time)
            return [reading]
        if self._is_next(time) and not (self._held and self._held[0][0] < time):
            return [self._passed(time, reading), *self._run()]
        heappush(self._held, (time, self._number, now, reading))
        self._number += 1
        counters.REORDER_HELD.inc()
        return self._pass_first() if len(self._held) > self._size else []

    def _is_next(self, time: float) -> bool:
        return (
            self._last is not None
            and self._step is not None
            and self._steps >= FIRST_STEPS
            and time - self._last <= NEXT * self._step
        )

    def _measure(self, step: float) -> None:
        self._steps += 1
        if self._step is None or step < self._step:
            self._step = step

    def _measure_held(self) -> None:
        """Learn the step from what is held, if that is enough for it."""
        times = sorted({time for time, *_ in self._held})
        if len(times) > FIRST_STEPS:
            for one, other in pairwise(times):
                self._measure(other - one)

    def _passed(self, time: float, reading: Reading) -> Reading:
        if self._last is not None and time > self._last:
            self._measure(time - self._last)
        self._last = time
        return reading

    def _pass_first(self) -> list[Reading]:
        if self._steps < FIRST_STEPS:
            self._measure_held()
        time, _, _, reading = heappop(self._held)
        return [self._passed(time, reading), *self._run()]

    def _run(self) -> Iterator[Reading]:
        held = self._held
        while held and (held[0][0] == self._last or self._is_next(held[0][0])):
            time, _, _, reading = heappop(held)
            yield self._passed(time, reading)

    def due(self) -> float | None:
        """Return when to call `expire` next, in seconds; None if nothing is held."""
        if not self._held:
            return None
        return min(arrived for _, _, arrived, _ in self._held) + self._seconds

    def expire(self, now: float) -> list[Reading]:
        """Return the readings that pass because they, or later ones, were held too long."""
        latest = now - self._seconds
        last = max((time for time, _, arrived, _ in self._held if arrived <= latest), default=None)
        out: list[Reading] = []
        while last is not None and self._held and self._held[0][0] <= last:
            out += self._pass_first()
        return out

    def finish(self) -> list[Reading]:
        """Return all held readings, in order, at the end of the input."""
        out: list[Reading] = []
        while self._held:
            out += self._pass_first()
        return out

    def save(self) -> _SavedTimes:
        """Return the state, for `load`."""
        held = [reading for *_, reading in sorted(self._held, key=lambda one: one[:2])]
        return _SavedTimes(self._last, self._step, self._steps, held)

    def load(self, saved: _SavedTimes, now: float) -> None:
        """Continue from a saved state at `now`."""
        self._last, self._step, self._steps = saved.last, saved.step, saved.steps
        self._held = [
            (reading.time or 0.0, number, now, reading) for number, reading in enumerate(saved.held)
        ]
        heapify(self._held)
        self._number = len(self._held)
