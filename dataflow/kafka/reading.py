"""Reads topics: their offsets, and all that they hold up to now."""

from __future__ import annotations

import time
from collections.abc import Iterator

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from dataflow.errors import UserError
from dataflow.kafka.client import TIMEOUT, consumer, describe
from dataflow.kafka.topics import partitions
from dataflow.settings import Settings

__all__ = ["HELD_BACK", "end_offsets", "offset_range", "read_from"]


_NO_LEADER_YET = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,
}


HELD_BACK = 90.0
"""Seconds to wait for others' open transactions: brokers end them after a minute as a rule."""


def end_offsets(settings: Settings, topic: str) -> dict[int, int]:
    """Return, for each partition of a topic, the offset of the next record to be written.

    What is in an open transaction counts: a reader of committed records would be told less.
    """
    client = consumer(settings, **{"isolation.level": "read_uncommitted"})
    try:
        return {
            partition: offset_range(client, topic, partition)[1]
            for partition in partitions(settings, topic)
        }
    except KafkaException as error:
        raise UserError(f"the topic {topic!r} cannot be read: {describe(error)}.") from None
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
                    raise UserError(f"the topic {topic!r} cannot be read: {error.str()}.")
                elif (message.offset() or 0) >= ends[message.partition() or 0]:
                    left.discard(message.partition() or 0)
                # Else a transaction that is still open holds back what was written after it.
            if left and time.monotonic() > deadline:
                raise _held_back(client, TopicPartition(topic, min(left)), ends[min(left)])
    finally:
        client.close()


def _held_back(client: Consumer, place: TopicPartition, end: int) -> UserError:
    """Say why a partition that has more to read gives nothing."""
    which = f"partition {place.partition} of the topic {place.topic!r}"
    if client.get_watermark_offsets(place, cached=True)[1] < 0:
        return UserError(
            f"the broker hands out nothing of {which}, which ends at {end}: look at its log."
        )
    (at,) = client.position([place])
    return UserError(
        f"a transaction that does not end holds back {which} at the offset {at.offset} of {end}: "
        "find the producer that left it open."
    )
