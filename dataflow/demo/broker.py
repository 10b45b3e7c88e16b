"""The embedded broker: a Kafka-protocol server for demos and tests, without a container.

It is `noida-db` from PyPI (the extra `broker`), one small binary. It is not for production: what
it acknowledged in the last second does not survive a kill -9 of it, and a reader that starts in the
middle of a topic may not be shown what a producer committed after an aborted transaction: a flow
that writes to it and was killed may write some anomalies again when it resumes.
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

from dataflow.errors import UserError

__all__ = ["EmbeddedBroker"]

START_SECONDS = 10.0


class EmbeddedBroker:
    """A broker on 127.0.0.1 that keeps its data in a folder, for the length of a `with`.

    A port of 0 takes a free one; `address` says which.
    """

    def __init__(self, folder: Path, port: int = 0) -> None:
        """Remember where; nothing starts yet."""
        self.folder = folder
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """What ANOMALY_BROKERS must say."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process that serves."""
        return self._running().pid

    def start(self) -> None:
        """Start the broker and wait until it answers; a UserError if it does not."""
        binary = _binary()
        self.port = self.port or _free_port()
        if _listening(self.port):
            raise UserError(f"port {self.port} is taken on 127.0.0.1: give another with --port.")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            log = (self.folder / "broker.log").open("ab")
        except OSError as wrong:
            raise UserError(f"the folder {self.folder} cannot be used: {wrong.strerror}.") from None
        with log:
            self._process = subprocess.Popen(
                [
                    *(str(binary), "start", "--only", "kafka"),
                    *("--kafka-port", str(self.port), "--data-dir", str(self.folder)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for us: the broker must outlive what still writes to it.
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not _listening(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise UserError(
                    f"the embedded broker did not start: {self.folder / 'broker.log'} says why."
                )
            time.sleep(0.01)

    def stop(self) -> None:
        """End the broker, its data saved."""
        process = self._running()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the broker as a crash would."""
        process = self._running()
        process.kill()
        process.wait()

    def wait(self) -> int:
        """Wait until the broker ends by itself."""
        return self._running().wait()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the broker was not started")
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
        raise UserError(
            "the embedded broker is not installed: pip install 'ec2-anomaly-dataflow[broker]'."
        )
    if not os.access(binary, os.X_OK):
        with contextlib.suppress(OSError):
            binary.chmod(binary.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return binary


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


def _listening(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(0.2)
        return client.connect_ex(("127.0.0.1", port)) == 0
