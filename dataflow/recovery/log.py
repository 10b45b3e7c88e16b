"""The logs of a recovery store: SQLite files beside Bytewax's, one of each process.

What a process decides by the clock, by the order in which records come, or by what other processes
do, is written to a log before what follows from it, so that a restart repeats it.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from dataflow.errors import UserError, stop_process

__all__ = ["KEPT", "SUFFIX", "damaged", "open_log", "stop"]

SUFFIX = ".log"
"""Not `.sqlite3`: Bytewax takes every such file of the store for one of its own."""

KEPT = 7 * 86_400.0
"""Seconds to keep a row; only those since the last snapshot are needed."""


def open_log(path: Path | str, *tables: str) -> sqlite3.Connection:
    """Open a log, and create the tables if it is new or its creator was killed.

    A table is its name and, in parentheses, its columns. `:memory:` is a log without a file. Any
    thread may use the connection. Raises `sqlite3.Error` if the file is no log.
    """
    if isinstance(path, Path):
        with suppress(OSError):  # SQLite names the error
            path.touch(0o600)  # SQLite would let other users read it
    database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    for table in tables:
        database.execute(f"CREATE TABLE IF NOT EXISTS {table}")
    return database


def damaged(folder: Path, name: str, error: Exception) -> UserError:
    """Return the error to raise if the log `name` of a store cannot be opened."""
    return UserError(
        f"the recovery store {folder} is damaged ({name}: {error}): restore a copy of the whole "
        "store, or start with a new store."
    )


def stop(verb: str, name: str, error: sqlite3.Error) -> NoReturn:
    """End the process because it cannot read or write the log `name`, as `verb` says."""
    stop_process(
        f"cannot {verb} the recovery store ({name}: {error}): check its disk, and start the flow "
        "again."
    )
