"""The states that members of groups lend to new members, and which of them each one began with.

Which state is lent depends on what other workers have read by then. So it is written here, before
the new member's first score, and a flow that was killed takes the same state at the same reading.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
from pathlib import Path
from typing import NamedTuple

from dataflow.detectors.first_day import middle
from dataflow.recovery import log
from dataflow.recovery.log import KEPT, SUFFIX
from dataflow.recovery.store import Store

__all__ = ["MEMBERS", "Habits", "Place"]

MEMBERS = 9
"""States kept of each group and metric, in each process: those lent last."""

LENT = 30 * 86_400.0
"""Seconds to keep a state that is lent."""

LOOK = 60.0
"""Seconds between two looks for files of other processes."""

DAY = 86_400.0
"""Seconds after which old rows are deleted again."""

NAME = "habits"


class Place(NamedTuple):
    """Where an instance's first reading lies: partition, offset, number in the record."""

    partition: int
    offset: int
    number: int


def _open(path: Path | str) -> sqlite3.Connection:
    database = log.open_log(
        path,
        "lent (name TEXT, metric TEXT, key TEXT, level REAL, state BLOB, at REAL,"
        " PRIMARY KEY (name, metric, key))",
        "states (digest BLOB PRIMARY KEY, state BLOB)",
        "begun (key TEXT, partition INTEGER, offset INTEGER, number INTEGER, digest BLOB, at REAL,"
        " PRIMARY KEY (key, partition, offset, number))",
    )
    database.execute("PRAGMA synchronous = NORMAL")
    return database


class Habits:
    """The habits of all processes on a store; each process writes its own file.

    Without a store, those of this process are kept in memory. All workers of a process share it.
    """

    def __init__(self, store: Store | None) -> None:
        """Open the file of this process. Raises `UserError` if the file of any cannot be used."""
        self._store = store
        self._lock = threading.Lock()
        self._others: dict[Path, sqlite3.Connection] = {}
        self._looked = self._thinned = time.monotonic()
        try:
            if store is None:
                self._own = _open(":memory:")
            else:
                self._path = store.folder / f"{NAME}-{store.process}{SUFFIX}"
                self._own = _open(self._path)
                self._thin_out()
                self._look()
        except (sqlite3.Error, OSError) as error:
            assert store is not None
            raise log.damaged(store.folder, NAME, error) from None

    def _look(self) -> None:
        """Open the files of other processes."""
        if self._store is None:
            return
        self._looked = time.monotonic()
        for path in sorted(self._store.folder.glob(f"{NAME}-*{SUFFIX}")):
            if path != self._path and path not in self._others:
                self._others[path] = _open(path)

    def _thin_out(self) -> None:
        self._thinned = time.monotonic()
        now = time.time()
        self._own.execute("DELETE FROM begun WHERE at < ?", (now - KEPT,))
        self._own.execute("DELETE FROM lent WHERE at < ?", (now - LENT,))
        self._own.execute(
            "DELETE FROM states WHERE digest NOT IN"
            " (SELECT digest FROM begun WHERE digest IS NOT NULL)"
        )

    def _all(self) -> list[sqlite3.Connection]:
        if time.monotonic() - self._looked > LOOK:
            self._look()
        return [self._own, *self._others.values()]

    def lends(self, group: str, metric: str | None) -> int:
        """Return how many members of a group this process lends the state of, at most 9."""
        try:
            with self._lock:
                (found,) = self._own.execute(
                    "SELECT count(*) FROM lent WHERE name = ? AND metric = ?", (group, metric or "")
                ).fetchone()
        except sqlite3.Error as error:
            log.stop("read", NAME, error)
        return int(found)

    def lend(self, group: str, metric: str | None, key: str, level: float, state: bytes) -> None:
        """Keep the state of a member of a group in place of its earlier one.

        It outlives the process when this returns, though not the machine.
        """
        name = (group, metric or "")
        try:
            with self._lock:
                if time.monotonic() - self._thinned > DAY:
                    self._thin_out()
                self._own.execute("BEGIN")
                self._own.execute(
                    "INSERT OR REPLACE INTO lent VALUES (?, ?, ?, ?, ?, ?)",
                    (*name, key, level, state, time.time()),
                )
                self._own.execute(
                    "DELETE FROM lent WHERE name = ?1 AND metric = ?2 AND key NOT IN (SELECT key"
                    " FROM lent WHERE name = ?1 AND metric = ?2 ORDER BY at DESC LIMIT ?3)",
                    (*name, MEMBERS),
                )
                self._own.execute("COMMIT")
        except sqlite3.Error as error:
            log.stop("write to", NAME, error)

    def begin(self, key: str, place: Place, group: str, metric: str | None) -> bytes | None:
        """Return the state that a new member of a group begins with; None if there is none.

        That of the member with the median level, of the nine that were lent last. Which one it is,
        is written first: at the same place, the same member begins with the same state for ever. It
        outlives the process when this returns, though not the machine.
        """
        try:
            with self._lock:
                every = self._all()
                for database in every if self._store is not None else ():
                    row = database.execute(
                        "SELECT digest, state FROM begun LEFT JOIN states USING (digest)"
                        " WHERE key = ? AND partition = ? AND offset = ? AND number = ?",
                        (key, *place),
                    ).fetchone()
                    if row is not None:
                        return None if row[1] is None else bytes(row[1])
                state = self._middle(every, (group, metric or ""))
                if self._store is not None:
                    self._record(key, place, state)
        except sqlite3.Error as error:
            log.stop("use", NAME, error)
        return state

    @staticmethod
    def _middle(every: list[sqlite3.Connection], name: tuple[str, str]) -> bytes | None:
        found = [
            (at, level, member, database)
            for database in every
            for at, level, member in database.execute(
                "SELECT at, level, key FROM lent WHERE name = ? AND metric = ?", name
            )
        ]
        if not found:
            return None
        found.sort(key=lambda one: one[:3], reverse=True)
        found = found[:MEMBERS]
        _, _, member, database = found[middle([one[1:3] for one in found])]
        row = database.execute(
            "SELECT state FROM lent WHERE name = ? AND metric = ? AND key = ?", (*name, member)
        ).fetchone()
        # Another process may have dropped it in between.
        return None if row is None else bytes(row[0])

    def _record(self, key: str, place: Place, state: bytes | None) -> None:
        digest = None
        self._own.execute("BEGIN")
        if state is not None:
            digest = hashlib.blake2b(state, digest_size=16).digest()
            self._own.execute("INSERT OR IGNORE INTO states VALUES (?, ?)", (digest, state))
        self._own.execute(
            "INSERT INTO begun VALUES (?, ?, ?, ?, ?, ?)", (key, *place, digest, time.time())
        )
        self._own.execute("COMMIT")
