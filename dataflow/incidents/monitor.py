"""One instance, watched: its anomalies and its silence, and the one state of both. Pure."""

from __future__ import annotations

import msgspec

from dataflow.incidents import episodes, silence
from dataflow.incidents.episodes import EpisodeTracker
from dataflow.incidents.rules import Anomalous, Rules
from dataflow.incidents.silence import Progress, Silence
from dataflow.records import Incident, Reading

__all__ = ["InstanceMonitor"]

VERSION = 1


class _Saved(msgspec.Struct, array_like=True):
    version: int
    clock: float
    lead: float
    anomalies: episodes.Saved
    silence: silence.Saved


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Saved).decode


class InstanceMonitor:
    """What becomes of one instance's readings: records of its incidents.

    Its own clock counts the seconds between its readings and never steps back, so that a reading
    with a wrong time disturbs once. Its progress among others (`Progress`) is that clock as well,
    beginning where they were when it came.

    >>> rules = Rules(quiet=600.0, silence=900.0)
    >>> watch = InstanceMonitor(rules, Progress(), "host-a")
    >>> def add(minute: int, score: float | None) -> list[str]:
    ...     time = 60.0 * minute
    ...     reading = Reading("host-a", time, minute, 0.9, time, 0, minute)
    ...     found = None if score is None else Anomalous(score)
    ...     return [f"{it.kind} {it.state}" for it in watch.add(reading, found)]
    >>> add(0, 0.7), add(5, None), add(30, None)
    (['anomaly opened'], [], ['silence opened', 'silence resolved', 'anomaly resolved'])
    """

    def __init__(self, rules: Rules, progress: Progress, instance: str) -> None:
        self._rules = rules
        self._progress = progress
        self._gatherer = EpisodeTracker(rules, instance)
        self._silence = Silence(rules, instance)
        self._clock = 0.0
        self._lead: float | None = None

    @property
    def last(self) -> Reading | None:
        """The last reading."""
        return self._silence.last

    @property
    def told(self) -> int:
        """What was told since the last reading: 0 nothing, 1 that it is silent, 2 gone."""
        return self._silence.told

    def add(self, reading: Reading, found: Anomalous | None) -> list[Incident]:
        """Take the next reading, and what the detector found in it; return what is to be told."""
        last = self._silence.last
        passed = self._passed(last, reading)
        out: list[Incident] = []
        for incident in self._silence.add(reading):
            out.append(incident)
            if incident.ended == "gone" and last is not None:
                out += self._end(last, incident)
        self._clock += passed
        partition = reading.partition
        if self._lead is None:
            self._lead = self._progress.of(partition) - self._clock
        self._progress.seen(partition, reading.instance, self._lead + self._clock)
        return out + self._gatherer.add(self._clock, reading, found)

    def overdue(self, heard: float) -> str | None:
        """Say by what the instance is due to be told of: `progress`, `wall`, or not at all.

        `heard` are the seconds, by the machine's clock, since its last reading came.
        """
        due, last = self._silence.due(), self._silence.last
        if due is None or last is None:
            return None
        wall = max(self._rules.wall, self._rules.silence)
        if heard > due - self._rules.silence + wall:
            return "wall"
        behind = self._progress.of(last.partition) - (self._lead or 0.0) - self._clock
        return "progress" if behind > due else None

    def tell(self) -> list[Incident]:
        """Return what is told next because nothing comes: a silence, or that it is gone."""
        last = self._silence.last
        assert last is not None
        incident = self._silence.tell()
        return [incident, *(self._end(last, incident) if incident.ended == "gone" else [])]

    def _end(self, last: Reading, gone: Incident) -> list[Incident]:
        time = None if gone.resolved_at is None else gone.resolved_at.timestamp()
        return self._gatherer.end(self._clock, last, time)

    def _passed(self, last: Reading | None, reading: Reading) -> float:
        if last is None:
            return 0.0
        if last.time is None or reading.time is None:
            return self._rules.interval
        return max(0.0, reading.time - last.time)

    def dump(self) -> bytes:
        """Return the state as bytes that name their version."""
        lead = 0.0 if self._lead is None else self._lead
        return _encode(
            _Saved(VERSION, self._clock, lead, self._gatherer.save(), self._silence.save())
        )

    @classmethod
    def load(cls, rules: Rules, progress: Progress, data: bytes) -> InstanceMonitor:
        """Continue from `dump`'s bytes; ValueError if they are of another version."""
        try:
            saved = _decode(data)
        except msgspec.DecodeError:
            saved = None
        if saved is None or saved.version != VERSION or saved.silence.last is None:
            raise ValueError("These bytes are no instance that this version has watched.")
        last = saved.silence.last
        watch = cls(rules, progress, last.instance)
        watch._clock, watch._lead = saved.clock, saved.lead
        watch._gatherer.load(saved.anomalies)
        watch._silence.load(saved.silence)
        progress.seen(last.partition, last.instance, watch._lead + watch._clock)
        return watch
