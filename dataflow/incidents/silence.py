"""Instances that stop sending. Pure: times are arguments.

Silence is measured by the readings' own times, so a backlog that is read fast, or a flow that stood
still, opens no false one. The progress of other instances and the machine's clock can differ when
readings are read again after a crash: they decide only *when* a record of a silence is written,
never what is in it.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

import msgspec

from dataflow.incidents.maintenance import Window, after
from dataflow.incidents.rules import Rules, stamp
from dataflow.records import Incident, Reading, Source, incident_id

__all__ = ["Progress", "Saved", "Silence", "SilenceState"]


class SilenceState(IntEnum):
    """What the records since an instance's last reading say. The numbers are saved."""

    SENDING = 0
    SILENT = 1
    GONE = 2


class Progress:
    """How far the instances of each partition have come, in seconds, by clocks that began at 0.

    The progress of a partition is its second-highest clock, so that one instance with a wrong clock
    does not make the others silent. `together`: partitions are read in step and count as one.

    >>> progress = Progress()
    >>> for instance, clock in (("a", 300.0), ("b", 1e9), ("c", 600.0), ("a", 900.0)):
    ...     progress.seen(0, instance, clock)
    >>> progress.of(0), progress.of(1)
    (900.0, 0.0)
    """

    def __init__(self, *, together: bool = False) -> None:
        self._together = together
        # By partition: the first instance and its clock, the second and its clock.
        self._highest: dict[int, tuple[str, float, str, float]] = {}

    def seen(self, partition: int, instance: str, clock: float) -> None:
        """Note how far an instance has come."""
        partition = 0 if self._together else partition
        first, most, second, next_most = self._highest.get(partition, ("", 0.0, "", 0.0))
        if clock <= next_most:
            return
        if instance == first or not first:
            highest = (instance, max(clock, most), second, next_most)
        elif clock > most:
            highest = (instance, clock, first, most)
        else:
            highest = (first, most, instance, clock)
        self._highest[partition] = highest

    def of(self, partition: int) -> float:
        """Return the second-highest clock of a partition, in seconds."""
        return self._highest.get(0 if self._together else partition, ("", 0.0, "", 0.0))[3]


class Saved(msgspec.Struct, array_like=True):
    """The saved state of one instance's silence."""

    last: Reading | None
    state: SilenceState
    opened_at: float | None


class Silence:
    """The silence of one instance: `state`, and since which reading, `last`.

    >>> silence = Silence(Rules(silence=600.0, gone=3600.0), "host-a")
    >>> def add(minute: int) -> list[str]:
    ...     time = 60.0 * minute
    ...     records = silence.add(Reading("host-a", time, minute, 0.9, time, 0, minute))
    ...     return [f"{record.state} {record.updated_at:%H:%M}" for record in records]
    >>> add(0), add(10), add(25), add(30)
    ([], [], ['opened 00:20', 'resolved 00:25'], [])
    """

    def __init__(self, rules: Rules, instance: str) -> None:
        self._rules = rules
        self._windows: tuple[Window, ...] = rules.plan.windows(instance)
        self.last: Reading | None = None
        self.state = SilenceState.SENDING
        self._opened_at: float | None = None

    def limit(self) -> float | None:
        """Return the seconds after the last reading until the next record; None if none comes."""
        rules = self._rules
        if self.last is None or not rules.silence or self.state is SilenceState.GONE:
            return None
        opens = rules.silence
        if self.last.time is not None:
            opens = after(self._windows, self.last.time + opens) - self.last.time
        if self.state is SilenceState.SENDING:
            return opens
        return opens + rules.gone if rules.gone else None

    def report(self) -> Incident:
        """Go to the next state, silent or gone, and return its record. `limit` must not be None."""
        last, limit = self.last, self.limit()
        assert last is not None
        assert limit is not None
        at = None if last.time is None else last.time + limit
        if self.state is SilenceState.SENDING:
            self.state, self._opened_at = SilenceState.SILENT, at
            return self._incident(last, 0, last, at, None)
        self.state = SilenceState.GONE
        return self._incident(last, 1, last, at, "gone")

    def add(self, reading: Reading) -> list[Incident]:
        """Take the next reading; return the records of the silence before it that are missing.

        A silence that is found only now has the same records as one that the clock has found.
        """
        out: list[Incident] = []
        last = self.last
        if last is not None:
            if last.time is not None and reading.time is not None:
                passed = reading.time - last.time
                while (limit := self.limit()) is not None and passed > limit:
                    out.append(self.report())
            if self.state is SilenceState.SILENT:
                out.append(self._incident(last, 1, reading, reading.time, "returned"))
        self.last, self.state, self._opened_at = reading, SilenceState.SENDING, None
        return out

    def _incident(
        self,
        last: Reading,
        sequence: int,
        cause: Reading,
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
            source=Source(self._rules.topic, cause.partition, cause.offset),
        )

    def save(self) -> Saved:
        """Return the state, for `load`."""
        return Saved(self.last, self.state, self._opened_at)

    def load(self, saved: Saved) -> None:
        """Continue from a saved state."""
        self.last, self.state, self._opened_at = saved.last, saved.state, saved.opened_at
