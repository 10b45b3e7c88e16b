"""Every metric that this process exposes to Prometheus: to add one, add it to the table here.

`docs/metrics.md` describes each of them. Labels have few values: never an instance, but for the few
of `instances.py`. Metrics are
process-wide and thread-safe. An update takes about 0.5 µs, so the flow makes one for each batch,
not for each reading.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Literal

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from dataflow import __version__
from dataflow.metrics.instances import WorstInstances
from dataflow.records import Anomaly, Incident, Over, Rejected, seconds
from dataflow.settings import Settings
from dataflow.warnings import PROCESS

__all__ = [
    "ALERTS_FOUND",
    "ANOMALIES_FOUND",
    "ANOMALOUS",
    "DELAYS",
    "INCIDENTS_OPEN",
    "INSTANCES",
    "OPENED",
    "READINGS_SCATTERED",
    "READINGS_SCORED",
    "RECENT",
    "RECORDS_REFUSED",
    "REORDER_GAPS_GIVEN_UP",
    "REORDER_HELD",
    "REORDER_LATE",
    "REORDER_RESTARTS",
    "SCORES",
    "SCORE_BOUNDS",
    "STATES",
    "STORE",
    "WORST",
    "AnomalousInstances",
    "OptionalGauge",
    "Output",
    "Partition",
    "RecoveryStore",
    "ScoreHistogram",
    "StateSizes",
    "WarningsByReason",
    "describe",
    "kind",
    "output",
    "partition",
]

SCORE_BOUNDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Upper bounds of the score histogram: scores up to the first one are ordinary."""

DELAYS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0)
"""Upper bounds of the delay histogram, in seconds."""

RECENT = 600.0
"""Seconds for which an instance counts as anomalous after an anomaly."""


class OptionalGauge(Gauge):
    """A gauge without a sample while its value is unknown, which is NaN."""

    def collect(self) -> Iterator[Metric]:
        """Yield the metric, without its sample if the value is NaN."""
        for family in super().collect():
            family.samples = [one for one in family.samples if not math.isnan(one.value)]
            yield family


class ScoreHistogram(Collector):
    """The histogram of scores, which takes a batch at a time.

    A collector of its own, because prometheus_client's `Histogram` takes one value at a time. At
    0.5 µs a reading that would add several percent to the CPU time of the flow.
    """

    def __init__(self, name: str, documentation: str) -> None:
        self._name = name
        self._documentation = documentation
        self._lock = threading.Lock()
        self._counts = [0] * len(SCORE_BOUNDS)
        self._sum = 0.0

    def observe(self, scores: list[float]) -> None:
        """Count a batch of scores, each from 0 to 1."""
        total = sum(scores)
        unusual = [score for score in scores if score > SCORE_BOUNDS[0]]
        places = [bisect_left(SCORE_BOUNDS, score) for score in unusual]
        with self._lock:
            self._sum += total
            self._counts[0] += len(scores) - len(unusual)
            for place in places:
                self._counts[place] += 1

    def collect(self) -> Iterator[Metric]:
        """Yield the histogram: how many scores lie at or below each bound, and their sum."""
        with self._lock:
            heights, total = [*accumulate(self._counts)], self._sum
        bounds = [*map(str, SCORE_BOUNDS), "+Inf"]
        buckets = list(zip(bounds, [*heights, heights[-1]], strict=True))
        yield HistogramMetricFamily(self._name, self._documentation, buckets, total)


class WarningsByReason(Collector):
    """The counts of `dataflow.warnings`, which may be used before metrics are."""

    def collect(self) -> Iterator[Metric]:
        """Yield the counter. Each reason is there from the start, so that the first one shows."""
        family = CounterMetricFamily(
            "anomaly_warnings",
            "Warnings by reason; not each is a line on standard error.",
            labels=["reason"],
        )
        for reason, count in PROCESS.counts.items():
            family.add_metric([reason], count)
        yield family


class AnomalousInstances:
    """The instances that had an anomaly in the last `RECENT` seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By the time of the last anomaly, the oldest first.
        self._last: dict[str, float] = {}

    def add(self, instances: list[str], now: float) -> None:
        """Note an anomaly of each of these instances at `now`, in seconds since 1970."""
        with self._lock:
            for instance in instances:
                self._last.pop(instance, None)
                self._last[instance] = now
            self._forget(now)

    def count(self, now: float | None = None) -> int:
        """Return how many instances had an anomaly in the `RECENT` seconds before `now`."""
        with self._lock:
            self._forget(time.time() if now is None else now)
            return len(self._last)

    def _forget(self, now: float) -> None:
        while self._last and next(iter(self._last.values())) < now - RECENT:
            del self._last[next(iter(self._last))]


class StateSizes:
    """The size of detectors' states when saved, from a sample.

    Measuring every state would cost more than scoring. So each scrape asks for one: the next state
    that a detector returns is measured. The last 64 sizes are kept.
    """

    __slots__ = ("_sizes", "wanted")

    def __init__(self) -> None:
        self.wanted = True
        self._sizes: deque[int] = deque(maxlen=64)

    def add(self, size: int) -> None:
        """Note the size of a state, in bytes."""
        self.wanted = False
        self._sizes.append(size)

    def mean(self) -> float:
        """Return the mean of the kept sizes, NaN if there are none, and ask for one more."""
        self.wanted = True
        sizes = list(self._sizes)
        return sum(sizes) / len(sizes) if sizes else math.nan


class RecoveryStore:
    """The recovery store of this process: its size, and when something was last saved to it."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        """Where its files are; None without a store."""
        self.saved_at = math.nan
        """When a partition's offset was last saved, in seconds since 1970."""

    def size(self) -> float:
        """Return the size of its files on this machine in bytes, NaN without a store."""
        return math.nan if self.folder is None else sum(map(_size, self.folder.glob("part-*")))

    def last_snapshot(self) -> float:
        """Return when an offset was last saved, NaN without a store."""
        # Bytewax also takes snapshots where there is no store.
        return math.nan if self.folder is None else self.saved_at


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # SQLite's journals come and go
        return 0


# The names and types in docs/metrics.md have no `_created` series.
disable_created_metrics()  # type: ignore[no-untyped-call]

PARTITION = ["topic", "partition"]
WRITER = ["output", "kind"]

# The process
BUILD_INFO = Gauge(
    "anomaly_build_info",
    "The version of the program and the detector that it runs; always 1.",
    ["version", "detector"],
)
INSTANCES_LIMIT = OptionalGauge(
    "anomaly_instances_limit", "Instances that the process takes: ANOMALY_MAX_INSTANCES."
)
RECOVERY_STORE_BYTES = OptionalGauge(
    "anomaly_recovery_store_bytes", "Size of the recovery store's files on this machine."
)
LAST_SNAPSHOT = OptionalGauge(
    "anomaly_last_snapshot_timestamp_seconds",
    "When a partition's offset was last handed to the recovery store.",
)

# Sources
PARTITIONS = Gauge("anomaly_partitions", "Partitions that the process has opened (a file is one).")
RECORDS_READ = Counter("anomaly_records_read", "Records read, rejected ones included.", PARTITION)
LAST_RECORD = Gauge(
    "anomaly_last_record_timestamp_seconds", "When a record was last read.", PARTITION
)
LAST_RECORD_BROKER = Gauge(
    "anomaly_last_record_broker_timestamp_seconds",
    "The broker's timestamp of the last record read.",
    PARTITION,
)
CONSUMER_LAG = Gauge(
    "anomaly_consumer_lag_records",
    "Records of a partition that are on the broker and not yet read.",
    PARTITION,
)
RECORDS_LOST = Counter(
    "anomaly_records_lost",
    "Offsets that the broker deleted before they were read; only with ANOMALY_LOST_INPUT=continue.",
    PARTITION,
)

# Formats
FORMAT = Gauge(
    "anomaly_format_info", "The format of the records, once it is known; always 1.", ["format"]
)
RULES = Gauge(
    "anomaly_rules_info",
    "The version of the rules that applies from now on; always 1.",
    ["version"],
)
RULES_REFUSED = Gauge(
    "anomaly_rules_refused", "1 while the file of rules cannot be used, and earlier ones apply."
)
VERDICTS = Gauge("anomaly_verdicts", "Verdicts in force, from the next reading on.")
VERDICTS_REFUSED = Gauge("anomaly_verdicts_refused", "Records of verdicts that are none.")
KEPT_QUIET = Counter(
    "anomaly_kept_quiet", "Readings that would be anomalies, and are kept quiet by a verdict."
)
SKIPPED = Counter(
    "anomaly_readings_skipped",
    "Readings of metrics that are not asked for, or that ANOMALY_WHERE does not select.",
)
REPEATS = Counter(
    "anomaly_readings_repeated",
    "Readings without an index whose instance had one of the same time already, or a much later "
    "one; not scored.",
)

# Admission and order
RECORDS_REFUSED = Counter("anomaly_records_refused", "Records rejected, by reason.", ["reason"])
INSTANCES = Gauge(
    "anomaly_instances",
    "Instances that send: read within the last one to two days, or since the start.",
)
READINGS_SCATTERED = Counter(
    "anomaly_readings_scattered",
    "Readings on another partition than the first of their instance; 0 with ANOMALY_REORDER.",
)
REORDER_HELD = Counter(
    "anomaly_reorder_readings_held",
    "Readings held because they came before those that precede them.",
)
REORDER_LATE = Counter(
    "anomaly_reorder_readings_late",
    "Readings that came after a later one had passed: given up, or repeated.",
)
REORDER_GAPS_GIVEN_UP = Counter(
    "anomaly_reorder_gaps_given_up",
    "Gaps in an instance's indexes that were waited for in vain.",
)
REORDER_RESTARTS = Counter(
    "anomaly_reorder_restarts",
    "Times an instance's indexes started again, because its producer had started again.",
)

# Scores
READINGS_SCORED = Counter("anomaly_readings_scored", "Readings that a detector has scored.")
SCORES = ScoreHistogram("anomaly_reading_score", "Scores of readings, from 0 to 1.")
ANOMALIES_FOUND = Counter(
    "anomaly_anomalies_found", "Readings whose score lies above the threshold."
)
ALERTS_FOUND = Counter(
    "anomaly_alerts_found", "Anomalies that are news: the first of an episode, or far worse."
)
INSTANCES_ANOMALOUS = Gauge(
    "anomaly_instances_anomalous",
    "Instances with an anomaly in the last 10 minutes, by the clock.",
)
STATE_BYTES = OptionalGauge(
    "anomaly_state_bytes",
    "Size of all detectors' states as saved, estimated: instances by the mean of a sample.",
)

# Outputs
RECORDS_WRITTEN = Counter(
    "anomaly_records_written", "Anomalies, incidents and rejected records written.", WRITER
)
RECORDS_CONFIRMED = Counter(
    "anomaly_records_confirmed",
    "Records that the broker has acknowledged, or that are on the disk.",
    WRITER,
)
RECORDS_REPEATED = Counter(
    "anomaly_records_repeated",
    "Records computed again after a crash, found written already, and not written twice.",
    WRITER,
)
INCIDENTS_WRITTEN = Counter(
    "anomaly_incidents_written",
    "Incidents written, by kind and state.",
    ["output", "incident", "state"],
)
INCIDENTS_OPEN = Gauge("anomaly_incidents_open", "Incidents that are open.", ["incident"])
DELAY = Histogram(
    "anomaly_delay_seconds",
    "From the time in a reading to the writing of its anomaly.",
    ["output"],
    buckets=DELAYS,
)

OPENED: set[tuple[str, int]] = set()
"""Topic and number of each partition that the process has opened."""

STORE = RecoveryStore()
ANOMALOUS = AnomalousInstances()
STATES = StateSizes()
WORST = WorstInstances()


def _state_bytes() -> float:
    (instances,) = INSTANCES.collect()
    return STATES.mean() * instances.samples[0].value


REGISTRY.register(SCORES)
REGISTRY.register(WORST)
REGISTRY.register(WarningsByReason())
INSTANCES_LIMIT.set(math.nan)
PARTITIONS.set_function(lambda: len(OPENED))
RECOVERY_STORE_BYTES.set_function(STORE.size)
LAST_SNAPSHOT.set_function(STORE.last_snapshot)
INSTANCES_ANOMALOUS.set_function(ANOMALOUS.count)
STATE_BYTES.set_function(_state_bytes)


def describe(settings: Settings, store: Path | None) -> None:
    """Set the metrics that are known from the start; `store` is the recovery store's folder."""
    BUILD_INFO.clear()
    BUILD_INFO.labels(__version__, settings.detector).set(1)
    INSTANCES_LIMIT.set(settings.max_instances)
    STORE.folder = store


class Partition:
    """The metrics of one partition. Each appears once its value is known."""

    def __init__(self, topic: str, number: int) -> None:
        self._labels = topic, str(number)
        self._records = RECORDS_READ.labels(*self._labels)

    @cached_property
    def lag(self) -> Gauge:
        """Records on the broker that are not read yet."""
        return CONSUMER_LAG.labels(*self._labels)

    @cached_property
    def _read_at(self) -> Gauge:
        return LAST_RECORD.labels(*self._labels)

    @cached_property
    def _broker_time(self) -> Gauge:
        return LAST_RECORD_BROKER.labels(*self._labels)

    def lost(self, offsets: int) -> None:
        """Count offsets that are skipped, because the broker no longer holds them."""
        RECORDS_LOST.labels(*self._labels).inc(offsets)

    def took(self, records: int, broker_time: float | None = None) -> None:
        """Count a batch of at least one record.

        `broker_time` is the broker's timestamp of the last one, in seconds since 1970.
        """
        self._records.inc(records)
        self._read_at.set_to_current_time()
        if broker_time is not None:
            self._broker_time.set(broker_time)


class Output:
    """The metrics of one writer: `name` says where it writes (`kafka`...), `kind` what.

    `repeated` counts records that a resumed flow computed again and found written already.
    """

    def __init__(self, name: str, kind: str) -> None:
        self._name = name
        self._written = RECORDS_WRITTEN.labels(name, kind)
        self._confirmed = RECORDS_CONFIRMED.labels(name, kind)
        self.repeated = RECORDS_REPEATED.labels(name, kind)
        self._delay = DELAY.labels(name) if kind == "anomaly" else None
        self._unconfirmed = 0

    def wrote(self, records: Sequence[Anomaly | Incident | Over | Rejected]) -> None:
        """Count records, and how long after its reading's own time each anomaly is written."""
        self._written.inc(len(records))
        self._unconfirmed += len(records)
        now = time.time()
        for record in records:
            if isinstance(record, Incident):
                INCIDENTS_WRITTEN.labels(self._name, record.kind, record.state).inc()
            elif isinstance(record, Anomaly) and self._delay and record.timestamp is not None:
                # A producer's clock may be ahead of ours.
                self._delay.observe(max(0.0, now - seconds(record.timestamp)))

    def confirm(self, records: int | None = None) -> None:
        """Count so many records as safely stored; None: all that are written."""
        count = self._unconfirmed if records is None else records
        self._confirmed.inc(count)
        self._unconfirmed -= count


def partition(topic: str, number: int) -> Partition:
    """Return the metrics of a partition that has just been opened."""
    OPENED.add((topic, number))
    return Partition(topic, number)


def kind(step_id: str) -> Literal["anomaly", "end", "incident", "rejected", "scored"]:
    """Return what the output step with this id writes.

    >>> kind("write_kafka"), kind("write_incidents_kafka"), kind("write_rejected")
    ('anomaly', 'incident', 'rejected')
    """
    step = step_id.rpartition(".")[2]
    if step == "write_rejected":
        return "rejected"
    if step == "write_scored":
        return "scored"
    if step.startswith("write_ends_"):
        return "end"
    return "incident" if step.startswith("write_incidents") else "anomaly"


def output(name: str, step_id: str) -> Output:
    """Return the metrics of a writer of the step with this id."""
    return Output(name, kind(step_id))
