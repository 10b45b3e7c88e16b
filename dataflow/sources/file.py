"""A `.csv` or `.jsonl` file as input."""

from __future__ import annotations

import csv
import time
from itertools import islice
from pathlib import Path

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from dataflow.errors import UserError
from dataflow.formats.files import read_records
from dataflow.metrics import counters
from dataflow.records import Raw
from dataflow.runtime import shutdown, threads
from dataflow.settings import Settings

__all__ = ["FileSource"]

BATCH = 300
"""Records in a batch: larger batches leave the CPU cache before the next step."""


class FileSource(FixedPartitionedSource[Raw, int]):
    """Reads a `.csv` or `.jsonl` file once, to its end. Its state: the next record's number."""

    def __init__(self, path: Path, settings: Settings) -> None:
        """Check the file.

        Raises `UserError` if it cannot be read, or if a CSV header lacks a field of the settings.
        """
        try:
            with path.open("rb") as file:
                header = file.readline(1_000_000).decode("utf-8-sig", "replace")
        except OSError as error:
            raise UserError(
                f"cannot read {path} ({error.strerror}): set ANOMALY_INPUT to an existing .csv or "
                ".jsonl file, or to kafka."
            ) from None
        if path.suffix == ".csv":
            columns = next(csv.reader([header]), [])
            for name in ("key_field", "value_field", "time_field", "index_field"):
                if getattr(settings, name) not in (None, *columns):
                    raise UserError(
                        f"{path} has no column {getattr(settings, name)!r} in its first line: "
                        f"set ANOMALY_{name.upper()} to a column that it has."
                    )
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
        self._records = islice(read_records(path), start, None)
        self._next = start
        self._tally = counters.partition(str(path), 0)

    def next_batch(self) -> list[Raw]:
        if shutdown.asked():
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
        counters.STORE.saved_at = time.time()
        return self._next
