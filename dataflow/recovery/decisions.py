"""What the clock decided, kept in the recovery store before anybody is told of it.

A flow that was killed reads again what it had read since the last snapshot, and finds the same; but
what it told because an instance had sent nothing for a while it might not tell again: by now the
instance's next reading is there. So that an incident which was opened is also resolved, each such
decision is written here first, and taken again at the same reading.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

from dataflow.errors import UserError, stop_process
from dataflow.records import Reading
from dataflow.recovery.store import Store

__all__ = ["Decisions", "Told"]

Told: TypeAlias = dict[tuple[int, int], int]
"""Partition and offset of an instance's reading: how much was told because no other came."""

KEPT = 7 * 86_400.0
"""Seconds; only those since the last snapshot are ever needed."""


def _open(path: Path) -> sqlite3.Connection:
    """Open a file of decisions; a new one, or one whose maker was killed at once, has no table."""
    database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    database.execute(
        "CREATE TABLE IF NOT EXISTS decisions"
        " (instance TEXT, partition INTEGER, offset INTEGER, told INTEGER, at REAL)"
    )
    return database


class Decisions:
    """The decisions of all processes on a store; each writes to a file of its own.

    Without a store they are forgotten with the process, as everything is.
    """

    def __init__(self, store: Store | None) -> None:
        """Read what was decided; a UserError if it cannot be read."""
        self._told: dict[str, Told] = {}
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        if store is None:
            return
        try:
            for path in sorted(store.folder.glob("decisions-*.sqlite3")):
                self._read(path)
            own = store.folder / f"decisions-{store.process}.sqlite3"
            self._database = _open(own)
            self._database.execute("DELETE FROM decisions WHERE at < ?", (time.time() - KEPT,))
        except sqlite3.Error as wrong:
            raise UserError(
                f"the recovery store {store.folder} is damaged (decisions: {wrong}): put back a "
                "copy of the whole store, or start anew with another."
            ) from None

    def _read(self, path: Path) -> None:
        with closing(_open(path)) as database:
            for instance, partition, offset, told in database.execute(
                "SELECT instance, partition, offset, max(told) FROM decisions GROUP BY 1, 2, 3"
            ):
                self._told.setdefault(instance, {})[partition, offset] = told

    def of(self, instance: str) -> Told:
        """Return what was decided of an instance before this process began."""
        return self._told.get(instance, {})

    def add(self, last: Reading, told: int) -> None:
        """Keep a decision: `told` so much because no other came after this reading of an instance.

        It is on the disk when this returns; a disk that does not take it ends the process.
        """
        if self._database is None:
            return
        try:
            with self._lock:  # several workers
                self._database.execute(
                    "INSERT INTO decisions VALUES (?, ?, ?, ?, ?)",
                    (last.instance, last.partition, last.offset, told, time.time()),
                )
        except sqlite3.Error as wrong:
            stop_process(f"the recovery store cannot be written (decisions: {wrong}).")
