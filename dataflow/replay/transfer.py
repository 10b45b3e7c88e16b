"""Reading refused records, and sending them again: the outer side of `replaying`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from confluent_kafka import KafkaException, Message

from dataflow import kafka
from dataflow.errors import UserError
from dataflow.kafka import topics
from dataflow.records import Source, encode
from dataflow.replay.plan import REPLAYED, Found, Item, Place, marker, read_line, read_message
from dataflow.settings import Settings

__all__ = ["Sender", "check_topics", "read_file", "read_marks", "read_topic"]

TOGETHER = 500
"""Records sent in one transaction, at most: readers wait for its end."""


def check_topics(settings: Settings, *, from_topic: bool, write: bool) -> None:
    """Refuse if a topic is missing that is needed; marks need the rejected topic, too."""
    topics.existing_partitions(settings, settings.topic, "ANOMALY_TOPIC")
    if from_topic:
        topics.existing_partitions(settings, settings.rejected_topic, "ANOMALY_REJECTED_TOPIC")
    elif write:
        for topic in topics.create(settings, [settings.rejected_topic], 1):
            print(f"created the topic {topic} for the marks of what was sent", file=sys.stderr)


def read_marks(settings: Settings) -> dict[Source, list[Place]]:
    """Return the places of all marks in the rejected topic; none if it is not there."""
    marks: dict[Source, list[Place]] = {}
    if topics.partitions(settings, settings.rejected_topic):
        for message in kafka.read_from(settings, settings.rejected_topic, {}):
            record = read_message(message.value())
            if record is not None and record.reason == REPLAYED:
                marks.setdefault(record.source, []).append(_place(message))
    return marks


def read_topic(settings: Settings) -> Iterator[Found]:
    """Yield the refused records of the rejected topic that it holds now, without the marks."""
    ends = kafka.end_offsets(settings, settings.rejected_topic)
    for message in kafka.read_from(settings, settings.rejected_topic, {}):
        place = _place(message)
        # What a running flow refuses once more while we send would be sent once more, for ever.
        if place.offset >= ends.get(place.partition, 0):
            continue
        record = read_message(message.value())
        if record is not None and record.reason != REPLAYED:
            yield Found(record, place)


def read_file(path: Path, *, mended: bool) -> Iterator[Found]:
    """Return the refused records of a file of JSON lines; a UserError that names a wrong line."""
    for _ in _lines(path, mended):
        pass  # nothing of a file is sent before all of it has been read
    return _lines(path, mended)


def _lines(path: Path, mended: bool) -> Iterator[Found]:
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    record = read_line(line, f"{path} line {number}", mended=mended)
                    if record.reason != REPLAYED:
                        yield Found(record, None)
    except OSError as wrong:
        raise UserError(f"{path} cannot be read: {wrong.strerror}.") from None


def _place(message: Message) -> Place:
    return Place(message.partition() or 0, message.offset() or 0, message.timestamp()[1] / 1000)


class Sender:
    """Sends records to the input topic, each with its mark, in transactions.

    Made before the marks are read, it shuts out a replay that still runs elsewhere: that one can
    no longer commit what this one does not see.
    """

    def __init__(self, settings: Settings) -> None:
        """Take the place of any other sender; a UserError if the broker does not allow it."""
        self._settings = settings
        self._producer = kafka.transactional_producer(
            settings, f"ec2-anomaly-dataflow.replay.{settings.topic}"
        )
        self._open = 0
        self.sent = 0

    def send(self, item: Item) -> None:
        """Send one; a UserError if the broker does not take it."""
        rejected, place = item.found
        mark = encode(marker(rejected.source, self._settings.topic))
        try:
            if not self._open:
                self._producer.begin_transaction()
            self._producer.produce(self._settings.topic, item.value, item.key)
            # Beside the record: there the offsets tell which came first.
            self._producer.produce(
                self._settings.rejected_topic,
                mark,
                partition=0 if place is None else place.partition,
            )
        except KafkaException as error:
            self._refuse(error)
        self._open += 1
        if self._open == TOGETHER:
            self.commit()

    def commit(self) -> None:
        """Make what was sent visible, all of it with its marks or nothing."""
        if not self._open:
            return
        try:
            self._producer.commit_transaction(kafka.TIMEOUT)
        except KafkaException as error:
            self._refuse(error)
        self.sent += self._open
        self._open = 0

    def _refuse(self, error: KafkaException) -> None:
        raise UserError(
            f"the topic {self._settings.topic!r} did not take a record ({kafka.describe(error)}); "
            f"{self.sent} were sent before and will not be sent again: replay once more."
        ) from None
