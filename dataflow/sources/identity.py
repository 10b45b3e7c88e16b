"""Knows whether a topic is the one whose offsets are in the recovery store.

A topic that was deleted and created again has the same name and other records: to resume at the
saved offsets would skip its first records. Kafka gives each topic an id. For brokers without ids,
one record stands for it: the store keeps where it is, its timestamp and a checksum.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping

from confluent_kafka import KafkaException, Message, TopicPartition

from dataflow import kafka
from dataflow.errors import UserError
from dataflow.kafka.reading import Range
from dataflow.recovery.store import Store
from dataflow.settings import Settings

__all__ = ["check_topic"]

Mark = list[int]
"""A record: its partition, offset, timestamp in milliseconds, and checksum."""


def check_topic(
    settings: Settings, store: Store, identity: str | None, held: Mapping[int, Range]
) -> None:
    """Raise `UserError` if the store was written for another topic of the same name.

    `identity` is the topic's id, None if the cluster gives topics none; `held` has the offsets that
    each partition holds. A store that knows no topic yet takes the present one.
    """
    topic = settings.topic
    if identity is not None:
        if store.began(f"id of the topic {topic}", lambda: identity) != identity:
            raise _recreated(settings, store)
        return
    name = f"record of the topic {topic}"
    known: Mark | None = store.kept(name)
    if known is not None:
        partition, offset, *_ = known
        first, end = held.get(partition, (0, 0))
        if first <= offset < end:
            found = _mark(settings, partition, offset)
            if found is None or found[1] > offset:
                pass  # the broker compacted it, and what follows it was never compared
            elif found != known:
                raise _recreated(settings, store)
            else:
                return
    filled = [partition for partition, (first, end) in held.items() if first < end]
    if filled and (mark := _mark(settings, filled[0], held[filled[0]][0])):
        store.keep(name, mark)


def _recreated(settings: Settings, store: Store) -> UserError:
    return UserError(
        f"the topic {settings.topic!r} was deleted and created again, and the offsets in the "
        f"recovery store {store.folder} belong to the earlier topic: start with a new store."
    )


def _mark(settings: Settings, partition: int, offset: int) -> Mark | None:
    """Read the first record at or after an offset; None if there is none within 10 s."""
    client = kafka.consumer(settings, **{"enable.partition.eof": True})
    deadline = time.monotonic() + kafka.TIMEOUT
    try:
        client.assign([TopicPartition(settings.topic, partition, offset)])
        while time.monotonic() < deadline:
            for message in client.consume(1, 0.1):
                return None if message.error() else _mark_of(message)
        return None
    except KafkaException:
        return None
    finally:
        client.close()


def _mark_of(message: Message) -> Mark:
    key = message.key() or b""
    checksum = zlib.crc32(message.value() or b"", zlib.crc32(key))
    return [message.partition() or 0, message.offset() or 0, message.timestamp()[1], checksum]
