"""A `.csv` or `.jsonl` file as input."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from dataflow import stopping, tally, worker_thread
from dataflow.records import Raw, encode
from dataflow.refusal import Refusal
from dataflow.settings import Settings

__all__ = ["FileSource", "read_records"]

BATCH = 300
"""Records handed on at a time: more leave the processor's cache before the next step."""


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
        """Return the one part that a file is. Bytewax asks in each worker's thread."""
        worker_thread.keep()
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
