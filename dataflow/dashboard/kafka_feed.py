"""The feed from Kafka: the input topic and the anomalies, whatever becomes of the broker."""

from __future__ import annotations

import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from dataflow import kafka
from dataflow.dashboard.feed import Feed
from dataflow.dashboard.status import Condition, Tone, clock_text, waiting
from dataflow.errors import UserError
from dataflow.records import Raw
from dataflow.settings import Settings

__all__ = ["KafkaFeed"]

BATCH = 300
"""Records taken at a time: a few milliseconds in which nobody else can look."""

AGAIN = 1.0
"""Seconds between two attempts to reach a broker that is away."""

LOOK = 3.0
"""Seconds of silence after which the broker is asked whether it is there, and for new topics."""

SLOW = 5000
"""Records that are not read yet from which on the page says that it is behind."""

ANSWER = 3.0
"""Seconds that it has to answer."""


class _AnewError(Exception):
    """What was read no longer fits the topic: begin with an empty fleet."""


class KafkaFeed(Feed):
    """Reads the input topic from its first record, or from `since` on, and goes on for ever.

    A broker that is away is waited for, and reading goes on where it ended. A topic that was made
    anew is read anew.
    """

    def __init__(self, settings: Settings, keep: int, since: float | None = None) -> None:
        """Remember what to read; `since` is in seconds since 1970, by the records' own times."""
        super().__init__(settings, keep)
        self.since = since
        self._consumer: Consumer
        self._assigned: set[tuple[str, int]] = set()
        self._first: dict[int, int] = {}
        self._next: dict[int, int] = {}
        self._end: dict[int, int] = {}
        self._behind: set[int] = set()
        self._gone = False
        self._answered = 0.0
        self._lag = 0
        self._lag_due = 0.0

    def run(self) -> None:
        """Read until `stop`."""
        while not self._stop.is_set():
            try:
                if self._open():
                    self._follow()
            except UserError as refusal:
                self._lost(f"{refusal}"[:1].upper() + f"{refusal}"[1:])
            except KafkaException as error:
                self._lost(f"{kafka.describe(error)}.")
            except _AnewError:
                continue
            self._stop.wait(AGAIN)

    def _lost(self, why: str) -> None:
        shown = "What is shown is from before. " if self.fleet.readings else ""
        self._gone = True
        self.condition = Condition(
            Tone.TROUBLE,
            "Broker gone",
            f"{shown}{why}",
            f"The page asks {self.settings.brokers} again every second and goes on by itself.",
        )

    def _open(self) -> bool:
        """Find the topic and begin to read it; whether it is there."""
        settings = self.settings
        cluster = kafka.metadata(settings)
        partitions = kafka.partition_ids(cluster, settings.topic)
        if settings.partitions is not None:
            partitions = [it for it in partitions if it in settings.partitions]
        if not partitions:
            self.condition = Condition(
                Tone.IDLE,
                "No topic yet",
                f"The topic {settings.topic} is not on {settings.brokers}.",
                "The page waits for it: python -m dataflow topics creates it, or name another "
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
        self._behind = set(partitions)
        places = []
        for partition in partitions:
            first, end = kafka.offset_range(self._consumer, topic, partition)
            self._end[partition] = end
            places.append(TopicPartition(topic, partition, self._start(topic, partition, first)))
            self._first[partition] = self._next[partition] = places[-1].offset
        with self.lock:
            self.begin(whole=not any(place.offset for place in places))
        self._assign(places)
        self._more()
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

    def _more(self) -> None:
        """Take the partitions that are new: the anomalies' topic may be made later."""
        settings = self.settings
        cluster = self._consumer.list_topics(timeout=ANSWER)
        for topic in (settings.topic, settings.anomalies_topic):
            for partition in kafka.partition_ids(cluster, topic):
                mine = settings.partitions is None or partition in settings.partitions
                if (topic, partition) in self._assigned or (topic == settings.topic and not mine):
                    continue
                first, end = kafka.offset_range(self._consumer, topic, partition)
                start = self._start(topic, partition, first)
                if topic == settings.topic:
                    self._first[partition] = self._next[partition] = start
                    self._end[partition] = end
                    self._behind.add(partition)
                self._assign([TopicPartition(topic, partition, start)])

    def _follow(self) -> None:
        try:
            while not self._stop.is_set():
                messages = self._consumer.consume(BATCH, 0.2)
                if messages:
                    self._take(messages)
                self._look()
                if not self._gone:
                    self._tell()
                if self._behind:
                    time.sleep(0.001)  # those who look are served in between
        finally:
            self._consumer.close()

    def _take(self, messages: list[Message]) -> None:
        topic = self.settings.topic
        with self.lock:
            for message in messages:
                error = message.error()
                partition = message.partition() or 0
                if error is None:
                    if message.topic() == topic:
                        offset = message.offset() or 0
                        self.take([Raw(partition, offset, message.value())])
                        self._next[partition] = offset + 1
                    else:
                        self.take_anomaly(message.value())
                    self._gone = False
                    self._answered = time.monotonic()
                elif error.code() == KafkaError._PARTITION_EOF:
                    if message.topic() == topic:
                        self._behind.discard(partition)
                elif error.code() in (
                    KafkaError._AUTO_OFFSET_RESET,
                    KafkaError.OFFSET_OUT_OF_RANGE,
                    KafkaError.UNKNOWN_TOPIC_OR_PART,
                    KafkaError._UNKNOWN_PARTITION,
                    KafkaError._UNKNOWN_TOPIC,
                ):
                    raise _AnewError
                elif not error.retriable() and error.code() not in (
                    KafkaError._TRANSPORT,
                    KafkaError._ALL_BROKERS_DOWN,
                    KafkaError._TIMED_OUT,
                    KafkaError._RESOLVE,
                ):
                    raise UserError(f"the topic {topic!r} cannot be read: {error.str()}.")
            for reading in self.intake.overdue():
                self.fleet.add(reading)

    def _look(self) -> None:
        """After a silence, find out whether the broker is there."""
        now = time.monotonic()
        if now - self._answered < (AGAIN if self._gone else LOOK):
            return
        try:
            self._more()
            self._gone = False
        except KafkaException as error:
            self._lost(
                f"No answer from the broker {self.settings.brokers} ({kafka.describe(error)})."
            )
        self._answered = time.monotonic()

    def _tell(self) -> None:
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
                "Readings come faster than this process scores them: what is shown is late.",
            )
        elif not self.fleet.readings:
            self.condition = waiting(settings.topic, settings.brokers)
        else:
            self.condition = Condition(Tone.GOOD, "Live")

    def _measured_lag(self) -> int:
        """Return how many records are not read yet, as the last fetches said: nobody is asked."""
        now = time.monotonic()
        if now >= self._lag_due:
            self._lag_due = now + AGAIN
            self._lag = 0
            for partition, offset in self._next.items():
                place = TopicPartition(self.settings.topic, partition)
                end = self._consumer.get_watermark_offsets(place, cached=True)[1]
                self._lag += max(0, end - offset)
        return self._lag
