"""Writes anomalies, incidents and rejected records to a topic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn, TypeAlias

from bytewax.outputs import FixedPartitionedSink, Sink, StatefulSinkPartition
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from dataflow import cloudevents, kafka
from dataflow.errors import UserError, stop_process
from dataflow.kafka import topics
from dataflow.metrics import counters
from dataflow.records import Anomaly, Incident, Rejected, encode
from dataflow.recovery.store import Store
from dataflow.settings import Settings
from dataflow.sinks.base import Output
from dataflow.sinks.identity import BY_SEQUENCE, BY_SOURCE, Identity
from dataflow.sinks.pending import Pending
from dataflow.sinks.snapshot import Snapshot, resume
from dataflow.warnings import Reason, warn

__all__ = ["KafkaOutput", "KafkaSink"]

Record = Anomaly | Incident | Rejected

Offsets: TypeAlias = dict[int, int]
"""By partition, the offset after the last record."""


class KafkaOutput(Output):
    """The topics of anomalies and incidents: exactly once."""

    def anomalies(self) -> Sink[Any]:
        """Return the sink for the topic that ANOMALY_ANOMALIES_TOPIC names."""
        topic = self.settings.anomalies_topic
        return KafkaSink(self.settings, topic, "ANOMALY_ANOMALIES_TOPIC", self.store)

    def incidents(self) -> Sink[Any]:
        """Return the sink for the topic that ANOMALY_INCIDENTS_TOPIC names."""
        topic = self.settings.incidents_topic
        return KafkaSink(
            self.settings, topic, "ANOMALY_INCIDENTS_TOPIC", self.store, identity=BY_SEQUENCE
        )


class KafkaSink(FixedPartitionedSink[Record, Snapshot[Offsets]]):
    """Writes records to a topic, keyed by instance; with a recovery store, each exactly once.

    The broker confirms every delivery before a snapshot. A failed delivery ends the process, and
    the resumed flow writes the record again. The place of the topic in the snapshot is, for each of
    its partitions, the offset after the last record. One worker writes for all: anomalies are few.

    With a recovery store, records are written in transactions whose id belongs to the store. So a
    process that was presumed dead can no longer write once its successor has started.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        setting: str,
        store: Store | None,
        identity: Identity = BY_SOURCE,
    ) -> None:
        """Check that the topic exists and can be used.

        `setting` is the setting that names the topic, and `identity` says which records are the
        same. Raises `UserError` if the topic does not exist or the user lacks a right to it.
        """
        # With a store, it looks up what was written.
        needs = [kafka.WRITE] if store is None else [kafka.WRITE, kafka.READ]
        topics.existing_partitions(settings, topic, setting, needs)
        self._settings = settings
        self._topic = topic
        self._store = store
        self._identity = identity

    def prove(self, step_id: str) -> None:
        """Prove before the first record is read that the step can write.

        Raises `UserError` if librdkafka rejects its settings, or if the user has no right to
        transactions.
        """
        if self._store is None:
            kafka.producer(self._settings)
        else:
            # Not kept: in a cluster, every process does this before one of them begins to write.
            kafka.transactional_producer(self._settings, self._transactional_id(step_id))

    def _transactional_id(self, step_id: str) -> str:
        return f"{self._store.id}-{step_id}" if self._store is not None else ""

    def list_parts(self) -> list[str]:
        """Return the only part."""
        return ["writer"]

    def build_part(
        self, step_id: str, for_part: str, resume_state: Snapshot[Offsets] | None
    ) -> _KafkaPart:
        """Create the producer, and read what was written since the last snapshot."""
        settings, topic = self._settings, self._topic
        counted = counters.output("kafka", step_id)
        saved, place, pending = resume(resume_state, topic, self._identity)
        if self._store is None:
            producer = kafka.producer(settings)
            return _KafkaPart(settings, topic, producer, {}, pending, {}, False, counted)
        try:
            # First: this fences the previous process and aborts its open transaction.
            producer = kafka.transactional_producer(settings, self._transactional_id(step_id))
            if place is None:
                began = self._store.began(
                    f"topic {topic}",
                    lambda: {str(p): o for p, o in kafka.end_offsets(settings, topic).items()},
                )
                offsets = {int(partition): offset for partition, offset in began.items()}
            else:
                offsets = dict(place)
            held = kafka.topic_ranges(settings, topic)
            offsets, warnings = readable(topic, offsets, held, marks=place is not None)
            for reason, line in warnings:
                warn(reason, line)
            for message in kafka.read_from(settings, topic, offsets):
                pending.add((message.value() or b"") + b"\n")
                offsets[message.partition() or 0] = (message.offset() or 0) + 1
        except UserError as error:
            stop_process(str(error))
        return _KafkaPart(settings, topic, producer, offsets, pending, saved, True, counted)


def readable(
    topic: str, offsets: Offsets, held: Mapping[int, tuple[int, int]], *, marks: bool
) -> tuple[Offsets, list[tuple[Reason, str]]]:
    """Return from which offsets a topic can be read back, and what is wrong with the given ones.

    `held` are the first offset that each partition holds and the one after its last record. With
    `marks`, each offset is the one after a record that was written in a transaction: the mark of
    its end is there.

    >>> readable("anomalies", {0: 546, 1: 4}, {0: (547, 547), 1: (0, 5), 2: (0, 3)}, marks=True)
    ({0: 547, 1: 4, 2: 0}, [])
    >>> readable("anomalies", {0: 546}, {0: (600, 700)}, marks=True)[0]
    {0: 600}
    """
    found: Offsets = {}
    warnings: list[tuple[Reason, str]] = []
    for partition, (first, end) in held.items():
        offset = offsets.get(partition, first)
        where = f"partition {partition} of the topic {topic!r}"
        if offset > end:
            line = (
                f"{where} ends at offset {end}, and this flow has written it up to {offset}: the "
                "topic was created again, so the records before are gone."
            )
            warnings.append(("output-recreated", line))
            offset = first
        elif offset + marks < first:
            line = (
                f"{where} begins at offset {first}, and the flow reads it back from {offset}: "
                "retention deleted records. Those that the flow wrote since its last snapshot, if "
                "any, are written again."
            )
            warnings.append(("output-deleted", line))
        found[partition] = max(first, offset)
    return found, warnings


class _KafkaPart(StatefulSinkPartition[Record, Snapshot[Offsets]]):
    def __init__(
        self,
        settings: Settings,
        topic: str,
        producer: Producer,
        offsets: Offsets,
        pending: Pending,
        saved: Snapshot[Offsets],
        transactional: bool,
        counted: counters.Output,
    ) -> None:
        self._cloudevents = settings.cloudevents
        self._topic = topic
        self._producer = producer
        self._offsets = offsets
        self._pending = pending
        self._saved = saved
        self._transactional = transactional
        self._tally = counted

    def write_batch(self, values: list[Record]) -> None:
        records = list(self._pending.new(values))
        self._tally.repeated.inc(len(values) - len(records))
        if not records:
            return
        try:
            if self._transactional:
                self._producer.begin_transaction()
            for record in records:
                self._produce(record)
            if self._transactional:
                self._producer.commit_transaction(kafka.TIMEOUT)
            else:
                self._producer.poll(0)
        except KafkaException as error:
            self._stop(kafka.describe(error))
        self._tally.wrote(records)

    def _produce(self, record: Record) -> None:
        key = None if isinstance(record, Rejected) else record.instance
        headers = cloudevents.headers(record) if self._cloudevents else None
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    encode(record),
                    key,
                    on_delivery=self._delivered,
                    headers=headers,
                )
            except BufferError:  # the queue is full: wait for deliveries
                self._producer.poll(1)
            else:
                return

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._stop(error.str())
        self._tally.confirm(1)
        # Deliveries to a partition are in order. Not the highest offset: a topic may be created
        # again while the flow writes.
        self._offsets[message.partition() or 0] = (message.offset() or 0) + 1

    def _stop(self, reason: str) -> NoReturn:
        stop_process(
            f"cannot write to the topic {self._topic!r} ({reason}): correct this and start the "
            "flow again; with a recovery store, it writes what is missing."
        )

    def snapshot(self) -> Snapshot[Offsets]:
        left = self._producer.flush(kafka.TIMEOUT)
        if left:
            self._stop(f"the broker did not confirm {left} records within 10 s")
        return {**self._saved, self._topic: (dict(self._offsets), self._pending.dump())}

    def close(self) -> None:
        self.snapshot()
