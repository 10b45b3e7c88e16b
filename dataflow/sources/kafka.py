"""The partitions of a topic as input: each where the last snapshot left it."""

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
from dataflow.runtime import shutdown, threads
from dataflow.settings import Settings
from dataflow.sources.alignment import PartitionAlignment
from dataflow.sources.batch_size import BatchSize

__all__ = ["KafkaSource"]

ABREAST = 100
"""Records handed on at a time where partitions are read abreast: so far may one be ahead."""

LAG_SECONDS = 1.0
"""Between two looks at how far behind a partition is."""

IDLE = timedelta(milliseconds=10)
"""How long to leave a partition alone that had nothing to read."""


class KafkaSource(FixedPartitionedSource[Raw, int]):
    """Reads every partition of a topic, or those that the settings name, from its first record.

    The state of a partition is the offset to read next. A broker that is away is waited for; an
    offset that is gone, or any other error of the topic, ends the process. Partitions that are
    added later end the flow cleanly: Bytewax looks for them only at the start.
    """

    def __init__(self, settings: Settings) -> None:
        """Look for the topic and its partitions; a UserError if one is not there."""
        present = topics.existing_partitions(settings, settings.topic, "ANOMALY_TOPIC")
        wanted = present if settings.partitions is None else settings.partitions
        missing = sorted(set(wanted) - set(present))
        if missing:
            raise UserError(
                f"ANOMALY_PARTITIONS names {missing[0]}, but the topic {settings.topic!r} "
                f"has the partitions 0 to {present[-1]}."
            )
        self._settings = settings
        self._partitions = wanted
        self._pace = PartitionAlignment(settings.reorder_seconds) if settings.reorder else None
        if settings.partitions is None and settings.follow:
            topics.watch_partitions(settings, len(present), shutdown.ask)

    def list_parts(self) -> list[str]:
        """Return the partitions, as text. Bytewax asks in each worker's thread."""
        threads.keep()
        return [str(partition) for partition in self._partitions]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _KafkaPartition:
        """Open a partition where the last snapshot left it."""
        shutdown.reading()
        return _KafkaPartition(self._settings, int(for_part), resume_state, self._pace)


class _KafkaPartition(StatefulSourcePartition[Raw, int]):
    def __init__(
        self,
        settings: Settings,
        partition: int,
        offset: int | None,
        pace: PartitionAlignment | None,
    ) -> None:
        self._topic = settings.topic
        self._partition = partition
        self._offset = OFFSET_BEGINNING if offset is None else offset
        self._ended = False
        self._idle = False
        self._follow = settings.follow
        self._pace = pace
        self._size = BatchSize(several=not threads.alone())
        needs_end = pace is not None or not settings.follow
        self._consumer = kafka.consumer(settings, **{"enable.partition.eof": needs_end})
        place = TopicPartition(self._topic, partition, self._offset)
        if self._offset >= 0:  # OFFSET_BEGINNING is below
            self._check_offset()
        self._consumer.assign([place])
        self._place = place
        self._tally = counters.partition(self._topic, partition)
        self._lag_due = 0.0
        if pace is not None:
            pace.join(partition, time.monotonic())

    def _check_offset(self) -> None:
        """Refuse to resume from an offset that the broker has dropped or never had."""
        try:
            first, end = kafka.offset_range(self._consumer, self._topic, self._partition)
        except KafkaException as error:
            self._stop(kafka.describe(error))
        if not first <= self._offset <= end:
            stop_process(
                f"partition {self._partition} of the topic {self._topic!r} holds the offsets "
                f"{first} to {end}, and the recovery store goes on at {self._offset}: the topic "
                "was made anew, or records were dropped unread; start anew with another store."
            )

    def next_batch(self) -> list[Raw]:
        if self._ended or shutdown.asked():
            raise StopIteration
        if self._pace is not None and not self._pace.may_read(self._partition, time.monotonic()):
            self._idle = True
            return []
        try:
            records = self._size.records if self._pace is None else ABREAST
            messages = self._consumer.consume(records, 0.001)
        except KafkaException as error:
            self._stop(kafka.describe(error))
        partition = self._partition
        batch = [
            Raw(partition, message.offset(), message.value())  # type: ignore[arg-type]
            for message in messages
            if message.error() is None
        ]
        at_end = len(batch) < len(messages) and self._look_at_errors(messages)
        if batch:
            self._offset = batch[-1].offset + 1
            self._tally.took(len(batch), _broker_time(messages))
            if self._size.sampling:
                self._size.look(message.key() for message in messages)
        if self._pace is not None:
            self._keep_pace(self._pace, batch, messages, at_end)
        self._ended = at_end and not self._follow
        self._idle = not batch
        self._tell_lag()
        return batch

    def _look_at_errors(self, messages: list[Message]) -> bool:
        """Tell whether the partition is at its end; an error that does not pass ends all."""
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

    def _tell_lag(self) -> None:
        now = time.monotonic()
        if now >= self._lag_due and self._offset >= 0:
            # What the last fetch said: nobody is asked.
            end = self._consumer.get_watermark_offsets(self._place, cached=True)[1]
            self._tally.lag = max(0, end - self._offset)
            self._lag_due = now + LAG_SECONDS

    def _keep_pace(
        self, pace: PartitionAlignment, batch: list[Raw], messages: list[Message], at_end: bool
    ) -> None:
        if batch:
            written_at = _last(messages).timestamp()[1]
            pace.advance(self._partition, written_at, len(batch), time.monotonic())
        if at_end:
            pace.end(self._partition)

    def next_awake(self) -> datetime | None:
        return datetime.now(UTC) + IDLE if self._idle else None

    def snapshot(self) -> int:
        self._tally.saved_at = time.time()
        return self._offset

    def close(self) -> None:
        self._consumer.close()

    def _stop(self, reason: str) -> NoReturn:
        stop_process(
            f"partition {self._partition} of the topic {self._topic!r} cannot be read "
            f"from offset {self._offset}: {reason}."
        )


def _last(messages: list[Message]) -> Message:
    """Return the last record among messages, some of which may be errors, but not all."""
    return next(message for message in reversed(messages) if message.error() is None)


def _broker_time(messages: list[Message]) -> float | None:
    kind, milliseconds = _last(messages).timestamp()
    return None if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds / 1000
