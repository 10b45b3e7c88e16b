"""Reads rejected records and marks, and sends records again, each with its mark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from confluent_kafka import KafkaException, Message

from dataflow import cloudevents, kafka
from dataflow.errors import UserError
from dataflow.kafka import topics
from dataflow.records import Source, encode
from dataflow.replay.plan import REPLAYED, Candidate, Item, Place, marker, read_line, read_message
from dataflow.settings import Settings
from dataflow.warnings import say

__all__ = ["Sender", "check_topics", "read_file", "read_marks", "read_topic"]

PER_TRANSACTION = 500
"""Largest number of records in a transaction: readers wait for its end."""


def check_topics(settings: Settings, *, from_topic: bool, write: bool) -> None:
    """Check that the topics exist; create the rejected topic if only marks need it.

    Raises `UserError` if a topic is missing, or the right to read or write one.
    """
    written = [kafka.WRITE] if write else []
    topics.existing_partitions(settings, settings.topic, "ANOMALY_TOPIC", written)
    if not from_topic and write:
        for topic in topics.create(settings, [settings.rejected_topic], 1):
            say(f"created the topic {topic} for the marks of replayed records")
    if from_topic or write:
        topics.existing_partitions(
            settings, settings.rejected_topic, "ANOMALY_REJECTED_TOPIC", [kafka.READ, *written]
        )


def read_marks(settings: Settings) -> dict[Source, list[Place]]:
    """Return the places of all marks by source; empty if the rejected topic does not exist."""
    marks: dict[Source, list[Place]] = {}
    if topics.partitions(settings, settings.rejected_topic):
        for message in kafka.read_from(settings, settings.rejected_topic, {}):
            record = read_message(message.value())
            if record is not None and record.reason == REPLAYED:
                marks.setdefault(record.source, []).append(_place(message))
    return marks


def read_topic(settings: Settings) -> Iterator[Candidate]:
    """Yield the rejected records that the rejected topic holds now, without the marks."""
    ends = kafka.end_offsets(settings, settings.rejected_topic)
    for message in kafka.read_from(settings, settings.rejected_topic, {}):
        place = _place(message)
        # Otherwise records that a running flow rejects again are sent again, forever.
        if place.offset >= ends.get(place.partition, 0):
            continue
        record = read_message(message.value())
        if record is not None and record.reason != REPLAYED:
            yield Candidate(record, place)


def read_file(path: Path, *, corrected: bool) -> Iterator[Candidate]:
    """Return the rejected records of a file of JSON lines.

    Raises `UserError`, with the line, if one is wrong: before any record is returned.
    """
    for _ in _lines(path, corrected):
        pass  # check the whole file before anything is sent
    return _lines(path, corrected)


def _lines(path: Path, corrected: bool) -> Iterator[Candidate]:
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    record = read_line(line, f"{path} line {number}", corrected=corrected)
                    if record.reason != REPLAYED:
                        yield Candidate(record, None)
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror}): give an existing file of rejected records."
        ) from None


def _place(message: Message) -> Place:
    return Place(message.partition() or 0, message.offset() or 0, message.timestamp()[1] / 1000)


class Sender:
    """Sends records to the input topic, each with its mark, in transactions.

    Create it before reading the marks: it fences a replay that still runs elsewhere, which then
    cannot commit records whose marks this one has not read.
    """

    def __init__(self, settings: Settings) -> None:
        """Fence every other sender. Raises `UserError` if the broker does not allow that."""
        self._settings = settings
        self._producer = kafka.transactional_producer(
            settings, f"ec2-anomaly-dataflow.replay.{settings.topic}"
        )
        self._open = 0
        self.sent = 0

    def send(self, item: Item) -> None:
        """Send a record and its mark. Raises `UserError` if the broker rejects them."""
        rejected, place = item.candidate
        mark = marker(rejected.source, self._settings.topic)
        try:
            if not self._open:
                self._producer.begin_transaction()
            self._producer.produce(self._settings.topic, item.value, item.key)
            # In the partition of the record: there, offsets say which came first.
            self._producer.produce(
                self._settings.rejected_topic,
                encode(mark),
                headers=cloudevents.headers(mark) if self._settings.cloudevents else None,
                partition=0 if place is None else place.partition,
            )
        except KafkaException as error:
            self._fail(error)
        self._open += 1
        if self._open == PER_TRANSACTION:
            self.commit()

    def commit(self) -> None:
        """Commit the records sent so far and their marks, all or none. Raises `UserError`."""
        if not self._open:
            return
        try:
            self._producer.commit_transaction(kafka.TIMEOUT)
        except KafkaException as error:
            self._fail(error)
        self.sent += self._open
        self._open = 0

    def _fail(self, error: KafkaException) -> None:
        raise UserError(
            f"cannot write to the topic {self._settings.topic!r} ({kafka.describe(error)}) after "
            f"{self.sent} records: run the same command again; it skips records already sent."
        ) from None
