"""What this process has done since its start: plain counts, cheap enough for every record.

Whoever counts has a cell of its own (a partition, an output's writer, a worker's thread), which
nobody else writes: no count is lost between the workers, and none waits for a lock. A scrape reads
the cells and adds them up, see `dataflow.metrics`. All of it costs the flow a call for each batch.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from threading import get_ident

import msgspec

from dataflow.records import Anomaly, Incident, Rejected, seconds

__all__ = [
    "ADMITTED",
    "DELAYS",
    "OUTPUTS",
    "PARTITIONS",
    "RECENT",
    "REORDERED",
    "SCORES",
    "STATES",
    "WORKERS",
    "AdmissionCounts",
    "Output",
    "Partition",
    "ReorderCounts",
    "States",
    "Worker",
    "output",
    "partition",
    "worker",
]

SCORES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Upper bounds of the score histogram: what lies up to the first is an ordinary reading."""

DELAYS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0, float("inf"))
"""Upper bounds of the delay histogram, in seconds."""

RECENT = 600.0
"""Seconds for which an instance counts as anomalous after an anomaly."""


class Worker:
    """What one thread has scored and refused."""

    __slots__ = ("anomalous", "found", "refused", "scored")

    def __init__(self) -> None:
        self.scored: tuple[list[int], float] = [0] * len(SCORES), 0.0
        """How many readings had a score up to each bound and above the one before; their sum."""
        self.found = 0
        self.refused: dict[str, int] = {}
        self.anomalous: dict[str, float] = {}
        """Instances by the time of their last anomaly, the longest ago first."""

    def score(self, scores: list[float]) -> None:
        """Count a batch of scores, each from 0 to 1.

        >>> mine = Worker()
        >>> mine.score([0.0, 0.25, 0.75])
        >>> mine.scored
        ([2, 0, 0, 0, 0, 1, 0, 0], 1.0)
        """
        ordinary = SCORES[0]
        unusual = [score for score in scores if score > ordinary]
        # Put in place whole: a scrape in between must not see counts that go down again.
        counts, total = self.scored[0].copy(), self.scored[1] + sum(scores)
        counts[0] += len(scores) - len(unusual)
        for score in unusual:
            counts[bisect_left(SCORES, score)] += 1
        self.scored = counts, total

    def find(self, instances: list[str], now: float) -> None:
        """Count anomalies, one at least, that were found at `now` (seconds since 1970)."""
        self.found += len(instances)
        anomalous = self.anomalous
        for instance in instances:
            anomalous.pop(instance, None)
            anomalous[instance] = now
        while next(iter(anomalous.values())) < now - RECENT:
            del anomalous[next(iter(anomalous))]

    def refuse(self, reason: str) -> None:
        """Count a refused record."""
        self.refused[reason] = self.refused.get(reason, 0) + 1


class Partition:
    """What has been read of one partition. Times are in seconds since 1970."""

    __slots__ = ("broker_time", "lag", "read", "read_at", "saved_at")

    def __init__(self) -> None:
        self.read = 0
        self.read_at: float | None = None
        self.broker_time: float | None = None
        """The time that the broker keeps with the last record read."""
        self.lag: int | None = None
        self.saved_at: float | None = None

    def took(self, records: int, broker_time: float | None = None) -> None:
        """Count a batch of records, which is not empty."""
        self.read += records
        self.read_at = time.time()
        if broker_time is not None:
            self.broker_time = broker_time


class Output:
    """What one writer has written: `name` says where (`kafka`...), `kind` what."""

    __slots__ = (
        *("confirmed", "delay_sum", "delays", "incidents", "kind", "name", "repeated", "written"),
    )

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind
        self.written = 0
        self.confirmed = 0
        self.repeated = 0
        """Records that a resumed flow computed again and found written already."""
        self.delays = [0] * len(DELAYS)
        self.delay_sum = 0.0
        self.incidents: dict[tuple[str, str], int] = {}
        """How many of each kind, and in each state, were told of."""

    def wrote(self, records: list[Anomaly | Incident | Rejected]) -> None:
        """Count records, and how long after its reading's own time each anomaly is written."""
        self.written += len(records)
        now = time.time()
        for record in records:
            if isinstance(record, Anomaly) and record.timestamp is not None:
                # A producer's clock may be ahead of ours.
                delay = max(0.0, now - seconds(record.timestamp))
                self.delays[bisect_left(DELAYS, delay)] += 1
                self.delay_sum += delay
            elif isinstance(record, Incident):
                key = (record.kind, record.state)
                self.incidents[key] = self.incidents.get(key, 0) + 1


class States:
    """How large detectors' states are when saved: a sample, some of the last.

    Looking at every state would cost more than scoring. After each look at the figures, the next
    state that a detector returns is measured, by the worker that has it.
    """

    __slots__ = ("_sizes", "wanted")

    def __init__(self) -> None:
        self.wanted = True
        self._sizes: deque[int] = deque(maxlen=64)

    def take(self, size: int) -> None:
        """Note a state's size, in bytes."""
        self.wanted = False
        self._sizes.append(size)

    def mean(self) -> float | None:
        """Return the mean of the last 64 sizes and ask for another; None if there is none."""
        self.wanted = True
        sizes = list(self._sizes)
        return sum(sizes) / len(sizes) if sizes else None


WORKERS: dict[int, Worker] = {}
PARTITIONS: dict[tuple[str, int], Partition] = {}
OUTPUTS: list[Output] = []
STATES = States()


def worker() -> Worker:
    """Return the calling thread's cell."""
    # By its number, for the cells of all threads are read by another.
    thread = get_ident()
    found = WORKERS.get(thread)
    return WORKERS.setdefault(thread, Worker()) if found is None else found


def partition(topic: str, number: int) -> Partition:
    """Return the cell of a partition that has just been opened."""
    return PARTITIONS.setdefault((topic, number), Partition())


def output(name: str, step_id: str) -> Output:
    """Return a new cell for a writer of the step of this id."""
    step = step_id.rpartition(".")[2]
    kind = "rejected" if step == "write_rejected" else "anomaly"
    cell = Output(name, "incident" if step.startswith("write_incidents") else kind)
    OUTPUTS.append(cell)
    return cell


class AdmissionCounts(msgspec.Struct):
    """What one process has seen since its start.

    `instances` were taken, `refused` readings were of further ones, and `scattered` readings came
    on another partition than the first of their instance.
    """

    instances: int = 0
    refused: int = 0
    scattered: int = 0


# Of all workers: an addition is exact, for CPython 3.11 and 3.12 let another thread in only where
# a function is called or a loop goes round.
ADMITTED = AdmissionCounts()


class ReorderCounts(msgspec.Struct):
    """What the orders of one process have done since its start.

    `held` readings had to wait, `given_up` is how often one went on without those before it, and
    `late` readings had an index below the one that was next: given up, or repeated.
    """

    held: int = 0
    given_up: int = 0
    late: int = 0


REORDERED = ReorderCounts()
"""What this process has held, given up and found late, exactly: see `ADMITTED`."""
