"""Opens a file and reads its records: a line is one. Those of a `.csv` file become JSON.

A line that holds no record is a `BadLine`; it never ends the reading, nor changes another line.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from stat import S_ISREG
from typing import BinaryIO

from dataflow.errors import UserError
from dataflow.records import BadLine, Raw, encode

__all__ = ["KINDS", "check_columns", "check_file", "is_file", "read_records", "read_rows"]

LINES = (".jsonl", ".ndjson", ".influx", ".lp", ".log", ".out", ".txt")
"""How files end of which each line is a record in any format."""

KINDS = f".csv, {', '.join(LINES[:-1])} or {LINES[-1]}"
"""How files of records end."""

MAX_LINE = 16_777_216
"""Bytes of a line, at most."""

LONG = f"the line is longer than {MAX_LINE:,} bytes"

MAX_HEADER = 1_000_000
"""Bytes of the first line of a CSV file, at most."""

BLOCK = 262_144
"""Bytes that are read at a time."""

BOM = b"\xef\xbb\xbf"

_CONVERT = "convert it, for example with iconv -f {} -t UTF-8"

_OTHER_FILES = {
    b"\x1f\x8b": "is packed by gzip: unpack it with gunzip",
    b"BZh91AY&SY": "is packed by bzip2: unpack it with bunzip2",
    b"\xfd7zXZ\x00": "is packed by xz: unpack it with unxz",
    b"\x28\xb5\x2f\xfd": "is packed by zstd: unpack it with unzstd",
    b"PK\x03\x04": "is a zip archive or an Excel workbook: unzip it, or save it as CSV",
    b"PAR1\x15": "is a Parquet file: write it as CSV, for example with pandas",
    b"\xff\xfe\x00\x00": f"is UTF-32: {_CONVERT.format('UTF-32')}",
    b"\xff\xfe": f"is UTF-16: {_CONVERT.format('UTF-16')}",
    b"\xfe\xff": f"is UTF-16: {_CONVERT.format('UTF-16')}",
}
"""How files of other kinds begin, and what reads them."""

_SEPARATORS = (
    (";", "semicolons", "sed 's/,/./g; s/;/,/g'"),
    ("\t", "tabs", r"tr '\t' ',' <"),
    ("|", "vertical bars", "tr '|' ',' <"),
)


def is_file(name: str) -> bool:
    """Return whether a name is that of a file of records.

    >>> is_file("cpu.csv"), is_file("telegraf/metrics.out"), is_file("ec2_metrics")
    (True, True, False)
    """
    return name.endswith((".csv", *LINES))


def check_file(path: Path, columns: dict[str, str | None]) -> None:
    """Raise `UserError` if a file cannot be read, or is a CSV file that lacks one of the columns.

    `columns` maps the name of a setting, such as `key_field`, to the column that it names, if any.
    The error says what the file is instead, and what makes a file of it that can be read.
    """
    if path.suffix == ".csv":
        remedies = {
            column: f"set ANOMALY_{setting.upper()} to a column that it has"
            for setting, column in columns.items()
            if column is not None
        }
        check_columns(path, remedies)
    else:
        _check_kind(path)


def check_columns(path: Path, columns: dict[str, str]) -> None:
    """Raise `UserError` if a file is not CSV with these columns; each has the remedy if it lacks.

    The name of the file does not matter.
    """
    _check_kind(path)
    line, found = next(read_rows(path))
    for column, remedy in columns.items():
        if column not in found:
            raise UserError(
                _other_form(path, line.decode())
                or f"{path} has no column {column!r} in its first line, {_shown(line)}: {remedy}."
            )


def read_records(path: Path) -> Iterator[Raw]:
    """Yield the records of a file, numbered from 0 on: a line each, of any format.

    A row of a CSV file becomes an object whose values are strings, as the tutorial's producer sends
    it; empty lines are no rows. A line that holds no record is yielded as a `BadLine`. Raises
    `UserError` if the file cannot be used, and `OSError` if it cannot be read on.
    """
    if path.suffix != ".csv":
        for number, line in enumerate(_lines(path)):
            yield Raw(0, number, line) if len(line) <= MAX_LINE else BadLine(0, number, line, LONG)
        return
    rows = read_rows(path)
    _, columns = next(rows)
    number = 0
    for line, cells in rows:
        if isinstance(cells, str):
            yield BadLine(0, number, line, cells)
        elif cells:
            yield Raw(0, number, encode(dict(zip(columns, cells, strict=True))))
        else:
            continue
        number += 1


def read_rows(path: Path) -> Iterator[tuple[bytes, list[str] | str]]:
    """Yield each line of a CSV file, with its cells, or with a sentence if it is no row.

    The first line has the names of the columns; an empty line has no cells. Quotes may enclose a
    cell within its line. Raises `UserError` if the file cannot be opened or the first line read,
    and `OSError` if it cannot be read on.
    """
    lines = _lines(path)
    first = next(lines, b"")
    columns = _header(path, first)
    yield first, columns
    count = len(columns)
    for line in lines:
        try:
            text = line.decode()
            cells = next(csv.reader([text], strict=True)) if '"' in text else text.split(",")
        except UnicodeDecodeError:
            yield line, "the row is not UTF-8"
        except csv.Error as error:
            yield line, f"the row is not CSV: {error}"
        else:
            if len(cells) == count and len(line) <= MAX_LINE:
                yield line, cells
            elif not line:
                yield line, []
            elif len(line) > MAX_LINE:
                yield line, LONG
            else:
                yield line, f"the row has {_cells(len(cells))}, and the first line {count}"


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file without their ends: LF, CR LF, or CR. A byte order mark is dropped.

    Of a line longer than `MAX_LINE`, only the first bytes are yielded, but more than that.
    """
    with _open(path) as file:
        rest = file.read(len(BOM)).removeprefix(BOM)
        dropping = False
        while block := file.read(BLOCK):
            data = rest + block
            # A CR at the end may be the first half of a CR LF.
            end = max(data.rfind(b"\n"), data.rfind(b"\r", 0, len(data) - 1)) + 1
            rest = data[end:]
            if end:
                lines = data[:end].splitlines()
                yield from lines[1:] if dropping else lines
                dropping = False
            if len(rest) > MAX_LINE:
                if not dropping:
                    yield rest
                rest, dropping = rest[-1:], True
        if not dropping:
            yield from rest.splitlines()


def _check_kind(path: Path) -> None:
    with _open(path) as file:
        head = file.read(16)
    for begin, what in _OTHER_FILES.items():
        if head.startswith(begin):
            raise UserError(f"{path} {what}.")


def _open(path: Path) -> BinaryIO:
    try:
        # Opening a pipe would wait for its writer.
        if not S_ISREG(path.stat().st_mode):
            raise UserError(
                f"{path} is not a regular file: give an ordinary file of records; write what a "
                "program prints to one first."
            )
        return path.open("rb")
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror}): give an existing file of records, for the "
            "flow in ANOMALY_INPUT."
        ) from None


def _header(path: Path, line: bytes) -> list[str]:
    """Return the names of the columns. Raises `UserError` if the first line has none."""
    if not line.strip():
        raise UserError(
            f"{path} is empty or begins with an empty line: name the columns in its first line."
        )
    if b"\0" in line:
        raise UserError(
            f"{path} has NUL bytes in its first line, {_shown(line)}: if it is UTF-16, "
            f"{_CONVERT.format('UTF-16LE')}."
        )
    if len(line) > MAX_HEADER:
        raise UserError(
            f"{path} has a first line of over {MAX_HEADER:,} bytes, {_shown(line)}: give a CSV "
            "file whose first line names the columns."
        )
    try:
        return next(csv.reader([line.decode()], strict=True))
    except UnicodeDecodeError:
        raise UserError(
            f"{path} is not UTF-8 in its first line, {_shown(line)}: if it is Latin-1, "
            f"{_CONVERT.format('LATIN1')}."
        ) from None
    except csv.Error as error:
        raise UserError(
            f"{path} is not CSV in its first line ({error}), {_shown(line)}: name the columns "
            "there, separated by commas."
        ) from None


def _other_form(path: Path, header: str) -> str | None:
    """Return the error for a CSV file of a known other form, None if its form is not known."""
    shown, quoted = _shown(header.encode()), quote(str(path))
    if header.startswith("# hostname;interval;timestamp"):
        return (
            f"{path} is the output of sadf -d, {shown}: docs/settings.md#files has the command "
            "that makes a CSV file of it."
        )
    for separator, name, command in _SEPARATORS:
        if header.count(separator) > header.count(","):
            return (
                f"{path} is separated by {name}, not commas, in its first line, {shown}: convert "
                f"it, for example with {command} {quoted} > NEW.csv."
            )
    if header.startswith("#"):
        return (
            f"{path} begins with a comment, {shown}: remove it, for example with grep -v '^#' "
            f"{quoted} > NEW.csv; the first line must name the columns."
        )
    return None


def _cells(count: int) -> str:
    return f"{count} cell" if count == 1 else f"{count:,} cells"


def _shown(line: bytes) -> str:
    text = repr(line[:200].decode("utf-8", "replace"))
    return text if len(text) <= 60 else text[:57] + "..."
