"""The partitions of a topic as input, each read from its offset in the last snapshot."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from confluent_kafka import (
    OFFSET_BEGINNING,
    TIMESTAMP_NOT_AVAILABLE,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from dataflow import kafka
from dataflow.errors import UserError, stop_process
from dataflow.kafka import topics
from dataflow.metrics import counters
from dataflow.records import Raw
from dataflow.runtime import epochs, shutdown, threads
from dataflow.settings import Settings
from dataflow.sources.alignment import PartitionAlignment
from dataflow.sources.batch_size import BatchSize

__all__ = ["KafkaSource"]

ALIGNED_BATCH = 100
"""Records in a batch where partitions are aligned: one may be this far ahead of the others."""

LAG_SECONDS = 1.0
"""Seconds between two measurements of a partition's lag."""

IDLE = timedelta(milliseconds=10)
"""Time before an idle partition is read again."""


class KafkaSource(FixedPartitionedSource[Raw, int]):
    """Reads all partitions of a topic, or those in ANOMALY_PARTITIONS, from their first record.

    The state of a partition is the next offset. The source waits while the broker is down. An
    offset that no longer exists, or any other error of the topic, ends the process. When partitions
    are added, the flow ends cleanly, because Bytewax lists partitions only at the start.
    """

    def __init__(self, settings: Settings) -> None:
        """Find the partitions of the topic.

        Raises `UserError` if the topic or a partition of ANOMALY_PARTITIONS does not exist.
        """
        present = topics.existing_partitions(
            settings, settings.topic, "ANOMALY_TOPIC", [kafka.READ]
        )
        wanted = present if settings.partitions is None else settings.partitions
        missing = sorted(set(wanted) - set(present))
        if missing:
            raise UserError(
                f"ANOMALY_PARTITIONS names partition {missing[0]}, but the topic "
                f"{settings.topic!r} has the partitions 0 to {present[-1]}: name only these."
            )
        self._settings = settings
        self._partitions = wanted
        self._alignment = PartitionAlignment(settings.reorder_seconds) if settings.reorder else None
        if settings.partitions is None and settings.follow:
            topics.watch_partitions(settings, len(present), shutdown.ask)

    def list_parts(self) -> list[str]:
        """Return the partitions as text. Bytewax calls this in the thread of each worker."""
        threads.keep()
        return [str(partition) for partition in self._partitions]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _KafkaPartition:
        """Open a partition at its offset in the last snapshot."""
        shutdown.reading()
        return _KafkaPartition(self._settings, int(for_part), resume_state, self._alignment)


class _KafkaPartition(StatefulSourcePartition[Raw, int]):
    def __init__(
        self,
        settings: Settings,
        partition: int,
        offset: int | None,
        alignment: PartitionAlignment | None,
    ) -> None:
        self._topic = settings.topic
        self._partition = partition
        self._offset = OFFSET_BEGINNING if offset is None else offset
        self._ended = False
        self._idle = False
        self._follow = settings.follow
        self._alignment = alignment
        self._size = BatchSize(several=not threads.alone())
        needs_end = alignment is not None or not settings.follow
        self._consumer = kafka.consumer(settings, **{"enable.partition.eof": needs_end})
        if self._offset >= 0:  # OFFSET_BEGINNING is below
            self._check_offset()
        self._place = TopicPartition(self._topic, partition, self._offset)
        self._consumer.assign([self._place])
        self._tally = counters.partition(self._topic, partition)
        self._lag_due = 0.0
        if alignment is not None:
            alignment.join(partition, time.monotonic())

    def _check_offset(self) -> None:
        """End the process if the broker does not have the offset to resume from."""
        try:
            first, end = kafka.offset_range(self._consumer, self._topic, self._partition)
        except KafkaException as error:
            self._stop(kafka.describe(error))
        if not first <= self._offset <= end:
            stop_process(
                f"partition {self._partition} of the topic {self._topic!r} holds the offsets "
                f"{first} to {end}, but the recovery store resumes at {self._offset}: the topic "
                "was created again, or retention deleted unread records; start with a new store."
            )

    def next_batch(self) -> list[Raw]:
        if self._ended or shutdown.asked():
            raise StopIteration
        alignment = self._alignment
        if alignment is not None and not alignment.may_read(self._partition, time.monotonic()):
            self._idle = True
            return []
        try:
            records = self._size.records if alignment is None else ALIGNED_BATCH
            messages = self._consumer.consume(records, 0.001)
        except KafkaException as error:
            self._stop(kafka.describe(error))
        partition = self._partition
        batch = [
            Raw(partition, message.offset(), message.value())  # type: ignore[arg-type]
            for message in messages
            if message.error() is None
        ]
        at_end = len(batch) < len(messages) and self._check_errors(messages)
        if batch:
            self._offset = batch[-1].offset + 1
            self._tally.took(len(batch), _broker_time(messages))
            if self._size.sampling:
                self._size.look(message.key() for message in messages)
        if alignment is not None:
            self._align(alignment, batch, messages, at_end)
        self._ended = at_end and not self._follow
        self._idle = not batch
        self._measure_lag()
        return batch

    def _check_errors(self, messages: list[Message]) -> bool:
        """Return whether the partition is at its end; end the process on a lasting error."""
        at_end = False
        for message in messages:
            failure = message.error()
            if failure is None:
                continue
            if failure.code() == KafkaError._PARTITION_EOF:
                at_end = True
            elif failure.code() not in kafka.TRANSIENT_ERRORS:
                self._stop(failure.str())
        return at_end

    def _measure_lag(self) -> None:
        now = time.monotonic()
        if now >= self._lag_due and self._offset >= 0:
            # Known from the last fetch, without a request.
            end = self._consumer.get_watermark_offsets(self._place, cached=True)[1]
            self._tally.lag.set(max(0, end - self._offset))
            self._lag_due = now + LAG_SECONDS

    def _align(
        self, alignment: PartitionAlignment, batch: list[Raw], messages: list[Message], at_end: bool
    ) -> None:
        if batch:
            written_at = _last(messages).timestamp()[1]
            alignment.advance(self._partition, written_at, len(batch), time.monotonic())
        if at_end:
            alignment.end(self._partition)

    def next_awake(self) -> datetime | None:
        return datetime.now(UTC) + IDLE if self._idle else None

    def snapshot(self) -> int:
        counters.STORE.saved_at = time.time()
        epochs.end(self._partition)
        return self._offset

    def close(self) -> None:
        self._consumer.close()

    def _stop(self, reason: str) -> NoReturn:
        start = "its beginning" if self._offset < 0 else f"offset {self._offset}"
        stop_process(
            f"cannot read partition {self._partition} of the topic {self._topic!r} from {start} "
            f"({reason}): check that the topic exists, and the broker's log."
        )


def _last(messages: list[Message]) -> Message:
    """Return the last message that is a record, not an error; there must be one."""
    return next(message for message in reversed(messages) if message.error() is None)


def _broker_time(messages: list[Message]) -> float | None:
    kind, milliseconds = _last(messages).timestamp()
    return None if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds / 1000
