"""Instances that stop sending. Pure: times are arguments.

Silence is measured by the readings' own times, so a backlog that is read fast, or a flow that stood
still, opens no false one. The progress of other instances and the machine's clock can differ when
readings are read again after a crash: they decide only *when* a record of a silence is written,
never what is in it.
"""

from __future__ import annotations

import math
from enum import IntEnum
from fnmatch import fnmatchcase
from statistics import median
from typing import Literal

import msgspec

from dataflow.incidents.maintenance import Window, after
from dataflow.incidents.progress import Progress
from dataflow.incidents.rules import Rules, stamp
from dataflow.records import Incident, Reading, Source, incident_id

__all__ = ["Progress", "Saved", "Silence", "SilenceState", "is_repeated"]

DAY = 86_400.0

STEPS = 5
"""Steps between readings of which the median is an instance's usual one."""


def is_repeated(last: Reading | None, reading: Reading) -> bool:
    """Return whether a reading is no news after `last`: it comes late, or is sent again.

    Its time is earlier, and its index does not say otherwise. A time that steps back further, by a
    week or, where indexes are no numbers, by a day, is a clock that was set.

    >>> def at(time: float, index: str | int) -> Reading:
    ...     return Reading("host-a", time, index, 0.5, time, 0, 0)
    >>> is_repeated(at(600.0, 2), at(300.0, 1)), is_repeated(at(600.0, 2), at(600.0, 2))
    (True, True)
    >>> is_repeated(at(600.0, 2), at(300.0, 3)), is_repeated(at(600.0, 2), at(900.0, 0))
    (False, False)
    """
    if last is None or last.time is None or reading.time is None:
        return False
    back = last.time - reading.time
    if back == 0:
        return reading.index == last.index
    if not (isinstance(reading.index, (int, float)) and isinstance(last.index, (int, float))):
        return 0 < back <= DAY
    return reading.index <= last.index and 0 < back <= 7 * DAY


class SilenceState(IntEnum):
    """What the records since an instance's last reading say. The numbers are saved."""

    SENDING = 0
    SILENT = 1
    GONE = 2


class Saved(msgspec.Struct, array_like=True):
    """The saved state of one instance's silence."""

    last: Reading | None
    state: SilenceState
    opened_at: float | None
    alive: float | None = None
    steps: list[float] = []


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
        # A group that scales in and out: its instances go as a matter of course.
        self._watched = not any(fnmatchcase(instance, one) for one in rules.silence_except)
        self.last: Reading | None = None
        self.state = SilenceState.SENDING
        self._opened_at: float | None = None
        # Up to this time there were rejected readings, without a gap since the last reading.
        self._alive: float | None = None
        self._steps: list[float] = []

    def _opens(self) -> float:
        """Return the seconds without a reading that are a silence.

        Where readings come much more rarely than the rules say, the interval is wrong, not each
        reading late.
        """
        rules = self._rules
        if len(self._steps) == STEPS and (usual := median(self._steps)) > 2 * rules.interval:
            return rules.silence * usual / rules.interval
        return rules.silence

    def limit(self) -> float | None:
        """Return the seconds after the last reading until the next record; None if none comes."""
        rules = self._rules
        if self.last is None or not rules.silence or not self._watched:
            return None
        if self.state is SilenceState.GONE:
            return None
        opens = self._opens()
        if self.last.time is not None:
            windows = self._windows
            if rules.windows is not None:
                windows = (*windows, *rules.windows(self.last))
            opens = after(windows, self.last.time + opens) - self.last.time
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
                passed = step = reading.time - last.time
                alive = last.time if self._alive is None else self._alive
                if self.state is SilenceState.SENDING and alive > last.time:
                    limit = self.limit()
                    if limit is not None and reading.time - alive <= limit:
                        passed = 0.0
                # No limit is shorter than this, and most readings come in time.
                if passed > self._rules.silence:
                    while (limit := self.limit()) is not None and passed > limit:
                        out.append(self.report())
                if step > 0:
                    self._steps = [*self._steps[1 - STEPS :], step]
            if self.state is SilenceState.SILENT:
                out.append(self._incident(last, 1, reading, reading.time, "returned"))
        self.last, self.state, self._opened_at = reading, SilenceState.SENDING, None
        self._alive = None
        return out

    def idle(self) -> tuple[Reading | None, float]:
        """Return the last reading, and how much later the next one causes no record for sure.

        No reading if that depends on more than the time of the next one.
        """
        last = self.last
        if (
            last is None
            or last.time is None
            or self.state is not SilenceState.SENDING
            or self._alive is not None
        ):
            return None, 0.0
        return last, self._rules.silence or math.inf

    def pass_over(self, last: Reading, steps: list[float]) -> None:
        """Take readings that cause no record: the last of them, and the seconds between them."""
        self.last = last
        self._steps = [*self._steps[-STEPS:], *steps][-STEPS:]

    def dismiss(self) -> list[Incident]:
        """Watch no longer; return the record that resolves a silence that is open."""
        last, open_now = self.last, self.state is SilenceState.SILENT
        self.state = SilenceState.GONE
        if last is None or not open_now:
            return []
        return [self._incident(last, 1, last, self._opened_at, "gone")]

    def rejected(self, time: float | None) -> None:
        """Take the time of a rejected reading: a gap in which there are such is no silence."""
        last = self.last
        if last is None or last.time is None or time is None:
            return
        if self.state is not SilenceState.SENDING:
            return
        alive = last.time if self._alive is None else self._alive
        limit = self.limit()
        if limit is not None and alive < time <= alive + limit:
            self._alive = time

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
            source=Source(self._rules.topic, cause.partition, cause.offset, cause.number),
            duration=None if time is None or last.time is None else time - last.time,
            metric=last.metric or self._rules.metric,
            labels=cause.labels or {},
        )

    def save(self) -> Saved:
        """Return the state, for `load`."""
        return Saved(self.last, self.state, self._opened_at, self._alive, self._steps)

    def load(self, saved: Saved) -> None:
        """Continue from a saved state."""
        self.last, self.state, self._opened_at = saved.last, saved.state, saved.opened_at
        self._alive, self._steps = saved.alive, saved.steps
