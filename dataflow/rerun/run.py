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
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
from bytewax.outputs import DynamicSink, Sink, StatelessSinkPartition
from bytewax.testing import run_main

from dataflow import kafka
from dataflow.flow import build
from dataflow.kafka import topics
from dataflow.kafka.reading import Range
from dataflow.records import ALL, Anomaly, Incident, Rejected
from dataflow.settings import Settings
from dataflow.sources import source
from dataflow.steps import score
from dataflow.steps.score import Scored

__all__ = ["Collect", "Held", "Ran", "held", "in_processes", "over", "run"]

Held: TypeAlias = Mapping[int, Range] | None
"""The offsets that each partition of the topic holds; None if the input is a file."""


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
    settings = settings.model_copy(update={"follow": False})
    detector = score.detector(settings)
    records = source(settings, None, there)
    flow = build(settings, detector, None, source=records, outputs=outputs, clock_decides=False)
    run_main(flow)  # type: ignore[no-untyped-call]


def run(settings: Settings, there: Held = None) -> Ran:
    """Run the flow over all of its input that is `there`, and return what it makes of it.

    Incidents are made whether the settings ask for them or not. Raises as `over` does.
    """
    settings = settings.model_copy(update={"incidents": True})
    ran = Ran([], [])
    rejected: list[Rejected] = []
    seen: set[str] = set()
    times = [math.inf, -math.inf]

    def anomaly(items: Sequence[tuple[str, Anomaly]]) -> None:
        ran.anomalies += len(items)
        ran.alerts += [one for _, one in items if one.alert]

    def scored(items: Sequence[tuple[str, list[Scored]]]) -> None:
        if settings.together:  # what is said of all metrics is no reading of its own
            items = [it for it in items if not it[1] or it[1][0][0].metric != ALL]
        ran.readings += sum([len(readings) for _, readings in items])
        seen.update([readings[0][0].instance for _, readings in items if readings])
        for place in (0, -1):
            found = [readings[place][0].time for _, readings in items if readings]
            known = [time for time in found if time is not None]
            if known:
                times[0] = min(times[0], min(known))
                times[1] = max(times[1], max(known))

    outputs = {
        "write_anomalies": Collect(anomaly),
        "write_incidents": Collect(lambda items: ran.incidents.extend([one for _, one in items])),
        "write_rejected": Collect(lambda items: rejected.extend([one for _, one in items])),
        "write_scored": Collect(scored),
    }
    over(settings, outputs, there)
    ran.instances, ran.rejected = len(seen), len(rejected)
    if times[0] <= times[1]:
        ran.first, ran.last = times
    return ran


def in_processes(several: Sequence[Settings], there: Held = None) -> list[Ran]:
    """Run the flow of each of the settings in a process of its own, all at the same time.

    What they print on standard error is printed once they have ended, each line once. Raises
    `UserError` as `run` does, and `ChildProcessError` if a process has ended with an error that it
    printed.
    """
    with tempfile.TemporaryDirectory(prefix="anomaly-rerun-") as folder:
        said = [Path(folder) / str(number) for number in range(len(several))]
        pools = [
            # A process that was forked could not use threads that it does not have.
            ProcessPoolExecutor(1, get_context("spawn"), _begin, (path,))
            for path in said
        ]
        try:
            running = [
                pool.submit(run, settings, there)
                for pool, settings in zip(pools, several, strict=True)
            ]
            return [one.result() for one in running]
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
