"""The file in which `notify` keeps what it must know after a restart, an SQLite database."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from dataflow.errors import UserError
from dataflow.notify.budget import Key

__all__ = ["PageStore"]

FORMAT = 1
"""Of the rows. A file of another format is refused."""

ANOTHER = 5.0
"""Seconds to wait for the process before this one to end."""


class PageStore:
    """Rows of several targets, each by the name of its consumer group. Any thread may use it.

    Only one process can have it open. What `save` has written outlives the process and the machine.
    """

    def __init__(self, path: Path) -> None:
        """Raises `UserError` if the file cannot be used, or is used by another process."""
        self._path = path
        self._lock = threading.Lock()
        try:
            with suppress(OSError):  # SQLite names the error
                path.touch(0o600)  # SQLite would let other users read it
            self._database = sqlite3.connect(
                path, ANOTHER, isolation_level=None, check_same_thread=False
            )
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("BEGIN IMMEDIATE")
            (version,) = self._database.execute("PRAGMA user_version").fetchone()
            if version not in (0, FORMAT):
                raise UserError(
                    f"{path} has the format {version}, which this version cannot read: continue "
                    "with the version that made it, or set ANOMALY_NOTIFY_STORE to a new file."
                )
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS rows (target TEXT, kind TEXT, name TEXT, value BLOB,"
                " PRIMARY KEY (target, kind, name)) WITHOUT ROWID"
            )
            self._database.execute(f"PRAGMA user_version = {FORMAT}")
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            raise UserError(self._words(error)) from None

    def _words(self, error: sqlite3.Error) -> str:
        if "locked" in str(error):
            return (
                f"{self._path} is in use by another process of notify: stop that one, or set "
                "ANOMALY_NOTIFY_STORE to a file of its own."
            )
        return (
            f"the pages of a day cannot be kept in {self._path} ({error}): set "
            "ANOMALY_NOTIFY_STORE to a file on a disk that lasts and can be written."
        )

    def rows(self, target: str) -> dict[Key, bytes]:
        """Return the rows of a target. Raises `UserError`."""
        with self._lock:
            try:
                found = self._database.execute(
                    "SELECT kind, name, value FROM rows WHERE target = ?", (target,)
                ).fetchall()
            except sqlite3.Error as error:
                raise UserError(self._words(error)) from None
        return {(kind, name): value for kind, name, value in found}

    def save(self, target: str, changes: Mapping[Key, bytes | None]) -> None:
        """Write rows of a target, all or none; None removes one. Raises `UserError`."""
        gone = [(target, *key) for key, value in changes.items() if value is None]
        new = [(target, *key, value) for key, value in changes.items() if value is not None]
        with self._lock:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                self._database.executemany(
                    "DELETE FROM rows WHERE target = ? AND kind = ? AND name = ?", gone
                )
                self._database.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?)", new)
                self._database.execute("COMMIT")
            except sqlite3.Error as error:
                raise UserError(self._words(error)) from None

    def close(self) -> None:
        """Let another process use the file."""
        with self._lock:
            self._database.close()
