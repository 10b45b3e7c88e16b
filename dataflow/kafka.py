"""The one place that makes Kafka clients, and what is asked of a topic's offsets."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ClusterMetadata

from dataflow.refusal import Refusal
from dataflow.settings import Settings

__all__ = [
    "PASSING",
    "TIMEOUT",
    "admin",
    "consumer",
    "describe",
    "end_offsets",
    "metadata",
    "offset_range",
    "partition_ids",
    "producer",
    "read_from",
    "transactional_producer",
]

TIMEOUT = 10.0
"""Seconds to wait for a broker's answer."""

_SILENT = logging.Logger("librdkafka", level=logging.CRITICAL + 1)

_NO_LEADER_YET = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,
}

PASSING = {
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._RESOLVE,
}
"""Errors of a broker that is away: librdkafka goes on trying, and so do its readers."""

HELD_BACK = 90.0
"""Seconds to wait for others' open transactions: brokers end them after a minute as a rule."""


class _Client:
    """The settings of a client, and the last thing that librdkafka complained of."""

    def __init__(self, settings: Settings, **config: Any) -> None:
        self.brokers = settings.brokers
        self.complaint: str | None = None
        self.config = {
            "bootstrap.servers": settings.brokers,
            "client.id": "ec2-anomaly-dataflow",
            # A typing error in a topic's name must not make a topic.
            "allow.auto.create.topics": False,
            # librdkafka repeats every failed connection on standard error; we say it once.
            "logger": _SILENT,
            "error_cb": self._complain,
            # A broker that comes back is found within two seconds; the default may wait for ten.
            "reconnect.backoff.max.ms": 2000,
            **config,
            **settings.kafka,
        }

    def _complain(self, error: KafkaError) -> None:
        # "0/2 brokers are down" says less than the reason why, which may precede it.
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self.complaint = error.str()

    def refusal(self, error: KafkaException) -> Refusal:
        reason = self.complaint or _sentence(error)
        if self.complaint is None and error.args[0].code() == KafkaError._TRANSPORT:
            # librdkafka keeps this to its log, though a wrong protocol is the usual cause.
            reason = (
                "it closes the connection: if it wants TLS or a password, say so in "
                "ANOMALY_KAFKA__SECURITY_PROTOCOL"
            )
        # "127.0.0.1:1/bootstrap: Connect to ... failed: refused (after 0ms in state CONNECT)"
        reason = reason.split("/bootstrap: ")[-1].split(" (after ")[0]
        return Refusal(
            f"no answer from the broker {self.brokers} ({reason}): "
            "check that it runs, and ANOMALY_BROKERS and ANOMALY_KAFKA__*."
        )


def _sentence(error: Exception) -> str:
    if isinstance(error, KafkaException) and error.args and isinstance(error.args[0], KafkaError):
        return error.args[0].str()
    return str(error)


def _admin(settings: Settings) -> tuple[AdminClient, _Client]:
    client = _Client(settings)
    try:
        return AdminClient(client.config), client
    except KafkaException as wrong:
        raise Refusal(f"ANOMALY_KAFKA__*: {_sentence(wrong)}.") from None


def admin(settings: Settings) -> AdminClient:
    """Make a client that makes and deletes topics; a Refusal if its settings are wrong."""
    return _admin(settings)[0]


def metadata(settings: Settings) -> ClusterMetadata:
    """Return what the cluster holds; a Refusal within 10 s if no broker answers."""
    asking, client = _admin(settings)
    try:
        return asking.list_topics(timeout=TIMEOUT)
    except KafkaException as error:
        asking.poll(0)
        raise client.refusal(error) from None


def partition_ids(cluster: ClusterMetadata, topic: str) -> list[int]:
    """Return the partitions of a topic in order; empty if the topic is not there."""
    found = cluster.topics.get(topic)
    if found is None or found.error is not None:
        return []
    return sorted(found.partitions)


def consumer(settings: Settings, **config: Any) -> Consumer:
    """Make a consumer that is told where to read, keeps no group, and never skips in silence."""
    return Consumer(
        _Client(
            settings,
            **{
                # We keep the offsets ourselves; librdkafka insists on a name.
                "group.id": "ec2-anomaly-dataflow",
                "enable.auto.commit": False,
                # Offsets that are gone are an error, and not a jump to the end.
                "auto.offset.reset": "error",
                # The default of a second halves the speed of a backfill.
                "fetch.queue.backoff.ms": 10,
                # A tenth of the default, for each partition: less memory, and nothing waits.
                "queued.min.messages": 10_000,
                # The embedded broker answers with all that it has, and of more than the default of
                # 100 MB librdkafka takes nothing, again and again, without a word.
                "receive.message.max.bytes": 2_000_000_000,
                **config,
            },
        ).config
    )


def transactional_producer(settings: Settings, name: str) -> Producer:
    """Make a producer that shuts out every other of its name; a Refusal if it cannot."""
    # A transaction that a crash leaves open holds back its readers no longer than this.
    client = producer(settings, **{"transactional.id": name, "transaction.timeout.ms": 15_000})
    try:
        client.init_transactions(TIMEOUT)
    except KafkaException as error:
        raise Refusal(
            f"{settings.brokers} does not give leave to write in transactions as {name} "
            f"({_sentence(error)}): check the rights of the user in ANOMALY_KAFKA__*."
        ) from None
    return client


def producer(settings: Settings, **config: Any) -> Producer:
    """Make a producer whose retries neither repeat nor reorder."""
    return Producer(
        _Client(
            settings,
            **{
                "enable.idempotence": True,
                # As the Java clients do, so that one instance has one partition whoever writes.
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                # Fail, and let a resume repeat, while a supervisor still waits.
                "message.timeout.ms": 10_000,
                **config,
            },
        ).config
    )


def end_offsets(settings: Settings, topic: str) -> dict[int, int]:
    """Return, for each partition of a topic, the offset of the next record to be written.

    What is in an open transaction counts: a reader of committed records would be told less.
    """
    client = consumer(settings, **{"isolation.level": "read_uncommitted"})
    try:
        return {
            partition: offset_range(client, topic, partition)[1]
            for partition in partition_ids(metadata(settings), topic)
        }
    except KafkaException as error:
        raise Refusal(f"the topic {topic!r} cannot be read: {_sentence(error)}.") from None
    finally:
        client.close()


def offset_range(client: Consumer, topic: str, partition: int) -> tuple[int, int]:
    """Return the first offset that a partition holds, and the one after its last.

    A partition that was made a moment ago, or whose broker has just come back, has no leader yet:
    it is asked for again, for 10 s.
    """
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            return client.get_watermark_offsets(TopicPartition(topic, partition), timeout=TIMEOUT)
        except KafkaException as error:
            if error.args[0].code() not in _NO_LEADER_YET or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
            if error.args[0].code() == KafkaError._UNKNOWN_PARTITION:
                # What librdkafka heard last, and it does not ask the broker again by itself.
                client.list_topics(topic, TIMEOUT)


def read_from(settings: Settings, topic: str, offsets: dict[int, int]) -> Iterator[Message]:
    """Yield what a topic holds from the given offsets up to now; all of a partition not given."""
    # The broker waits so long before it says that there is no more.
    client = consumer(settings, **{"enable.partition.eof": True, "fetch.wait.max.ms": 10})
    ends = end_offsets(settings, topic)
    client.assign(
        [
            TopicPartition(topic, partition, offsets.get(partition, OFFSET_BEGINNING))
            for partition, end in ends.items()
            if end > offsets.get(partition, 0)
        ]
    )
    left = {part.partition for part in client.assignment()}
    deadline = time.monotonic() + HELD_BACK
    try:
        while left:
            for message in client.consume(1000, 0.1):
                error = message.error()
                if error is None:
                    yield message
                    deadline = time.monotonic() + HELD_BACK
                elif error.code() != KafkaError._PARTITION_EOF:
                    raise Refusal(f"the topic {topic!r} cannot be read: {error.str()}.")
                elif (message.offset() or 0) >= ends[message.partition() or 0]:
                    left.discard(message.partition() or 0)
                # Else a transaction that is still open holds back what was written after it.
            if left and time.monotonic() > deadline:
                raise _held_back(client, TopicPartition(topic, min(left)), ends[min(left)])
    finally:
        client.close()


def _held_back(client: Consumer, place: TopicPartition, end: int) -> Refusal:
    """Say why a partition that has more to read gives nothing."""
    which = f"partition {place.partition} of the topic {place.topic!r}"
    if client.get_watermark_offsets(place, cached=True)[1] < 0:
        return Refusal(
            f"the broker hands out nothing of {which}, which ends at {end}: look at its log."
        )
    (at,) = client.position([place])
    return Refusal(
        f"a transaction that does not end holds back {which} at the offset {at.offset} of {end}: "
        "find the producer that left it open."
    )


def describe(error: KafkaError | KafkaException) -> str:
    """Return a Kafka error as words."""
    return _sentence(error) if isinstance(error, KafkaException) else error.str()
