"""From which place on each version of a control document applies, so that a restart repeats it.

A control document is what may change while the flow runs, such as the rules. Its versions are kept
here by their content, and by partition from which offset on each applies. That is written before
the first reading of the offset leaves the step `decode`: a flow that was killed applies to each
reading the version that it had before, whatever the document says by now.

The other way round, a resumed flow reads again what an earlier one has read. A new version must not
apply to it. So it is also written here how far each partition was read.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from dataflow.recovery import log
from dataflow.recovery.log import KEPT, SUFFIX
from dataflow.recovery.store import Store

__all__ = ["NONE", "Places", "are_kept", "version_of"]

NAME = "places"

NONE = ""
"""The version of a document that is not there."""


def version_of(content: bytes) -> str:
    """Return the name of a version of a document, by its content.

    >>> version_of(b""), version_of(b"[web]")
    ('', '67f41a33e345')
    """
    return hashlib.blake2b(content, digest_size=6).hexdigest() if content else NONE


def are_kept(store: Store | None) -> bool:
    """Return whether control documents have applied to readings in a store."""
    return store is not None and any(store.folder.glob(f"{NAME}-*{SUFFIX}"))


def _open(path: Path) -> sqlite3.Connection:
    return log.open_log(
        path,
        "documents (version TEXT PRIMARY KEY, content BLOB)",
        "places (kind TEXT, partition INTEGER, offset INTEGER, version TEXT, at REAL,"
        " PRIMARY KEY (kind, partition, offset))",
        "reached (partition INTEGER PRIMARY KEY, offset INTEGER, at REAL)",
    )


def _thin(database: sqlite3.Connection) -> None:
    """Delete what applied last so long before the last reading that no snapshot is as old."""
    database.execute("BEGIN IMMEDIATE")
    database.execute(
        "DELETE FROM places WHERE (SELECT min(later.at) FROM places AS later WHERE"
        " later.kind = places.kind AND later.partition = places.partition"
        " AND later.offset > places.offset) < (SELECT reached.at FROM reached"
        " WHERE reached.partition = places.partition) - ?",
        (KEPT,),
    )
    database.execute("DELETE FROM documents WHERE version NOT IN (SELECT version FROM places)")
    database.execute("COMMIT")


class _Process:
    """What another process of the store writes, as far as it was read."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self.database = database
        self.row = 0


class Places:
    """The versions of all kinds of documents of all processes on a store. Thread-safe.

    Each process writes its own file. Without a store, nothing outlives the process.

    `ends` returns, by partition, the first offset that was not yet written. Below it, nothing
    applies to a store whose earlier flows did not say how far they read.

    >>> places = Places(None)
    >>> first = places.stage("rules", b"[web]")
    >>> places.reach(0, first=100, last=199)
    >>> second = places.stage("rules", b"[db]")
    >>> places.reach(0, first=200, last=299)
    >>> [places.at("rules", 0, offset) for offset in (99, 199, 200)] == ["", first, second]
    True
    >>> places.document(second)
    b'[db]'
    """

    def __init__(self, store: Store | None, ends: Callable[[int], int] | None = None) -> None:
        """Open the file of this process. Raises `UserError` if the file of any cannot be used."""
        self._store = store
        self._ends = ends
        self._lock = threading.RLock()
        self._database: sqlite3.Connection | None = None
        self._others: dict[Path, _Process] = {}
        self._documents: dict[str, bytes] = {NONE: b""}
        self._staged: dict[str, str] = {}
        self._kinds: dict[str, set[str]] = {}
        self._count = 0
        self._offsets: dict[tuple[str, int], list[int]] = {}
        self._versions: dict[tuple[str, int], list[str]] = {}
        self._newest: dict[str, tuple[float, str]] = {}
        self._reached: dict[int, int] = {}
        self._complete = store is None
        # Whether earlier flows on the store did not write how far they read.
        self._late = False
        if store is None:
            return
        self._path = store.folder / f"{NAME}-{store.process}{SUFFIX}"
        try:
            self._database = _open(self._path)
            _thin(self._database)
            self._take(_Process(self._database))
            self._read_others(store)
        except (sqlite3.Error, OSError) as error:
            raise log.damaged(store.folder, NAME, error) from None
        self._late = store.began(NAME, lambda: store.resumed)

    def stage(self, kind: str, content: bytes) -> str:
        """Let a version apply from the next reading of each partition on; return its name.

        An empty content says that there is no document.
        """
        version = version_of(content)
        with self._lock:
            self._documents.setdefault(version, content)
            self._note(kind, version)
            self._staged[kind] = version
        return version

    def staged(self, kind: str) -> str:
        """Return the version that applies from the next reading on."""
        return self._staged.get(kind, NONE)

    def newest(self, kind: str) -> str:
        """Return the version that began to apply last, in any partition."""
        return self._newest.get(kind, (0.0, NONE))[1]

    def document(self, version: str) -> bytes:
        """Return the content of a version that was staged or applies anywhere."""
        return self._documents[version]

    def of(self, kind: str) -> set[str]:
        """Return all versions that were staged or apply anywhere."""
        with self._lock:
            return set(self._kinds.get(kind, ()))

    @property
    def count(self) -> int:
        """The number of all versions: none is ever forgotten while the process runs."""
        return self._count

    def at(self, kind: str, partition: int, offset: int) -> str:
        """Return the version that applies to a place; `NONE` before the first."""
        key = (kind, partition)
        offsets = self._offsets.get(key)
        if offsets is None:
            return NONE
        with self._lock:
            found = bisect_right(offsets, offset)
            return self._versions[key][found - 1] if found else NONE

    def reach(self, partition: int, first: int, last: int) -> None:
        """Write, before they are passed on, that readings from `first` to `last` are read.

        Versions that are staged apply from the first of them on that no earlier flow has read. They
        are on disk when this returns; how far the partition was read outlives the process, though
        not the machine. If they cannot be written, the process ends.
        """
        with self._lock:
            if not self._complete:
                self._complete_reading()
            reached = self._reached.get(partition)
            if reached is None:
                ends = self._ends if self._late else None
                reached = -1 if ends is None else ends(partition) - 1
                self._reached[partition] = reached
                if self._database is not None and last <= reached:
                    # The next process must not find another end.
                    self._write(self._database, partition, reached, [])
            if last <= reached:
                return
            self._reached[partition] = last
            start = max(first, reached + 1)
            rows = []
            for kind, version in self._staged.items():
                versions = self._versions.get((kind, partition))
                if version != (versions[-1] if versions else NONE):
                    rows.append((kind, partition, start, version, time.time()))
            if self._database is not None:
                self._write(self._database, partition, last, rows)
            for row in rows:
                self._add(*row)

    def begin_anew(self) -> None:
        """Let what is staged apply from the first reading on: all partitions are read once more.

        Only without a store, which has to repeat what it did.
        """
        assert self._store is None
        with self._lock:
            self._offsets, self._versions, self._reached = {}, {}, {}

    def refresh(self) -> None:
        """Read what other processes have written: to be called before their readings are judged."""
        if self._complete and not self._others:
            return
        with self._lock:
            if not self._complete:
                self._complete_reading()
                return
            try:
                for other in self._others.values():
                    self._take(other)
            except sqlite3.Error as error:
                log.stop("read", NAME, error)

    def _complete_reading(self) -> None:
        """Read all again: when the file was opened, an earlier process may have been about to end.

        Now all processes of the cluster have begun.
        """
        assert self._store is not None
        try:
            self._read_others(self._store)
        except sqlite3.Error as error:
            log.stop("read", NAME, error)
        self._complete = True

    def _read_others(self, store: Store) -> None:
        for path in sorted(store.folder.glob(f"{NAME}-*{SUFFIX}")):
            if path != self._path:
                if path not in self._others:
                    self._others[path] = _Process(_open(path))
                self._take(self._others[path])
        for path in (self._path, *self._others):
            with closing(_open(path)) as database:
                for partition, offset in database.execute("SELECT partition, offset FROM reached"):
                    self._reached[partition] = max(offset, self._reached.get(partition, -1))

    def _take(self, process: _Process) -> None:
        """Read the rows of a process that were not read yet."""
        rows = process.database.execute(
            "SELECT rowid, kind, partition, offset, version, at FROM places WHERE rowid > ?"
            " ORDER BY rowid",
            (process.row,),
        ).fetchall()
        for number, kind, partition, offset, version, at in rows:
            if version not in self._documents:
                found = process.database.execute(
                    "SELECT content FROM documents WHERE version = ?", (version,)
                ).fetchone()
                self._documents[version] = found[0]
            self._add(kind, partition, offset, version, at)
            process.row = number

    def _note(self, kind: str, version: str) -> None:
        versions = self._kinds.setdefault(kind, set())
        if version not in versions:
            versions.add(version)
            self._count += 1

    def _add(self, kind: str, partition: int, offset: int, version: str, at: float) -> None:
        self._note(kind, version)
        key = (kind, partition)
        versions = self._versions.setdefault(key, [])
        offsets = self._offsets.setdefault(key, [])
        place = bisect_right(offsets, offset)
        offsets.insert(place, offset)
        versions.insert(place, version)
        if at >= self._newest.get(kind, (0.0, NONE))[0]:
            self._newest[kind] = (at, version)

    def _write(
        self,
        database: sqlite3.Connection,
        partition: int,
        last: int,
        rows: list[tuple[str, int, int, str, float]],
    ) -> None:
        try:
            database.execute(f"PRAGMA synchronous = {'FULL' if rows else 'NORMAL'}")
            database.execute("BEGIN")
            if rows:
                database.executemany(
                    "INSERT OR IGNORE INTO documents VALUES (?, ?)",
                    [(row[3], self._documents[row[3]]) for row in rows],
                )
                database.executemany("INSERT INTO places VALUES (?, ?, ?, ?, ?)", rows)
            database.execute(
                "INSERT INTO reached VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
                " SET offset = max(offset, excluded.offset), at = excluded.at",
                (partition, last, time.time()),
            )
            database.execute("COMMIT")
        except sqlite3.Error as error:
            log.stop("write to", NAME, error)
