"""Turns the episodes of one instance into incidents. Pure: no I/O, no Bytewax, no clock.

An episode (see `dataflow.alerts.episode`) becomes an incident once the rules are met, which is
resolved when the episode ends. `docs/incidents.md` has the life cycle.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from dataflow.incidents.maintenance import Window, after
from dataflow.incidents.rules import Judged, Rules, stamp
from dataflow.records import Incident, MetricShare, Reading, Reason, Source, incident_id

__all__ = ["EpisodeTracker", "Saved"]


class _Episode(msgspec.Struct, array_like=True):
    """An episode, or what is left of it after the instance was gone.

    `began` and `last`, the last reading of the trouble, are on the instance's own clock. `reported`
    is the peak in the last record, and `step` the rise above it that is worth an update. `follows`
    is the id of the episode that the detector's step has found; empty where an earlier version
    saved it.
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
    follows: str = ""
    reasons: tuple[Reason, ...] | None = None
    ordinary: tuple[float, float] | None = None
    why: str = ""
    metrics: tuple[MetricShare, ...] | None = None


class Saved(msgspec.Struct, array_like=True):
    """The saved state of an `EpisodeTracker`."""

    recent: int
    rest: float
    episode: _Episode | None
    done: str = ""


class EpisodeTracker:
    """The anomalies of one instance.

    `clock` is the instance's own, in seconds from 0: it adds up the time between readings and never
    steps back, even where the readings' times do.

    >>> from dataflow.alerts.episode import Finding
    >>> tracker = EpisodeTracker(Rules(), "host-a")
    >>> def add(minute: int, score: float, ended: Ended | None = None) -> list[str]:
    ...     time = 60.0 * minute
    ...     reading = Reading("host-a", time, minute, 0.9, time, 0, minute)
    ...     high = score > 0.5
    ...     finding = Finding("e", high, minute == 0, high, True, ended)
    ...     records = tracker.add(time, reading, Judged(finding, score))
    ...     return [f"{one.state} {one.score}" for one in records]
    >>> add(0, 0.6), add(5, 0.9), add(10, 0.7), add(15, 0.4), add(20, 0.1, "recovered")
    (['opened 0.6'], ['updated 0.9'], [], [], ['resolved 0.9'])
    """

    def __init__(self, rules: Rules, instance: str) -> None:
        self._rules = rules
        self._windows: tuple[Window, ...] = rules.plan.windows(instance)
        self._all = (1 << rules.readings) - 1
        self._recent = 0
        self._rest = 0.0
        self._episode: _Episode | None = None
        # The last episode whose incident is resolved: its id cannot be another's.
        self._done = ""

    @property
    def open(self) -> bool:
        """Whether there is an open incident."""
        return self._episode is not None and self._episode.opened

    @property
    def watches(self) -> bool:
        """Whether it follows an episode, with an open incident or none yet."""
        return self._episode is not None

    def pass_over(self, readings: int) -> None:
        """Take so many readings that are in no episode, while it follows none."""
        self._recent = self._recent << readings & self._all

    def add(self, clock: float, reading: Reading, judged: Judged | None) -> list[Incident]:
        """Take the next reading, judged if it is in an episode; return the records it causes."""
        out: list[Incident] = []
        episode = self._episode
        finding = None if judged is None else judged.finding
        if episode is not None:
            if not episode.follows and finding is not None and finding.trouble:
                episode.follows = finding.episode
            same = finding is not None and finding.episode == episode.follows
            if finding is None or not same or finding.ended is not None:
                if episode.opened:
                    ended = finding.ended if same and finding is not None else None
                    out.append(
                        self._resolve(episode, clock, reading, reading.time, ended or "recovered")
                    )
                self._episode = None
            elif finding.trouble:
                episode.last = clock
        anomaly = finding is not None and finding.anomaly
        self._recent = (self._recent << 1 | anomaly) & self._all
        if judged is not None and anomaly:
            incident = self._count(clock, reading, judged)
            if incident is not None:
                out.append(incident)
        return out

    def end(self, clock: float, last: Reading, time: float | None) -> list[Incident]:
        """Resolve an open incident at `time`, because no reading comes after `last`."""
        episode, self._episode = self._episode, None
        if episode is None or not episode.opened:
            return []
        return [self._resolve(episode, clock, last, time, "gone")]

    def _count(self, clock: float, reading: Reading, judged: Judged) -> Incident | None:
        finding, score, expected, why = judged
        episode = self._episode
        if episode is None:
            follows = finding.episode
            own = follows if follows != self._done else incident_id("anomaly", reading)
            episode = _Episode(own, reading.time, clock, clock, follows=follows)
            self._episode = episode
        episode.count += 1
        if score > episode.peak:
            episode.peak, episode.expected = score, expected
            episode.peak_at, episode.value = reading.time, reading.value
        if not episode.opened:
            if not (finding.opens and self._opens(clock, reading, episode)):
                return None
            episode.opened, episode.opened_at = True, reading.time
            episode.why, episode.metrics = why, finding.metrics
            if finding.explanation is not None:
                episode.reasons = finding.explanation.reasons
                episode.ordinary = finding.explanation.ordinary
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
            and (time is None or after(self._windows_of(reading), time) == time)
        )

    def _windows_of(self, reading: Reading) -> tuple[Window, ...]:
        windows = self._rules.windows
        return self._windows if windows is None else (*self._windows, *windows(reading))

    def _resolve(
        self,
        episode: _Episode,
        clock: float,
        reading: Reading,
        time: float | None,
        ended: Literal["recovered", "adapted", "gone"],
    ) -> Incident:
        self._done = episode.follows
        self._rest = clock + self._rules.cooldown
        return self._record(episode, "resolved", reading, time, ended)

    def _record(
        self,
        episode: _Episode,
        state: Literal["opened", "updated", "resolved"],
        reading: Reading,
        time: float | None,
        ended: Literal["recovered", "adapted", "gone"] | None = None,
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
            duration=episode.last - episode.began,
            reasons=episode.reasons,
            ordinary=episode.ordinary,
            why=episode.why,
            metric=reading.metric or self._rules.metric,
            labels=reading.labels or {},
            metrics=episode.metrics,
        )
        episode.sequence += 1
        episode.reported = episode.peak
        return incident

    def save(self) -> Saved:
        """Return the state, for `load`."""
        return Saved(self._recent, self._rest, self._episode, self._done)

    def load(self, saved: Saved) -> None:
        """Continue from a saved state."""
        self._recent, self._rest, self._episode = saved.recent, saved.rest, saved.episode
        self._done = saved.done
