"""The partitions of a topic as input, each read from its offset in the last snapshot."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import datetime
from typing import NoReturn

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from confluent_kafka import (
    OFFSET_BEGINNING,
    TIMESTAMP_NOT_AVAILABLE,
    KafkaError,
    Message,
)

from dataflow import kafka
from dataflow.errors import UserError, stop_process
from dataflow.kafka import topics
from dataflow.kafka.caught_up import CaughtUp
from dataflow.kafka.client import admin_of_cluster
from dataflow.kafka.reading import Range
from dataflow.metrics import counters
from dataflow.records import Raw
from dataflow.recovery.store import Store
from dataflow.runtime import epochs, shutdown, threads
from dataflow.settings import Settings
from dataflow.sources.alignment import PartitionAlignment
from dataflow.sources.batch_size import BatchSize
from dataflow.sources.identity import check_topic
from dataflow.sources.place import place
from dataflow.sources.reader import Reader
from dataflow.sources.watch import Watch
from dataflow.warnings import warn

__all__ = ["KafkaSource"]

ALIGNED_BATCH = 100
"""Records in a batch where partitions are aligned: one may be this far ahead of the others."""

ASKED = 2.0
"""Seconds without a call from Bytewax after which a partition does not wait for records."""

LAG_SECONDS = 1.0
"""Seconds between two measurements of a partition's lag."""


class KafkaSource(FixedPartitionedSource[Raw, int]):
    """Reads all partitions of a topic, or those in ANOMALY_PARTITIONS, from their first record.

    The state of a partition is the next offset. The source waits while the broker is down, and says
    so. If records were deleted before they were read, ANOMALY_LOST_INPUT decides; any other error
    of the topic ends the process. When partitions are added, the flow ends cleanly, because Bytewax
    lists partitions only at the start.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store | None = None,
        held: Mapping[int, Range] | None = None,
    ) -> None:
        """Find the partitions of the topic and the offsets that they hold, unless `held` says them.

        Raises `UserError` if the topic or a partition of ANOMALY_PARTITIONS does not exist, if the
        topic is another one than that of the store, and, for an input that ends, if a partition
        does not answer.
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
        errors: dict[int, str] = {}
        if held is None:
            held, errors = kafka.offset_ranges(settings, settings.topic, wanted)
        self._held = held
        if errors and not settings.follow:
            partition, reason = next(iter(errors.items()))
            raise UserError(
                f"partition {partition} of the topic {settings.topic!r} does not say where it ends "
                f"({reason}): check that its broker runs, and read the broker's log."
            )
        cluster_admin, *_ = admin_of_cluster(settings)
        identity = topics.topic_id(cluster_admin, settings.topic)
        if store is not None:
            check_topic(settings, store, identity, self._held)
        self._alignment = PartitionAlignment(settings.reorder_seconds) if settings.reorder else None
        self._readers: dict[int, Reader] = {}
        self.caught_up = CaughtUp()
        """Whether it has read all that there is."""
        self._watch = Watch(
            settings,
            len(present) if settings.partitions is None and settings.follow else None,
            identity,
            self.caught_up,
        )
        self._watch.start()

    @property
    def partitions(self) -> tuple[int, ...]:
        """The partitions that are read, by all processes of a cluster together."""
        return tuple(self._partitions)

    def end(self, partition: int) -> int:
        """Return the offset that was the next to be written to a partition at the start."""
        held = self._held.get(partition)
        if held is None:
            ranges, errors = kafka.offset_ranges(self._settings, self._settings.topic, [partition])
            if errors:
                stop_process(
                    f"partition {partition} of the topic {self._settings.topic!r} does not say "
                    f"where it ends ({errors[partition]}): check that its broker runs."
                )
            held = ranges[partition]
        return held[1]

    def list_parts(self) -> list[str]:
        """Return the partitions as text. Bytewax calls this in the thread of each worker."""
        threads.keep()
        return [str(partition) for partition in self._partitions]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _KafkaPartition:
        """Open a partition at its offset in the last snapshot."""
        shutdown.reading()
        worker = threading.get_ident()
        if worker not in self._readers:
            self._readers[worker] = Reader(
                self._settings, len(self._partitions), aligned=self._alignment is not None
            )
        partition = int(for_part)
        return _KafkaPartition(
            self._settings,
            partition,
            OFFSET_BEGINNING if resume_state is None else resume_state,
            self._held.get(partition),
            self._readers[worker],
            self._alignment,
            self._watch,
        )


class _KafkaPartition(StatefulSourcePartition[Raw, int]):
    def __init__(
        self,
        settings: Settings,
        partition: int,
        offset: int,
        held: Range | None,
        reader: Reader,
        alignment: PartitionAlignment | None,
        watch: Watch,
    ) -> None:
        self._settings = settings
        self._topic = settings.topic
        self._partition = partition
        self._reader = reader
        self._alignment = alignment
        self._watch = watch
        self._size = BatchSize(several=not threads.alone())
        self._tally = counters.partition(self._topic, partition)
        self._lag_due = 0.0
        self._idle = False
        self._ended = False
        # Where an input that ends is to be read to.
        self._end = None if settings.follow or held is None else held[1]
        self.offset = offset
        # Nothing was read yet, so what the broker deletes is as if it had never been there.
        self._untouched = offset < 0
        self._waits = False
        self._asked = 0.0
        if held is not None:
            self._go_to(offset, held, "the recovery store resumes")
        reader.open(partition, self.offset)
        watch.add(partition, self)
        if alignment is not None:
            alignment.join(partition, time.monotonic())
        self._check_end()

    def _go_to(self, saved: int, held: Range, who: str) -> None:
        """Set the next offset to read, given the wanted one and those that the broker holds."""
        found = place(saved, held)
        self.offset = found.offset
        self.tell_end(held[1])
        if found.problem is None:
            return
        first, end = held
        holds = (
            f"partition {self._partition} of the topic {self._topic!r} holds "
            f"{f'the offsets {first} to {end - 1}' if first < end else 'no records'}, but {who} at "
            f"{saved} ({found.problem})"
        )
        if self._settings.lost_input == "stop":
            stop_process(
                f"{holds}: set ANOMALY_LOST_INPUT=continue to continue at {found.offset}, or start "
                "with a new store."
            )
        warn(
            "lost-input",
            f"{holds}: ANOMALY_LOST_INPUT=continue, so the flow continues at {found.offset}.",
        )
        self._tally.lost(found.lost)

    def next_batch(self) -> list[Raw]:
        if self._ended or shutdown.asked():
            raise StopIteration
        now = self._asked = time.monotonic()
        alignment = self._alignment
        if alignment is not None and not alignment.may_read(self._partition, now):
            self._idle = True
            self._waits = False
            return []
        messages = self._reader.take(
            self._partition, self._size.records if alignment is None else ALIGNED_BATCH
        )
        self._idle = not messages
        self._waits = not messages and self._reader.drained
        if not messages:
            return []
        partition = self._partition
        batch = [
            Raw(partition, message.offset(), message.value())  # type: ignore[arg-type]
            for message in messages
            if message.error() is None
        ]
        if batch:
            self.offset = batch[-1].offset + 1
            if self._end is not None and self.offset > self._end:
                # Written since: another run up to this end must read the same.
                batch = [raw for raw in batch if raw.offset < self._end]
                self.offset = self._end
            self._untouched = False
            self._tally.took(len(batch), _broker_time(messages))
            if self._size.sampling:
                self._size.look(message.key() for message in messages)
            if alignment is not None:
                written_at = _last(messages).timestamp()[1]
                alignment.advance(partition, written_at, len(batch), time.monotonic())
        if len(batch) < len(messages):
            self._idle = not batch
            self._take_events(messages)
        self._measure_lag()
        self._check_end()
        return batch

    def _take_events(self, messages: list[Message]) -> None:
        """Note that the partition is at its end; end the process on a lasting error."""
        for message in messages:
            failure = message.error()
            if failure is None:
                continue
            if failure.code() == KafkaError._PARTITION_EOF:
                # Beyond the last record lie the marks of transactions, which are not read.
                self.offset = max(self.offset, message.offset() or 0)
                self._waits = True
                self._lag_due = 0.0
                if self._alignment is not None:
                    self._alignment.end(self._partition)
            elif failure.code() == KafkaError._AUTO_OFFSET_RESET:
                self._go_on(failure)
            elif failure.code() in kafka.TRANSIENT_ERRORS:
                self._reader.last_error = failure
            else:
                self._stop(failure.str())

    def _go_on(self, failure: KafkaError) -> None:
        """Go on where the broker no longer holds the next offset."""
        held, errors = kafka.offset_ranges(self._settings, self._topic, [self._partition])
        # A topic that ends before the offset may have been created again.
        if errors or held[self._partition][0] <= self.offset:
            self._stop(failure.str())
        self._go_to(
            OFFSET_BEGINNING if self._untouched else self.offset,
            held[self._partition],
            "the flow reads on",
        )
        self._reader.open(self._partition, self.offset)

    def _check_end(self) -> None:
        self._ended = self._end is not None and self.offset >= self._end
        if self._ended and self._alignment is not None:
            self._alignment.end(self._partition)

    def _measure_lag(self) -> None:
        now = time.monotonic()
        if now >= self._lag_due:
            # Known from the last fetch, without a request.
            if (end := self._reader.end(self._partition)) >= 0:
                self.tell_end(end)
            self._lag_due = now + LAG_SECONDS

    def tell_end(self, end: int) -> None:
        """Set the lag, given the offset of the next record to be written."""
        self._tally.lag.set(max(0, end - self.offset))

    @property
    def waits(self) -> bool:
        """Whether it asked for records just now and got none.

        A flow that waits for its output asks for none: its input is not to blame. Nor is it while
        the records of other partitions are more than it can take.
        """
        return self._waits and time.monotonic() - self._asked < ASKED

    @property
    def last_error(self) -> str | None:
        """The last error of the consumer, in words."""
        error = self._reader.last_error
        return None if error is None else error.str()

    def next_awake(self) -> datetime | None:
        return self._reader.wake() if self._idle else None

    def snapshot(self) -> int:
        counters.STORE.saved_at = time.time()
        epochs.end(self._partition, self.offset)
        return self.offset

    def close(self) -> None:
        self._watch.remove(self._partition)
        self._reader.close(self._partition)

    def _stop(self, reason: str) -> NoReturn:
        start = "its beginning" if self.offset < 0 else f"offset {self.offset}"
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
