"""Writes records as JSON lines: to a file, to standard output, or to standard error."""

from __future__ import annotations

import fcntl
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NoReturn

from bytewax.outputs import (
    DynamicSink,
    FixedPartitionedSink,
    Sink,
    StatefulSinkPartition,
    StatelessSinkPartition,
)

from dataflow.alerts.line import line as shown
from dataflow.errors import UserError, stop_process
from dataflow.metrics import counters
from dataflow.records import Anomaly, Incident, Over, Rejected, encode
from dataflow.recovery.store import Store
from dataflow.settings import Settings
from dataflow.sinks.base import Output
from dataflow.sinks.identity import BY_SEQUENCE, BY_SOURCE, Identity
from dataflow.sinks.pending import Pending
from dataflow.sinks.snapshot import Snapshot, resume
from dataflow.warnings import one_line

__all__ = ["JsonLinesOutput", "JsonLinesSink", "StandardOutput", "StreamSink", "write_all"]

Record = Anomaly | Incident | Over | Rejected


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
    """Standard output, at least once: a JSON object on each line, or on a terminal, lines to read.

    A terminal shows alerts and the ends of their episodes, not each anomaly.
    """

    def anomalies(self) -> Sink[Any]:
        """Return the sink for anomalies."""
        return self._sink()

    def incidents(self) -> Sink[Any]:
        """Return the sink for incidents."""
        return self._sink()

    def ends(self) -> Sink[Any] | None:
        """Return the sink for the ends of episodes; None if nothing but a program reads them."""
        return self._sink() if sys.stdout.isatty() else None

    def _sink(self) -> Sink[Any]:
        if not sys.stdout.isatty():
            return StreamSink("stdout")
        return StreamSink("stdout", _to_read)


class JsonLinesSink(FixedPartitionedSink[Record, Snapshot[int]]):
    """Appends JSON lines to a file; with a recovery store, each record exactly once.

    The file must be new or empty, unless this flow wrote it before and resumes. Its place in the
    snapshot is its size in bytes. A `lazy` sink creates its file with the first record. `identity`
    says which records are the same.
    """

    def __init__(
        self,
        path: Path,
        store: Store | None,
        *,
        identity: Identity = BY_SOURCE,
        lazy: bool = False,
    ) -> None:
        """Check that the file can be written.

        Raises `UserError` if it cannot, or if another run wrote it.
        """
        folder = path.parent
        if not folder.is_dir():
            raise UserError(
                f"the folder {folder} of the output {path} does not exist: create it first."
            )
        if path.is_dir() or not os.access(path if path.exists() else folder, os.W_OK):
            raise UserError(f"cannot write the output {path}: check its permissions.")
        self._path = path.resolve()
        self._identity = identity
        self._start = 0
        if store is None:
            self._check_empty()
        else:
            self._start = store.began(str(self._path), self._check_empty)
        if not lazy:
            path.touch()  # a run without anomalies leaves an empty file

    def _check_empty(self) -> int:
        if self._path.exists() and self._path.stat().st_size:
            raise UserError(
                f"the output {self._path} already holds records: move it away, or set "
                "ANOMALY_OUTPUT to another file."
            )
        return 0

    def list_parts(self) -> list[str]:
        """Return the only part."""
        return ["file"]

    def build_part(
        self, step_id: str, for_part: str, resume_state: Snapshot[int] | None
    ) -> _FilePart:
        """Open the file at its size in the last snapshot, if there is one."""
        saved, size, pending = resume(resume_state, str(self._path), self._identity)
        size = self._start if size is None else size
        return _FilePart(self._path, size, pending, saved, counters.output("jsonl", step_id))


class _FilePart(StatefulSinkPartition[Record, Snapshot[int]]):
    def __init__(
        self,
        path: Path,
        size: int,
        pending: Pending,
        saved: Snapshot[int],
        counted: counters.Output,
    ) -> None:
        self._path = path
        self._pending = pending
        self._saved = saved
        self._tally = counted
        self._size = size
        self._file: IO[bytes] | None = None
        if path.exists() or size:
            self._open()

    def _open(self) -> IO[bytes]:
        try:
            file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stop_process(
                f"another process writes the output {self._path}: stop it, or set ANOMALY_OUTPUT "
                "to another file."
            )
        except OSError as error:
            self._stop(error)
        if file.seek(0, os.SEEK_END) < self._size:
            stop_process(
                f"the output {self._path} is shorter than at the last snapshot: restore the file, "
                "or start with a new recovery store and a new file."
            )
        file.seek(self._size)
        for line in file:
            if not self._pending.add(line):  # cut off by a crash in the middle of a write
                break
            self._size += len(line)
        # Writes go to the descriptor, which does not know how far Python has read ahead.
        os.ftruncate(file.fileno(), self._size)
        os.lseek(file.fileno(), self._size, os.SEEK_SET)
        self._file = file
        return file

    def write_batch(self, values: list[Record]) -> None:
        file = self._file or self._open()
        new = list(self._pending.new(values))
        self._tally.repeated.inc(len(values) - len(new))
        lines = b"".join(encode(record) + b"\n" for record in new)
        try:
            write_all(file.fileno(), lines)
        except OSError as error:
            self._stop(error)
        self._size += len(lines)
        self._tally.wrote(new)

    def _stop(self, error: OSError) -> NoReturn:
        stop_process(
            f"cannot write the output {self._path} ({error.strerror}): correct this and start the "
            "flow again; with a recovery store, it writes what is missing."
        )

    def snapshot(self) -> Snapshot[int]:
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._tally.confirm()
        return {**self._saved, str(self._path): (self._size, self._pending.dump())}

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _as_json(record: Record) -> bytes:
    return encode(record) + b"\n"


def _to_read(record: Record) -> bytes:
    said = shown(record)
    return b"" if said is None else f"{one_line(said)}\n".encode(errors="backslashreplace")


class StreamSink(DynamicSink[tuple[str, Record]]):
    """Writes lines to standard output or standard error, each record at least once.

    `form` returns the bytes of a record with the end of the line, or none: JSON by default.
    """

    def __init__(self, stream: str, form: Callable[[Record], bytes] = _as_json) -> None:
        self._stream = stream
        self._form = form

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _StreamPart:
        """Return the writer of a worker."""
        counted = counters.output(self._stream, step_id)
        return _StreamPart(getattr(sys, self._stream), self._form, counted)


_stream_lock = threading.Lock()
"""Without it, lines of several workers would mix."""


class _StreamPart(StatelessSinkPartition[tuple[str, Record]]):
    def __init__(
        self, stream: IO[str], form: Callable[[Record], bytes], counted: counters.Output
    ) -> None:
        self._stream = stream
        self._form = form
        self._tally = counted

    def write_batch(self, items: list[tuple[str, Record]]) -> None:
        lines = b"".join(self._form(record) for _, record in items)
        try:
            with _stream_lock:
                write_all(self._stream.fileno(), lines)
        except BrokenPipeError:
            os._exit(1)  # the reader of the pipe has ended
        self._tally.wrote([record for _, record in items])
        self._tally.confirm()


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`. Raises `OSError`.

    A signal may cut a write to a pipe short, and Python's buffered files then lose the rest (seen
    in CPython 3.11: after a clean stop, a part of standard output was missing).
    """
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
