"""Drops readings whose instance had one of the same time already. Pure but for its count.

Producers send again what they are not sure of, and CloudWatch corrects what it has sent. Where
readings have an index, that tells them apart; where they have none, their time does. A repeated
reading would teach the detector that nothing changes.
"""

from __future__ import annotations

from bisect import bisect_left
from struct import pack, unpack_from

from dataflow.metrics import counters
from dataflow.records import Reading

__all__ = ["Times", "in_order", "is_repeated"]

KEPT = 32
"""Times of an instance that are remembered: the newest."""

BEGINS = b"\xc1times"
"""How a state with times begins: no detector's state does, for MessagePack has no such byte."""


class Times:
    """The newest times of an instance, in seconds.

    >>> times = Times()
    >>> [times.add(time) for time in (60.0, 180.0, 120.0, 180.0)]
    [True, True, True, False]
    """

    __slots__ = ("kept",)

    def __init__(self, times: list[float] | None = None) -> None:
        self.kept = times or []

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
        times = self.kept
        return pack(f"<{len(BEGINS)}sB{len(times)}d", BEGINS, len(times), *times) + state

    @classmethod
    def load(cls, data: bytes) -> tuple[Times | None, bytes]:
        """Return the times and the detector's state of some bytes; None if they hold no times.

        >>> times, state = Times.load(Times([60.0, 120.0]).dump(b"state"))
        >>> state, times is not None and times.add(120.0)
        (b'state', False)
        """
        if not data.startswith(BEGINS):
            return None, data
        count, begin = data[len(BEGINS)], len(BEGINS) + 1
        end = begin + 8 * count
        if len(data) < end:
            raise ValueError("the times of a state are cut off")
        return cls(list(unpack_from(f"<{count}d", data, begin))), data[end:]


def is_repeated(times: Times, reading: Reading) -> bool:
    """Return whether a reading without an index is no news; count it if so."""
    if reading.time is None or times.add(reading.time):
        return False
    counters.REPEATS.inc()
    return True


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
