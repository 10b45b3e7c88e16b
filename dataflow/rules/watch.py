"""Looks at the file of rules while the flow runs, and says what it holds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

__all__ = ["LARGEST", "Watch", "read"]

LOOK = 2.0
"""Seconds between two looks at the file."""

LARGEST = 2**20
"""Bytes of a file of rules at most."""


def read(path: Path) -> bytes:
    """Return the content of the file. Raises `ValueError` with a sentence."""
    try:
        if path.exists() and not path.is_file():  # a pipe would wait for its writer
            raise ValueError("it is not a regular file")
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise ValueError(f"it cannot be read ({error.strerror})") from None
    if len(content) > LARGEST:
        raise ValueError(f"it is larger than {LARGEST // 2**20} MiB")
    return content


class Watch:
    """Calls `changed` with what a file holds once it stays the same for two looks.

    So no half of a file is taken that is just being written. What cannot be read comes as the
    sentence that says so.
    """

    def __init__(self, path: Path, changed: Callable[[bytes | str], object], known: object) -> None:
        """`known` is what the caller knows of already."""
        self._path = path
        self._changed = changed
        self._known = known
        self._seen: object = known
        self._mark: object = None

    def start(self) -> None:
        """Look every few seconds from now on, in a thread."""
        threading.Thread(target=self._run, name="rules", daemon=True).start()

    def _run(self) -> None:
        wait = threading.Event()
        while not wait.wait(LOOK):
            self.look()

    def look(self) -> None:
        """Look at the file once."""
        mark = self._stat()
        if mark is not None and mark == self._mark:
            return
        found: bytes | str
        try:
            found = read(self._path)
        except ValueError as error:
            found = str(error)
        if found != self._seen:
            self._seen = found
            return
        # Only what was read twice need not be read again. A symbolic link of Kubernetes leads to
        # another file then.
        self._mark = mark
        if found != self._known:
            self._known = found
            self._changed(found)

    def _stat(self) -> object:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size
