"""Reads some records of a topic, from its beginning and its end, or of a file."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path

from confluent_kafka import KafkaError, TopicPartition

from dataflow import kafka
from dataflow.errors import UserError
from dataflow.formats.files import KINDS, check_file, is_file, read_records
from dataflow.kafka import topics
from dataflow.kafka.reading import Range
from dataflow.records import Raw
from dataflow.settings import Settings

__all__ = ["LARGEST", "of_file", "of_topic"]

LARGEST = 64_000_000
"""Bytes of a file that is one record, at most."""

WAIT = 20.0
"""Seconds to wait for the records of a topic."""


def of_file(path: Path, count: int) -> list[Raw]:
    """Return the first records of a file; one that `is_file` does not know is one record.

    Raises `UserError` if it cannot be read.
    """
    if is_file(path.name):
        check_file(path, {})
        return list(islice(read_records(path), count))
    try:
        with path.open("rb") as file:
            value = file.read(LARGEST + 1)
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror}): give a file that holds a record, or one of "
            f"records, whose name ends in {KINDS}."
        ) from None
    if len(value) > LARGEST:
        raise UserError(
            f"{path} is larger than {LARGEST:,} bytes: a file of many records needs a name that "
            f"ends in {KINDS}."
        )
    return [Raw(0, 0, value)]


def of_topic(settings: Settings, count: int) -> list[Raw]:
    """Return records of each partition: half of them its first ones, half its last ones.

    Raises `UserError` if the topic does not exist or is empty.
    """
    present = topics.existing_partitions(settings, settings.topic, "ANOMALY_TOPIC", [kafka.READ])
    ranges = kafka.topic_ranges(settings, settings.topic)
    half = max(1, count // (2 * len(present)))
    whole = {it: held for it, held in ranges.items() if 0 < held[1] - held[0] <= 2 * half}
    long = {it: held for it, held in ranges.items() if held[1] - held[0] > 2 * half}
    parts = [
        {**whole, **{it: (first, first + half) for it, (first, _) in long.items()}},
        {it: (end - half, end) for it, (_, end) in long.items()},
    ]
    found = [raw for part in parts if part for raw in _read(settings, part)]
    if not found:
        raise UserError(
            f"the topic {settings.topic!r} holds no records: start its producer, or name another "
            "topic in ANOMALY_TOPIC."
        )
    return sorted(found, key=lambda raw: (raw.partition, raw.offset))


def _read(settings: Settings, ranges: dict[int, Range]) -> list[Raw]:
    """Read these offsets of partitions; of what does not come within `WAIT` seconds, none."""
    client = kafka.consumer(settings, **{"enable.partition.eof": True})
    deadline = time.monotonic() + WAIT
    left = set(ranges)
    found: list[Raw] = []
    try:
        client.assign([TopicPartition(settings.topic, it, held[0]) for it, held in ranges.items()])
        while left and time.monotonic() < deadline:
            for message in client.consume(100, 0.1):
                partition, offset = message.partition() or 0, message.offset() or 0
                error, end = message.error(), ranges[message.partition() or 0][1]
                if error is None and offset < end:
                    found.append(Raw(partition, offset, message.value()))
                at_end = error is not None and error.code() == KafkaError._PARTITION_EOF
                if at_end or (error is None and offset >= end - 1):
                    left.discard(partition)
    finally:
        client.close()
    return found
