"""The recovery store, guarded: one flow on it at a time, and only the flow whose it is.

Bytewax keeps offsets and states in a folder of SQLite files. Beside them stand our own:
`dataflow.json`, which says whose the store is and where the outputs began, and a lock a process.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import sys
import uuid
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec
from bytewax.recovery import init_db_dir
from bytewax.run import _parse_args

from dataflow.refusal import Refusal
from dataflow.settings import PREFIX, Settings

__all__ = ["Store", "directory", "guard", "initialise"]

VERSION = 2
"""Of the store's format: the states of every detector, sources and sinks."""

PAGE = 16_384
"""Bytes of a page of the store's files: fewer and larger ones take an eighth less CPU to write."""

DECIDE_STATE = (
    *("topic", "partitions", "key_field", "value_field", "time_field", "index_field"),
    *("scale", "detector", "seed", "interval", "reorder"),
)
"""Settings that the states in a store depend on."""

DECIDE_INCIDENTS = (
    *("threshold", "incident_anomalies", "incident_readings", "incident_duration"),
    *("incident_quiet", "incident_cooldown", "incident_updates"),
    *("silence", "silence_gone"),
)
"""The same of incidents: what was told before a crash must be told again."""

UNFINISHED = "unfinished"
"""Name of a file that is in the folder while its store is made: no flow starts on such a one."""

CHECKED_WHOLE = 64 * 2**20
"""Bytes up to which a file of the store is read through before the start."""

NEIGHBOURS = 5
"""Epochs by which the files of a store may differ after a crash: one or two, in truth."""


class _Owner(msgspec.Struct):
    version: int
    id: str
    settings: dict[str, Any]
    states: str
    began: dict[str, Any] = {}


def _arguments() -> Namespace:
    """Return what `python -m bytewax.run` was given, options and variables, as it reads them."""
    if Path(sys.argv[0]).parts[-2:] == ("bytewax", "run.py"):
        given: Namespace = _parse_args()  # type: ignore[no-untyped-call]
        return given
    return Namespace(
        recovery_directory=os.environ.get("BYTEWAX_RECOVERY_DIRECTORY"),
        process_id=None,
        addresses=None,
    )


def directory() -> Path | None:
    """Return the recovery store that the command line or the environment names."""
    given = _arguments().recovery_directory
    return None if given is None else Path(given)


def _is_made(folder: Path) -> bool:
    """Tell whether a folder holds a store, whole or damaged, that was once finished."""
    return any(folder.glob("part-*.sqlite3")) and not (folder / UNFINISHED).exists()


def initialise(folder: Path, partitions: int) -> bool:
    """Make an empty store of so many files; False if there is one already.

    As many workers as files can write at a time. What a command that was killed in the midst of it
    left is made anew. A Refusal if the folder holds anything else.
    """
    unfinished = folder / UNFINISHED
    if _is_made(folder):
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if unfinished.exists():
            for path in folder.glob("part-*.sqlite3*"):
                path.unlink()
        # A volume's own folder may be there.
        if any(entry.name not in ("lost+found", UNFINISHED) for entry in folder.iterdir()):
            raise Refusal(f"the folder {folder} is not empty and holds no recovery store.")
        unfinished.touch()
        init_db_dir(folder, partitions)  # type: ignore[no-untyped-call]
        for path in folder.glob("part-*.sqlite3"):
            _enlarge_pages(path)
        unfinished.unlink()
    except OSError as wrong:
        raise Refusal(f"the folder {folder} cannot be used: {wrong.strerror}.") from None
    except sqlite3.Error as wrong:
        raise Refusal(f"the folder {folder} cannot hold a recovery store: {wrong}.") from None
    return True


def _enlarge_pages(path: Path) -> None:
    """Let a file that is empty have pages of another size than SQLite's 4 kB."""
    with closing(sqlite3.connect(path, isolation_level=None)) as part:
        # They cannot be changed while there is a log beside the file.
        part.execute("PRAGMA journal_mode = DELETE")
        part.execute(f"PRAGMA page_size = {PAGE}")
        part.execute("VACUUM")
        part.execute("PRAGMA journal_mode = WAL")


class Store:
    """A recovery store that this process holds, until it ends."""

    def __init__(self, folder: Path, settings: Settings, states: str, process: int) -> None:
        """Lock the store and look whose it is; a Refusal if it is held, or another flow's."""
        self._folder = folder
        self.process = process
        self._lock = _lock(folder / f"lock-{process}")
        decided = _fingerprint(settings)
        with self._owner() as owner:
            if not _executions(folder):
                # Nothing has run on it: a start that was refused binds it to nothing.
                owner.settings, owner.states = decided, states
            if settings.incidents:
                # A store of before there were any begins to have them.
                for name in DECIDE_INCIDENTS:
                    owner.settings.setdefault(name, decided[name])
            self._compare(owner.settings, decided)
            if owner.states != states:
                raise Refusal(
                    f"the recovery store {folder} holds states of another version of the detector "
                    f"{settings.detector}: run the version that wrote it, or start anew with "
                    "another store."
                )
            self.id = owner.id

    @contextmanager
    def _owner(self) -> Iterator[_Owner]:
        """Read `dataflow.json`, making it for a new store, and write it back if it changed."""
        path = self._folder / "dataflow.json"
        with (self._folder / "lock").open("a") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)  # processes of one cluster come at the same time
            text = path.read_bytes() if path.exists() else b""
            if text:
                owner = self._read_owner(text)
            elif _executions(self._folder):
                raise Refusal(
                    f"the recovery store {self._folder} is another program's: give this flow a "
                    "store of its own."
                )
            else:
                owner = _Owner(VERSION, uuid.uuid4().hex, {}, "")
            yield owner
            after = msgspec.json.format(msgspec.json.encode(owner)) + b"\n"
            if after != text:
                draft = path.with_suffix(".draft")
                draft.write_bytes(after)
                draft.replace(path)

    def _read_owner(self, text: bytes) -> _Owner:
        try:
            owner = msgspec.json.decode(text, type=_Owner)
        except msgspec.DecodeError:
            raise Refusal(
                f"the recovery store {self._folder} is damaged (dataflow.json): put back a copy "
                "of the store, or start anew with another."
            ) from None
        if owner.version != VERSION:
            raise Refusal(
                f"the recovery store {self._folder} has the format {owner.version}, this program "
                f"reads {VERSION}: run the version that wrote it, or start anew with another."
            )
        return owner

    def _compare(self, stored: dict[str, Any], present: dict[str, Any]) -> None:
        for name, value in present.items():
            if stored.get(name) != value:
                raise Refusal(
                    f"the recovery store {self._folder} was made with {PREFIX}{name.upper()}="
                    f"{_shown(stored.get(name))}, and now it is {_shown(value)}: set it back, or "
                    "start anew with another store."
                )

    @property
    def folder(self) -> Path:
        """Where the store lies."""
        return self._folder

    def began(self, output: str, position: Callable[[], Any]) -> Any:
        """Return where an output stood when this store first wrote to it.

        A flow that is killed before its first snapshot finds no other trace of what it wrote.
        """
        with self._owner() as owner:
            if output not in owner.began:
                owner.began[output] = position()
            return owner.began[output]


def guard(settings: Settings, states: str) -> Store | None:
    """Take the store that the command line names; None if it names none.

    `states` tells the form of the detector's states from that of other versions. A Refusal in one
    line if the store is missing, empty, damaged, incomplete, too old, held by another process, or
    made by a flow with other settings.
    """
    folder = directory()
    if folder is None:
        return None
    if not _is_made(folder):
        raise Refusal(
            f"there is no recovery store in {folder}: make one with "
            f"`python -m dataflow recovery {folder}`, or give the right folder."
        )
    arguments = _arguments()
    store = Store(folder, settings, states, arguments.process_id or 0)
    _check(folder, alone=not arguments.addresses)
    return store


def _fingerprint(settings: Settings) -> dict[str, Any]:
    names = {*DECIDE_STATE, *(DECIDE_INCIDENTS if settings.incidents else ())}
    decided = settings.model_dump(mode="json", include=names)
    place = "kafka" if settings.input == "kafka" else str(Path(settings.input).resolve())
    return {"input": place, **decided}


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _lock(path: Path) -> int:
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Refusal(
            f"the recovery store {path.parent} is held by another process: stop it, or give this "
            "flow a store of its own."
        ) from None
    except OSError as wrong:
        raise Refusal(
            f"the recovery store {path.parent} cannot be written: {wrong.strerror}."
        ) from None
    return lock


def _query(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(sql).fetchall()


def _executions(folder: Path) -> int:
    """Return how often a flow has run on the store."""
    try:
        return sum(
            _query(path, "SELECT count(*) FROM exs")[0][0] for path in folder.glob("part-*.sqlite3")
        )
    except sqlite3.Error:
        return 0  # `_check` says what is wrong


def _check(folder: Path, *, alone: bool) -> None:
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
            raise Refusal(
                f"the recovery store {folder} is damaged ({path.name}): put back a copy of the "
                "whole store, or start anew with another."
            )
    if alone and counts != {len(paths)}:
        raise Refusal(
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
            raise Refusal(
                f"the recovery store {folder} is not of one time: some of its files are older "
                "than others; put back a copy of the whole store, or start anew with another."
            )
