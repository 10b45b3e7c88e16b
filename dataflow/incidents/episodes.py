"""Groups the anomalies of one instance into incidents. Pure: no I/O, no Bytewax, no clock.

An *episode* is a run of anomalies with less than `quiet` seconds between them. It becomes an
incident once the rules are met, and is resolved when it ends. `docs/incidents.md` has the life
cycle.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from dataflow.incidents.maintenance import Window, after
from dataflow.incidents.rules import Anomalous, Rules, stamp
from dataflow.records import Incident, Reading, Source, incident_id

__all__ = ["EpisodeTracker", "Saved"]


class _Episode(msgspec.Struct, array_like=True):
    """A run of anomalies.

    `began` and `last` are on the instance's own clock. `reported` is the peak in the last record,
    and `step` the rise above it that is worth an update.
    """

    id: str
    since: float | None
    began: float
    last: float
    count: int = 0
    peak: float = -1.0
    peak_at: float | None = None
    value: float = 0.0
    expected: float | None = None
    opened: bool = False
    opened_at: float | None = None
    sequence: int = 0
    updates: int = 0
    reported: float = 0.0
    step: float = 0.0


class Saved(msgspec.Struct, array_like=True):
    """The saved state of an `EpisodeTracker`."""

    recent: int
    rest: float
    episode: _Episode | None


class EpisodeTracker:
    """The anomalies of one instance.

    `clock` is the instance's own, in seconds from 0: it adds up the time between readings and never
    steps back, even where the readings' times do.

    >>> rules = Rules(quiet=600.0)
    >>> tracker = EpisodeTracker(rules, "host-a")
    >>> def add(minute: int, score: float | None) -> list[str]:
    ...     time = 60.0 * minute
    ...     reading = Reading("host-a", time, minute, 0.9, time, 0, minute)
    ...     anomaly = None if score is None else Anomalous(score)
    ...     return [f"{one.state} {one.score}" for one in tracker.add(time, reading, anomaly)]
    >>> add(0, None), add(5, 0.6), add(10, 0.9), add(15, 0.7), add(20, None), add(25, None)
    ([], ['opened 0.6'], ['updated 0.9'], [], [], ['resolved 0.9'])
    """

    def __init__(self, rules: Rules, instance: str) -> None:
        self._rules = rules
        self._windows: tuple[Window, ...] = rules.plan.windows(instance)
        self._all = (1 << rules.readings) - 1
        self._recent = 0
        self._rest = 0.0
        self._episode: _Episode | None = None

    def add(self, clock: float, reading: Reading, anomaly: Anomalous | None) -> list[Incident]:
        """Take the next reading, with `anomaly` if it is one; return the records that it causes."""
        out: list[Incident] = []
        episode = self._episode
        if episode is not None and clock - episode.last >= self._rules.quiet:
            if episode.opened:
                out.append(self._resolve(episode, clock, reading, reading.time, "quiet"))
            self._episode = None
        self._recent = (self._recent << 1 | (anomaly is not None)) & self._all
        if anomaly is not None:
            incident = self._count(clock, reading, anomaly)
            if incident is not None:
                out.append(incident)
        return out

    def end(self, clock: float, last: Reading, time: float | None) -> list[Incident]:
        """Resolve an open incident at `time`, because no reading comes after `last`."""
        episode, self._episode = self._episode, None
        if episode is None or not episode.opened:
            return []
        return [self._resolve(episode, clock, last, time, "gone")]

    def _count(self, clock: float, reading: Reading, anomaly: Anomalous) -> Incident | None:
        episode = self._episode
        if episode is None:
            episode = _Episode(incident_id("anomaly", reading), reading.time, clock, clock)
            self._episode = episode
        episode.last = clock
        episode.count += 1
        if anomaly.score > episode.peak:
            episode.peak, episode.expected = anomaly
            episode.peak_at, episode.value = reading.time, reading.value
        if not episode.opened:
            if not self._opens(clock, reading, episode):
                return None
            episode.opened, episode.opened_at = True, reading.time
            # So many steps reach a score of 1: `updates` records are enough for any rise.
            episode.step = (1.0 - episode.peak) / max(self._rules.updates, 1)
            return self._record(episode, "opened", reading, reading.time)
        if (
            episode.updates < self._rules.updates
            and episode.peak > episode.reported
            and episode.peak >= episode.reported + episode.step
        ):
            episode.updates += 1
            return self._record(episode, "updated", reading, reading.time)
        return None

    def _opens(self, clock: float, reading: Reading, episode: _Episode) -> bool:
        rules = self._rules
        time = reading.time
        return (
            self._recent.bit_count() >= rules.anomalies
            and clock - episode.began >= rules.duration
            and clock >= self._rest
            and (time is None or after(self._windows, time) == time)
        )

    def _resolve(
        self,
        episode: _Episode,
        clock: float,
        reading: Reading,
        time: float | None,
        ended: Literal["quiet", "gone"],
    ) -> Incident:
        self._rest = clock + self._rules.cooldown
        return self._record(episode, "resolved", reading, time, ended)

    def _record(
        self,
        episode: _Episode,
        state: Literal["opened", "updated", "resolved"],
        reading: Reading,
        time: float | None,
        ended: Literal["quiet", "gone"] | None = None,
    ) -> Incident:
        incident = Incident(
            instance=reading.instance,
            kind="anomaly",
            state=state,
            id=episode.id,
            sequence=episode.sequence,
            since=stamp(episode.since),
            opened_at=stamp(episode.opened_at),
            updated_at=stamp(time),
            resolved_at=stamp(time) if ended else None,
            ended=ended,
            score=episode.peak,
            peak_at=stamp(episode.peak_at),
            value=episode.value,
            expected=episode.expected,
            anomalies=episode.count,
            source=Source(self._rules.topic, reading.partition, reading.offset, reading.number),
        )
        episode.sequence += 1
        episode.reported = episode.peak
        return incident

    def save(self) -> Saved:
        """Return the state, for `load`."""
        return Saved(self._recent, self._rest, self._episode)

    def load(self, saved: Saved) -> None:
        """Continue from a saved state."""
        self._recent, self._rest, self._episode = saved.recent, saved.rest, saved.episode
