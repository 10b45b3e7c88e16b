"""The process of `notify`: a thread for each target, and one that watches the broker."""

from __future__ import annotations

import signal
import threading
import time

from confluent_kafka.admin import AdminClient, ClusterMetadata

from dataflow import kafka
from dataflow.errors import UserError
from dataflow.kafka import access, topics
from dataflow.kafka.health import HealthCheck
from dataflow.metrics.http import serve
from dataflow.notify import metrics
from dataflow.notify.delivery import OWN_KAFKA_SETTINGS, Delivery
from dataflow.notify.history import History
from dataflow.notify.log import log
from dataflow.notify.silence_watch import watch_of
from dataflow.notify.skipped import SkippedRecords
from dataflow.notify.store import PageStore
from dataflow.notify.targets import NONE, targets
from dataflow.settings import Settings
from dataflow.warnings import show

__all__ = ["health_check", "run"]

END = 2.5
"""Seconds from a signal to the end of the process, at most."""


def run(settings: Settings) -> None:
    """Deliver to all targets that the settings name, until SIGTERM or SIGINT.

    Raises `UserError` if no target is set, if the broker or the topic is missing, or if a delivery
    ends with an error.
    """
    configured = targets(settings)
    if not configured:
        raise UserError(NONE)
    topic = settings.incidents_topic
    topics.existing_partitions(settings, topic, "ANOMALY_INCIDENTS_TOPIC", [kafka.READ])
    for target in configured:
        access.prove_group(settings, target.group(topic))
    for name in sorted(OWN_KAFKA_SETTINGS & settings.kafka.keys()):
        show(
            f"ANOMALY_KAFKA__{name.upper().replace('.', '_')} does not apply to notify: "
            "each target has an offset of its own."
        )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    watch = watch_of(settings, configured, stop)
    skipped = SkippedRecords(topic)
    history = History(settings.notify_max_age)
    store = None if settings.notify_pages is None else PageStore(settings.notify_store)
    deliveries = [
        Delivery(settings, target, stop, skipped, history, store) for target in configured
    ]
    threads = [threading.Thread(target=delivery.run, daemon=True) for delivery in deliveries]
    for thread, target in zip(threads, configured, strict=True):
        log(f"delivering the topic {topic!r} to {target}")
        thread.start()
    if watch is not None:
        log(f"reading silences of Alertmanager as verdicts into {settings.verdicts!r}")
        threads.append(threading.Thread(target=watch.run, name="silences", daemon=True))
        threads[-1].start()
    check = health_check(settings, deliveries)
    check.start()
    if settings.notify_metrics_port is not None:
        serve(
            settings.metrics_host,
            settings.notify_metrics_port,
            metrics.application(deliveries, lambda: check.silent),
            "ANOMALY_NOTIFY_METRICS_PORT",
        )
    while not stop.is_set() and any(thread.is_alive() for thread in threads):
        stop.wait(0.1)
        skipped.print_counts()
        history.print_count()
    check.end()
    deadline = time.monotonic() + END
    for thread in threads:
        # One that waits for a broker or a name server is left. What it has not committed is
        # delivered again by the next process.
        thread.join(max(0.0, deadline - time.monotonic()))
    if store is not None:
        store.close()
    skipped.print_counts(last=True)
    history.print_count(last=True)
    failures = [delivery.failure for delivery in deliveries]
    failures += [] if watch is None else [watch.failure]
    for failure in failures:
        if failure is not None:
            raise UserError(failure)


def health_check(settings: Settings, deliveries: list[Delivery]) -> HealthCheck:
    """Return the thread that watches the broker and finds new partitions for the deliveries."""
    topic = settings.incidents_topic

    def look(_client: AdminClient, cluster: ClusterMetadata | None) -> None:
        if cluster is not None:
            for delivery in deliveries:
                delivery.partitions_found(set(kafka.partition_ids(cluster, topic)))

    return HealthCheck(settings, topic, look, "new incidents are delivered when it answers")
