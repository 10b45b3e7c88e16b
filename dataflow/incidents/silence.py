"""An instance that stops sending. Pure: times are handed in.

Silence is measured by the readings' own times, so that a backlog that is read fast, or a flow that
stood still, makes no false one. What others' progress decides, or the machine's clock, can come out
otherwise the second time: it says *when* a silence is told, never what is told of it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from dataflow.incidents.maintenance import Window, after
from dataflow.incidents.rules import Rules, stamp
from dataflow.records import Incident, Reading, Source, incident_id

__all__ = ["Progress", "Saved", "Silence"]


class Progress:
    """How far the instances of each partition have come, by clocks that all began at 0 together.

    It is where the second of them is: one with a wrong clock makes nobody else silent. `together`:
    partitions are read abreast, and are as one.

    >>> progress = Progress()
    >>> for instance, clock in (("a", 300.0), ("b", 1e9), ("c", 600.0), ("a", 900.0)):
    ...     progress.seen(0, instance, clock)
    >>> progress.of(0), progress.of(1)
    (900.0, 0.0)
    """

    def __init__(self, *, together: bool = False) -> None:
        self._together = together
        # Partition: the first instance and its clock, the second and its clock.
        self._places: dict[int, tuple[str, float, str, float]] = {}

    def seen(self, partition: int, instance: str, clock: float) -> None:
        """Take note of how far an instance has come."""
        partition = 0 if self._together else partition
        first, most, second, next_most = self._places.get(partition, ("", 0.0, "", 0.0))
        if clock <= next_most:
            return
        if instance == first or not first:
            place = (instance, max(clock, most), second, next_most)
        elif clock > most:
            place = (instance, clock, first, most)
        else:
            place = (first, most, instance, clock)
        self._places[partition] = place

    def of(self, partition: int) -> float:
        """Return how far the second of a partition has come, in seconds."""
        return self._places.get(0 if self._together else partition, ("", 0.0, "", 0.0))[3]


class Saved(msgspec.Struct, array_like=True):
    """What is known of one instance's silence: its last reading, and what was told since."""

    last: Reading | None
    told: int
    opened_at: float | None


class Silence:
    """The silence of one instance.

    `told` counts what was told since its last reading: 0 nothing, 1 that it is silent, 2 that it is
    gone.

    >>> silence = Silence(Rules(silence=600.0, gone=3600.0), "host-a")
    >>> def add(minute: int) -> list[str]:
    ...     time = 60.0 * minute
    ...     said = silence.add(Reading("host-a", time, minute, 0.9, time, 0, minute))
    ...     return [f"{it.state} {it.updated_at:%H:%M}" for it in said]
    >>> add(0), add(10), add(25), add(30)
    ([], [], ['opened 00:20', 'resolved 00:25'], [])
    """

    def __init__(self, rules: Rules, instance: str) -> None:
        self._rules = rules
        self._windows: tuple[Window, ...] = rules.plan.windows(instance)
        self.last: Reading | None = None
        self._told = 0
        self._opened_at: float | None = None

    def due(self) -> float | None:
        """Return how many seconds after the last reading something is to be told, None if never."""
        rules = self._rules
        if self.last is None or not rules.silence or self._told == 2:
            return None
        opens = rules.silence
        if self.last.time is not None:
            opens = after(self._windows, self.last.time + opens) - self.last.time
        if self._told == 0:
            return opens
        return opens + rules.gone if rules.gone else None

    def pass_over(self, seconds: float) -> list[Incident]:
        """Return what is to be told because so many seconds have passed since the last reading."""
        out: list[Incident] = []
        while (due := self.due()) is not None and seconds > due:
            out.append(self.tell())
        return out

    def tell(self) -> Incident:
        """Return what is told next of the instance's silence: that it is silent, or gone."""
        last, due = self.last, self.due()
        assert last is not None
        assert due is not None
        at = None if last.time is None else last.time + due
        self._told += 1
        if self._told == 1:
            self._opened_at = at
            return self._incident(last, 0, last, at, None)
        return self._incident(last, 1, last, at, "gone")

    def add(self, reading: Reading) -> list[Incident]:
        """Take the next reading; return the silence before it, if told of only now, and its end.

        A silence that passed before anybody noticed is told of with the same words.
        """
        out: list[Incident] = []
        last = self.last
        if last is not None:
            if last.time is not None and reading.time is not None:
                out = self.pass_over(reading.time - last.time)
            if self._told == 1:
                out.append(self._incident(last, 1, reading, reading.time, "returned"))
        self.last, self._told, self._opened_at = reading, 0, None
        return out

    @property
    def told(self) -> int:
        """How much was told since the last reading."""
        return self._told

    def _incident(
        self,
        last: Reading,
        sequence: int,
        because: Reading,
        time: float | None,
        ended: Literal["returned", "gone"] | None,
    ) -> Incident:
        return Incident(
            instance=last.instance,
            kind="silence",
            state="resolved" if ended else "opened",
            id=incident_id("silence", last),
            sequence=sequence,
            since=stamp(last.time),
            opened_at=stamp(self._opened_at),
            updated_at=stamp(time),
            resolved_at=stamp(time) if ended else None,
            ended=ended,
            score=None,
            peak_at=None,
            value=last.value,
            expected=None,
            anomalies=0,
            source=Source(self._rules.topic, because.partition, because.offset),
        )

    def save(self) -> Saved:
        """Return the state, of which `load` makes the same again."""
        return Saved(self.last, self._told, self._opened_at)

    def load(self, saved: Saved) -> None:
        """Continue from a state."""
        self.last, self._told, self._opened_at = saved.last, saved.told, saved.opened_at
