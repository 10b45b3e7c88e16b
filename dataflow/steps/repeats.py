"""Tells news from repeats by the time of a reading, and makes shares of counters.

Producers send again what they are not sure of, and CloudWatch corrects what it has sent. Where
readings have an index, that tells them apart; where they have none, their time does. A repeated
reading would teach the detector that nothing changes.

Counters of idle seconds become the share in use between two times. Where each CPU comes in a record
of its own, those of a time are complete when the next time begins.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from copy import copy

import msgspec

from dataflow.formats.base import DIGITS
from dataflow.metrics import counters
from dataflow.records import Reading

__all__ = ["Times", "in_order"]

KEPT = 32
"""Times of an instance that are remembered: the newest."""

HELD = 40
"""Times that are held before the oldest are dropped: a list of over `KEPT` has room for so many."""

CPUS = 4096
"""CPUs of an instance, at most."""

TOGETHER = 1.0
"""Seconds within which the CPUs of one time come: collectd gives each a time of its own."""

BEGINS = b"\xc1times"
"""How a state with times begins: no detector's state does, for MessagePack has no such byte."""


Cpus = dict[str, tuple[float, float]]
"""By the name of a CPU: a time, and the seconds that it was idle until then."""


class _Open(msgspec.Struct, array_like=True, gc=False):
    """A time of which not all CPUs may have come: its first reading, and the CPUs so far."""

    reading: Reading
    cpus: Cpus


class _Saved(msgspec.Struct, array_like=True):
    kept: list[float]
    counter: tuple[float, float, float] | None
    cpus: Cpus
    open: _Open | None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Saved).decode


class Times:
    """The newest times of an instance, in seconds, and its last counters.

    >>> times = Times()
    >>> [times.add(time) for time in (60.0, 180.0, 120.0, 180.0)]
    [True, True, True, False]
    >>> def reading(time: float, idle: float, total: float) -> Reading:
    ...     return Reading("i-1", time, None, 1.0, time, 0, 0, counter=(idle, total))
    >>> times, later = Times(), reading(120.0, 30.0, 80.0)
    >>> times.take(reading(60.0, 20.0, 40.0)), times.take(later).value
    (None, 0.75)
    """

    __slots__ = ("_counter", "_cpus", "_kept", "_open")

    def __init__(self) -> None:
        self._kept: list[float] = []
        # Time, idle seconds and all seconds.
        self._counter: tuple[float, float, float] | None = None
        # Of the last time that is complete, and the one that is not.
        self._cpus: Cpus = {}
        self._open: _Open | None = None

    def take(self, reading: Reading) -> Reading | None:
        """Return the reading that is to be scored now, None if there is none.

        None for a repeat, which is counted, and for a counter without one before it. A counter of
        one CPU of many gives the reading of the time before its own.
        """
        if reading.part is not None and reading.counter is not None:
            return self._part(reading, reading.part, reading.counter[0])
        if reading.time is not None and not self.add(reading.time):
            counters.REPEATS.inc()
            return None
        if reading.counter is None:
            if self._open is not None:  # what is measured counts, not what could be computed
                self._open, self._cpus = None, {}
            return reading
        return self._share(reading, *reading.counter)

    def news(self, readings: list[Reading]) -> list[Reading]:
        """Return those of an instance's readings that are to be scored now: see `take`.

        Readings with an index are among them as they are.
        """
        kept = self._kept
        last = kept[-1] if kept else -math.inf
        usual = 0
        if self._open is None:
            for reading in readings:
                time = reading.time
                if time is None or not time > last:
                    break
                if reading.counter is not None or reading.index is not None:
                    break
                kept.append(time)
                last = time
                usual += 1
            if len(kept) > HELD:
                del kept[:-KEPT]
            if usual == len(readings):
                return readings
        others = (one if one.index is not None else self.take(one) for one in readings[usual:])
        return [*readings[:usual], *(one for one in others if one is not None)]

    def _share(self, reading: Reading, idle: float, total: float) -> Reading | None:
        before, time = self._counter, reading.time or 0.0
        if before is not None and time <= before[0]:
            return None  # what comes late says nothing about the time before it
        self._counter = time, idle, total
        if before is None or not total > before[2] or idle < before[1]:
            return None  # the first one, or the host has started again
        return _in_use(reading, (idle - before[1]) / (total - before[2]))

    def _part(self, reading: Reading, cpu: str, idle: float) -> Reading | None:
        if self._kept:
            return None  # the instance has readings that need no computing
        time, found = reading.time or 0.0, self._open
        if found is not None:
            begun = found.reading.time or 0.0
            if cpu not in found.cpus and abs(time - begun) < TOGETHER and len(found.cpus) < CPUS:
                found.cpus[cpu] = time, idle
                return None
            if time <= max(begun, found.cpus.get(cpu, (begun,))[0]):
                counters.REPEATS.inc()
                return None
        self._open = _Open(reading, {cpu: (time, idle)})
        if found is None:
            return None
        before, self._cpus = self._cpus, found.cpus
        if not before or not before.keys() <= found.cpus.keys():
            return None  # the first time, or not all CPUs have come
        shares = []
        for name, (earlier, seconds) in before.items():
            later, more = found.cpus[name]
            if more < seconds or later <= earlier:
                return None  # the host has started again
            shares.append((more - seconds) / (later - earlier))
        return _in_use(found.reading, sum(shares) / len(shares))

    def add(self, time: float) -> bool:
        """Note a reading's time; return whether it is news.

        It is not if there was one of this time, or if it is older than all that are remembered:
        whether there was one then is not known any more.
        """
        times = self._kept
        if not times or time > times[-1]:
            times.append(time)
            if len(times) > HELD:
                del times[:-KEPT]
            return True
        del times[:-KEPT]
        place = bisect_left(times, time)
        if times[place] == time or (not place and len(times) == KEPT):
            return False
        times.insert(place, time)
        return True

    def save(self) -> bytes:
        """Return all as bytes, for `restore`."""
        return _encode(_Saved(self._kept[-KEPT:], self._counter, self._cpus, self._open))

    @classmethod
    def restore(cls, data: bytes) -> Times:
        """Return what `save` has saved. Raises `ValueError` if this version cannot read it."""
        try:
            saved = _decode(data)
        except msgspec.DecodeError as error:
            raise ValueError(f"the times of an instance: {error}") from None
        times = cls()
        times._kept, times._counter = saved.kept, saved.counter
        times._cpus, times._open = saved.cpus, saved.open
        return times

    def dump(self, state: bytes) -> bytes:
        """Return a detector's state as bytes that hold these times too."""
        own = self.save()
        return BEGINS + len(own).to_bytes(4, "little") + own + state

    @classmethod
    def load(cls, data: bytes) -> tuple[Times | None, bytes]:
        """Return the times and the detector's state of some bytes; None if they hold no times.

        >>> times = Times()
        >>> times.add(120.0)
        True
        >>> again, state = Times.load(times.dump(b"state"))
        >>> state, again is not None and again.add(120.0)
        (b'state', False)
        """
        if not data.startswith(BEGINS):
            return None, data
        begin = len(BEGINS) + 4
        end = begin + int.from_bytes(data[begin - 4 : begin], "little")
        return cls.restore(data[begin:end]), data[end:]


def _in_use(reading: Reading, idle: float) -> Reading:
    """Return a reading with the share in use that a share of idle time leaves, from 0 to 1.

    The given one stays as it is: `preview` scores it once more, with other settings.
    """
    found = copy(reading)
    found.value *= min(max(round(1.0 - idle, DIGITS), 0.0), 1.0)
    return found


def in_order(readings: list[Reading]) -> list[Reading]:
    """Return the readings of an instance with those of one record in the order of their times.

    CloudWatch puts newer readings before older ones. Across records, the order stays that of the
    topic: what is in a batch differs from run to run.

    >>> def reading(offset: int, time: float) -> Reading:
    ...     return Reading("i-1", time, None, 0.5, time, 0, offset)
    >>> batch = [reading(7, 120.0), reading(7, 60.0), reading(6, 30.0)]
    >>> [one.time for one in in_order(batch)]
    [60.0, 120.0, 30.0]
    """
    before = None
    for reading in readings:
        offset = reading.offset
        if offset == before:
            break
        before = offset
    else:
        return readings  # as a rule, each is of another record
    out: list[Reading] = []
    begin = 0
    for place in range(1, len(readings) + 1):
        if place == len(readings) or readings[place].offset != readings[begin].offset:
            part = readings[begin:place]
            if len(part) > 1:
                part.sort(key=lambda one: one.time or 0.0)
            out += part
            begin = place
    return out
