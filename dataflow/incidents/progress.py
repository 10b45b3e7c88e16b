"""How far the instances of a partition have come, in the order of the partition. Pure.

Bytewax hands readings on by instance: of a batch, first all of one, then all of the next. So the
progress at a reading is only known once the batch has passed, in every worker. Readings are kept
here as they come, and taken in the order of their offsets when someone asks a while later.
"""

from __future__ import annotations

import threading
import time as clocks
from bisect import bisect_right
from collections.abc import Callable, Sequence
from operator import itemgetter

from dataflow.records import Reading

__all__ = ["Place", "Progress"]

HOUR = 3600.0
DAY = 86_400.0

MOST_KEPT = 50_000
"""Readings of a partition that are kept at most until they are taken."""


class Place:
    """Where an instance is on the scale of its partition.

    `kept` is the number of its readings that are not taken yet, `came` the partition of its last
    reading, `partition` that of the last one taken. `lead` plus the instance's own clock is its
    position. `mark` is the progress of the partition at its last reading. `turn` and `nearest`
    belong to `Progress`, which corrects `lead`: the clock at which it does so next, and the least
    distance from the others so far. All are None before they are known.
    """

    __slots__ = ("came", "kept", "lead", "mark", "nearest", "partition", "turn")

    def __init__(self) -> None:
        self.kept = 0
        self.came: int | None = None
        self.partition: int | None = None
        self.lead: float | None = None
        self.mark: float | None = None
        self.turn: float | None = None
        self.nearest: float | None = None


_Kept = tuple[int, int, Place, float | None, float | None, float]
"""Offset, partition, place of the instance, its clock (None: no reading, but a sign of life), time,
and when it came."""

_Top = tuple[Place | None, float, float | None]
"""An instance's place, its position there, and the time of its reading."""


class _Partition:
    __slots__ = ("first", "kept", "progress", "second", "taken", "time")

    def __init__(self) -> None:
        self.kept: list[_Kept] = []
        self.taken: dict[int, int] = {}
        self.progress = 0.0
        self.time: float | None = None
        self.first: _Top = (None, 0.0, None)
        self.second: _Top = (None, 0.0, None)

    def reach(self, place: Place, position: float, time: float | None) -> None:
        """Note that an instance has come to a position."""
        if position <= self.second[1]:
            return
        if place is self.first[0] or self.first[0] is None:
            self.first = (place, max(position, self.first[1]), time)
        elif position > self.first[1]:
            self.first, self.second = (place, position, time), self.first
        else:
            self.second = (place, position, time)
        if self.second[1] > self.progress:
            self.progress, self.time = self.second[1], self.second[2]


class Progress:
    """How far the instances of each partition have come, in seconds.

    The progress of a partition is its second-highest position, so that one instance with a wrong
    clock does not make the others silent. A position is on a scale that the instances share, though
    their clocks may show different months: a new instance starts where the others are. If its
    times are up to a day behind theirs, it starts so far behind: it sends what they have sent
    before. An instance that stays apart from the others, for as long as it would take to catch up,
    is set to where they are.

    `together`: partitions are read in step and count as one. Thread-safe.

    >>> progress = Progress()
    >>> places = {name: Place() for name in "abc"}
    >>> offsets = {"a": 0, "b": 1, "c": 2}
    >>> for name in "abc":  # a batch, by instance
    ...     for at in range(4):
    ...         progress.seen(0, offsets[name] + 3 * at, places[name], 300.0 * at, 300.0 * at)
    >>> [progress.behind(places[name], 900.0) for name in "abc"]
    [0.0, 0.0, 0.0]
    """

    def __init__(
        self,
        *,
        together: bool = False,
        wait: float = 0.0,
        now: Callable[[], float] | None = None,
    ) -> None:
        """`wait` is for how many seconds of `now` a batch may take to pass in all workers."""
        self._together = together
        self._wait = wait
        self._now = now or clocks.monotonic
        self._lock = threading.Lock()
        self._partitions: dict[int, _Partition] = {}

    def seen(
        self, partition: int, offset: int, place: Place, clock: float | None, time: float | None
    ) -> None:
        """Note a reading: `clock` is that of its instance, `time` its own, both in seconds.

        Without a clock it is only a sign of life.
        """
        with self._lock:
            at = self._of(partition)
            if clock is not None:
                place.came = 0 if self._together else partition
            at.kept.append((offset, partition, place, clock, time, self._now()))
            place.kept += 1
            if len(at.kept) >= MOST_KEPT:
                self._take(0 if self._together else partition, at, at.kept[MOST_KEPT // 2][-1])

    def seen_all(
        self, place: Place, clock: float, readings: Sequence[Reading], steps: Sequence[float]
    ) -> None:
        """Note readings of one instance that come together, each a step after the one before.

        `clock` is that of the instance before the first step.
        """
        with self._lock:
            now = self._now()
            for reading, step in zip(readings, steps, strict=True):
                clock += step
                partition = reading.partition
                at = self._of(partition)
                place.came = key = 0 if self._together else partition
                at.kept.append((reading.offset, partition, place, clock, reading.time, now))
                place.kept += 1
                if len(at.kept) >= MOST_KEPT:
                    self._take(key, at, at.kept[MOST_KEPT // 2][-1])

    def restore(self, partition: int, place: Place, clock: float, time: float | None) -> None:
        """Take up an instance as it was saved, with its clock and the time of its last reading."""
        with self._lock:
            place.partition = 0 if self._together else partition
            at = self._of(partition)
            if place.lead is None:
                return
            position = place.lead + clock
            at.reach(place, position, time)
            if place.mark is not None and place.mark > at.progress:
                at.progress = place.mark
                # What the instance would show if it were there.
                at.time = None if time is None else time + place.mark - position

    def behind(self, place: Place, clock: float) -> float:
        """Return how far the others have come since an instance's last reading, in seconds.

        An instance that has sent ahead of the others, by up to a day, has not missed what it sent.
        """
        with self._lock:
            self._settle(place)
            if place.kept or place.partition is None or place.mark is None or place.lead is None:
                return 0.0
            ahead = place.lead + clock - place.mark
            position = place.mark + (ahead if 0 < ahead <= DAY else 0.0)
            return self._of(place.partition).progress - position

    def settle(self, place: Place) -> None:
        """Bring a place up to date, before it is saved."""
        with self._lock:
            self._settle(place)

    def _settle(self, place: Place) -> None:
        for key in {place.came, place.partition}:
            if key is not None:
                self._take(key, self._of(key), self._now() - self._wait)
        if place.mark is None and place.partition is not None and not place.kept:
            # Saved by a version that knew no marks.
            place.mark = self._of(place.partition).progress

    def _of(self, partition: int) -> _Partition:
        key = 0 if self._together else partition
        at = self._partitions.get(key)
        if at is None:
            at = self._partitions[key] = _Partition()
        return at

    def _take(self, key: int, at: _Partition, until: float) -> None:
        number = bisect_right(at.kept, until, key=itemgetter(-1))
        kept, at.kept = at.kept[:number], at.kept[number:]
        kept.sort(key=_by_share(kept) if self._together else itemgetter(0))
        for offset, partition, place, clock, time, _ in kept:
            place.kept -= 1
            taken = at.taken.get(partition, -1)
            if clock is not None:
                # If another worker was slower, later readings are taken already: those that were
                # ahead of them have their marks, so these must not move the progress.
                self._move(key, at, place, clock, time, late=offset < taken)
            if place.partition == key:
                place.mark = at.progress
            at.taken[partition] = max(offset, taken)
        if self._together:
            # Between partitions there is no exact order.
            for _, _, place, *_ in kept:
                place.mark = at.progress

    def _move(
        self,
        key: int,
        at: _Partition,
        place: Place,
        clock: float,
        time: float | None,
        *,
        late: bool,
    ) -> None:
        lead = place.lead
        if lead is None or place.partition != key:
            place.partition = key
            place.turn = None
            lead = at.progress - clock
            if time is not None and at.time is not None and 0 < at.time - time <= DAY:
                lead -= at.time - time
        place.lead = lead
        if not late:
            at.reach(place, lead + clock, time)
        apart = at.progress - lead - clock
        if place.turn is None or place.nearest is None:
            place.turn, place.nearest = clock + _while(apart), apart
        elif apart * place.nearest <= 0:
            place.nearest = 0.0
        elif abs(apart) < abs(place.nearest):
            place.nearest = apart
        if clock >= place.turn:
            place.lead = lead + place.nearest
            apart -= place.nearest
            place.turn, place.nearest = clock + _while(apart), apart


def _while(apart: float) -> float:
    """Return for how long an instance must stay apart from the others before it is set to them.

    If it is behind and sends what it has kept, it has caught up after as many seconds of its own.
    If it is ahead, they may catch up with it.
    """
    return min(max(apart, HOUR), DAY) if apart > 0 else DAY


def _by_share(kept: list[_Kept]) -> Callable[[_Kept], float]:
    """Return the key by which readings of partitions that are read in step are sorted."""
    spans: dict[int, tuple[int, int]] = {}
    for offset, partition, *_ in kept:
        low, high = spans.get(partition, (offset, offset))
        spans[partition] = min(offset, low), max(offset, high)

    def share(one: _Kept) -> float:
        low, high = spans[one[1]]
        return (one[0] - low) / (high - low + 1)

    return share
