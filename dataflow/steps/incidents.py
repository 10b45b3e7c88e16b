"""The step `incidents`: an `InstanceMonitor` per instance, and the clock that finds silence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, TypeAlias

from bytewax.operators import StatefulBatchLogic
from msgspec.structs import replace

from dataflow.calendars import zones
from dataflow.detectors.base import AnyDetector, WindowedDetector
from dataflow.errors import stop_process
from dataflow.formats.metrics import Wanted
from dataflow.groups import Groups
from dataflow.incidents import maintenance
from dataflow.incidents.interval import IntervalCheck
from dataflow.incidents.monitor import InstanceMonitor
from dataflow.incidents.progress import Place, Progress
from dataflow.incidents.rules import Judged, Rules
from dataflow.incidents.silence import SilenceState
from dataflow.kafka.caught_up import CaughtUp
from dataflow.metrics.counters import INCIDENTS_OPEN
from dataflow.records import Incident, Reading, Rejected, key_of, series_key, series_parts
from dataflow.recovery.decisions import Decisions
from dataflow.recovery.store import Store
from dataflow.runtime.clock import wake
from dataflow.settings import Settings
from dataflow.steps.anomaly import bounder, metrics_of, sayer
from dataflow.steps.groups import Membership
from dataflow.steps.rules import Rules as Ruled
from dataflow.steps.score import Scored
from dataflow.warnings import warn_once

__all__ = ["Sign", "monitors", "rules", "signs_of_instances", "signs_of_life"]

CHECK = 60.0
"""Maximum seconds between two checks whether an instance is silent."""

GRACE = 30.0
"""Maximum seconds from the first check that finds a silence to its record.

Other partitions may have been read ahead: the instance's next reading may still be on its way.
"""

PASSES = 5.0
"""Maximum seconds that a batch takes to pass in all workers."""


class Sign(NamedTuple):
    """A rejected reading: its instance sends, though nothing that can be scored."""

    partition: int
    offset: int
    time: float | None


Logic: TypeAlias = StatefulBatchLogic[list[Scored] | Sign, Incident | Membership, bytes]


def rules(settings: Settings, detector: AnyDetector) -> Rules:
    """Return the rules that the settings give.

    There is no silence with a detector that scores in windows: its scores come late.
    """
    late = isinstance(detector, WindowedDetector)
    # A step of all metrics may be complete only when the next one begins.
    silence = settings.silence + 1 if settings.silence and settings.together else settings.silence
    return Rules(
        topic=settings.source_name,
        metric=settings.default_metric,
        interval=settings.interval,
        anomalies=settings.incident_anomalies,
        readings=settings.incident_readings,
        duration=settings.incident_duration,
        cooldown=settings.incident_cooldown,
        updates=settings.incident_updates,
        silence=0.0 if late else silence * settings.interval,
        wall=settings.silence_seconds,
        gone=settings.silence_gone,
        silence_except=tuple(filter(None, map(str.strip, settings.silence_except.split(",")))),
        plan=maintenance.parse(settings.maintenance, zones.parse(settings.time_zone)),
    )


def signs_of_life(batch: Sequence[Reading | Rejected]) -> list[tuple[str, Sign]]:
    """Return, by their keys, the rejected readings among records that name their instance."""
    return [
        (
            series_key(record.instance, record.metric),
            Sign(record.source.partition, record.source.offset, record.time),
        )
        for record in batch
        if isinstance(record, Rejected) and record.instance is not None
    ]


def signs_of_instances(batch: Sequence[Reading | Rejected]) -> list[tuple[str, Sign]]:
    """Return the same by instance, where its metrics are judged together."""
    return [(series_parts(key)[0], sign) for key, sign in signs_of_life(batch)]


def monitors(
    settings: Settings,
    detector: AnyDetector,
    store: Store | None,
    caught_up: CaughtUp | None = None,
    ruled: Ruled | None = None,
    *,
    clock_decides: bool = True,
) -> Callable[[bytes | None], Logic]:
    """Return the builder of the step's logic: for a new instance, or from its last snapshot.

    `caught_up` says whether the flow has read all that there is; None if it always has. Without
    `clock_decides`, silence is found at the next reading only.
    """
    incident_rules = rules(settings, detector)
    if ruled is not None:
        incident_rules = replace(incident_rules, windows=ruled.windows)
    steps = IntervalCheck(settings.interval)
    decisions = Decisions(store)
    progress_of = Progress if clock_decides else _NoProgress
    progress = progress_of(together=settings.reorder, wait=min(PASSES, incident_rules.silence))
    metrics = metrics_of(settings)
    say = sayer(settings, detector)
    groups = settings.groups
    for kind in ("anomaly", "silence"):
        INCIDENTS_OPEN.labels(kind)  # 0 until one opens
    wanted = Wanted(settings.metrics)
    # A format knows other names of CPU.
    cpu = any("cpu" in name.lower() or "*" in name for name in settings.metrics)

    def judged(scored: Scored) -> Judged | None:
        reading, verdict, finding = scored
        if finding is None:
            return None
        return Judged(
            finding,
            verdict.score,
            bounder(metrics(reading).scale)(verdict.expected),
            say(scored) if finding.anomaly else "",
        )

    logic_of = _InstanceLogic if clock_decides else _ByReadings

    def build(saved: bytes | None) -> Logic:
        monitor = None
        if saved is not None:
            try:
                monitor = InstanceMonitor.load(incident_rules, progress, saved)
            except ValueError as error:
                stop_process(
                    f"the recovery store cannot be read ({error}): resume with that version, or "
                    "start with a new store."
                )
            else:
                for kind in monitor.open:
                    INCIDENTS_OPEN.labels(kind).inc()
        logic = logic_of(
            incident_rules, progress, decisions, steps, caught_up, judged, groups, monitor
        )
        if monitor is not None and monitor.last is not None and not settings.together:
            metric = monitor.last.metric
            logic.dismissed = not (cpu if metric is None else wanted.named(metric))
        return logic

    return build


class _InstanceLogic(Logic):
    """One instance, and the time of its next check."""

    def __init__(
        self,
        rules: Rules,
        progress: Progress,
        decisions: Decisions,
        steps: IntervalCheck,
        caught_up: CaughtUp | None,
        judged: Callable[[Scored], Judged | None],
        groups: Groups,
        monitor: InstanceMonitor | None,
    ) -> None:
        self._rules = rules
        self._progress = progress
        self._decisions = decisions
        self._steps = steps
        self._caught_up = caught_up
        self._judged = judged
        self._groups = groups or None
        # Those by which the group is known; at first something that no labels are.
        self._labels: object = self
        self._monitor = monitor
        self.dismissed = False
        """Whether the metric is not selected any more, so that no reading will come."""
        self._decided: Mapping[tuple[int, int, int], int] = {}
        self._reached: Mapping[int, int] = {}
        if monitor is not None and monitor.last is not None:
            self._decided, self._reached = decisions.of(key_of(monitor.last))
        # The time while the flow stood still does not count as silence.
        self._arrived = time.monotonic()
        self._check = min(CHECK, rules.silence / 8)
        self._grace = min(GRACE, rules.silence)
        self._noticed: float | None = None
        self._next = self._arrived

    def on_batch(
        self, values: list[list[Scored] | Sign]
    ) -> tuple[Iterable[Incident | Membership], bool]:
        out: list[Incident] = []
        for value in values:
            if isinstance(value, Sign):
                if self._monitor is not None:
                    self._monitor.rejected(*value)
                continue
            # As a rule, this is all that a reading costs.
            passed = self._pass_over(value)
            for scored in value[passed:] if passed else value:
                out += self._add(scored)
        monitor = self._monitor
        values = [scored for scored in values if scored]
        self.dismissed = self.dismissed and not values
        if not values:
            # The instance is forgotten; a silence that is open is still to be resolved.
            over = monitor is None or monitor.silence is SilenceState.GONE
            left = [] if monitor is None else self._belongs(monitor, None)
            return left, self.DISCARD if over else self.RETAIN
        if monitor is None:
            return [], self.DISCARD
        out += self._repeat_decisions(monitor)
        if out and self._rules.silence and monitor.last is not None:
            self._decisions.reach(key_of(monitor.last), monitor.read)
        self._arrived = time.monotonic()
        self._noticed = None
        _count(out)
        if self._groups is None:
            return out, self.RETAIN
        last = monitor.last
        if last is None or (last.labels == self._labels and not out):
            return [], self.RETAIN
        self._labels = last.labels
        group = self._groups.of(last.instance, last.labels)
        return [*self._belongs(monitor, group), *self._grouped(out)], self.RETAIN

    def _belongs(self, monitor: InstanceMonitor, group: str | None) -> list[Membership]:
        """Let the series count as a member of this group only; return what changes by that."""
        before, monitor.group = monitor.group, group
        last = monitor.last
        if before == group or last is None or last.time is None:
            return []
        metric = last.metric or self._rules.metric
        changes = ((before, -1), (group, 1))
        return [Membership(last.time, one, metric, by) for one, by in changes if one is not None]

    def _grouped(self, incidents: list[Incident]) -> list[Incident]:
        """Name the group in records."""
        groups = self._groups
        if groups is None:
            return incidents
        return [replace(one, group=groups.of(one.instance, one.labels)) for one in incidents]

    def _without(
        self, monitor: InstanceMonitor, incidents: list[Incident]
    ) -> list[Incident | Membership]:
        """Return records that no reading caused; an instance that is gone is no member."""
        left: list[Membership] = []
        if any(one.ended == "gone" for one in incidents):
            left = self._belongs(monitor, None)
            self._labels = self
        return [*self._grouped(incidents), *left]

    def _pass_over(self, scored: list[Scored]) -> int:
        """Take the first readings as long as nothing comes of them; return how many."""
        monitor = self._monitor
        if monitor is None or self._decided or not self._steps.done:
            return 0
        return monitor.pass_over(scored)

    def _add(self, scored: Scored) -> list[Incident]:
        reading = scored[0]
        monitor = self._monitor
        if monitor is None:
            monitor = InstanceMonitor(self._rules, self._progress, reading.instance)
            self._monitor = monitor
            self._decided, self._reached = self._decisions.of(key_of(reading))
        usual = self._steps.add(monitor.last, reading)
        if usual is not None:
            interval = self._rules.interval
            warn_once(
                "interval",
                f"most readings come {usual:g} s after the one before, and ANOMALY_INTERVAL is "
                f"{interval:g} s: set ANOMALY_INTERVAL={usual:g}, with a new recovery store, or "
                "silences and scores are wrong.",
            )
        repeated = self._repeat_decisions(monitor)
        return repeated + monitor.add(reading, self._judged(scored))

    def on_notify(self) -> tuple[Iterable[Incident | Membership], bool]:
        out = self._due()
        _count(out)
        return out, self.RETAIN

    def _due(self) -> list[Incident | Membership]:
        monitor = self._monitor
        now = time.monotonic()
        # Bytewax also calls this at times that were asked for before and no longer apply.
        if monitor is None or now < self._next:
            return []
        if self.dismissed:
            self.dismissed = False
            dismissed = self._repeat_decisions(monitor) + monitor.dismiss()
            left = self._belongs(monitor, None)
            return [*self._grouped(dismissed), *left]
        self._next = now + self._check
        out = self._repeat_decisions(monitor)
        last = monitor.last
        if self._caught_up is not None and last is not None:
            # While the broker was away, nothing could be read.
            self._arrived = max(self._arrived, self._caught_up.away(last.partition))
        by = None if self._reads_again(monitor) else monitor.overdue(now - self._arrived)
        if by is None or last is None:
            self._noticed = None
            return self._without(monitor, out)
        known: bool | None = True
        if by == "wall" and self._caught_up is not None:
            since = now if self._noticed is None else self._noticed
            known = self._caught_up.at_end(last.partition, since)
        if known is False:
            self._arrived, self._noticed = now, None
        elif self._noticed is None:
            self._noticed = now
        elif known and now - self._noticed >= self._grace:
            self._decisions.add(last, monitor.silence + 1, monitor.read)
            out += monitor.report_silence()
            self._noticed = None
        return self._without(monitor, out)

    def _reads_again(self, monitor: InstanceMonitor) -> bool:
        """Return whether an earlier process has read on, and written what came of it."""
        read = monitor.read
        return any(
            read.get(partition, offset) < offset for partition, offset in self._reached.items()
        )

    def _repeat_decisions(self, monitor: InstanceMonitor) -> list[Incident]:
        """Return what a process that was killed since has reported after the last reading."""
        out: list[Incident] = []
        last = monitor.last
        if last is not None and self._decided:
            decided = self._decided.get(
                (last.partition, last.offset, last.number), SilenceState.SENDING
            )
            while monitor.silence < decided:
                out += monitor.report_silence()
        return out

    def notify_at(self) -> datetime | None:
        monitor = self._monitor
        if self.dismissed:
            return wake(0.0)
        if not self._rules.silence or monitor is None or monitor.silence is SilenceState.GONE:
            return None
        return wake(self._next - time.monotonic())

    def snapshot(self) -> bytes:
        assert self._monitor is not None
        return self._monitor.dump()


class _NoProgress(Progress):
    """Follows no instances: how far they have come is for the clock to know."""

    def seen_all(
        self, place: Place, clock: float, readings: Sequence[Reading], steps: Sequence[float]
    ) -> None:
        pass

    def seen(
        self, partition: int, offset: int, place: Place, clock: float | None, time: float | None
    ) -> None:
        pass


class _ByReadings(_InstanceLogic):
    """One instance, whose silence no clock finds."""

    def notify_at(self) -> datetime | None:
        return None


def _count(records: Sequence[Incident | Membership]) -> None:
    """Count the incidents that these records open and resolve."""
    for record in records:
        if isinstance(record, Membership):
            continue
        if record.state == "opened":
            INCIDENTS_OPEN.labels(record.kind).inc()
        elif record.state == "resolved":
            INCIDENTS_OPEN.labels(record.kind).dec()
