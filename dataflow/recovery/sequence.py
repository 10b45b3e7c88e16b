"""The order in which records of several instances were taken, so that a restart repeats it.

Records of many instances come in an order that differs from run to run. What decides by their order
writes it here before its own records are written. A flow that was killed takes the same records
again in the same order.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from dataflow.recovery import log
from dataflow.recovery.log import KEPT, SUFFIX
from dataflow.recovery.store import Store

__all__ = ["Sequence", "Step"]


class Step(NamedTuple):
    """A record that was taken, by its id and sequence; or without an id, the time that had come.

    `size` is what was known at the record: the number of members. `until` is None where the input
    had ended.
    """

    id: str
    sequence: int = 0
    size: int = 0
    until: float | None = None


def _open(path: Path) -> sqlite3.Connection:
    database = log.open_log(
        path,
        "steps (number INTEGER PRIMARY KEY, id TEXT, sequence INTEGER, size INTEGER, until REAL,"
        " at REAL)",
    )
    database.execute("PRAGMA synchronous = NORMAL")
    return database


class Sequence:
    """The steps of all processes on a store; each process writes its own file.

    `rules` is the version of what decides by the order: other rules would decide something else in
    the same order. Without a store, nothing is kept.
    """

    def __init__(self, store: Store | None, name: str, rules: int) -> None:
        """Open the file of this process. Raises `UserError` if the file of any cannot be used."""
        self._store = store
        self._name = name
        self._rules = rules
        self._database: sqlite3.Connection | None = None
        if store is None:
            return
        try:
            self._database = _open(store.folder / f"{name}-{store.process}{SUFFIX}")
            self._database.execute("DELETE FROM steps WHERE at < ?", (time.time() - KEPT,))
        except (sqlite3.Error, OSError) as error:
            raise log.damaged(store.folder, name, error) from None

    def since(self, number: int) -> list[Step]:
        """Return the steps from a number on that earlier processes have taken.

        Raises `ValueError` if they have taken any by other rules.
        """
        if self._store is None:
            return []
        found: dict[int, tuple[float, Step]] = {}
        try:
            for path in sorted(self._store.folder.glob(f"{self._name}-*{SUFFIX}")):
                with closing(_open(path)) as database:
                    rows = database.execute(
                        "SELECT number, at, id, sequence, size, until FROM steps WHERE number >= ?",
                        (number,),
                    )
                    for place, at, *step in rows:
                        if place not in found or found[place][0] < at:
                            found[place] = at, Step(*step)
        except sqlite3.Error as error:
            log.stop("read", self._name, error)
        steps = []
        while number in found:
            steps.append(found[number][1])
            number += 1
        kept = f"rules of {self._name}"
        if self._store.kept(kept) != self._rules:
            if steps:
                raise ValueError(
                    f"an earlier version did not save its last decisions of {self._name} before it "
                    "was killed"
                )
            self._store.keep(kept, self._rules)
        return steps

    def add(self, number: int, steps: Iterable[Step]) -> None:
        """Write the next steps, of which the first has this number.

        They outlive the process when this returns, though not the machine. If they cannot be
        written, the process ends.
        """
        if self._database is None:
            return
        at = time.time()
        try:
            self._database.execute("BEGIN")
            self._database.execute("DELETE FROM steps WHERE number >= ?", (number,))
            self._database.executemany(
                "INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?)",
                [(place, *step, at) for place, step in enumerate(steps, number)],
            )
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            log.stop("write to", self._name, error)
