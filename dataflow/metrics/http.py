"""A small web server beside the work of a process: it never takes more than a few threads."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from dataflow.errors import UserError

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

__all__ = ["serve"]

CONNECTIONS = 16
"""Connections at most. The flow needs the process's other files for its broker and its store."""

DEADLINE = 10.0
"""Seconds that a connection may last: an answer takes milliseconds."""

PAUSE = 0.2
"""Seconds until the next attempt if the process has no file left for a connection."""


class _Server(ThreadingMixIn, WSGIServer):
    """Answers each connection in a thread; of too many, it ends the one that has waited longest."""

    daemon_threads = True
    # Connections that wait here need no file of this process.
    request_queue_size = 128

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._began: dict[socket.socket, float] = {}
        """By connection, in the order of their beginnings: when it began."""
        self._asked: set[socket.socket] = set()
        self._changed = threading.Condition()

    def server_bind(self) -> None:
        # HTTPServer's own method looks the address up in DNS, which may block.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def get_request(self) -> Any:
        """Accept a connection as soon as there is room for it."""
        with self._changed:
            while len(self._began) >= CONNECTIONS:
                silent = (it for it in self._began if it not in self._asked)
                _end(next(silent, next(iter(self._began))))
                self._changed.wait(PAUSE)
        try:
            connection, address = super().get_request()
        except OSError:  # socketserver asks again at once
            time.sleep(PAUSE)
            raise
        with self._changed:
            self._began[connection] = time.monotonic()
        return connection, address

    def heard(self, connection: socket.socket) -> None:
        """Note that the request of a connection is complete."""
        with self._changed:
            self._asked.add(connection)

    def service_actions(self) -> None:
        """End what has lasted too long; called twice a second."""
        with self._changed:
            for connection, began in self._began.items():
                if time.monotonic() - began > DEADLINE:
                    _end(connection)

    def close_request(self, request: Any) -> None:
        with self._changed:
            self._began.pop(request, None)
            self._asked.discard(request)
            super().close_request(request)
            self._changed.notify()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: a client that disconnects does not concern the flow."""


def _end(connection: socket.socket) -> None:
    """Wake the thread of a connection, which then closes it."""
    with contextlib.suppress(OSError):  # the client was faster
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(WSGIRequestHandler):
    timeout = DEADLINE
    server: _Server

    def parse_request(self) -> bool:
        complete = super().parse_request()
        if complete:
            self.server.heard(self.connection)
        return complete

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: standard error is for the flow."""


def serve(host: str, port: int, application: WSGIApplication, setting: str) -> None:
    """Answer requests with `application`, in threads, until the process ends.

    Raises `UserError`, which names the setting of the port, if it is taken or the address is not of
    this machine.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]

        class Server(_Server):
            address_family = family

        server = Server(address[:2], _Handler)
    except OSError as error:
        raise UserError(
            f"metrics cannot be served on {host}:{port} ({error.strerror}): give each process an "
            f"{setting} of its own, and set ANOMALY_METRICS_HOST to an address of this "
            "machine."
        ) from None
    server.set_app(application)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
