"""The step `incidents`: an `InstanceMonitor` per instance, and the clock that finds silence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from itertools import chain
from typing import TypeAlias

from bytewax.operators import StatefulBatchLogic

from dataflow.detectors.base import AnyDetector, WindowedDetector
from dataflow.errors import stop_process
from dataflow.incidents import maintenance
from dataflow.incidents.monitor import InstanceMonitor
from dataflow.incidents.rules import Anomalous, Rules
from dataflow.incidents.silence import Progress, SilenceState
from dataflow.records import Incident
from dataflow.recovery.decisions import Decisions
from dataflow.recovery.store import Store
from dataflow.settings import Settings
from dataflow.steps.anomaly import bounder
from dataflow.steps.score import Scored

__all__ = ["monitors", "rules"]

CHECK = 60.0
"""Maximum seconds between two checks whether an instance is silent."""

GRACE = 30.0
"""Maximum seconds from the first check that finds a silence to its record.

Other partitions may have been read ahead: the instance's next reading may still be on its way.
"""

Logic: TypeAlias = StatefulBatchLogic[list[Scored], Incident, bytes]


def rules(settings: Settings, detector: AnyDetector) -> Rules:
    """Return the rules that the settings give.

    There is no silence with a detector that scores in windows: its scores come late.
    """
    late = isinstance(detector, WindowedDetector)
    return Rules(
        topic=settings.source_name,
        interval=settings.interval,
        anomalies=settings.incident_anomalies,
        readings=settings.incident_readings,
        duration=settings.incident_duration,
        quiet=settings.incident_quiet,
        cooldown=settings.incident_cooldown,
        updates=settings.incident_updates,
        silence=0.0 if late else settings.silence * settings.interval,
        wall=settings.silence_seconds,
        gone=settings.silence_gone,
        plan=maintenance.parse(settings.maintenance),
    )


def monitors(
    settings: Settings, detector: AnyDetector, threshold: float, store: Store | None
) -> Callable[[bytes | None], Logic]:
    """Return the builder of the step's logic: for a new instance, or from its last snapshot."""
    incident_rules = rules(settings, detector)
    decisions = Decisions(store)
    progress = Progress(together=settings.reorder)
    bounded = bounder(settings.scale)

    def anomaly(scored: Scored) -> Anomalous | None:
        score = scored[1].score
        return Anomalous(score, bounded(scored[1].expected)) if score > threshold else None

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
        return _InstanceLogic(incident_rules, progress, decisions, anomaly, monitor)

    return build


class _InstanceLogic(Logic):
    """One instance, and the time of its next check."""

    def __init__(
        self,
        rules: Rules,
        progress: Progress,
        decisions: Decisions,
        anomaly: Callable[[Scored], Anomalous | None],
        monitor: InstanceMonitor | None,
    ) -> None:
        self._rules = rules
        self._progress = progress
        self._decisions = decisions
        self._anomaly = anomaly
        self._monitor = monitor
        last = None if monitor is None else monitor.last
        self._decided: Mapping[tuple[int, int], int] = decisions.of(last.instance) if last else {}
        # The time while the flow stood still does not count as silence.
        self._arrived = time.time()
        self._check = min(CHECK, rules.silence / 8)
        self._grace = min(GRACE, rules.silence)
        self._noticed: float | None = None
        self._next = self._arrived

    def on_batch(self, values: list[list[Scored]]) -> tuple[Iterable[Incident], bool]:
        monitor = self._monitor
        values = [scored for scored in values if scored]
        if not values:
            # The instance is forgotten; a silence that is open is still to be resolved.
            over = monitor is None or monitor.silence is SilenceState.GONE
            return [], self.DISCARD if over else self.RETAIN
        if monitor is None:
            instance = values[0][0][0].instance
            self._monitor = monitor = InstanceMonitor(self._rules, self._progress, instance)
            self._decided = self._decisions.of(instance)
        out: list[Incident] = []
        for scored in chain.from_iterable(values):
            if self._decided:
                out += self._repeat_decisions(monitor)
            out += monitor.add(scored[0], self._anomaly(scored))
        if self._decided:
            out += self._repeat_decisions(monitor)
        self._arrived = time.time()
        self._noticed = None
        return out, self.RETAIN

    def on_notify(self) -> tuple[Iterable[Incident], bool]:
        monitor = self._monitor
        now = time.time()
        # Bytewax also calls this at times that were asked for before and no longer apply.
        if monitor is None or now < self._next:
            return [], self.RETAIN
        self._next = now + self._check
        out = self._repeat_decisions(monitor)
        if not monitor.overdue(now - self._arrived):
            self._noticed = None
        elif self._noticed is None:
            self._noticed = now
        elif now - self._noticed >= self._grace and monitor.last is not None:
            self._decisions.add(monitor.last, monitor.silence + 1)
            out += monitor.report_silence()
            self._noticed = None
        return out, self.RETAIN

    def _repeat_decisions(self, monitor: InstanceMonitor) -> list[Incident]:
        """Return what a process that was killed since has reported after the last reading."""
        out: list[Incident] = []
        last = monitor.last
        if last is not None:
            decided = self._decided.get((last.partition, last.offset), SilenceState.SENDING)
            while monitor.silence < decided:
                out += monitor.report_silence()
        return out

    def notify_at(self) -> datetime | None:
        monitor = self._monitor
        if not self._rules.silence or monitor is None or monitor.silence is SilenceState.GONE:
            return None
        return datetime.fromtimestamp(self._next, UTC)

    def snapshot(self) -> bytes:
        assert self._monitor is not None
        return self._monitor.dump()
