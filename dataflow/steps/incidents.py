"""The step `incidents`: one `InstanceMonitor` an instance, and the clock for what does not come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import chain
from typing import TypeAlias

from bytewax.operators import StatefulBatchLogic

from dataflow.detectors.base import AnyDetector, WindowedDetector
from dataflow.errors import stop_process
from dataflow.incidents import maintenance
from dataflow.incidents.monitor import InstanceMonitor
from dataflow.incidents.rules import Anomalous, Rules
from dataflow.incidents.silence import Progress
from dataflow.records import Incident
from dataflow.recovery.decisions import Decisions
from dataflow.recovery.store import Store
from dataflow.settings import Settings
from dataflow.steps.report import bounder
from dataflow.steps.score import Scored

__all__ = ["rules", "watcher"]

CHECK = 60.0
"""Seconds between two looks whether an instance is silent, at most."""

GRACE = 30.0
"""Seconds that a silence must last after it was noticed, at most: others may be read ahead."""

Logic: TypeAlias = StatefulBatchLogic[list[Scored], Incident, bytes]


def rules(settings: Settings, detector: AnyDetector) -> Rules:
    """Return what makes an incident, as the settings say.

    A detector that judges readings late leaves no silence to notice.
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


def watcher(
    settings: Settings, detector: AnyDetector, threshold: float, store: Store | None
) -> Callable[[bytes | None], Logic]:
    """Return what makes the step's logic of an instance, from its last snapshot if there is one."""
    made = rules(settings, detector)
    decisions = Decisions(store)
    progress = Progress(together=settings.reorder)
    bounded = bounder(settings.scale)

    def found(scored: Scored) -> Anomalous | None:
        score = scored[1].score
        return Anomalous(score, bounded(scored[1].expected)) if score > threshold else None

    def build(saved: bytes | None) -> Logic:
        watch = None
        if saved is not None:
            try:
                watch = InstanceMonitor.load(made, progress, saved)
            except ValueError as wrong:
                stop_process(f"the recovery store holds what cannot be read. {wrong}")
        return _Watching(made, progress, decisions, found, watch)

    return build


class _Watching(Logic):
    """One instance, and when to look at it next."""

    def __init__(
        self,
        rules: Rules,
        progress: Progress,
        decisions: Decisions,
        found: Callable[[Scored], Anomalous | None],
        watch: InstanceMonitor | None,
    ) -> None:
        self._rules = rules
        self._progress = progress
        self._decisions = decisions
        self._found = found
        self._watch = watch
        last = None if watch is None else watch.last
        self._decided: dict[tuple[int, int], int] = decisions.of(last.instance) if last else {}
        # The time that a flow stood still is not the instance's.
        self._heard = time.time()
        self._check = min(CHECK, rules.silence / 8)
        self._grace = min(GRACE, rules.silence)
        self._noticed: float | None = None
        self._next = self._heard

    def on_batch(self, values: list[list[Scored]]) -> tuple[Iterable[Incident], bool]:
        watch = self._watch
        if watch is None:
            instance = values[0][0][0].instance
            self._watch = watch = InstanceMonitor(self._rules, self._progress, instance)
            self._decided = self._decisions.of(instance)
        out: list[Incident] = []
        for scored in chain.from_iterable(values):
            if self._decided:
                out += self._decide_again(watch)
            out += watch.add(scored[0], self._found(scored))
        if self._decided:
            out += self._decide_again(watch)
        self._heard = time.time()
        self._noticed = None
        return out, self.RETAIN

    def on_notify(self) -> tuple[Iterable[Incident], bool]:
        watch = self._watch
        now = time.time()
        # Bytewax also calls this at a time that was once asked for and is no longer.
        if watch is None or now < self._next:
            return [], self.RETAIN
        self._next = now + self._check
        out = self._decide_again(watch)
        if not watch.overdue(now - self._heard):
            self._noticed = None
        elif self._noticed is None:
            self._noticed = now
        elif now - self._noticed >= self._grace and watch.last is not None:
            self._decisions.add(watch.last, watch.told + 1)
            out += watch.tell()
            self._noticed = None
        return out, self.RETAIN

    def _decide_again(self, watch: InstanceMonitor) -> list[Incident]:
        """Return what was told of the last reading by a process that was killed since."""
        out: list[Incident] = []
        last = watch.last
        if last is not None:
            told = self._decided.get((last.partition, last.offset), 0)
            while watch.told < told:
                out += watch.tell()
        return out

    def notify_at(self) -> datetime | None:
        if not self._rules.silence or self._watch is None or self._watch.told == 2:
            return None
        return datetime.fromtimestamp(self._next, UTC)

    def snapshot(self) -> bytes:
        assert self._watch is not None
        return self._watch.dump()
