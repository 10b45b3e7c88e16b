"""The embedded broker: a Kafka-protocol server for demos and tests, without a container.

It is `noida-db` from PyPI (the extra `broker`), one small binary. Do not use it in production:

- A `kill -9` of the broker loses the records that it acknowledged in the last second.
- A consumer that starts in the middle of a topic may miss records that a producer committed after
  an aborted transaction. A flow that writes to it and is killed may therefore write some anomalies
  again when it resumes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import time
from importlib import resources
from pathlib import Path
from types import TracebackType

from dataflow.errors import UserError, missing_extra

__all__ = ["EmbeddedBroker", "listening"]

START_SECONDS = 60.0
"""How long the broker may take to accept connections."""


class EmbeddedBroker:
    """A broker on 127.0.0.1 that keeps its data in a folder and runs inside a `with` block.

    Port 0 selects a free port; `address` has the port that was selected.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        """Set the folder and the port. The broker does not start yet."""
        self.folder = folder
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """The value for ANOMALY_BROKERS: `host:port`."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the broker."""
        return self._running().pid

    def start(self) -> None:
        """Start the broker and wait until it accepts connections.

        Raises `UserError` if the extra is missing, the port is in use, the folder is not writable
        or the broker does not answer within a minute.
        """
        binary = _binary()
        self.port = self.port or _free_port()
        if listening(self.port):
            raise UserError(
                f"Port {self.port} on 127.0.0.1 is already in use: choose another with --port."
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            log = (self.folder / "broker.log").open("ab")
        except OSError as wrong:
            raise UserError(
                f"Cannot write to the folder {self.folder} ({wrong.strerror}): choose another with "
                "--data-dir."
            ) from None
        with log:
            self._process = subprocess.Popen(
                [
                    *(str(binary), "start", "--only", "kafka"),
                    *("--kafka-port", str(self.port), "--data-dir", str(self.folder)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C must not end the broker while clients still write to it.
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not listening(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise UserError(
                    f"The embedded broker did not start: see {self.folder / 'broker.log'}."
                )
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop the broker; it saves its data first. Kill it after 10 seconds."""
        process = self._running()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill the broker, as a crash would."""
        process = self._running()
        process.kill()
        process.wait()

    def wait(self) -> int:
        """Wait until the broker exits, and return its exit status."""
        return self._running().wait()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("The broker is not started.")
        return self._process

    def __enter__(self) -> EmbeddedBroker:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._running().poll() is None:
            self.stop()


def _binary() -> Path:
    try:
        binary = Path(str(resources.files("noida_db").joinpath("noida-db")))
    except ModuleNotFoundError:
        binary = Path()
    if not binary.is_file():
        raise missing_extra("The embedded broker", "broker")
    if not os.access(binary, os.X_OK):
        with contextlib.suppress(OSError):
            binary.chmod(binary.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return binary


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


def listening(port: int) -> bool:
    """Return whether a program listens on a port of 127.0.0.1."""
    with socket.socket() as client:
        client.settimeout(0.2)
        return client.connect_ex(("127.0.0.1", port)) == 0
