"""The figures for Prometheus, in the registry that Bytewax serves its own from.

docs/metrics.md says what each is for. Labels have few values: never an instance.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from dataflow.metrics import counters
from dataflow.settings import Settings

__all__ = ["FIGURES", "Figures"]

PLACE = ["topic", "partition"]
WRITER = ["output", "kind"]


class Figures(Collector):
    """Adds up what this process has counted, each time that it is asked."""

    def __init__(self) -> None:
        self._settings: Settings | None = None
        self._store: Path | None = None

    def begin(self, settings: Settings, store: Path | None) -> None:
        """Say what flow it is that counts, and where its recovery store lies."""
        self._settings = settings
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """Yield every figure; one of which nothing is known yet has no samples."""
        yield from self._flow()
        yield from _read()
        yield from _admitted()
        yield from _scored()
        yield from _written()

    def _flow(self) -> Iterator[Metric]:
        settings = self._settings
        info = GaugeMetricFamily(
            "anomaly_build_info",
            "The version of the program and the detector that it runs; always 1.",
            labels=["version", "detector"],
        )
        limit = GaugeMetricFamily(
            "anomaly_instances_limit", "Instances that the process takes: ANOMALY_MAX_INSTANCES."
        )
        if settings is not None:
            info.add_metric([version("ec2-anomaly-dataflow"), settings.detector], 1)
            limit.add_metric([], settings.max_instances)
        yield info
        yield limit
        stored = GaugeMetricFamily(
            "anomaly_recovery_store_bytes", "Size of the recovery store's files on this machine."
        )
        saved = GaugeMetricFamily(
            "anomaly_last_snapshot_timestamp_seconds",
            "When a partition's offset was last handed to the recovery store.",
        )
        if self._store is not None:
            stored.add_metric([], sum(_size(path) for path in self._store.glob("part-*")))
            times = [part.saved_at for part in list(counters.PARTITIONS.values()) if part.saved_at]
            if times:
                saved.add_metric([], max(times))
        yield stored
        yield saved


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # SQLite's journals come and go
        return 0


def _read() -> Iterator[Metric]:
    read = CounterMetricFamily(
        "anomaly_records_read", "Records read, refused ones included.", labels=PLACE
    )
    read_at = GaugeMetricFamily(
        "anomaly_last_record_timestamp_seconds", "When a record was last read.", labels=PLACE
    )
    broker_time = GaugeMetricFamily(
        "anomaly_last_record_broker_timestamp_seconds",
        "The time that the broker keeps with the last record read.",
        labels=PLACE,
    )
    lag = GaugeMetricFamily(
        "anomaly_consumer_lag_records",
        "Records of a partition that are on the broker and not yet read.",
        labels=PLACE,
    )
    partitions = sorted(counters.PARTITIONS.items())
    for (topic, number), part in partitions:
        place = [topic, str(number)]
        read.add_metric(place, part.read)
        for family, value in ((read_at, part.read_at), (broker_time, part.broker_time)):
            if value is not None:
                family.add_metric(place, value)
        if part.lag is not None:
            lag.add_metric(place, part.lag)
    yield GaugeMetricFamily(
        "anomaly_partitions",
        "Partitions that the process has opened (a file is one).",
        value=len(partitions),
    )
    yield from (read, read_at, broker_time, lag)


def _admitted() -> Iterator[Metric]:
    refused: Counter[str] = Counter()
    for worker in list(counters.WORKERS.values()):
        refused.update(dict(worker.refused))
    family = CounterMetricFamily(
        "anomaly_records_refused", "Records refused, by reason.", labels=["reason"]
    )
    for reason, count in sorted(refused.items()):
        family.add_metric([reason], count)
    yield family

    admitted = counters.ADMITTED
    yield GaugeMetricFamily(
        "anomaly_instances",
        "Instances read since the start of the process, each with a detector of its own.",
        value=admitted.instances,
    )
    size = counters.STATES.mean()
    states = GaugeMetricFamily(
        "anomaly_state_bytes",
        "Size of all detectors' states as saved, estimated: instances by the mean of a sample.",
    )
    if size is not None:
        states.add_metric([], size * admitted.instances)
    yield states

    ordered = counters.REORDERED
    for name, text, value in (
        (
            "anomaly_readings_scattered",
            "Readings on another partition than the first of their instance; 0 with "
            "ANOMALY_REORDER.",
            admitted.scattered,
        ),
        (
            "anomaly_reorder_readings_held",
            "Readings held because they came before those that precede them.",
            ordered.held,
        ),
        (
            "anomaly_reorder_readings_late",
            "Readings that came when a later one had gone on: given up, or repeated.",
            ordered.late,
        ),
        (
            "anomaly_reorder_gaps_given_up",
            "Gaps in an instance's indexes that were waited for in vain.",
            ordered.given_up,
        ),
    ):
        yield CounterMetricFamily(name, text, value=value)


def _scored() -> Iterator[Metric]:
    workers = list(counters.WORKERS.values())
    scored = [worker.scored for worker in workers]
    heights = _added((counts for counts, _ in scored), len(counters.SCORES))
    yield CounterMetricFamily(
        "anomaly_readings_scored", "Readings that a detector has judged.", value=sum(heights)
    )
    yield HistogramMetricFamily(
        "anomaly_reading_score",
        "Scores of readings, from 0 to 1.",
        buckets=_buckets((*counters.SCORES, float("inf")), [*heights, 0]),
        sum_value=sum(total for _, total in scored),
    )
    yield CounterMetricFamily(
        "anomaly_anomalies_found",
        "Readings whose score lies above the threshold.",
        value=sum(worker.found for worker in workers),
    )
    since = time.time() - counters.RECENT
    yield GaugeMetricFamily(
        "anomaly_instances_anomalous",
        "Instances with an anomaly in the last 10 minutes, by the clock.",
        value=sum(
            found >= since for worker in workers for found in list(worker.anomalous.values())
        ),
    )


def _written() -> Iterator[Metric]:
    written = CounterMetricFamily(
        "anomaly_records_written",
        "Anomalies, incidents and refused records written.",
        labels=WRITER,
    )
    confirmed = CounterMetricFamily(
        "anomaly_records_confirmed",
        "Records that the broker has acknowledged, or that are on the disk.",
        labels=WRITER,
    )
    repeated = CounterMetricFamily(
        "anomaly_records_repeated",
        "Records computed again after a crash, found written already, and not written twice.",
        labels=WRITER,
    )
    delay = HistogramMetricFamily(
        "anomaly_delay_seconds",
        "From the time in a reading to the writing of its anomaly.",
        labels=["output"],
    )
    incidents = CounterMetricFamily(
        "anomaly_incidents_written",
        "Incidents written, by what they are of and what has become of them.",
        labels=["output", "incident", "state"],
    )
    outputs: dict[tuple[str, str], list[counters.Output]] = {}
    for one in list(counters.OUTPUTS):
        outputs.setdefault((one.name, one.kind), []).append(one)
    for (name, kind), parts in sorted(outputs.items()):
        written.add_metric([name, kind], sum(part.written for part in parts))
        confirmed.add_metric([name, kind], sum(part.confirmed for part in parts))
        repeated.add_metric([name, kind], sum(part.repeated for part in parts))
        told = sum((Counter(dict(part.incidents)) for part in parts), Counter[tuple[str, str]]())
        for (incident, state), count in sorted(told.items()):
            incidents.add_metric([name, incident, state], count)
        if kind == "anomaly":
            delays = _added((part.delays.copy() for part in parts), len(counters.DELAYS))
            delay.add_metric(
                [name],
                buckets=_buckets(counters.DELAYS, delays),
                sum_value=sum(part.delay_sum for part in parts),
            )
    yield from (written, confirmed, repeated, incidents, delay)


def _added(counts: Iterable[list[int]], length: int) -> list[int]:
    """Add lists up, place by place."""
    return [sum(places) for places in zip([0] * length, *counts, strict=True)]


def _buckets(bounds: tuple[float, ...], counts: list[int]) -> list[tuple[str, float]]:
    """Return a histogram as Prometheus has it: how many lie at or below each bound."""
    texts = ("+Inf" if bound == float("inf") else str(bound) for bound in bounds)
    return list(zip(texts, accumulate(counts), strict=True))


FIGURES = Figures()
REGISTRY.register(FIGURES)
