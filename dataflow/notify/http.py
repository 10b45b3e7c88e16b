"""One JSON POST, and what its answer means for the delivery; one GET of JSON.

Python's own client is enough: it checks certificates against the authorities of the system and uses
the proxies of the environment. The caller decides when to retry. Redirects are not followed: they
would turn the POST into a GET and drop the record.

The client only limits each read and write, so a server that sends a byte now and then could hold it
for hours. Each request therefore runs in a thread of its own, which is left and its connection shut
down when the time is over or the process is to end. The body of the answer to a POST is not read,
unless the caller asks for the beginning of that of an error.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import http.client
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from dataflow.records import encode

__all__ = ["Answer", "get", "host", "in_time", "post"]

TIMEOUT = 10.0
"""Seconds for the whole request: finding the host, connecting, sending, and the answer."""

GRACE = 1.0
"""Seconds that a request in flight still has when the process is to end."""

CHECK = 0.05
"""Maximum seconds until a request in flight notices that the process is to end."""

WRONG_RECORD = frozenset({400, 406, 411, 413, 414, 415, 422, 431})
"""Statuses that the same record always gets. All others may change, so they are retried."""

LONGEST_WAIT = 3600.0
"""Seconds of a Retry-After at most."""


@dataclass(frozen=True)
class Answer:
    """The HTTP status, None if there was no answer, and the reason in words.

    `wait` is the number of seconds that a Retry-After asks for, else 0. `text` is the body of the
    answer to a GET, or the beginning of that of an error, if the caller asked for it.
    """

    status: int | None
    reason: str
    wait: float = 0.0
    text: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the record is delivered: a status from 200 to 299."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def rejected(self) -> bool:
        """Whether the target will never accept this record, so that a retry is useless."""
        return self.status in WRONG_RECORD


class _Request(urllib.request.Request):
    """A request whose connection another thread can shut down."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        self._abandoned = False

    def connected(self, connection: socket.socket) -> None:
        """Keep a second handle of the connection: TLS takes the first one over."""
        with self._lock:
            if self._abandoned:
                raise TimeoutError
            self._connection = connection.dup()

    def abandon(self) -> None:
        """End the request: whatever waits for its connection gets an error."""
        with self._lock:
            self._abandoned = True
            if self._connection is not None:
                with contextlib.suppress(OSError):  # the server may have closed it
                    self._connection.shutdown(socket.SHUT_RDWR)
                self._connection.close()


class _Connection(http.client.HTTPConnection):
    request_of_it: _Request

    def connect(self) -> None:
        super().connect()
        self.request_of_it.connected(self.sock)


class _TLSConnection(http.client.HTTPSConnection, _Connection):
    """`HTTPSConnection.connect` calls `_Connection.connect`, then begins TLS."""


class _Handler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    def do_open(self, http_class: Any, req: Any, **arguments: Any) -> Any:
        kind = _TLSConnection if http_class is http.client.HTTPSConnection else _Connection

        def connection(*args: Any, **kwargs: Any) -> http.client.HTTPConnection:
            opened = kind(*args, **kwargs)
            opened.request_of_it = req
            return opened

        return super().do_open(connection, req, **arguments)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect, _Handler)


def host(address: str) -> str:
    """Return the host and port of an address; the rest may be a secret.

    >>> host("https://user:pass@hooks.example:8443/services/T0/SECRET")
    'hooks.example:8443'
    """
    return urlsplit(address).netloc.rpartition("@")[2]


def post(
    address: str,
    body: object,
    key: str | None = None,
    stop: threading.Event | None = None,
    *,
    content_type: str = "application/json",
    read: int = 0,
) -> Answer:
    """Post a body as JSON. The answer holds any error, without the address.

    It takes at most 10 s, and at most one second once `stop` is set. `key` is sent as the header
    Idempotency-Key. User and password of the address become a header. Of the body of an error, as
    many bytes are read as `read` says.
    """
    headers = {"Content-Type": content_type}
    if key is not None:
        headers["Idempotency-Key"] = key
    return _ask("POST", address, encode(body), headers, stop, read)


def get(address: str, stop: threading.Event | None = None, *, read: int) -> Answer:
    """Get a body of at most as many bytes as `read` says; the rest is as for `post`."""
    return _ask("GET", address, None, {}, stop, read)


def _ask(
    method: str,
    address: str,
    body: bytes | None,
    headers: dict[str, str],
    stop: threading.Event | None,
    read: int,
) -> Answer:
    parts = urlsplit(address)
    headers["User-Agent"] = "ec2-anomaly-dataflow"
    if "@" in parts.netloc:
        user, _, password = parts.netloc.rpartition("@")[0].partition(":")
        login = f"{unquote(user)}:{unquote(password)}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
        address = urlunsplit(parts._replace(netloc=host(address)))
    try:
        request = _Request(address, body, headers, method=method)
    except ValueError as error:
        return Answer(None, _words(error))
    answer = in_time(lambda: _answer(request, read), stop)
    request.abandon()
    return answer


def in_time(ask: Callable[[], Answer], stop: threading.Event | None) -> Answer:
    """Ask in a thread of its own, which is left after 10 s, or a second after `stop` is set."""
    answers: list[Answer] = []
    thread = threading.Thread(target=lambda: answers.append(ask()), name="post", daemon=True)
    deadline = time.monotonic() + TIMEOUT
    thread.start()
    while thread.is_alive() and time.monotonic() < deadline:
        thread.join(CHECK)
        if stop is not None and stop.is_set():
            deadline = min(deadline, time.monotonic() + GRACE)
            stop = None
    # Before a connection is shut down, which may look like the end of the answer.
    return answers[0] if answers else Answer(None, "no answer in time")


def _answer(request: _Request, read: int) -> Answer:
    try:
        with _opener.open(request, timeout=TIMEOUT) as response:
            got = response.read(read) if request.get_method() == "GET" else b""
            return Answer(response.status, str(response.reason), text=got.decode(errors="replace"))
    except urllib.error.HTTPError as error:
        with error:
            wait = _wait(error.headers.get("Retry-After"))
            text = error.read(read).decode(errors="replace") if read else ""
            return Answer(error.code, f"status {error.code}", wait, text)
    except urllib.error.URLError as error:
        return Answer(None, _words(error.reason))
    except (OSError, http.client.HTTPException, ValueError) as error:
        return Answer(None, _words(error))


def _words(error: object) -> str:
    # Some errors contain the address, which may be a secret.
    if isinstance(error, ssl.SSLError):
        return str(getattr(error, "verify_message", "") or error.reason or "TLS failed")
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, http.client.RemoteDisconnected):
        return "it closes the connection without an answer"
    if isinstance(error, http.client.HTTPException):
        return "its answer is not HTTP"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__


def _wait(given: str | None) -> float:
    """Return the seconds of a Retry-After, which may be a number or a date."""
    if given is None:
        return 0.0
    if given.strip().isascii() and given.strip().isdigit():
        seconds = float(given)
    else:
        try:
            seconds = email.utils.parsedate_to_datetime(given).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return min(max(seconds, 0.0), LONGEST_WAIT)
