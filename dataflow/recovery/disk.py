"""The disk under a recovery store: refuses to start on a full one, and ends before it is full.

Bytewax ends with a panic and a stack trace when it cannot save. Nothing is lost then, but the trace
does not say what to do.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

from dataflow.errors import UserError, stop_process
from dataflow.warnings import say

__all__ = ["check", "reserve", "watch"]

NEEDED = 8 * 2**20
"""Bytes that must be free at the start."""

LEAST = 2 * 2**20
"""Bytes that must stay free."""

FILE = 256 * 2**10
"""Bytes that a file of the store takes at most while it is created."""

OPEN_PER_PART = 3
"""Open files for each file of a store: SQLite's database, its log and the log's index."""

OTHER_OPEN = 50
"""Open files beside the store's, with three partitions."""

LOOK = 0.2
"""Seconds between two looks at a disk."""


def reserve(folder: Path, partitions: int) -> None:
    """Prove that a folder has room for a new store, by writing as much and deleting it.

    A limit of the user or of the size of a file shows only so. Raises `OSError`.
    """
    drafts = [folder / f"reserved-{number}" for number in range(partitions)]
    try:
        for draft in drafts:
            with draft.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, FILE)
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)


def check(folder: Path) -> None:
    """Check that a store has room for snapshots, and may open its files. Raises `UserError`."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    parts = sum(1 for _ in folder.glob("part-*.sqlite3"))
    needed = parts * OPEN_PER_PART + OTHER_OPEN
    if limit not in (resource.RLIM_INFINITY, -1) and needed > limit:
        raise UserError(
            f"the recovery store {folder} has {parts} files, for which a process needs {needed} "
            f"open files, and the limit is {limit}: raise it with `ulimit -n {2 * needed}`, or "
            "start with a new store of fewer files."
        )
    free = shutil.disk_usage(folder).free
    if free < NEEDED:
        raise UserError(
            f"the disk under the recovery store {folder} has {_megabytes(free)} left, and a start "
            f"needs {_megabytes(NEEDED)}: free some space, and start again."
        )


def watch(folder: Path) -> None:
    """End the process with one line when the disk under a store is about to be full.

    Also where a save has failed already: then the line stands in place of the stack trace.
    """
    before = sys.excepthook

    def explain(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        if "SqliteFailure" in str(error) or "RusqliteError" in str(error):
            say(f"error: {_cannot_save(folder, str(error))}")
        else:
            before(kind, error, trace)

    def look() -> None:
        while True:
            try:
                free = shutil.disk_usage(folder).free
            except OSError:
                return  # the folder is gone, and Bytewax says so
            if free < LEAST:
                stop_process(_cannot_save(folder, f"{_megabytes(free)} of its disk are left"))
            time.sleep(LOOK)

    sys.excepthook = explain
    threading.Thread(target=look, name="disk", daemon=True).start()


def _cannot_save(folder: Path, why: str) -> str:
    if "DiskFull" in why or "disk is full" in why:
        why = "its disk is full"
    reason = " ".join(why.split())
    return (
        f"cannot save to the recovery store {folder} ({reason}): free some space, and start the "
        "flow again; it resumes at the last snapshot, and nothing is lost."
    )


def _megabytes(count: int) -> str:
    return f"{count / 2**20:.1f} MB"
