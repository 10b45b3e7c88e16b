"""Anomalies, incidents and rejected records to a file of JSON lines."""

from __future__ import annotations

import fcntl
import os
import sys
import threading
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import IO, Any

from bytewax.outputs import (
    DynamicSink,
    FixedPartitionedSink,
    Sink,
    StatefulSinkPartition,
    StatelessSinkPartition,
)

from dataflow.errors import UserError, stop_process
from dataflow.metrics import counters
from dataflow.records import Anomaly, Incident, Rejected, encode
from dataflow.recovery.store import Store
from dataflow.settings import Settings
from dataflow.sinks.base import Output
from dataflow.sinks.identity import BY_SEQUENCE, BY_SOURCE, Identity

__all__ = ["JsonLinesOutput", "JsonLinesSink", "StandardOutput", "StreamSink", "write_all"]

Record = Anomaly | Incident | Rejected


class JsonLinesOutput(Output):
    """A file of anomalies that ends in `.jsonl`, and beside it one of incidents: exactly once."""

    def __init__(self, settings: Settings, store: Store | None) -> None:
        """Take the file from the settings, one of whose outputs must be a file."""
        super().__init__(settings, store)
        if settings.output_file is None:
            raise ValueError("no output is a file")
        self._path = settings.output_file

    def anomalies(self) -> Sink[Any]:
        """Return the sink of the file itself."""
        return JsonLinesSink(self._path, self.store)

    def incidents(self) -> Sink[Any]:
        """Return the sink of the file that ends in `.incidents.jsonl`."""
        path = self._path.with_suffix(".incidents.jsonl")
        return JsonLinesSink(path, self.store, identity=BY_SEQUENCE)


class StandardOutput(Output):
    """Standard output, a JSON object on each line: at least once."""

    def anomalies(self) -> Sink[Any]:
        """Return the sink for anomalies."""
        return StreamSink("stdout")

    def incidents(self) -> Sink[Any]:
        """Return the sink for incidents."""
        return StreamSink("stdout")


class JsonLinesSink(FixedPartitionedSink[Record, tuple[str, int]]):
    """Appends JSON lines to a file of its own, each record once.

    A file that already holds something is refused, unless a resumed flow wrote it. The state is
    the file and its size. A `lazy` one is not made before there is something to write. `identity`
    tells which records are the same.
    """

    def __init__(
        self,
        path: Path,
        store: Store | None,
        *,
        identity: Identity = BY_SOURCE,
        lazy: bool = False,
    ) -> None:
        """Look whether the file can be written; a UserError if not."""
        folder = path.parent
        if not folder.is_dir():
            raise UserError(
                f"the folder {folder} of the output {path} is not there: make it first."
            )
        if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
            raise UserError(f"the output {path} cannot be written: check its permissions.")
        self._path = path.resolve()
        self._identity = identity
        self._start = 0
        if store is None:
            self._refuse_if_used()
        else:
            self._start = store.began(str(self._path), self._refuse_if_used)
        if not lazy:
            path.touch()  # a run without anomalies says so with an empty file

    def _refuse_if_used(self) -> int:
        if self._path.exists() and self._path.stat().st_size:
            raise UserError(
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
        if path != str(self._path):  # a state of another file: the output was changed since
            size = self._start
        return _FilePart(self._path, size, self._identity, counters.output("jsonl", step_id))


class _FilePart(StatefulSinkPartition[Record, tuple[str, int]]):
    def __init__(self, path: Path, size: int, identity: Identity, counted: counters.Output) -> None:
        self._path = path
        self._identity = identity
        self._tally = counted
        self._size = size
        self._file: IO[bytes] | None = None
        self._written: set[Hashable] = set()
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
            same = self._identity.of_line(line)
            if same is None:  # cut off by a crash in the middle of a write
                break
            self._written.add(same)
            self._size += len(line)
        # What writes knows nothing of what Python has read ahead.
        os.ftruncate(file.fileno(), self._size)
        os.lseek(file.fileno(), self._size, os.SEEK_SET)
        self._file = file
        return file

    def write_batch(self, values: list[Record]) -> None:
        file = self._file or self._open()
        new = list(self._new(values))
        lines = b"".join(encode(record) + b"\n" for record in new)
        try:
            write_all(file.fileno(), lines)
        except OSError as wrong:
            stop_process(f"the output {self._path} cannot be written: {wrong.strerror}.")
        self._size += len(lines)
        self._tally.wrote(new)

    def _new(self, records: list[Record]) -> Iterator[Record]:
        for record in records:
            same = self._identity.of(record)
            if same in self._written:
                self._written.discard(same)
                self._tally.repeated += 1
            else:
                yield record

    def snapshot(self) -> tuple[str, int]:
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._tally.confirmed = self._tally.written
        return str(self._path), self._size

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class StreamSink(DynamicSink[tuple[str, Record]]):
    """Writes JSON lines to standard output or standard error, at least once."""

    def __init__(self, stream: str) -> None:
        self._stream = stream

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _StreamPart:
        """Return a worker's own writer."""
        return _StreamPart(getattr(sys, self._stream), counters.output(self._stream, step_id))


_stream_turn = threading.Lock()
"""Python's streams would mingle the lines of several workers."""


class _StreamPart(StatelessSinkPartition[tuple[str, Record]]):
    def __init__(self, stream: IO[str], counted: counters.Output) -> None:
        self._stream = stream
        self._tally = counted

    def write_batch(self, items: list[tuple[str, Record]]) -> None:
        lines = b"".join(encode(record) + b"\n" for _, record in items)
        try:
            with _stream_turn:
                write_all(self._stream.fileno(), lines)
        except BrokenPipeError:
            os._exit(1)  # the reader has gone; there is nobody left to tell
        self._tally.wrote([record for _, record in items])
        self._tally.confirmed = self._tally.written


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`; an OSError if it cannot be.

    A signal may cut a write to a pipe short, and Python's own buffered files then lose what is left
    of it (seen in CPython 3.11: a clean stop left a hole in standard output).
    """
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
