"""The recovery store, guarded: one flow on it at a time, and only the flow whose it is.

Bytewax keeps offsets and states in a folder of SQLite files. Beside them stand our own:
`dataflow.json`, which says whose the store is and where the outputs began, and a lock a process.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from dataflow.errors import UserError
from dataflow.recovery import files
from dataflow.runtime.arguments import arguments
from dataflow.settings import PREFIX, Settings

__all__ = ["Store", "guard"]

VERSION = 2
"""Of the store's format: the states of every detector, sources and sinks."""

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


class _Owner(msgspec.Struct):
    version: int
    id: str
    settings: dict[str, Any]
    states: str
    began: dict[str, Any] = {}


class Store:
    """A recovery store that this process holds, until it ends."""

    def __init__(self, folder: Path, settings: Settings, states: str, process: int) -> None:
        """Lock the store and look whose it is; a UserError if it is held, or another flow's."""
        self._folder = folder
        self.process = process
        self._lock = _lock(folder / f"lock-{process}")
        decided = _fingerprint(settings)
        with self._owner() as owner:
            if not files.executions(folder):
                # Nothing has run on it: a start that was refused binds it to nothing.
                owner.settings, owner.states = decided, states
            if settings.incidents:
                # A store of before there were any begins to have them.
                for name in DECIDE_INCIDENTS:
                    owner.settings.setdefault(name, decided[name])
            self._compare(owner.settings, decided)
            if owner.states != states:
                raise UserError(
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
            elif files.executions(self._folder):
                raise UserError(
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
            raise UserError(
                f"the recovery store {self._folder} is damaged (dataflow.json): put back a copy "
                "of the store, or start anew with another."
            ) from None
        if owner.version != VERSION:
            raise UserError(
                f"the recovery store {self._folder} has the format {owner.version}, this program "
                f"reads {VERSION}: run the version that wrote it, or start anew with another."
            )
        return owner

    def _compare(self, stored: dict[str, Any], present: dict[str, Any]) -> None:
        for name, value in present.items():
            if stored.get(name) != value:
                raise UserError(
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

    `states` tells the form of the detector's states from that of other versions. A UserError in one
    line if the store is missing, empty, damaged, incomplete, too old, held by another process, or
    made by a flow with other settings.
    """
    given = arguments()
    folder = given.recovery_directory
    if folder is None:
        return None
    if not files.is_made(folder):
        raise UserError(
            f"there is no recovery store in {folder}: make one with "
            f"`python -m dataflow recovery {folder}`, or give the right folder."
        )
    store = Store(folder, settings, states, given.process_id or 0)
    files.check(folder, alone=not given.addresses)
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
        raise UserError(
            f"the recovery store {path.parent} is held by another process: stop it, or give this "
            "flow a store of its own."
        ) from None
    except OSError as wrong:
        raise UserError(
            f"the recovery store {path.parent} cannot be written: {wrong.strerror}."
        ) from None
    return lock
