"""The SQLite files of a recovery store: how they are made, and whether they can be gone on with."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from dataflow.errors import UserError

__all__ = ["check", "executions", "initialise", "is_made"]

PAGE = 16_384
"""Bytes of a page of the store's files: fewer and larger ones take an eighth less CPU to write."""

UNFINISHED = "unfinished"
"""Name of a file that is in the folder while its store is made: no flow starts on such a one."""

CHECKED_WHOLE = 64 * 2**20
"""Bytes up to which a file of the store is read through before the start."""

NEIGHBOURS = 5
"""Epochs by which the files of a store may differ after a crash: one or two, in truth."""


def is_made(folder: Path) -> bool:
    """Tell whether a folder holds a store, whole or damaged, that was once finished."""
    return any(folder.glob("part-*.sqlite3")) and not (folder / UNFINISHED).exists()


def initialise(folder: Path, partitions: int) -> bool:
    """Make an empty store of so many files; False if there is one already.

    As many workers as files can write at a time. What a command that was killed in the midst of it
    left is made anew. A UserError if the folder holds anything else.
    """
    # Here, so that the rest of this package does without Bytewax.
    from bytewax.recovery import init_db_dir

    unfinished = folder / UNFINISHED
    if is_made(folder):
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if unfinished.exists():
            for path in folder.glob("part-*.sqlite3*"):
                path.unlink()
        # A volume's own folder may be there.
        if any(entry.name not in ("lost+found", UNFINISHED) for entry in folder.iterdir()):
            raise UserError(f"the folder {folder} is not empty and holds no recovery store.")
        unfinished.touch()
        init_db_dir(folder, partitions)  # type: ignore[no-untyped-call]
        for path in folder.glob("part-*.sqlite3"):
            _enlarge_pages(path)
        unfinished.unlink()
    except OSError as wrong:
        raise UserError(f"the folder {folder} cannot be used: {wrong.strerror}.") from None
    except sqlite3.Error as wrong:
        raise UserError(f"the folder {folder} cannot hold a recovery store: {wrong}.") from None
    return True


def _enlarge_pages(path: Path) -> None:
    """Let a file that is empty have pages of another size than SQLite's 4 kB."""
    with closing(sqlite3.connect(path, isolation_level=None)) as part:
        # They cannot be changed while there is a log beside the file.
        part.execute("PRAGMA journal_mode = DELETE")
        part.execute(f"PRAGMA page_size = {PAGE}")
        part.execute("VACUUM")
        part.execute("PRAGMA journal_mode = WAL")


def executions(folder: Path) -> int:
    """Return how often a flow has run on the store."""
    try:
        return sum(
            _query(path, "SELECT count(*) FROM exs")[0][0] for path in folder.glob("part-*.sqlite3")
        )
    except sqlite3.Error:
        return 0  # `check` says what is wrong


def check(folder: Path, *, alone: bool) -> None:
    """Find what Bytewax would end with a panic; `alone`: all of the store must lie here."""
    paths = sorted(folder.glob("part-*.sqlite3"))
    counts: set[int] = set()
    frontiers: dict[int, dict[int, int]] = {}
    workers: dict[int, tuple[int, int]] = {}
    commits: list[int] = []
    for path in paths:
        try:
            counts |= {count for (count,) in _query(path, "SELECT part_count FROM parts")}
            commits += _query(path, "SELECT coalesce(max(commit_epoch), 0) FROM commits")[0]
            for run, count, epoch in _query(
                path, "SELECT ex_num, worker_count, resume_epoch FROM exs"
            ):
                workers[run] = (count, epoch)
            for run, worker, epoch in _query(
                path, "SELECT ex_num, worker_index, worker_frontier FROM fronts"
            ):
                run_frontiers = frontiers.setdefault(run, {})
                run_frontiers[worker] = max(epoch, run_frontiers.get(worker, 0))
            whole = path.stat().st_size > CHECKED_WHOLE or _query(path, "PRAGMA quick_check(1)")
        except sqlite3.Error:
            whole = [("damaged",)]
        if whole not in (True, [("ok",)]):
            raise UserError(
                f"the recovery store {folder} is damaged ({path.name}): put back a copy of the "
                "whole store, or start anew with another."
            )
    if alone and counts != {len(paths)}:
        raise UserError(
            f"the recovery store {folder} is incomplete: {len(paths)} of {max(counts, default=0)} "
            "files are there; put back a copy of the whole store, or start anew with another."
        )
    if workers and alone:
        # As Bytewax reckons it: where the slowest worker of the last run stood.
        last = max(workers)
        count, resumed = workers[last]
        epoch = min(frontiers.get(last, {}).get(worker, resumed) for worker in range(count))
        # Bytewax finds the first only, and resumes from states of different times in the second.
        if max(commits) > epoch or max(commits) - min(commits) > NEIGHBOURS:
            raise UserError(
                f"the recovery store {folder} is not of one time: some of its files are older "
                "than others; put back a copy of the whole store, or start anew with another."
            )


def _query(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(sql).fetchall()
