"""Follows the topic of incidents and delivers them, in a process that never blocks a flow.

Each notification target has its own thread, consumer and consumer group, so one that is down does
not delay the others. Its offset is committed only after delivery, so each record is delivered at
least once.
"""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
from collections import deque
from datetime import UTC, datetime

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from dataflow import kafka
from dataflow.errors import UserError
from dataflow.kafka import access, outage, topics
from dataflow.notify.base import Target
from dataflow.notify.http import Answer, post
from dataflow.notify.targets import targets
from dataflow.records import Incident
from dataflow.settings import Settings

__all__ = ["Delivery", "run"]

FIRST_WAIT = 1.0
LONGEST_WAIT = 60.0
"""Seconds between two attempts: doubled each time, then shortened at random by up to half."""

REPEAT = 60.0
"""Seconds after which open incidents are posted again to a target that `repeats`."""

REPEAT_SOON = 15.0
"""The same, after a failed post."""

AHEAD = 10_000
"""Records read ahead at most while a target is down."""

PARTITION_CHECK = 60.0
"""Seconds between two checks for new partitions."""

_decode = msgspec.json.Decoder(Incident).decode

Place = tuple[int, int]
"""Partition and offset of a record."""


class Delivery:
    """Delivers the incidents of a topic to one target, in order, until `stop` is set.

    A new target gets the incidents that are open, not the earlier ones. `failure` is the error that
    ended the delivery, or None.
    """

    def __init__(self, settings: Settings, target: Target, stop: threading.Event) -> None:
        self._settings = settings
        self._topic = settings.incidents_topic
        self._target = target
        self._stop = stop
        self._pending: deque[tuple[Place, Incident | None]] = deque()
        self._open: dict[str, Incident] = {}
        self._partitions: set[int] = set()
        self._ended: set[int] = set()
        self._repeat_at = 0.0
        self._next_check = 0.0
        self.failure: str | None = None

    def run(self) -> None:
        """Deliver until `stop` is set; with ANOMALY_FOLLOW=false, to the end of the topic."""
        consumer = kafka.consumer(
            self._settings,
            **{"group.id": self._target.group(self._topic), "enable.partition.eof": True},
        )
        try:
            if self._begin(consumer):
                while not self._stop.is_set() and not self._finished():
                    self._fetch(consumer, 0.5)
                    self._deliver_pending(consumer)
                    self._repeat()
                    self._check_partitions(consumer)
        except KafkaException as error:
            self.failure = (
                f"Cannot read the topic {self._topic!r} ({kafka.describe(error)}): check the "
                "broker and the rights of the user, then start again."
            )
        except UserError as error:
            self.failure = str(error)
        except Exception as error:
            self.failure = (
                f"Delivery to {self._target} failed ({type(error).__name__}): see the traceback."
            )
            raise
        finally:
            consumer.close()
            if self.failure is not None:
                self._stop.set()

    def _begin(self, consumer: Consumer) -> bool:
        """Find the offsets to resume at and the open incidents; False if `stop` is set."""
        partitions = topics.partitions(self._settings, self._topic)
        committed = consumer.committed(
            [TopicPartition(self._topic, partition) for partition in partitions], kafka.TIMEOUT
        )
        known = {part.partition: part.offset for part in committed if part.offset >= 0}
        begins = {partition: known.get(partition, 0) for partition in partitions}
        is_new = not known
        if is_new or self._target.repeats:
            for record in kafka.read_from(self._settings, self._topic, {}):
                place = (record.partition() or 0, record.offset() or 0)
                if is_new:
                    begins[place[0]] = place[1] + 1
                if is_new or place[1] < begins[place[0]]:
                    self._remember(self._incident(place, record.value()))
        for partition, offset in begins.items():
            first, end = kafka.offset_range(consumer, self._topic, partition)
            if not first <= offset <= end:
                if offset:  # at 0 nothing is lost
                    self._warn(
                        f"warning: {self._target} is at offset {offset} of partition {partition} "
                        f"of the topic {self._topic!r}, which now has offsets {first} to {end}: "
                        f"resuming at {first}."
                    )
                begins[partition] = first
        if is_new:
            for incident in list(self._open.values()):
                if not self._deliver(consumer, incident, None):
                    return False
            self._commit(consumer, begins)
        consumer.assign([TopicPartition(self._topic, p, offset) for p, offset in begins.items()])
        self._partitions = set(begins)
        self._next_check = time.monotonic() + PARTITION_CHECK
        return True

    def _finished(self) -> bool:
        return not self._settings.follow and not self._pending and self._ended == self._partitions

    def _fetch(self, consumer: Consumer, timeout: float) -> None:
        if len(self._pending) >= AHEAD:
            return
        for record in consumer.consume(500, timeout):
            error = record.error()
            partition = record.partition() or 0
            if error is None:
                place = (partition, record.offset() or 0)
                self._pending.append((place, self._incident(place, record.value())))
                self._ended.discard(partition)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._ended.add(partition)
            elif error.code() not in kafka.TRANSIENT_ERRORS:
                raise KafkaException(error)

    def _incident(self, place: Place, value: bytes | None) -> Incident | None:
        try:
            return _decode(value or b"")
        except msgspec.DecodeError:
            self._warn(
                f"warning: the record at partition {place[0]}, offset {place[1]} of the topic "
                f"{self._topic!r} is not an incident: skipped for {self._target}."
            )
            return None

    def _deliver_pending(self, consumer: Consumer) -> None:
        while self._pending:
            (partition, offset), incident = self._pending[0]
            if incident is not None:
                if not self._superseded(incident) and not self._deliver(
                    consumer, incident, (partition, offset)
                ):
                    return
                self._remember(incident)
            self._pending.popleft()
            self._commit(consumer, {partition: offset + 1})

    def _superseded(self, incident: Incident) -> bool:
        """Whether this is an update and a later record of the same incident is already read."""
        return incident.state == "updated" and any(
            later is not None and later.id == incident.id and later.sequence > incident.sequence
            for _, later in self._pending
        )

    def _deliver(self, consumer: Consumer, incident: Incident, place: Place | None) -> bool:
        """Post a record until the target accepts it; False if `stop` is set before."""
        failures = 0
        while not self._stop.is_set():
            answer = self._post(incident)
            if answer.accepted:
                if failures:
                    self._warn(f"{self._target} accepts incidents again.")
                print(f"delivered to {self._target}: {incident.state} {incident.id}", flush=True)
                return True
            if answer.rejected:
                where = "" if place is None else f" at partition {place[0]}, offset {place[1]}"
                self._warn(
                    f"warning: {self._target} rejects record {incident.sequence} of the incident "
                    f"{incident.id} ({answer.reason}): skipped. It stays in the topic "
                    f"{self._topic!r}{where}."
                )
                return True
            if not failures:
                self._warn(
                    f"warning: {self._target} does not accept incidents ({answer.reason}): "
                    "retrying until it does."
                )
            wait = min(FIRST_WAIT * 2**failures, LONGEST_WAIT) * random.uniform(0.5, 1)
            failures = min(failures + 1, 10)
            self._stop.wait(max(wait, answer.wait))
            if place is not None:
                self._fetch(consumer, 0)
                if self._superseded(incident):
                    return True
        return False

    def _post(self, incident: Incident) -> Answer:
        body = self._target.body(incident, self._settings.notify_link, datetime.now(UTC))
        return post(self._target.url, body, f"{incident.id}-{incident.sequence}")

    def _remember(self, incident: Incident | None) -> None:
        """Keep the open incidents, to post them to a new target or to one that `repeats`."""
        if incident is None:
            return
        if incident.state == "resolved":
            self._open.pop(incident.id, None)
        else:
            self._open[incident.id] = incident

    def _repeat(self) -> None:
        if not self._target.repeats or time.monotonic() < self._repeat_at:
            return
        self._repeat_at = time.monotonic() + REPEAT
        for incident in self._open.values():
            if self._stop.is_set():
                return
            if not self._post(incident).accepted:
                self._repeat_at = time.monotonic() + REPEAT_SOON
                return

    def _check_partitions(self, consumer: Consumer) -> None:
        """Read partitions that were added, from their first record."""
        if time.monotonic() < self._next_check:
            return
        self._next_check = time.monotonic() + PARTITION_CHECK
        try:
            cluster = consumer.list_topics(self._topic, timeout=kafka.TIMEOUT)
        except KafkaException:
            return  # checked again later
        added = set(kafka.partition_ids(cluster, self._topic)) - self._partitions
        if added:
            consumer.incremental_assign(
                [TopicPartition(self._topic, partition, OFFSET_BEGINNING) for partition in added]
            )
            self._partitions |= added

    def _commit(self, consumer: Consumer, offsets: dict[int, int]) -> None:
        places = [TopicPartition(self._topic, p, offset) for p, offset in offsets.items()]
        try:
            consumer.commit(offsets=places, asynchronous=False)
        except KafkaException as error:
            # The next commit covers this one. Until then, a restart delivers the record again.
            self._warn(
                f"warning: cannot commit the offset of {self._target} ({kafka.describe(error)}): a "
                "restart would deliver again."
            )

    def _warn(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def run(settings: Settings) -> None:
    """Deliver to all targets that the settings name, until SIGTERM or SIGINT.

    Raises `UserError` if no target is set, if the broker or the topic is missing, or if a delivery
    ends with an error.
    """
    configured = targets(settings)
    if not configured:
        raise UserError(
            "No notification target is configured: set ANOMALY_NOTIFY_WEBHOOK, "
            "ANOMALY_NOTIFY_SLACK, ANOMALY_NOTIFY_ALERTMANAGER or ANOMALY_NOTIFY_TARGETS."
        )
    topics.existing_partitions(
        settings, settings.incidents_topic, "ANOMALY_INCIDENTS_TOPIC", [kafka.READ]
    )
    for target in configured:
        access.prove_group(settings, target.group(settings.incidents_topic))
    outage.watch(settings, settings.incidents_topic)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    deliveries = [Delivery(settings, target, stop) for target in configured]
    threads = [threading.Thread(target=delivery.run, daemon=True) for delivery in deliveries]
    for thread, target in zip(threads, configured, strict=True):
        print(f"delivering the topic {settings.incidents_topic!r} to {target}", flush=True)
        thread.start()
    for thread in threads:
        thread.join()
    for delivery in deliveries:
        if delivery.failure is not None:
            raise UserError(delivery.failure)
