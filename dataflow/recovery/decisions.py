"""Write-ahead log of timer decisions, so that a restart repeats them.

A flow that was killed reads again the records since its last snapshot, and computes the same. A
decision by the clock, that an instance is silent, might come out differently: the instance's next
reading may be there by now. An incident that was opened would then never be resolved. So each such
decision is first written here, and a resumed flow repeats it at the same reading.

The other way round, the clock might find a silence where the killed flow had read on, and had
written what followed. So it is also written here how far an instance was read whenever it causes
records, and up to there a resumed flow decides nothing anew.
"""

from __future__ import annotations

import fcntl
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

from dataflow.records import Reading, key_of
from dataflow.recovery import log
from dataflow.recovery.log import KEPT, SUFFIX
from dataflow.recovery.store import Store

__all__ = ["Decisions"]

SilenceStates: TypeAlias = dict[tuple[int, int, int], int]
"""By partition, offset and number in the record of an instance's reading: the silence that was
decided after it, as `dataflow.incidents.silence` numbers it."""

NAME = "decisions"


def _open(path: Path) -> sqlite3.Connection:
    database = log.open_log(
        path,
        "decisions (instance TEXT, partition INTEGER, offset INTEGER, told INTEGER, at REAL,"
        " number INTEGER NOT NULL DEFAULT 0)",
        "reached (instance TEXT, partition INTEGER, offset INTEGER, at REAL,"
        " PRIMARY KEY (instance, partition))",
    )
    columns = {name for _, name, *_ in database.execute("PRAGMA table_info(decisions)")}
    if "number" not in columns:  # from before a record could hold several readings
        # Processes of a cluster open the files of one another at the same time.
        with suppress(sqlite3.OperationalError):
            database.execute("ALTER TABLE decisions ADD number INTEGER NOT NULL DEFAULT 0")
    return database


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of the folder: processes of a cluster start at the same time."""
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Decisions:
    """The decisions of all processes on a store; each process writes its own file.

    Without a store, nothing is kept.
    """

    def __init__(self, store: Store | None) -> None:
        """Open the log of this process. Raises `UserError` if the log of any cannot be read."""
        self._store = store
        self._decided: dict[str, SilenceStates] = {}
        self._reached: dict[str, dict[int, int]] = {}
        self._complete = False
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        if store is None:
            return
        try:
            self._database = _open(store.folder / f"decisions-{store.process}{SUFFIX}")
            with _alone(store.folder):
                self._take_over(self._database, store.folder)
            before = (time.time() - KEPT,)
            self._database.execute("DELETE FROM decisions WHERE at < ?", before)
            self._database.execute("DELETE FROM reached WHERE at < ?", before)
            self._read(store.folder)
        except (sqlite3.Error, OSError) as error:
            raise log.damaged(store.folder, NAME, error) from None

    @staticmethod
    def _take_over(database: sqlite3.Connection, folder: Path) -> None:
        """Take the decisions out of files under their former name, and remove these."""
        for path in sorted(folder.glob("decisions-*.sqlite3")):
            with closing(_open(path)) as former:
                rows = former.execute("SELECT * FROM decisions").fetchall()
            database.execute("BEGIN")
            database.executemany("INSERT INTO decisions VALUES (?, ?, ?, ?, ?, ?)", rows)
            database.execute("COMMIT")
            for each in (path, *folder.glob(f"{path.name}-*")):
                each.unlink(missing_ok=True)

    def _read(self, folder: Path) -> None:
        self._decided.clear()
        self._reached.clear()
        for path in sorted(folder.glob(f"decisions-*{SUFFIX}")):
            with closing(_open(path)) as database:
                for instance, *place, state in database.execute(
                    "SELECT instance, partition, offset, number, max(told) FROM decisions"
                    " GROUP BY 1, 2, 3, 4"
                ):
                    decided = self._decided.setdefault(instance, {})
                    partition, offset, number = place
                    before = decided.get((partition, offset, number), 0)
                    decided[partition, offset, number] = max(state, before)
                for instance, partition, offset in database.execute(
                    "SELECT instance, partition, offset FROM reached"
                ):
                    reached = self._reached.setdefault(instance, {})
                    reached[partition] = max(offset, reached.get(partition, 0))

    def of(self, instance: str) -> tuple[SilenceStates, Mapping[int, int]]:
        """Return what earlier processes decided about an instance, and how far it was read.

        How far: by partition, the offset of a reading before or at which it caused records.
        """
        if not self._complete and self._store is not None:
            with self._lock:
                if not self._complete:
                    # Once more: when the log was opened, a process of the cluster that ran before
                    # may still have been about to end.
                    try:
                        self._read(self._store.folder)
                    except sqlite3.Error as error:
                        log.stop("read", NAME, error)
                    self._complete = True
        return self._decided.get(instance, {}), self._reached.get(instance, {})

    def add(self, last: Reading, state: int, read: Mapping[int, int]) -> None:
        """Write a decision: the silence has this state because no reading came after `last`.

        `read` says how far the instance was read. The decision is on disk when this returns. If it
        cannot be written, the process ends.
        """
        key = key_of(last)
        row = (key, last.partition, last.offset, state, time.time(), last.number)
        self._write(key, read, row)

    def reach(self, instance: str, read: Mapping[int, int]) -> None:
        """Write how far an instance was read, before its records are written.

        It outlives the process when this returns, though not the machine: that would take
        milliseconds. If it cannot be written, the process ends.
        """
        self._write(instance, read, None)

    def _write(
        self,
        instance: str,
        read: Mapping[int, int],
        decision: tuple[str, int, int, int, float, int] | None,
    ) -> None:
        database = self._database
        if database is None:
            return
        try:
            with self._lock:  # several workers
                durable = "FULL" if decision else "NORMAL"
                database.execute(f"PRAGMA synchronous = {durable}")
                database.execute("BEGIN")
                if decision:
                    database.execute("INSERT INTO decisions VALUES (?, ?, ?, ?, ?, ?)", decision)
                database.executemany(
                    "INSERT INTO reached VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
                    " SET offset = max(offset, excluded.offset), at = excluded.at",
                    [
                        (instance, partition, offset, time.time())
                        for partition, offset in read.items()
                    ],
                )
                database.execute("COMMIT")
        except sqlite3.Error as error:
            log.stop("write to", NAME, error)
