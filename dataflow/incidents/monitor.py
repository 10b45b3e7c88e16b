"""The incidents of one instance: its anomalies and its silence, saved as one state. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from dataflow.incidents import episodes, silence
from dataflow.incidents.episodes import EpisodeTracker
from dataflow.incidents.progress import Place, Progress
from dataflow.incidents.rules import Judged, Rules
from dataflow.incidents.silence import Silence, SilenceState, is_repeated
from dataflow.records import Incident, Reading

__all__ = ["InstanceMonitor"]

VERSION = 1


class _Saved(msgspec.Struct, array_like=True):
    version: int
    clock: float
    lead: float
    anomalies: episodes.Saved
    silence: silence.Saved
    # What earlier versions neither wrote nor read. They skip it, so a store can go back to them.
    mark: float | None = None
    turn: float | None = None
    nearest: float | None = None
    read: dict[int, int] | None = None
    group: str | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Saved).decode


class InstanceMonitor:
    """Turns the readings of one instance into records of its incidents.

    The instance has a clock of its own, which adds up the seconds between its readings and never
    steps back: a reading with a wrong time disturbs once. On the scale of `Progress` this clock
    starts where the other instances are when the instance first appears.

    A reading that comes late or again (`silence.is_repeated`) causes no record: what it tells of
    was reported in its turn. It only shows that the instance sends.

    >>> from dataflow.alerts.episode import Finding
    >>> monitor = InstanceMonitor(Rules(silence=900.0), Progress(), "host-a")
    >>> def add(minute: int, score: float | None) -> list[str]:
    ...     time = 60.0 * minute
    ...     reading = Reading("host-a", time, minute, 0.9, time, 0, minute)
    ...     finding = Finding("e", True, True, True, True)
    ...     judged = None if score is None else Judged(finding, score)
    ...     return [f"{record.kind} {record.state}" for record in monitor.add(reading, judged)]
    >>> add(0, 0.7), add(5, 0.7), add(30, None)
    (['anomaly opened'], [], ['silence opened', 'silence resolved', 'anomaly resolved'])
    """

    def __init__(self, rules: Rules, progress: Progress, instance: str) -> None:
        self._rules = rules
        self._progress = progress
        self._episodes = EpisodeTracker(rules, instance)
        self._silence = Silence(rules, instance)
        self._clock = 0.0
        self._place = Place()
        # By partition, the offset of the last reading.
        self._read: dict[int, int] = {}
        self.group: str | None = None
        """The group that it counts as a member of."""

    @property
    def last(self) -> Reading | None:
        """The last reading."""
        return self._silence.last

    @property
    def silence(self) -> SilenceState:
        """What the records since the last reading say."""
        return self._silence.state

    @property
    def open(self) -> list[Literal["anomaly", "silence"]]:
        """The kinds of the incidents that are open."""
        kinds: list[Literal["anomaly", "silence"]] = ["anomaly"] if self._episodes.open else []
        if self._silence.state is SilenceState.SILENT:
            kinds.append("silence")
        return kinds

    def add(self, reading: Reading, judged: Judged | None) -> list[Incident]:
        """Take the next reading, judged if it is in an episode; return the records it causes."""
        last = self._silence.last
        partition, offset = reading.partition, reading.offset
        self._read[partition] = offset
        if is_repeated(last, reading):
            self._progress.seen(partition, offset, self._place, None, None)
            return []
        passed = self._passed(last, reading)
        out: list[Incident] = []
        for incident in self._silence.add(reading):
            out.append(incident)
            if incident.ended == "gone" and last is not None:
                out += self._end(last, incident)
        self._clock += passed
        self._progress.seen(partition, offset, self._place, self._clock, reading.time)
        return out + self._episodes.add(self._clock, reading, judged)

    def pass_over(self, scored: Sequence[tuple[Reading, object, object]]) -> int:
        """Take the first ones of the next readings, as long as they are ordinary; return how many.

        It does what `add` does of readings that are in no episode and come in time, one after the
        other, while no incident is open: they cause no record. Of each reading there is also what
        is found of it, as its third part: None if it is in no episode.
        """
        last, limit = self._silence.idle()
        if last is None or self._episodes.watches:
            return 0
        time, clock = last.time, self._clock
        assert time is not None
        steps: list[float] = []
        for reading, _, finding in scored:
            new = reading.time
            if finding is not None or new is None or not 0.0 < new - time <= limit:
                break
            steps.append(new - time)
            self._read[reading.partition] = reading.offset
            last, time = reading, new
        if steps:
            passed = [reading for reading, _, _ in scored[: len(steps)]]
            self._progress.seen_all(self._place, clock, passed, steps)
            for step in steps:
                clock += step
            self._clock = clock
            self._silence.pass_over(last, steps)
            self._episodes.pass_over(len(steps))
        return len(steps)

    def rejected(self, partition: int, offset: int, time: float | None) -> None:
        """Take a rejected reading, which shows that the instance sends. It causes no record."""
        self._silence.rejected(time)
        self._progress.seen(partition, offset, self._place, None, None)

    @property
    def read(self) -> Mapping[int, int]:
        """By partition, the offset of the last reading."""
        return self._read

    def overdue(self, waited: float) -> Literal["progress", "wall"] | None:
        """Return which clock says that a record of the silence is due; None if none does.

        `waited` are the seconds since the last reading arrived, by the machine's clock.
        """
        limit, last = self._silence.limit(), self._silence.last
        if limit is None or last is None:
            return None
        wall = max(self._rules.wall, self._rules.silence)
        if waited > limit - self._rules.silence + wall:
            return "wall"
        behind = self._progress.behind(self._place, self._clock)
        return "progress" if behind > limit else None

    def report_silence(self) -> list[Incident]:
        """Return the next records because no reading comes: silent, then gone."""
        last = self._silence.last
        assert last is not None
        incident = self._silence.report()
        return [incident, *(self._end(last, incident) if incident.ended == "gone" else [])]

    def dismiss(self) -> list[Incident]:
        """Return the records that resolve what is open, as gone: the metric is read no longer."""
        last = self._silence.last
        if last is None:
            return []
        return [*self._silence.dismiss(), *self._episodes.end(self._clock, last, last.time)]

    def _end(self, last: Reading, gone: Incident) -> list[Incident]:
        time = None if gone.resolved_at is None else gone.resolved_at.timestamp()
        return self._episodes.end(self._clock, last, time)

    def _passed(self, last: Reading | None, reading: Reading) -> float:
        if last is None:
            return 0.0
        if last.time is None or reading.time is None:
            return self._rules.interval
        return max(0.0, reading.time - last.time)

    def dump(self) -> bytes:
        """Return the state as bytes, with their version."""
        place = self._place
        self._progress.settle(place)
        return _encode(
            _Saved(
                VERSION,
                self._clock,
                math.nan if place.lead is None else place.lead,
                self._episodes.save(),
                self._silence.save(),
                # Its last readings are not taken yet: then it is where the others are.
                None if place.kept else place.mark,
                place.turn,
                place.nearest,
                self._read,
                self.group,
            )
        )

    @classmethod
    def load(cls, rules: Rules, progress: Progress, data: bytes) -> InstanceMonitor:
        """Continue from the bytes of `dump`.

        Raises `ValueError` if this version cannot read them.
        """
        try:
            saved = _decode(data)
        except msgspec.DecodeError:
            saved = None
        if saved is None or saved.version != VERSION or saved.silence.last is None:
            raise ValueError("an instance's incidents were saved by another version")
        last = saved.silence.last
        monitor = cls(rules, progress, last.instance)
        monitor._clock, place = saved.clock, monitor._place
        place.lead = None if math.isnan(saved.lead) else saved.lead
        place.mark = saved.mark
        place.turn, place.nearest = saved.turn, saved.nearest
        monitor._read = saved.read or {last.partition: last.offset}
        monitor.group = saved.group
        monitor._episodes.load(saved.anomalies)
        monitor._silence.load(saved.silence)
        progress.restore(last.partition, place, saved.clock, last.time)
        return monitor
