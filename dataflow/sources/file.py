"""A file as input."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from dataflow.errors import stop_process
from dataflow.formats.files import check_file, read_records
from dataflow.metrics import counters
from dataflow.records import Raw
from dataflow.runtime import epochs, shutdown, threads
from dataflow.settings import Settings

__all__ = ["FileSource"]

BATCH = 300
"""Records in a batch: larger batches leave the CPU cache before the next step."""


class FileSource(FixedPartitionedSource[Raw, int]):
    """Reads a file once, to its end. Its state: the next record's number."""

    def __init__(self, path: Path, settings: Settings) -> None:
        """Check the file.

        Raises `UserError` if it cannot be read, is no regular file, or is a CSV file that lacks a
        field of the settings.
        """
        check_file(path, settings.columns)
        self._path = path

    def list_parts(self) -> list[str]:
        """Return the only part. Bytewax calls this in the thread of each worker."""
        threads.keep()
        return ["file"]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _FilePart:
        """Open the file at the next record after the last snapshot."""
        shutdown.reading()
        return _FilePart(self._path, resume_state or 0)


class _FilePart(StatefulSourcePartition[Raw, int]):
    def __init__(self, path: Path, start: int) -> None:
        self._path = path
        self._records = islice(read_records(path), start, None)
        self._next = start
        self._tally = counters.partition(str(path), 0)

    def next_batch(self) -> list[Raw]:
        if shutdown.asked():
            raise StopIteration
        try:
            batch = list(islice(self._records, BATCH))
        except OSError as error:
            stop_process(
                f"cannot read {self._path} further ({error.strerror}): check its disk, and start "
                "the flow again."
            )
        if not batch:
            raise StopIteration
        self._next += len(batch)
        self._tally.took(len(batch))
        return batch

    def snapshot(self) -> int:
        counters.STORE.saved_at = time.time()
        epochs.end(0, self._next)
        return self._next
