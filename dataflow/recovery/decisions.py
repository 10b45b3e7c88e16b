"""Write-ahead log of timer decisions, so that a restart repeats them.

A flow that was killed reads again the records since its last snapshot, and computes the same. A
decision by the clock, that an instance is silent, might come out differently: the instance's next
reading may be there by now. An incident that was opened would then never be resolved. So each such
decision is first written here, and a resumed flow repeats it at the same reading.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeAlias

from dataflow.errors import UserError, stop_process
from dataflow.records import Reading
from dataflow.recovery.store import Store

__all__ = ["Decisions"]

SilenceStates: TypeAlias = dict[tuple[int, int], int]
"""By partition and offset of an instance's reading: the silence that was decided after it, as
`dataflow.incidents.silence` numbers it."""

KEPT = 7 * 86_400.0
"""Seconds to keep a decision; only those since the last snapshot are needed."""


def _open(path: Path) -> sqlite3.Connection:
    """Open a log file, and create the table if the file is new or its creator was killed."""
    with suppress(OSError):  # SQLite has a better word for it
        path.touch(0o600)  # SQLite would let other users read it
    database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    database.execute(
        "CREATE TABLE IF NOT EXISTS decisions"
        " (instance TEXT, partition INTEGER, offset INTEGER, told INTEGER, at REAL)"
    )
    return database


class Decisions:
    """The decisions of all processes on a store; each process writes its own file.

    Without a store, nothing is kept.
    """

    def __init__(self, store: Store | None) -> None:
        """Read the logs of all processes. Raises `UserError` if one cannot be read."""
        self._decided: dict[str, SilenceStates] = {}
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
        except sqlite3.Error as error:
            raise UserError(
                f"the recovery store {store.folder} is damaged (decisions: {error}): restore a "
                "copy of the whole store, or start with a new store."
            ) from None

    def _read(self, path: Path) -> None:
        with closing(_open(path)) as database:
            for instance, partition, offset, state in database.execute(
                "SELECT instance, partition, offset, max(told) FROM decisions GROUP BY 1, 2, 3"
            ):
                self._decided.setdefault(instance, {})[partition, offset] = state

    def of(self, instance: str) -> SilenceStates:
        """Return the decisions about an instance from before this process started."""
        return self._decided.get(instance, {})

    def add(self, last: Reading, state: int) -> None:
        """Write a decision: the silence has this state because no reading came after `last`.

        The decision is on disk when this returns. If it cannot be written, the process ends.
        """
        if self._database is None:
            return
        try:
            with self._lock:  # several workers
                self._database.execute(
                    "INSERT INTO decisions VALUES (?, ?, ?, ?, ?)",
                    (last.instance, last.partition, last.offset, state, time.time()),
                )
        except sqlite3.Error as error:
            stop_process(
                f"cannot write to the recovery store (decisions: {error}): check its disk, and "
                "start the flow again."
            )
