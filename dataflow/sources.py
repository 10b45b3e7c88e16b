"""Where raw records come from: the partitions of a topic, or a file."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import IO, Any, NoReturn

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from confluent_kafka import (
    OFFSET_BEGINNING,
    TIMESTAMP_NOT_AVAILABLE,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from dataflow import kafka, stopping, tally, topics
from dataflow.pace import Pace
from dataflow.records import Raw, encode
from dataflow.refusal import Refusal, stop_process
from dataflow.settings import Settings

__all__ = ["FileSource", "KafkaSource", "read_records", "source"]

BATCH = 300
"""Records handed on at a time, at most: more than these leave the processor's cache meanwhile."""

LAG_SECONDS = 1.0
"""Between two looks at how far behind a partition is."""

BATCH_ABREAST = 100
"""The same where partitions are read abreast: so far ahead one may be of another."""

IDLE = timedelta(milliseconds=10)
"""How long to leave a partition alone that had nothing to read."""


def source(settings: Settings) -> FixedPartitionedSource[Raw, int]:
    """Return the source that the settings name; a Refusal if it cannot be read."""
    if settings.input == "kafka":
        return KafkaSource(settings)
    return FileSource(Path(settings.input), settings)


class KafkaSource(FixedPartitionedSource[Raw, int]):
    """Reads every partition of a topic, or those that the settings name, from its first record.

    The state of a partition is the offset to read next. A broker that is away is waited for; an
    offset that is gone, or any other error of the topic, ends the process. Partitions that are
    added later end the flow cleanly: Bytewax looks for them only at the start.
    """

    def __init__(self, settings: Settings) -> None:
        """Look for the topic and its partitions; a Refusal if one is not there."""
        cluster = kafka.metadata(settings)
        topics.check(settings, cluster, settings.topic, "ANOMALY_TOPIC")
        present = kafka.partition_ids(cluster, settings.topic)
        wanted = present if settings.partitions is None else settings.partitions
        missing = sorted(set(wanted) - set(present))
        if missing:
            raise Refusal(
                f"ANOMALY_PARTITIONS names {missing[0]}, but the topic {settings.topic!r} "
                f"has the partitions 0 to {present[-1]}."
            )
        self._settings = settings
        self._partitions = wanted
        self._pace = Pace(settings.reorder_seconds) if settings.reorder else None
        if settings.partitions is None and settings.follow:
            topics.watch_partitions(settings, len(present), stopping.ask)

    def list_parts(self) -> list[str]:
        """Return the partitions, as text."""
        return [str(partition) for partition in self._partitions]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _KafkaPartition:
        """Open a partition where the last snapshot left it."""
        stopping.reading()
        return _KafkaPartition(self._settings, int(for_part), resume_state, self._pace)


class _KafkaPartition(StatefulSourcePartition[Raw, int]):
    def __init__(
        self, settings: Settings, partition: int, offset: int | None, pace: Pace | None
    ) -> None:
        self._topic = settings.topic
        self._partition = partition
        self._offset = OFFSET_BEGINNING if offset is None else offset
        self._ended = False
        self._idle = False
        self._follow = settings.follow
        self._pace = pace
        self._most = BATCH if pace is None else BATCH_ABREAST
        needs_end = pace is not None or not settings.follow
        self._consumer = kafka.consumer(settings, **{"enable.partition.eof": needs_end})
        place = TopicPartition(self._topic, partition, self._offset)
        if self._offset >= 0:  # OFFSET_BEGINNING is below
            self._check_offset()
        self._consumer.assign([place])
        self._place = place
        self._tally = tally.partition(self._topic, partition)
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
        if self._ended or stopping.asked():
            raise StopIteration
        if self._pace is not None and not self._pace.may_read(self._partition, time.monotonic()):
            self._idle = True
            return []
        try:
            messages = self._consumer.consume(self._most, 0.001)
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
            elif failure.code() not in kafka.PASSING:
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
        self, pace: Pace, batch: list[Raw], messages: list[Message], at_end: bool
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


class FileSource(FixedPartitionedSource[Raw, int]):
    """Reads a `.csv` or `.jsonl` file once, to its end. Its state is the record to read next."""

    def __init__(self, path: Path, settings: Settings) -> None:
        """Look at the file; a Refusal if it cannot be read or its header lacks a field."""
        try:
            with path.open("rb") as file:
                header = file.readline(1_000_000).decode("utf-8-sig", "replace")
        except OSError as wrong:
            raise Refusal(
                f"{path} cannot be read ({wrong.strerror}): give the path of a file in "
                "ANOMALY_INPUT, or `kafka`."
            ) from None
        if path.suffix == ".csv":
            columns = next(csv.reader([header]), [])
            for name in ("key_field", "value_field", "time_field", "index_field"):
                if getattr(settings, name) not in (None, *columns):
                    raise Refusal(
                        f"{path} has no column {getattr(settings, name)!r} in its first line: "
                        f"name the column in ANOMALY_{name.upper()}."
                    )
        self._path = path

    def list_parts(self) -> list[str]:
        """Return the one part that a file is."""
        return ["file"]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _FilePart:
        """Open the file at the record where the last snapshot left it."""
        stopping.reading()
        return _FilePart(self._path, resume_state or 0)


class _FilePart(StatefulSourcePartition[Raw, int]):
    def __init__(self, path: Path, start: int) -> None:
        self._records = islice(read_records(path), start, None)
        self._next = start
        self._tally = tally.partition(str(path), 0)

    def next_batch(self) -> list[Raw]:
        if stopping.asked():
            raise StopIteration
        batch = [
            Raw(0, offset, record)
            for offset, record in enumerate(islice(self._records, BATCH), start=self._next)
        ]
        if not batch:
            raise StopIteration
        self._next += len(batch)
        self._tally.took(len(batch))
        return batch

    def snapshot(self) -> int:
        self._tally.saved_at = time.time()
        return self._next


def read_records(path: Path) -> Iterator[bytes]:
    """Yield the records of a `.csv` or `.jsonl` file as JSON.

    A row of a CSV file becomes an object of texts, as the tutorial's producer sends it. What
    cannot be read so is yielded as it stands: the decoder refuses it and says why.
    """
    if path.suffix == ".jsonl":
        with path.open("rb") as lines:
            for line in lines:
                yield line.rstrip(b"\r\n")
        return
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        yield from _rows(file)


def _rows(file: IO[str]) -> Iterator[bytes]:
    rows = csv.reader(file)
    columns = next(rows, [])
    while True:
        try:
            row: list[Any] = next(rows)
        except StopIteration:
            return
        except csv.Error as wrong:
            yield f"{wrong} near line {rows.line_num}".encode()
            continue
        if not row:
            continue
        try:
            yield encode(dict(zip(columns, row, strict=False)))
        except UnicodeEncodeError:
            yield ",".join(row).encode("utf-8", "surrogateescape")
