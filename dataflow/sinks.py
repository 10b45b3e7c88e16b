"""Where anomalies and rejected records go: a topic, a file of JSON lines, standard output.

With a recovery store, topic and file keep each record once: what a resumed flow computes again is
looked up in what was written since the last snapshot, by the place where it was read. Standard
output cannot be read back: after a crash it may repeat.
"""

from __future__ import annotations

import fcntl
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

import msgspec
from bytewax.outputs import (
    DynamicSink,
    FixedPartitionedSink,
    Sink,
    StatefulSinkPartition,
    StatelessSinkPartition,
)
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from dataflow import kafka
from dataflow.records import Anomaly, Rejected, Source, encode
from dataflow.recovery import Store
from dataflow.refusal import Refusal, stop_process
from dataflow.settings import Settings

__all__ = ["JsonLinesSink", "KafkaSink", "StreamSink", "outputs", "rejected_output"]

Record = Anomaly | Rejected


def outputs(settings: Settings, store: Store | None) -> dict[str, Sink[Any]]:
    """Return the sinks for anomalies by the step that they are; a Refusal if one is unusable.

    `store` is the recovery store, None if a crash will not be resumed.
    """
    sinks: dict[str, Sink[Any]] = {}
    for output in settings.outputs:
        if output == "stdout":
            sinks["write_stdout"] = StreamSink("stdout")
        elif output == "kafka":
            sinks["write_kafka"] = KafkaSink(
                settings, settings.anomalies_topic, "ANOMALY_ANOMALIES_TOPIC", store
            )
        else:
            sinks["write_jsonl"] = JsonLinesSink(Path(output), store)
    return sinks


def rejected_output(settings: Settings, store: Store | None) -> Sink[Any]:
    """Return the sink for rejected records.

    Its topic is made if it carries the name that the input's topic gives it, so that reading a
    topic of one's own takes no preparation; one that was named otherwise must be there.
    """
    if settings.input == "kafka":
        if settings.rejected_topic == f"{settings.topic}.rejected":
            for topic in kafka.create_topics(settings, [settings.rejected_topic], 1):
                print(f"created the topic {topic} for refused records", file=sys.stderr)
        return KafkaSink(settings, settings.rejected_topic, "ANOMALY_REJECTED_TOPIC", store)
    for output in settings.outputs:
        if output not in ("stdout", "kafka"):
            return JsonLinesSink(Path(output).with_suffix(".rejected.jsonl"), store, lazy=True)
    return StreamSink("stderr")


class StreamSink(DynamicSink[tuple[str, Record]]):
    """Writes JSON lines to standard output or standard error, at least once."""

    def __init__(self, stream: str) -> None:
        self._stream = stream

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _StreamPart:
        """Return a worker's own writer."""
        return _StreamPart(getattr(sys, self._stream))


_stream_turn = threading.Lock()
"""Python's streams would mingle the lines of several workers."""


class _StreamPart(StatelessSinkPartition[tuple[str, Record]]):
    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write_batch(self, items: list[tuple[str, Record]]) -> None:
        lines = "".join(encode(record).decode() + "\n" for _, record in items)
        try:
            with _stream_turn:
                self._stream.write(lines)
                self._stream.flush()
        except BrokenPipeError:
            os._exit(1)  # the reader has gone; there is nobody left to tell


class JsonLinesSink(FixedPartitionedSink[Record, tuple[str, int]]):
    """Appends JSON lines to a file of its own, each record once.

    A file that already holds something is refused, unless a resumed flow wrote it. The state is
    the file and its size. A `lazy` one is not made before there is something to write.
    """

    def __init__(self, path: Path, store: Store | None, *, lazy: bool = False) -> None:
        """Look whether the file can be written; a Refusal if not."""
        folder = path.parent
        if not folder.is_dir():
            raise Refusal(f"the folder {folder} of the output {path} is not there: make it first.")
        if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
            raise Refusal(f"the output {path} cannot be written: check its permissions.")
        self._path = path.resolve()
        self._start = 0
        if store is None:
            self._refuse_if_used()
        else:
            self._start = store.began(str(self._path), self._refuse_if_used)
        if not lazy:
            path.touch()  # a run without anomalies says so with an empty file

    def _refuse_if_used(self) -> int:
        if self._path.exists() and self._path.stat().st_size:
            raise Refusal(
                f"the output {self._path} already holds something: move it away or name another "
                "file."
            )
        return 0

    def list_parts(self) -> list[str]:
        """Return the one part that a file is."""
        return ["file"]

    def build_part(
        self, step_id: str, for_part: str, resume_state: tuple[str, int] | None
    ) -> _FilePart:
        """Open the file where the last snapshot left it, if there was one."""
        path, size = resume_state or (str(self._path), self._start)
        # A state of another file: the output was changed since.
        return _FilePart(self._path, size if path == str(self._path) else self._start)


class _FilePart(StatefulSinkPartition[Record, tuple[str, int]]):
    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size
        self._file: IO[bytes] | None = None
        self._written: set[Source] = set()
        if path.exists() or size:
            self._open()

    def _open(self) -> IO[bytes]:
        try:
            file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stop_process(f"the output {self._path} is being written by another process.")
        except OSError as wrong:
            stop_process(f"the output {self._path} cannot be written: {wrong.strerror}.")
        if file.seek(0, os.SEEK_END) < self._size:
            stop_process(
                f"the output {self._path} is shorter than when the flow stopped: put back what "
                "was there, or start with a new recovery store and a new file."
            )
        file.seek(self._size)
        for line in file:
            source = _source_of(line)
            if source is None:  # cut off by a crash in the middle of a write
                break
            self._written.add(source)
            self._size += len(line)
        file.seek(self._size)
        file.truncate()
        self._file = file
        return file

    def write_batch(self, values: list[Record]) -> None:
        file = self._file or self._open()
        lines = b"".join(encode(record) + b"\n" for record in self._new(values))
        try:
            file.write(lines)
            file.flush()
        except OSError as wrong:
            stop_process(f"the output {self._path} cannot be written: {wrong.strerror}.")
        self._size += len(lines)

    def _new(self, records: list[Record]) -> Iterator[Record]:
        for record in records:
            if record.source in self._written:
                self._written.discard(record.source)
            else:
                yield record

    def snapshot(self) -> tuple[str, int]:
        if self._file is not None:
            os.fsync(self._file.fileno())
        return str(self._path), self._size

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class _Written(msgspec.Struct):
    source: Source


_read_written = msgspec.json.Decoder(_Written).decode


def _source_of(line: bytes) -> Source | None:
    """Return where the record on a line was read; None if the line is not whole."""
    if not line.endswith(b"\n"):
        return None
    try:
        return _read_written(line).source
    except ValueError:
        return None


class KafkaSink(FixedPartitionedSink[Record, tuple[str, dict[int, int]]]):
    """Writes a topic, each record once, keyed by instance.

    Every delivery is confirmed before a snapshot; one that fails ends the process, and the resume
    writes it. The state is the topic and, for each of its partitions, the offset after the last
    record. One worker writes for all: anomalies are few.

    With a recovery store the records are written in transactions under the store's own name, so
    that a process which was thought dead can no longer write once its successor has started.
    """

    def __init__(self, settings: Settings, topic: str, setting: str, store: Store | None) -> None:
        """Look for the topic, which `setting` names; a Refusal if it is not there."""
        cluster = kafka.metadata(settings)
        kafka.check_topic(settings, cluster, topic, setting)
        self._settings = settings
        self._topic = topic
        self._store = store

    def list_parts(self) -> list[str]:
        """Return the one writer."""
        return ["writer"]

    def build_part(
        self, step_id: str, for_part: str, resume_state: tuple[str, dict[int, int]] | None
    ) -> _KafkaPart:
        """Make the producer, having read what was written since the last snapshot."""
        settings, topic = self._settings, self._topic
        try:
            if self._store is None:
                return _KafkaPart(topic, kafka.producer(settings), {}, set(), False)
            # This first: it fences the process before us and ends what it left half written.
            producer = kafka.transactional_producer(settings, f"{self._store.id}-{step_id}")
            if resume_state is not None and resume_state[0] == topic:
                offsets = dict(resume_state[1])
            else:
                began = self._store.began(
                    f"topic {topic}",
                    lambda: {str(p): o for p, o in kafka.end_offsets(settings, topic).items()},
                )
                offsets = {int(partition): offset for partition, offset in began.items()}
            written: set[Source] = set()
            for message in kafka.read_from(settings, topic, offsets):
                source = _source_of((message.value() or b"") + b"\n")
                if source is not None:
                    written.add(source)
        except Refusal as refusal:
            stop_process(str(refusal))
        return _KafkaPart(topic, producer, offsets, written, True)


class _KafkaPart(StatefulSinkPartition[Record, tuple[str, dict[int, int]]]):
    def __init__(
        self,
        topic: str,
        producer: Producer,
        offsets: dict[int, int],
        written: set[Source],
        transactional: bool,
    ) -> None:
        self._topic = topic
        self._producer = producer
        self._offsets = offsets
        self._written = written
        self._transactional = transactional

    def write_batch(self, values: list[Record]) -> None:
        records = [record for record in values if record.source not in self._written]
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

    def _produce(self, record: Record) -> None:
        key = record.instance if isinstance(record, Anomaly) else None
        while True:
            try:
                self._producer.produce(
                    self._topic, encode(record), key, on_delivery=self._delivered
                )
            except BufferError:  # its queue is full: wait for some deliveries
                self._producer.poll(1)
            else:
                return

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._stop(error.str())
        partition = message.partition() or 0
        offset = (message.offset() or 0) + 1
        self._offsets[partition] = max(offset, self._offsets.get(partition, 0))

    def _stop(self, reason: str) -> NoReturn:
        stop_process(
            f"the topic {self._topic!r} did not take an anomaly or a refused record ({reason}); "
            "started again with its recovery store, the flow writes what is missing."
        )

    def snapshot(self) -> tuple[str, dict[int, int]]:
        left = self._producer.flush(kafka.TIMEOUT)
        if left:
            self._stop(f"{left} not confirmed")
        return self._topic, dict(self._offsets)

    def close(self) -> None:
        self.snapshot()
