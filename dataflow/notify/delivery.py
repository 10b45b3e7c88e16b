"""Telling others of incidents: a process of its own that follows the topic and never blocks a flow.

Each receiver has a thread, a consumer and a position of its own in the topic, which is kept by the
broker as a consumer group's: one that is down holds up nobody else. The position moves on only when
a record was delivered, so that each is delivered at least once.
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
from dataflow.kafka import topics
from dataflow.notify.base import Target
from dataflow.notify.http import Answer, post
from dataflow.notify.targets import targets
from dataflow.records import Incident
from dataflow.settings import Settings

__all__ = ["Delivery", "run"]

FIRST_WAIT = 1.0
LONGEST_WAIT = 60.0
"""Seconds between two attempts: doubled from the first on, shortened at random by up to half."""

REPEAT = 60.0
"""Seconds after which an Alertmanager is told again of what is open; sooner after a failure."""

REPEAT_SOON = 15.0

AHEAD = 10_000
"""Records held at most while a receiver is down."""

WATCH = 60.0
"""Seconds between two looks for new partitions."""

_decode = msgspec.json.Decoder(Incident).decode

Place = tuple[int, int]
"""Partition and offset of a record."""


class Delivery:
    """Delivers the incidents of a topic to one receiver, in order, until `stop` is set.

    A receiver that is new is not told the past, only of what is open. `failure` is why it ended by
    itself, if it did.
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
        self._watch_at = 0.0
        self.failure: str | None = None

    def run(self) -> None:
        """Deliver until asked to stop; with ANOMALY_FOLLOW=false, to the end of the topic."""
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
                    self._watch(consumer)
        except KafkaException as error:
            self.failure = f"the topic {self._topic!r} cannot be read: {kafka.describe(error)}."
        except UserError as refusal:
            self.failure = str(refusal)
        except Exception as error:
            self.failure = f"{self._target} cannot be told: {type(error).__name__}."
            raise
        finally:
            consumer.close()
            if self.failure is not None:
                self._stop.set()

    def _begin(self, consumer: Consumer) -> bool:
        """Find where to go on, and what is open; False if asked to stop meanwhile."""
        partitions = kafka.partition_ids(kafka.metadata(self._settings), self._topic)
        kept = consumer.committed(
            [TopicPartition(self._topic, partition) for partition in partitions], kafka.TIMEOUT
        )
        known = {part.partition: part.offset for part in kept if part.offset >= 0}
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
                if offset:  # else nothing was told yet
                    self._say(
                        f"warning: {self._target} was told up to offset {offset} of partition "
                        f"{partition} of the topic {self._topic!r}, which now holds {first} to "
                        f"{end}: goes on at {first}."
                    )
                begins[partition] = first
        if is_new:
            for incident in list(self._open.values()):
                if not self._deliver(consumer, incident, None):
                    return False
            self._commit(consumer, begins)
        consumer.assign([TopicPartition(self._topic, p, offset) for p, offset in begins.items()])
        self._partitions = set(begins)
        self._watch_at = time.monotonic() + WATCH
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
            elif error.code() not in kafka.PASSING:
                raise KafkaException(error)

    def _incident(self, place: Place, value: bytes | None) -> Incident | None:
        try:
            return _decode(value or b"")
        except msgspec.DecodeError:
            self._say(
                f"warning: the record at partition {place[0]}, offset {place[1]} of the topic "
                f"{self._topic!r} is no incident, and is left out for {self._target}."
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
        """Whether it says that an incident became worse, and something later is known of it."""
        return incident.state == "updated" and any(
            later is not None and later.id == incident.id and later.sequence > incident.sequence
            for _, later in self._pending
        )

    def _deliver(self, consumer: Consumer, incident: Incident, place: Place | None) -> bool:
        """Deliver a record, however long it takes; False if asked to stop before it was taken."""
        failures = 0
        while not self._stop.is_set():
            answer = self._post(incident)
            if answer.took:
                if failures:
                    self._say(f"{self._target} takes incidents again.")
                print(f"told {self._target}: {incident.state} {incident.id}", flush=True)
                return True
            if answer.never:
                stands = "" if place is None else f" at partition {place[0]}, offset {place[1]}"
                self._say(
                    f"warning: {self._target} refuses record {incident.sequence} of the incident "
                    f"{incident.id} ({answer.reason}) and always will: it is left out for it, and "
                    f"stays in the topic {self._topic!r}{stands}."
                )
                return True
            if not failures:
                self._say(
                    f"warning: {self._target} does not take incidents ({answer.reason}): tried "
                    "again until it does."
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
        """Keep what is open, for a receiver that forgets what it is not told again."""
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
            if not self._post(incident).took:
                self._repeat_at = time.monotonic() + REPEAT_SOON
                return

    def _watch(self, consumer: Consumer) -> None:
        """Read partitions that were added, from their first record."""
        if time.monotonic() < self._watch_at:
            return
        self._watch_at = time.monotonic() + WATCH
        try:
            cluster = consumer.list_topics(self._topic, timeout=kafka.TIMEOUT)
        except KafkaException:
            return  # asked again
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
            # The next one holds for this too; until then, a restart tells it again.
            self._say(
                f"warning: the position of {self._target} was not kept ({kafka.describe(error)})."
            )

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


def run(settings: Settings) -> None:
    """Tell all receivers that the settings name, until SIGTERM or SIGINT.

    A UserError if there is none, no broker or no topic, or if the topic cannot be read any more.
    """
    receivers = targets(settings)
    if not receivers:
        raise UserError(
            "there is nobody to tell: give an address in ANOMALY_NOTIFY_WEBHOOK, "
            "ANOMALY_NOTIFY_SLACK or ANOMALY_NOTIFY_ALERTMANAGER."
        )
    topics.check(
        settings, kafka.metadata(settings), settings.incidents_topic, "ANOMALY_INCIDENTS_TOPIC"
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    tellers = [Delivery(settings, target, stop) for target in receivers]
    threads = [threading.Thread(target=teller.run, daemon=True) for teller in tellers]
    for thread, target in zip(threads, receivers, strict=True):
        print(f"tells {target} of the topic {settings.incidents_topic!r}", flush=True)
        thread.start()
    for thread in threads:
        thread.join()
    for teller in tellers:
        if teller.failure is not None:
            raise UserError(teller.failure)
