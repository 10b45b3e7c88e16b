"""One consumer for all partitions that a worker reads.

A consumer takes threads, open files and memory, so a consumer for each partition does not scale.
Bytewax asks each partition for its records in turn; what the consumer returns for another partition
waits in an inbox until that one is asked.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from dataflow import kafka
from dataflow.errors import stop_process
from dataflow.settings import Settings

__all__ = ["Reader"]

POLL = 0.001
"""Seconds to wait for records, so that they come in batches."""

IDLE = 0.010
"""Seconds before the partitions are asked again, while there are no records."""

IDLE_PER_PARTITION = 0.000_1
"""The same, for each partition: asking one takes 2 to 4 µs."""

BUSY_PER_PARTITION = 0.000_01
"""The same while other partitions have records."""

HELD_PER_PARTITION = 20
"""Records to hold, for each partition, for those that are not asked yet."""

MOST_HELD = 20_000
"""Records of a partition that may not be read yet (see `alignment`) before it is paused."""

ANSWER = 200_000_000
"""Bytes of an answer, divided among the partitions, but 1 to 4 MB: it holds records of several
partitions, and librdkafka begins each request with another one."""

AHEAD = 200_000
"""Records of all partitions to fetch ahead, but 1,000 to 10,000 of each."""

POLL_RECORDS = 4_000
"""Records to ask for at least where there are several partitions: the fewer are in an answer, the
more often a batch ends early because the records after it are of another partition."""


class Reader:
    """Reads partitions of one topic with one consumer, for one thread.

    `partitions` is how many partitions the process reads. `aligned` says that partitions may be
    left unread while the others go on.
    """

    def __init__(self, settings: Settings, partitions: int, *, aligned: bool) -> None:
        """Create the consumer. Ends the process if librdkafka cannot create it."""
        self._topic = settings.topic
        self._aligned = aligned
        self._inboxes: dict[int, list[Message]] = {}
        self._partitions: set[int | None] = set()
        self._new: list[TopicPartition] = []
        self._paused: set[int] = set()
        self._held = 0
        self._enough = 0
        self._again = 0.0
        self._wake = datetime.now(UTC)
        self.last_error: KafkaError | None = None
        """The last error that librdkafka reported, such as a broker that cannot be reached."""
        self.drained = True
        """Whether the last answer held all that had been fetched.

        If not, records of a partition may lie behind those of others: librdkafka fetches from one
        partition after the other, and no more while it holds many records.
        """
        config = {
            "enable.partition.eof": True,
            "error_cb": self._note,
            "fetch.max.bytes": min(4_000_000, max(1_000_000, ANSWER // partitions)),
            # librdkafka fetches ahead for each partition: the more there are, the less of each.
            "queued.min.messages": min(10_000, max(1_000, AHEAD // partitions)),
        }
        if not settings.follow:
            # The broker waits this long before it reports the end of a partition.
            config["fetch.wait.max.ms"] = 50
        try:
            self._consumer = kafka.consumer(settings, **config)
        except KafkaException as error:
            stop_process(
                f"cannot create a Kafka consumer ({kafka.describe(error)}): check ANOMALY_KAFKA__* "
                "and the limit of open files (ulimit -n)."
            )

    def _note(self, error: KafkaError) -> None:
        # "All brokers are down" may follow the error that says why: keep the earlier one.
        if self.last_error is None or error.code() != KafkaError._ALL_BROKERS_DOWN:
            self.last_error = error

    def open(self, partition: int, offset: int) -> None:
        """Read a partition from an offset on, in place of where it was read before."""
        if partition in self._inboxes:
            self._held -= len(self._inboxes[partition])
            self._paused.discard(partition)
            self._consumer.incremental_unassign([TopicPartition(self._topic, partition)])
        self._partitions.add(partition)
        self._enough = HELD_PER_PARTITION * len(self._partitions)
        self._inboxes[partition] = []
        self._new.append(TopicPartition(self._topic, partition, offset))
        self._again = 0.0

    def take(self, partition: int, most: int) -> list[Message]:
        """Return up to `most` messages of a partition that are there now, in their order.

        Among them are errors, and the events that the partition is at its end.
        """
        inbox = self._inboxes[partition]
        # While others have not taken theirs, more would only grow the inboxes: except where
        # they may not take them.
        if not inbox and (self._aligned or self._held < max(most, self._enough)):
            self._poll(most)
            inbox = self._inboxes[partition]
        if len(inbox) <= most:
            self._inboxes[partition] = []
            taken = inbox
        else:
            taken = inbox[:most]
            del inbox[:most]
        self._held -= len(taken)
        if partition in self._paused and len(inbox) < MOST_HELD // 4:
            self._paused.discard(partition)
            self._consumer.resume([TopicPartition(self._topic, partition)])
        return taken

    def wake(self) -> datetime:
        """Return when a partition that has no records now is to be asked again."""
        return self._wake

    def end(self, partition: int) -> int:
        """Return the end offset of a partition as the last answer of its broker said.

        Negative if it is not known yet. Makes no request.
        """
        place = TopicPartition(self._topic, partition)
        return self._consumer.get_watermark_offsets(place, cached=True)[1]

    def close(self, partition: int) -> None:
        """Read a partition no longer. The consumer is closed with the last one."""
        self._held -= len(self._inboxes.pop(partition))
        self._new = [place for place in self._new if place.partition != partition]
        if not self._inboxes:
            self._consumer.close()

    def _poll(self, most: int) -> None:
        """Ask the consumer, unless it just had nothing, and put messages into their inboxes."""
        now = time.monotonic()
        if now < self._again:
            return
        try:
            if self._new:
                # All at once: each call takes the same time for one as for a thousand.
                self._consumer.incremental_assign(self._new)
                self._new = []
            several = self._aligned or len(self._inboxes) > 1
            wanted = max(most, POLL_RECORDS) if several else most
            messages = self._consumer.consume(wanted, POLL)
        except KafkaException as error:
            stop_process(
                f"cannot read the topic {self._topic!r} ({kafka.describe(error)}): check that the "
                "topic exists, and the broker's log."
            )
        self.drained = len(messages) < wanted
        if messages:
            wait = BUSY_PER_PARTITION * len(self._inboxes)
            self._deliver(messages)
        else:
            wait = max(IDLE, IDLE_PER_PARTITION * len(self._inboxes))
            self._again = now + wait
        self._wake = datetime.now(UTC) + timedelta(seconds=wait)

    def _deliver(self, messages: list[Message]) -> None:
        numbers = list(map(Message.partition, messages))  # half the time of a comprehension
        first = numbers[0]
        if first in self._inboxes and numbers.count(first) == len(numbers):
            self._put(first, messages)
            return
        groups: dict[int | None, list[Message]] = {}
        for number, message in zip(numbers, messages, strict=True):
            groups.setdefault(number, []).append(message)
        for number, group in groups.items():
            if number in self._inboxes:
                self._put(number, group)
            elif number not in self._partitions:
                self._check(group)
            # Else it is closed: it has been read to its end.

    def _put(self, partition: int, messages: list[Message]) -> None:
        before = self._inboxes[partition]
        self._inboxes[partition] = inbox = before + messages if before else messages
        self._held += len(messages)
        if len(inbox) > MOST_HELD and partition not in self._paused:
            self._paused.add(partition)
            self._consumer.pause([TopicPartition(self._topic, partition)])

    def _check(self, messages: list[Message]) -> None:
        """End the process for an error that is of no partition, such as a missing permission."""
        for message in messages:
            failure = message.error()
            if failure is None:
                continue
            if failure.code() in kafka.TRANSIENT_ERRORS:
                self.last_error = failure
            else:
                stop_process(
                    f"cannot read the topic {self._topic!r} ({failure.str()}): check that the "
                    "topic exists, and the broker's log."
                )
