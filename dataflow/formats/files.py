"""Reads the records of a `.csv` or `.jsonl` file, as bytes of JSON."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from dataflow.records import encode

__all__ = ["read_records"]


def read_records(path: Path) -> Iterator[bytes]:
    """Yield the records of a `.csv` or `.jsonl` file as JSON.

    A row of a CSV file becomes an object whose values are strings, as the tutorial's producer sends
    it. A row that cannot be parsed is yielded unchanged, and the decoder rejects it with a reason.
    Raises `OSError` if the file cannot be read.
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
        except csv.Error as error:
            yield f"{error} near line {rows.line_num}".encode()
            continue
        if not row:
            continue
        try:
            yield encode(dict(zip(columns, row, strict=False)))
        except UnicodeEncodeError:
            yield ",".join(row).encode("utf-8", "surrogateescape")
