"""Reads topics: their offsets, and the records that they hold now."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from typing import TypeAlias

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ClusterMetadata, OffsetSpec

from dataflow.errors import UserError
from dataflow.kafka.client import TIMEOUT, admin_client, consumer, describe
from dataflow.kafka.topics import partitions
from dataflow.settings import Settings

__all__ = [
    "TRANSACTION_WAIT",
    "Range",
    "end_offsets",
    "latest_offsets",
    "offset_range",
    "offset_ranges",
    "read_from",
    "topic_ranges",
    "with_leader",
]

Range: TypeAlias = tuple[int, int]
"""The first offset that a partition holds, and the offset of the next record to be written."""


_NO_LEADER_YET = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,
}

_EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]


TRANSACTION_WAIT = 90.0
"""Seconds to wait for open transactions of other producers: by default, brokers abort a
transaction after 60 s."""


def end_offsets(settings: Settings, topic: str) -> dict[int, int]:
    """Return, for each partition of a topic, the offset of the next record to be written.

    Records in open transactions count, although readers of committed records do not see them yet.
    Raises `UserError` if the topic cannot be read.
    """
    return {partition: end for partition, (_, end) in topic_ranges(settings, topic).items()}


def topic_ranges(settings: Settings, topic: str) -> dict[int, Range]:
    """Return the offsets that each partition of a topic holds, those in open transactions too.

    Raises `UserError` if a partition does not answer within 10 s.
    """
    ranges, errors = offset_ranges(settings, topic, partitions(settings, topic))
    for partition, reason in errors.items():
        raise UserError(
            f"cannot read partition {partition} of the topic {topic!r} ({reason}): check the "
            "broker's log."
        )
    return ranges


def offset_ranges(
    settings: Settings, topic: str, wanted: Collection[int]
) -> tuple[dict[int, Range], dict[int, str]]:
    """Return the offsets that partitions hold, and for the others why they do not answer.

    Records in open transactions count. The number of requests is that of the brokers, not of the
    partitions. Retries for 10 s what does not answer: a partition has no leader after it was
    created or after its broker restarted. Raises `UserError` if no broker answers.
    """
    client, state = admin_client(settings)
    deadline = time.monotonic() + TIMEOUT
    ranges: dict[int, Range] = {}
    while True:
        left = [partition for partition in wanted if partition not in ranges]
        try:
            led = with_leader(client.list_topics(topic, TIMEOUT), topic)
        except KafkaException as error:
            raise state.no_answer(error) from None
        errors = {number: "it has no leader" for number in left if number not in led}
        # The first offset before the end: so it is never above it.
        firsts, first_errors = _offsets(client, topic, led.intersection(left), _EARLIEST)
        ends, later_errors = _offsets(client, topic, firsts, _LATEST)
        ranges |= {partition: (firsts[partition], end) for partition, end in ends.items()}
        errors |= first_errors | later_errors
        if not errors or time.monotonic() > deadline:
            return ranges, errors
        time.sleep(0.1)


def latest_offsets(
    client: AdminClient,
    topic: str,
    wanted: Collection[int],
    timeout: float,
    *,
    committed: bool = False,
) -> tuple[dict[int, int], dict[int, str]]:
    """Return the end offsets of partitions, and for the others why they do not answer in time.

    An end offset is the offset of the next record to be written; with `committed`, of the first
    record of the first open transaction, if there is one. `timeout` is in seconds. The client must
    have listed the topic, and each partition must have a leader: see `_offsets`.
    """
    return _offsets(client, topic, wanted, _LATEST, timeout, committed=committed)


def with_leader(cluster: ClusterMetadata, topic: str) -> set[int]:
    """Return the partitions that have a leader."""
    known = cluster.topics.get(topic)
    partitions = {} if known is None else known.partitions
    return {number for number, one in partitions.items() if one.leader in cluster.brokers}


def _offsets(
    client: AdminClient,
    topic: str,
    wanted: Collection[int],
    which: OffsetSpec,
    timeout: float = TIMEOUT,
    *,
    committed: bool = False,
) -> tuple[dict[int, int], dict[int, str]]:
    """Ask the leaders of the wanted partitions, which the client must know already.

    If it has yet to look for a leader, librdkafka 2.16 does so in two threads: one may free what
    the other still uses, and the process crashes.
    """
    isolation = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
    found: dict[int, int] = {}
    errors: dict[int, str] = {}
    if wanted:
        places = {TopicPartition(topic, partition): which for partition in wanted}
        asked = client.list_offsets(places, isolation_level=isolation, request_timeout=timeout)
        for place, future in asked.items():
            try:
                found[place.partition] = future.result().offset
            except KafkaException as error:
                errors[place.partition] = describe(error)
    return found, errors


def offset_range(client: Consumer, topic: str, partition: int) -> tuple[int, int]:
    """Return the first offset that a partition holds, and the offset after its last record.

    Retries for 10 s while the partition has no leader, as after it was created or after its broker
    restarted. Raises `KafkaException`.
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
                # librdkafka answered from its cache, and does not refresh it by itself.
                client.list_topics(topic, TIMEOUT)


def read_from(settings: Settings, topic: str, offsets: dict[int, int]) -> Iterator[Message]:
    """Yield the records that a topic holds now, from the given offsets by partition.

    A partition without an offset is read from its first record. Raises `UserError` if the topic
    cannot be read to its present end.
    """
    # The broker waits this long before it reports the end of a partition.
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
    deadline = time.monotonic() + TRANSACTION_WAIT
    try:
        while left:
            for message in client.consume(1000, 0.1):
                error = message.error()
                if error is None:
                    yield message
                    deadline = time.monotonic() + TRANSACTION_WAIT
                elif error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                    pass  # nothing is committed
                elif error.code() != KafkaError._PARTITION_EOF:
                    raise UserError(
                        f"cannot read the topic {topic!r} ({error.str()}): check the broker's log."
                    )
                elif (message.offset() or 0) >= ends[message.partition() or 0]:
                    left.discard(message.partition() or 0)
                # Else an open transaction blocks the records after it: wait.
            if left and time.monotonic() > deadline:
                raise _blocked(client, TopicPartition(topic, min(left)), ends[min(left)])
    finally:
        client.close()


def _blocked(client: Consumer, place: TopicPartition, end: int) -> UserError:
    """Return the error that says why a partition does not return its last records."""
    which = f"partition {place.partition} of the topic {place.topic!r}"
    if client.get_watermark_offsets(place, cached=True)[1] < 0:
        return UserError(
            f"the broker returns no records of {which}, which ends at offset {end}: check the "
            "broker's log."
        )
    (at,) = client.position([place])
    return UserError(
        f"an open transaction blocks {which} at offset {at.offset} of {end}: find it with Kafka's "
        "kafka-transactions.sh find-hanging, and abort it."
    )
