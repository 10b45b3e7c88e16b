"""Reads the records of a `.csv` or `.jsonl` file, as bytes of JSON."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from dataflow.errors import UserError
from dataflow.records import encode

__all__ = ["check_file", "read_records"]


def check_file(path: Path, columns: dict[str, str | None]) -> None:
    """Raise `UserError` if a file cannot be read, or is a CSV file that lacks one of the columns.

    `columns` maps the name of a setting, such as `key_field`, to the column that it names, if any.
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
        found = next(csv.reader([header]), [])
        for setting, column in columns.items():
            if column not in (None, *found):
                raise UserError(
                    f"{path} has no column {column!r} in its first line: "
                    f"set ANOMALY_{setting.upper()} to a column that it has."
                )


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
