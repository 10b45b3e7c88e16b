"""The SQLite files of a recovery store: creates them, and checks that a flow can resume."""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path
from typing import Any

from dataflow.errors import UserError
from dataflow.recovery import disk
from dataflow.runtime.routing import file_of
from dataflow.runtime.store_files import create_files

__all__ = [
    "check",
    "epoch_marks",
    "executions",
    "forget_unfinished",
    "initialize",
    "is_made",
    "writable_by_others",
]

PAGE = 16_384
"""Page size of the store's files in bytes: writing larger pages takes an eighth less CPU."""

PARTS = "part-*.sqlite3"
"""Pattern of the names that Bytewax gives the store's files.

Like the queries below, checked with the Bytewax version `dataflow.runtime.CHECKED_WITH`.
"""

EXECUTIONS = "SELECT count(*) FROM exs"
RUNS = "SELECT ex_num, worker_count, resume_epoch FROM exs"
FRONTIERS = "SELECT ex_num, worker_index, worker_frontier FROM fronts"
PART_COUNTS = "SELECT part_count FROM parts"
LAST_COMMIT = "SELECT coalesce(max(commit_epoch), 0) FROM commits"
LAST_MARK = "SELECT max(snap_epoch) FROM snaps WHERE step_id = ? AND snap_epoch < ?"
FORGET = "DELETE FROM snaps WHERE snap_epoch >= ?"

EPOCH_STEP = "ec2_anomalies.mark_epoch"
"""Full id of the step whose states are in every file of a store, and written in every epoch."""

UNFINISHED = "unfinished"
"""Name of a file that marks a store as incomplete while it is created: no flow starts on it."""

CHECKED_WHOLE = 64 * 2**20
"""Files up to this size, in bytes, are checked completely before the start."""


def is_made(folder: Path) -> bool:
    """Return whether a folder holds a store whose creation was completed, damaged or not."""
    return any(folder.glob(PARTS)) and not (folder / UNFINISHED).exists()


def initialize(folder: Path, partitions: int) -> bool:
    """Create an empty store of `partitions` files; return False if there is one already.

    As many workers as there are files can write at the same time. A store whose creation was
    interrupted is created again. Raises `UserError` if the folder holds anything else, or cannot be
    written.

    Only this user can read and write it: who writes to a store decides what Bytewax unpickles.
    """
    unfinished = folder / UNFINISHED
    if is_made(folder):
        return False
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if unfinished.exists():
            for path in folder.glob("part-*.sqlite3*"):
                path.unlink()
        # The file system of a volume may have created lost+found.
        if any(entry.name not in ("lost+found", UNFINISHED) for entry in folder.iterdir()):
            raise UserError(
                f"the folder {folder} is not empty and holds no recovery store: give an empty "
                "or a new folder."
            )
        with contextlib.suppress(PermissionError):  # a volume whose owner is root
            folder.chmod(0o700)
        unfinished.touch(0o600)
        disk.reserve(folder, partitions)
        create_files(folder, partitions)
        for path in folder.glob(PARTS):
            path.chmod(0o600)  # SQLite gives the files beside it the same mode
            _enlarge_pages(path)
        unfinished.unlink()
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"cannot create a recovery store in {folder} ({reason}): check that the folder can be "
            "written and has room."
        ) from None
    return True


def writable_by_others(folder: Path) -> Path | None:
    """Return the folder of a store, or a file in it, if another user can write to it, else None.

    The group of a folder that root has given to this process's own group, as Kubernetes does with a
    volume, is no other user.
    """
    for path in (folder, *sorted(folder.glob("*.sqlite3"))):
        found = path.stat()
        given = found.st_uid == 0 != os.geteuid() and found.st_gid == os.getegid()
        if found.st_mode & (stat.S_IWOTH if given else stat.S_IWOTH | stat.S_IWGRP):
            return path
    return None


def _enlarge_pages(path: Path) -> None:
    """Set the page size of an empty file to `PAGE`; SQLite's default is 4 kB."""
    with closing(sqlite3.connect(path, isolation_level=None)) as part:
        # The page size cannot change in WAL mode.
        part.execute("PRAGMA journal_mode = DELETE")
        part.execute(f"PRAGMA page_size = {PAGE}")
        part.execute("VACUUM")
        part.execute("PRAGMA journal_mode = WAL")


def executions(folder: Path) -> int:
    """Return how many times a flow has run on the store."""
    try:
        return sum(_query(path, EXECUTIONS)[0][0] for path in folder.glob(PARTS))
    except sqlite3.Error:
        return 0  # `check` reports the damage


def epoch_marks(folder: Path) -> list[str]:
    """Return one key for each file of the store: Bytewax keeps its states of `EPOCH_STEP` there."""
    path = next(iter(sorted(folder.glob(PARTS))))
    ((count,),) = _query(path, PART_COUNTS)
    keys: dict[int, str] = {}
    for number in itertools.count():
        if len(keys) == count:
            return [keys[file] for file in sorted(keys)]
        keys.setdefault(file_of(EPOCH_STEP, str(number), count), str(number))
    raise AssertionError


def check(folder: Path, *, alone: bool) -> int | None:
    """Check that the files are complete, undamaged and of the same time.

    Bytewax would end with a panic otherwise, or mix states of different times. `alone` says that
    all files must be in this folder, not on other machines. Returns the epoch from which a flow
    resumes, None if it cannot be known here. Raises `UserError`.
    """
    paths = sorted(folder.glob(PARTS))
    counts: set[int] = set()
    frontiers: dict[int, dict[int, int]] = {}
    workers: dict[int, tuple[int, int]] = {}
    commits: list[int] = []
    for path in paths:
        try:
            counts |= {count for (count,) in _query(path, PART_COUNTS)}
            commits += _query(path, LAST_COMMIT)[0]
            for run, count, epoch in _query(path, RUNS):
                workers[run] = (count, epoch)
            for run, worker, epoch in _query(path, FRONTIERS):
                run_frontiers = frontiers.setdefault(run, {})
                run_frontiers[worker] = max(epoch, run_frontiers.get(worker, 0))
            whole = path.stat().st_size > CHECKED_WHOLE or _query(path, "PRAGMA quick_check(1)")
        except sqlite3.Error:
            whole = [("damaged",)]
        if whole not in (True, [("ok",)]):
            raise UserError(
                f"the recovery store {folder} is damaged ({path.name}): restore a copy of the "
                "whole store, or start with a new store."
            )
    complete = counts == {len(paths)}
    if alone and not complete:
        raise UserError(
            f"the recovery store {folder} is incomplete: {len(paths)} of {max(counts, default=0)} "
            "files exist; restore a copy of the whole store, or start with a new store."
        )
    if not workers or not complete:
        return None
    # As Bytewax computes the epoch to resume from: the slowest worker of the last run.
    last = max(workers)
    count, resumed = workers[last]
    epoch = min(frontiers.get(last, {}).get(worker, resumed) for worker in range(count))
    # Bytewax itself detects only the first case.
    if max(commits) > epoch or _are_of_different_times(paths, epoch):
        raise UserError(
            f"the recovery store {folder} mixes files of different times: restore a copy of "
            "the whole store, or start with a new store."
        )
    return epoch


def forget_unfinished(folder: Path, epoch: int) -> None:
    """Delete the states of `epoch` and later, which a killed flow began to write.

    Bytewax resumes from `epoch` without them but keeps them. The flow may end this epoch earlier in
    the input than the killed one. A state that it does not write again would then be loaded by the
    next flow, although it is ahead of the input. Raises `UserError`.
    """
    for path in sorted(folder.glob(PARTS)):
        try:
            with closing(sqlite3.connect(path, isolation_level=None)) as part:
                part.execute(FORGET, (epoch,))
        except sqlite3.Error as error:
            raise UserError(
                f"cannot write to the recovery store {folder} ({path.name}: {error}): check its "
                "permissions and its disk."
            ) from None


def _are_of_different_times(paths: list[Path], epoch: int) -> bool:
    """Return whether a file lacks the epoch before the one to resume from, and another has it.

    The files of a store that an earlier version wrote have no marks.
    """
    marks = {_query(path, LAST_MARK, (EPOCH_STEP, epoch))[0][0] for path in paths}
    return len(marks) > 1


def _query(path: Path, sql: str, values: tuple[object, ...] = ()) -> list[Any]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(sql, values).fetchall()
