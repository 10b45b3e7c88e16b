"""Runs the flow of some settings over an input that ends, and keeps in memory what it writes.

It is `flow.build`, as `python -m bytewax.run dataflow.flow` runs it, with other sinks: no record is
written, no store is opened, no topic is created and no offset is committed.
"""

from __future__ import annotations

import gc
import math
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
from bytewax.dataflow import Dataflow
from bytewax.outputs import DynamicSink, Sink, StatelessSinkPartition

from dataflow import kafka
from dataflow.flow import build
from dataflow.kafka import topics
from dataflow.kafka.reading import Range
from dataflow.records import ALL, Anomaly, Incident, Raw, Reading, Rejected
from dataflow.rerun import stages
from dataflow.runtime import serial
from dataflow.settings import Settings
from dataflow.sources import source
from dataflow.steps import score
from dataflow.steps.score import Scored

__all__ = ["Collect", "Held", "Ran", "held", "in_processes", "over", "run", "together"]

Held: TypeAlias = Mapping[int, Range] | None
"""The offsets that each partition of the topic holds; None if the input is a file."""


GATHERED = serial.Gathered("normalize", "check.falses")
"""Readings are gathered before they are scored, and a rejected one is not taken before them.

Not where a new instance begins with what another has learned by then. The incidents of groups are
taken in the order of their times, whenever they come."""


class Ran(msgspec.Struct):
    """What the flow of some settings makes of its input.

    `incidents` are all their records, in order of each instance; `alerts` the anomalies that are
    news, of `anomalies` in all. `first` and `last` are the earliest and the latest time of a
    reading, in seconds since 1970; None if readings have no time. `instances` have sent readings.
    """

    incidents: list[Incident]
    alerts: list[Anomaly]
    anomalies: int = 0
    readings: int = 0
    instances: int = 0
    rejected: int = 0
    first: float | None = None
    last: float | None = None


def held(settings: Settings) -> Held:
    """Return what the topic holds now, for `run`: so that two runs read the same.

    Raises `UserError` if the topic does not exist or cannot be read.
    """
    if settings.input != "kafka":
        return None
    topics.existing_partitions(settings, settings.topic, "ANOMALY_TOPIC", [kafka.READ])
    return kafka.topic_ranges(settings, settings.topic)


def over(settings: Settings, outputs: Mapping[str, Sink[Any]], there: Held = None) -> None:
    """Run the flow over all of its input that is `there`, in this thread.

    Raises `UserError` if the settings or the input cannot be used. What would end a running flow
    ends this process.
    """
    _over([(settings, outputs)], there, ())


def _over(
    several: Sequence[tuple[Settings, Mapping[str, Sink[Any]]]],
    there: Held,
    steps: Collection[str],
) -> None:
    flows: list[Dataflow] = []
    records = source(_ending(several[0][0]), None, there)
    queue = _queue([settings for settings, _ in several], steps)
    for settings, outputs in several:
        own = _ending(settings)
        flows.append(
            build(
                *(own, score.detector(own), None),
                source=records,
                outputs=outputs,
                # Readings come to the other flows from the steps of the first one.
                decoding=_nothing if flows else None,
                clock_decides=False,
                # The first flow is the last to take them.
                scores_to=queue if flows else None,
                scores_from=None if flows else queue,
            )
        )
    alone = not any(settings.first_day for settings, _ in several)
    serial.run(flows, steps, GATHERED if alone else None)


def _queue(several: Sequence[Settings], steps: Collection[str]) -> score.ScoredQueue | None:
    """Return what hands the scores of one flow to the other; None if each has its own."""
    if len(several) != 2 or "normalize" not in steps or "score" in steps:
        return None
    return score.ScoredQueue() if stages.same_scores(*several) else None


def _ending(settings: Settings) -> Settings:
    return settings.model_copy(update={"follow": False})


def _nothing(batch: list[Raw]) -> list[Reading | Rejected]:
    return []


def run(settings: Settings, there: Held = None) -> Ran:
    """Run the flow over all of its input that is `there`, and return what it makes of it.

    Incidents are made whether the settings ask for them or not. Raises as `over` does.
    """
    return together([settings], there)[0]


def together(
    several: Sequence[Settings], there: Held = None, steps: Collection[str] = ()
) -> list[Ran]:
    """Run the flows of several settings, as `run` does, over the same readings.

    `steps` are the ids of those that return the same in all of them, and run once.
    """
    own = [settings.model_copy(update={"incidents": True}) for settings in several]
    collected = [_Collected(settings) for settings in own]
    _over([(one, kept.outputs()) for one, kept in zip(own, collected, strict=True)], there, steps)
    return [one.ran() for one in collected]


class _Collected:
    """What the flow of some settings writes."""

    def __init__(self, settings: Settings) -> None:
        self._together = settings.together
        self._ran = Ran([], [])
        self._seen: set[str] = set()
        self._times = [math.inf, -math.inf]

    def outputs(self) -> dict[str, Sink[Any]]:
        """Return the sinks of the flow, by the ids of their steps."""
        return {
            "write_anomalies": Collect(self._anomalies),
            "write_incidents": Collect(self._incidents),
            "write_rejected": Collect(self._rejected),
            "write_scored": Collect(self._scored),
        }

    def ran(self) -> Ran:
        """Return all of it."""
        ran, times = self._ran, self._times
        ran.instances = len(self._seen)
        if times[0] <= times[1]:
            ran.first, ran.last = times
        return ran

    def _anomalies(self, items: Sequence[tuple[str, Anomaly]]) -> None:
        self._ran.anomalies += len(items)
        self._ran.alerts += [one for _, one in items if one.alert]

    def _incidents(self, items: Sequence[tuple[str, Incident]]) -> None:
        self._ran.incidents += [one for _, one in items]

    def _rejected(self, items: Sequence[tuple[str, Rejected]]) -> None:
        self._ran.rejected += len(items)

    def _scored(self, items: Sequence[tuple[str, list[Scored]]]) -> None:
        batches = [readings for _, readings in items if readings]
        if self._together:  # what is said of all metrics is no reading of its own
            batches = [one for one in batches if one[0][0].metric != ALL]
        self._ran.readings += sum(map(len, batches))
        firsts = [one[0][0] for one in batches]
        self._seen.update([one.instance for one in firsts])
        lasts = [one[-1][0] for one in batches]
        known = [one.time for one in (*firsts, *lasts) if one.time is not None]
        if known:
            self._times[0] = min(self._times[0], min(known))
            self._times[1] = max(self._times[1], max(known))


def in_processes(several: Sequence[Settings], there: Held = None) -> list[Ran]:
    """Run the flow of each of the settings in another process, and return what each makes.

    It is one process where they read their input in the same way; else one for each, all at the
    same time. What they print on standard error is printed once they have ended, each line once.
    Raises `UserError` as `run` does, and `ChildProcessError` if a process has ended with an error
    that it printed.
    """
    steps = stages.shared(several[0], several[-1])
    groups = [several] if steps else [[one] for one in several]
    with tempfile.TemporaryDirectory(prefix="anomaly-rerun-") as folder:
        said = [Path(folder) / str(number) for number in range(len(groups))]
        pools = [
            # A process that was forked could not use threads that it does not have.
            ProcessPoolExecutor(1, get_context("spawn"), _begin, (path,))
            for path in said
        ]
        try:
            running = [
                pool.submit(together, group, there, steps)
                for pool, group in zip(pools, groups, strict=True)
            ]
            return [ran for one in running for ran in one.result()]
        except BrokenProcessPool:
            raise ChildProcessError from None
        finally:
            for pool in pools:
                pool.shutdown(cancel_futures=True)
            for line in dict.fromkeys(line for path in said for line in _lines(path)):
                print(line, file=sys.stderr)


def _lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines() if path.exists() else []


def _begin(said: Path) -> None:
    """Prepare a process: its standard error goes to a file, and it ends with its parent."""
    with said.open("wb") as file:
        os.dup2(file.fileno(), 2)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Ctrl-C ends it without a trace.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # As in the flow itself: no record is part of a cycle.
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class Collect(DynamicSink[Any]):
    """A sink that gives a function what comes: batches of pairs of key and record."""

    def __init__(self, take: Any) -> None:
        self._take = take

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Part:
        """Return the writer of a worker."""
        return _Part(self._take)


class _Part(StatelessSinkPartition[Any]):
    def __init__(self, take: Any) -> None:
        self._take = take

    def write_batch(self, items: list[Any]) -> None:
        self._take(items)
