"""Guards the recovery store: one flow at a time uses it, and only the flow that owns it.

Bytewax keeps offsets and states in a folder of SQLite files. Beside them are our own files:
`dataflow.json`, which holds the owner's settings and where each output began, and one lock file per
process.
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
from dataflow.recovery import disk, files
from dataflow.runtime.arguments import arguments
from dataflow.settings import PREFIX, Settings
from dataflow.warnings import warn

__all__ = ["FORMAT", "Store", "guard"]

VERSION = 3
"""Version of the store's format: the states of sources, detectors and sinks."""

FORMAT = "format of the records"
"""The name under which `Store.keep` keeps what the format `auto` chose."""

CARRIED_OVER = 2
"""The version before: a flow that resumes from it writes version 3 from then on."""

DECIDE_STATE = (
    *("topic", "partitions", "format", "key_field", "value_field", "time_field", "index_field"),
    *("metric_field", "where", "each", "invert"),
    *("scale", "detector", "seed", "interval", "reorder", "time_zone", "holidays", "together"),
)
"""Settings that the states in a store depend on: they cannot change later."""

DECIDE_INCIDENTS = (
    *("threshold", "least", "incident_anomalies", "incident_readings", "incident_duration"),
    *("incident_quiet", "incident_cooldown", "incident_updates"),
    *("silence", "silence_gone"),
)
"""Settings that incidents depend on: after a crash, the same records must be written again."""

DECIDE_GROUPS = ("group_fields", "group_pattern")
"""Settings that the incidents of groups depend on, once there are groups."""


class _Owner(msgspec.Struct):
    version: int
    id: str
    settings: dict[str, Any]
    states: str
    began: dict[str, Any] = {}


def _carry_format_over(owner: _Owner, decided: dict[str, Any]) -> None:
    """Let the format `auto` go on with a store in JSON, and a name with what `auto` had chosen."""
    before, now = owner.settings["format"], decided["format"]
    if (before, now) == ("json", "auto"):
        owner.began.setdefault(FORMAT, {"format": "json"})
        owner.settings["format"] = now
    elif before == "auto" and owner.began.get(FORMAT) == {"format": now}:
        owner.settings["format"] = now


class Store:
    """A recovery store that this process has locked, until the process ends."""

    def __init__(self, folder: Path, settings: Settings, states: str, process: int) -> None:
        """Lock the store and check its owner.

        Raises `UserError` if another process holds it, or if another flow owns it.
        """
        self._folder = folder
        self.process = process
        self._lock = _lock(folder / f"lock-{process}")
        decided = _fingerprint(settings)
        self.resumed = files.executions(folder) > 0
        """Whether a flow has run on it before."""
        with self._owner() as owner:
            if not self.resumed:
                # No flow has run on it: a start that failed does not make it the owner.
                owner.settings, owner.states = decided, states
            # A store from before formats had names holds readings in JSON.
            owner.settings.setdefault("format", "json")
            for name in ("metric_field", "where", "each", "invert"):
                owner.settings.setdefault(name, Settings.model_fields[name].default)
            if isinstance(owner.settings["where"], tuple):
                owner.settings["where"] = list(owner.settings["where"])
            _carry_format_over(owner, decided)
            # One from before time zones learned its hours in UTC.
            owner.settings.setdefault("time_zone", "")
            owner.settings.setdefault("holidays", "")
            owner.settings.setdefault("together", False)
            if settings.incidents:
                # A store from before these settings existed takes them now.
                for name in (*DECIDE_INCIDENTS, *DECIDE_GROUPS):
                    if name in decided:
                        owner.settings.setdefault(name, decided[name])
            self._compare(owner.settings, decided)
            if owner.states != states:
                raise UserError(
                    f"the recovery store {folder} holds states of another version of the detector "
                    f"{settings.detector}: run the version that wrote it, or start with a new "
                    "store."
                )
            self.id = owner.id

    @contextmanager
    def _owner(self) -> Iterator[_Owner]:
        """Read `dataflow.json`, or create it for a new store; write it back if it changed."""
        path = self._folder / "dataflow.json"
        with open(self._folder / "lock", "a", opener=_private) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # processes of a cluster start at the same time
            text = path.read_bytes() if path.exists() else b""
            if text:
                owner = self._read_owner(text)
            elif files.executions(self._folder):
                raise UserError(
                    f"the recovery store {self._folder} belongs to another program: give this flow "
                    "a store of its own."
                )
            else:
                owner = _Owner(VERSION, uuid.uuid4().hex, {}, "")
            yield owner
            after = msgspec.json.format(msgspec.json.encode(owner)) + b"\n"
            if after != text:
                draft = path.with_suffix(".draft")
                with open(draft, "wb", opener=_private) as file:
                    file.write(after)
                draft.replace(path)

    def _read_owner(self, text: bytes) -> _Owner:
        try:
            owner = msgspec.json.decode(text, type=_Owner)
        except msgspec.DecodeError:
            raise UserError(
                f"the recovery store {self._folder} is damaged (dataflow.json): restore a copy of "
                "the whole store, or start with a new store."
            ) from None
        if owner.version == CARRIED_OVER:
            owner.version = VERSION
        if owner.version != VERSION:
            raise UserError(
                f"the recovery store {self._folder} has the format {owner.version}, and this "
                f"program reads {VERSION}: run the version that wrote it, or start with a new "
                "store."
            )
        return owner

    def _compare(self, stored: dict[str, Any], present: dict[str, Any]) -> None:
        for name, value in present.items():
            if stored.get(name) != value:
                raise UserError(
                    f"the recovery store {self._folder} was made with {PREFIX}{name.upper()}="
                    f"{_shown(stored.get(name))}, and now it is {_shown(value)}: set it back, or "
                    "start with a new store."
                )

    @property
    def folder(self) -> Path:
        """The folder of the store."""
        return self._folder

    def epoch_marks(self) -> list[str]:
        """Return one key for each file of the store: the file holds its states of `EPOCH_STEP`."""
        return files.epoch_marks(self._folder)

    def began(self, output: str, position: Callable[[], Any]) -> Any:
        """Return the position of an output when the owner first wrote to it.

        A flow that is killed before its first snapshot knows only from this what it has written.
        `position` returns the present position, as JSON can hold it.
        """
        with self._owner() as owner:
            if output not in owner.began:
                owner.began[output] = position()
            return owner.began[output]

    def kept(self, name: str) -> Any:
        """Return what `keep` kept under a name, None if it kept nothing."""
        with self._owner() as owner:
            return owner.began.get(name)

    def keep(self, name: str, value: Any) -> None:
        """Keep a value, as JSON can hold it, in place of an earlier one of this name."""
        with self._owner() as owner:
            owner.began[name] = value


def guard(settings: Settings, states: str) -> Store | None:
    """Lock and check the store that the command line names; return None if it names none.

    `states` identifies the format of the detector's states. Raises `UserError` if the store is
    missing, empty, damaged, incomplete, of another format, locked by another process, or owned by a
    flow with other settings.
    """
    given = arguments()
    folder = given.recovery_directory
    if folder is None:
        return None
    if not files.is_made(folder):
        raise UserError(
            f"there is no recovery store in {folder}: create one with "
            f"`python -m dataflow recovery {folder}`, or give the right folder."
        )
    disk.check(folder)
    store = Store(folder, settings, states, given.process_id or 0)
    found = files.writable_by_others(folder)
    if found is not None:
        warn(
            "store-writable",
            f"other users can write to {found}, and anyone who can write to the recovery store can "
            f"run code in the flow: run `chmod -R go-w {folder}`.",
        )
    epoch = files.check(folder, alone=not given.addresses)
    # In a cluster, no process changes the store before all have come this far.
    if epoch is not None and store.process == 0:
        files.forget_unfinished(folder, epoch)
    return store


def _fingerprint(settings: Settings) -> dict[str, Any]:
    names = {*DECIDE_STATE, *(DECIDE_INCIDENTS if settings.incidents else ())}
    if settings.incidents and settings.groups:
        names |= {*DECIDE_GROUPS}
    decided = settings.model_dump(mode="json", include=names)
    place = "kafka" if settings.input == "kafka" else str(Path(settings.input).resolve())
    return {"input": place, **decided}


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _private(path: str | Path, flags: int) -> int:
    """Open a file; if it is new, only this user can read and write it."""
    return os.open(path, flags, 0o600)


def _lock(path: Path) -> int:
    try:
        lock = _private(path, os.O_RDWR | os.O_CREAT)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"the recovery store {path.parent} is in use by another process: stop it, or give this "
            "flow a store of its own."
        ) from None
    except OSError as error:
        raise UserError(
            f"cannot write to the recovery store {path.parent} ({error.strerror}): check its "
            "permissions and its disk."
        ) from None
    return lock
