"""Tells news from repeats by the time of a reading, and makes shares of counters.

Producers send again what they are not sure of, and CloudWatch corrects what it has sent. Where
readings have an index, that tells them apart; where they have none, their time does. A repeated
reading would teach the detector that nothing changes.
"""

from __future__ import annotations

from bisect import bisect_left
from struct import pack, unpack_from

from dataflow.formats.base import DIGITS
from dataflow.metrics import counters
from dataflow.records import Reading

__all__ = ["Times", "in_order"]

KEPT = 32
"""Times of an instance that are remembered: the newest."""

BEGINS = b"\xc1times"
"""How a state with times begins: no detector's state does, for MessagePack has no such byte."""


class Times:
    """The newest times of an instance, in seconds, and its last counter.

    >>> times = Times()
    >>> [times.add(time) for time in (60.0, 180.0, 120.0, 180.0)]
    [True, True, True, False]
    >>> def reading(time: float, idle: float, total: float) -> Reading:
    ...     return Reading("i-1", time, None, 1.0, time, 0, 0, counter=(idle, total))
    >>> times, later = Times(), reading(120.0, 30.0, 80.0)
    >>> times.is_news(reading(60.0, 20.0, 40.0)), times.is_news(later), later.value
    (False, True, 0.75)
    """

    __slots__ = ("counter", "kept")

    def __init__(
        self, kept: list[float] | None = None, counter: tuple[float, ...] | None = None
    ) -> None:
        self.kept = kept or []
        # Time, idle seconds and all seconds.
        self.counter = counter

    def is_news(self, reading: Reading) -> bool:
        """Return whether a reading without an index is to be scored; count it if it is a repeat.

        A counter needs one before it: its share is then put into the reading.
        """
        if reading.time is not None and not self.add(reading.time):
            counters.REPEATS.inc()
            return False
        return reading.counter is None or self._share(reading, *reading.counter)

    def _share(self, reading: Reading, idle: float, total: float) -> bool:
        before, time = self.counter, reading.time or 0.0
        if before is not None and time <= before[0]:
            return False  # what comes late says nothing about the time before it
        self.counter = time, idle, total
        if before is None or not total > before[2] or idle < before[1]:
            return False  # the first one, or the host has started again
        share = 1.0 - (idle - before[1]) / (total - before[2])
        reading.value *= min(max(round(share, DIGITS), 0.0), 1.0)
        return True

    def add(self, time: float) -> bool:
        """Note a reading's time; return whether it is news.

        It is not if there was one of this time, or if it is older than all that are remembered:
        whether there was one then is not known any more.
        """
        times = self.kept
        if not times or time > times[-1]:
            times.append(time)
        else:
            place = bisect_left(times, time)
            if times[place] == time or (not place and len(times) == KEPT):
                return False
            times.insert(place, time)
        if len(times) > KEPT:
            del times[0]
        return True

    def dump(self, state: bytes) -> bytes:
        """Return a detector's state as bytes that hold these times too."""
        numbers = (*self.kept, *(self.counter or ()))
        sizes = len(self.kept), len(self.counter or ())
        return pack(f"<{len(BEGINS)}s2B{len(numbers)}d", BEGINS, *sizes, *numbers) + state

    @classmethod
    def load(cls, data: bytes) -> tuple[Times | None, bytes]:
        """Return the times and the detector's state of some bytes; None if they hold no times.

        >>> times, state = Times.load(Times([60.0, 120.0]).dump(b"state"))
        >>> state, times is not None and times.add(120.0)
        (b'state', False)
        """
        if not data.startswith(BEGINS):
            return None, data
        begin = len(BEGINS) + 2
        count, more = data[begin - 2 : begin]
        end = begin + 8 * (count + more)
        if len(data) < end:
            raise ValueError("the times of a state are cut off")
        numbers = unpack_from(f"<{count + more}d", data, begin)
        return cls(list(numbers[:count]), numbers[count:] or None), data[end:]


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
