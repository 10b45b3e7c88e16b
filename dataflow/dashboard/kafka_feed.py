"""The feed from Kafka: reads the input topic and the anomalies, and survives broker outages."""

from __future__ import annotations

import time

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from dataflow import kafka
from dataflow.dashboard.feed import Feed
from dataflow.dashboard.status import Condition, Tone, clock_text, waiting
from dataflow.errors import UserError
from dataflow.kafka import access, topics
from dataflow.kafka.client import AdvertisedAddressError
from dataflow.records import Raw
from dataflow.settings import Settings

__all__ = ["KafkaFeed"]

BATCH = 300
"""Records taken at a time: browsers wait a few milliseconds for them."""

AGAIN = 1.0
"""Seconds between two attempts to reach a broker that is down."""

LOOK = 3.0
"""Seconds without a record after which to check for the broker and for new topics."""

SLOW = 5000
"""Unread records above which the page shows that it is behind."""

ANSWER = 3.0
"""Seconds that the broker has to answer."""


class _TopicRecreatedError(Exception):
    """The offsets no longer fit the topic: start with an empty fleet."""


class KafkaFeed(Feed):
    """Reads the input topic from its first record, or from `since` on, without end.

    While the broker is down the feed waits, then resumes at the same offset. A topic that was
    deleted and created again is read from its beginning.
    """

    def __init__(self, settings: Settings, keep: int, since: float | None = None) -> None:
        """Set what to read; `since` is in seconds since 1970, by the timestamps of the records."""
        super().__init__(settings, keep)
        self.since = since
        self._consumer: Consumer
        self._assigned: set[tuple[str, int]] = set()
        self._first: dict[int, int] = {}
        self._next: dict[int, int] = {}
        self._end: dict[int, int] = {}
        self._behind: set[int] = set()
        """Partitions of the input of which what they held has not been read yet."""
        self._unreported: set[int] = set()
        """The same of the topic of anomalies, which may be found later."""
        self._news = False
        """Whether there is a new generation once the page is live."""
        self._gone = False
        self._answered = 0.0
        self._lag = 0
        self._lag_due = 0.0

    def prove(self) -> None:
        """Prove that the topics that exist can be read; a broker that is down may come later.

        Raises `UserError` if a right is missing, or if the leader of a partition does not answer.
        """
        settings = self.settings
        try:
            kafka.metadata(settings)
        except AdvertisedAddressError:
            raise
        except UserError:
            return  # the page shows this, and waits
        for topic, setting in (
            (settings.topic, "ANOMALY_TOPIC"),
            (settings.anomalies_topic, "ANOMALY_ANOMALIES_TOPIC"),
        ):
            access.prove_if_present(settings, topic, setting, [kafka.READ])

    def run(self) -> None:
        """Read until `stop`."""
        while not self._stop.is_set():
            try:
                if self._open():
                    self._follow()
            except UserError as error:
                self._lost(f"{error}"[:1].upper() + f"{error}"[1:])
            except KafkaException as error:
                self._lost(f"{kafka.describe(error)}.")
            except _TopicRecreatedError:
                continue
            self._stop.wait(AGAIN)

    def _lost(self, why: str) -> None:
        shown = "The page shows earlier readings. " if self.fleet.readings else ""
        self._gone = self._news = True
        self.condition = Condition(
            Tone.TROUBLE,
            "Broker gone",
            f"{shown}{why}",
            f"The page asks {self.settings.brokers} every second and resumes by itself.",
        )

    def _open(self) -> bool:
        """Find the topic and start to read it; return whether it exists."""
        settings = self.settings
        partitions = topics.partitions(settings, settings.topic)
        if settings.partitions is not None:
            partitions = [it for it in partitions if it in settings.partitions]
        if not partitions:
            self.condition = Condition(
                Tone.IDLE,
                "No topic yet",
                f"The topic {settings.topic} does not exist on {settings.brokers}.",
                "The page waits for it. Create it with python -m dataflow topics, or set another "
                "in ANOMALY_TOPIC.",
            )
            return False
        self._consumer = kafka.consumer(
            settings,
            **{"enable.partition.eof": True, "reconnect.backoff.max.ms": 1000},
        )
        try:
            self._begin(partitions)
        except BaseException:
            self._consumer.close()
            raise
        return True

    def _begin(self, partitions: list[int]) -> None:
        topic = self.settings.topic
        for kept in (self._assigned, self._first, self._next, self._end):
            kept.clear()
        self._behind, self._unreported = set(partitions), set()
        places = []
        for partition in partitions:
            first, end = kafka.offset_range(self._consumer, topic, partition)
            self._end[partition] = end
            places.append(TopicPartition(topic, partition, self._start(topic, partition, first)))
            self._first[partition] = self._next[partition] = places[-1].offset
        with self.lock:
            self.begin(whole=not any(place.offset for place in places))
        self._assign(places)
        self._add_partitions()
        self._answered = time.monotonic()

    def _start(self, topic: str, partition: int, first: int) -> int:
        if self.since is None:
            return first
        place = TopicPartition(topic, partition, int(self.since * 1000))
        (found,) = self._consumer.offsets_for_times([place], timeout=kafka.TIMEOUT)
        if found.offset >= 0:
            return int(found.offset)
        return kafka.offset_range(self._consumer, topic, partition)[1]

    def _assign(self, places: list[TopicPartition]) -> None:
        self._consumer.incremental_assign(places)
        self._assigned.update((place.topic, place.partition) for place in places)

    def _add_partitions(self) -> None:
        """Add new partitions: the topic of anomalies may be created later."""
        settings = self.settings
        cluster = self._consumer.list_topics(timeout=ANSWER)
        for topic in (settings.topic, settings.anomalies_topic):
            for partition in kafka.partition_ids(cluster, topic):
                wanted = settings.partitions is None or partition in settings.partitions
                if (topic, partition) in self._assigned or (topic == settings.topic and not wanted):
                    continue
                first, end = kafka.offset_range(self._consumer, topic, partition)
                start = self._start(topic, partition, first)
                if topic == settings.topic:
                    self._first[partition] = self._next[partition] = start
                    self._end[partition] = end
                    self._behind.add(partition)
                else:
                    self._unreported.add(partition)
                self._assign([TopicPartition(topic, partition, start)])

    def _follow(self) -> None:
        try:
            while not self._stop.is_set():
                messages = self._consumer.consume(BATCH, 0.2)
                with self.lock:
                    if messages:
                        self._take(messages)
                    if not self._gone:
                        self._update_condition()
                self._check_broker()
                if self._behind:
                    time.sleep(0.001)  # let the server answer browsers
        finally:
            self._consumer.close()

    def _take(self, messages: list[Message]) -> None:
        """Take messages. The caller holds the lock."""
        topic = self.settings.topic
        for message in messages:
            error = message.error()
            partition = message.partition() or 0
            if error is None:
                if message.topic() == topic:
                    offset = message.offset() or 0
                    self.take([Raw(partition, offset, message.value())])
                    self._note_arrival(message)
                    self._next[partition] = offset + 1
                else:
                    self.take_anomaly(message.value())
                self._gone = False
                self._answered = time.monotonic()
            elif error.code() == KafkaError._PARTITION_EOF:
                unread = self._behind if message.topic() == topic else self._unreported
                if partition in unread:
                    unread.remove(partition)
                    self._news = self._news or not unread
            elif error.code() in (
                KafkaError._AUTO_OFFSET_RESET,
                KafkaError.OFFSET_OUT_OF_RANGE,
                KafkaError.UNKNOWN_TOPIC_OR_PART,
                KafkaError._UNKNOWN_PARTITION,
                KafkaError._UNKNOWN_TOPIC,
            ):
                raise _TopicRecreatedError
            elif not error.retriable() and error.code() not in kafka.TRANSIENT_ERRORS:
                raise UserError(
                    f"Cannot read the topic {topic!r} ({error.str()}): check the rights of the "
                    "user in ANOMALY_KAFKA__*."
                )
        for reading in self.intake.overdue():
            self.fleet.add(reading)

    def _note_arrival(self, message: Message) -> None:
        """Note when a record came: now, or, of what was there before, when it was written."""
        now = time.time()
        kind, written = message.timestamp()
        if not self._behind:
            self.arrived = now
        elif kind != TIMESTAMP_NOT_AVAILABLE:
            self.arrived = max(self.arrived or 0.0, min(written / 1000, now))

    def _check_broker(self) -> None:
        """If no record has come for a while, check whether the broker answers."""
        now = time.monotonic()
        if now - self._answered < (AGAIN if self._gone else LOOK):
            return
        try:
            self._add_partitions()
            self._gone = False
        except KafkaException as error:
            self._lost(
                f"No answer from the broker {self.settings.brokers} ({kafka.describe(error)})."
            )
        self._answered = time.monotonic()

    def _update_condition(self) -> None:
        """Say how far the reading is. The caller holds the lock."""
        settings = self.settings
        if self._behind:
            total = sum(self._end[it] - self._first[it] for it in self._end)
            done = sum(self._next[it] - self._first[it] for it in self._end)
            share = min(done / total, 0.99) if total else 0.0
            self.condition = Condition(
                Tone.IDLE,
                f"Catching up, {share:.0%}",
                f"Reading {settings.topic} from its beginning: {done:,} of {total:,} records."
                if self.since is None
                else f"Reading {settings.topic} since {clock_text(self.since)}.",
            )
        elif self._measured_lag() > SLOW:
            self.condition = Condition(
                Tone.IDLE,
                f"Behind by {self._lag:,} records",
                "Readings arrive faster than this process scores them, so the page lags.",
            )
        elif not self.fleet.readings:
            self.condition = waiting(settings.topic, settings.brokers)
        else:
            self.condition = Condition(Tone.GOOD, "Live")
            if self._news:
                self._news = False
                self.generation += 1

    def _measured_lag(self) -> int:
        """Return the number of unread records according to the last fetches, without a request."""
        now = time.monotonic()
        if now >= self._lag_due:
            self._lag_due = now + AGAIN
            self._lag = 0
            for partition, offset in self._next.items():
                place = TopicPartition(self.settings.topic, partition)
                end = self._consumer.get_watermark_offsets(place, cached=True)[1]
                self._lag += max(0, end - offset)
        return self._lag
