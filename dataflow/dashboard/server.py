"""Serves the pages. Browsers send requests to this process only."""

from __future__ import annotations

import ctypes
import gc
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any

import holoviews as hv
import panel as pn
from bokeh.server.server import BaseServer
from bokeh.server.tornado import BokehTornado
from bokeh.util.token import get_session_id
from panel.io.application import build_applications
from panel.io.server import AutoloadJsHandler, DocHandler, WSHandler
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import IOLoop, PeriodicCallback
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import ErrorHandler, RequestHandler
from tornado.websocket import WebSocketClosedError

from dataflow.dashboard.feed import Feed
from dataflow.dashboard.hosts import Hosts
from dataflow.dashboard.instance import instance
from dataflow.dashboard.overview import overview
from dataflow.errors import UserError
from dataflow.warnings import one_line, show

__all__ = ["PAGES", "Served", "serve"]

Served = Any
"""A listening Bokeh server; its `io_loop` runs until it is stopped."""

UNUSED_SCRIPTS = {"bokeh-mathjax", "bokeh-gl"}

PAGES = 32
"""Pages that may be open at the same time: each holds a copy of the table."""

UNUSED = 15_000
"""Milliseconds until a page is forgotten whose browser does not connect, or has disconnected."""

CHECK = 2_000
"""Milliseconds between two looks for such pages."""

PING = 30
"""Seconds between two questions to a browser; one that does not answer is disconnected."""

HEADERS = 15.0
"""Seconds within which a browser must send a request, and between two of a connection."""

WARNED = 20
"""Names at most that are warned about: a client can send a new one with each request."""


def serve(feed: Feed, host: str, port: int, origins: Sequence[str] = ()) -> Served:
    """Return a server that listens. The caller starts `feed`.

    `origins` are further names under which browsers may open the page, as `Hosts` takes them.
    Raises `UserError` if one is not valid, or the address or port is not available.
    """
    pn.extension(inline=False)
    hv.extension("bokeh", logo=False)
    logging.getLogger("bokeh.server.views.ws").setLevel(logging.ERROR)
    logging.getLogger("asyncio").addFilter(_is_news)
    port = port or _free_port(host)
    hosts = Hosts(host, port, origins)
    try:
        sockets = bind_sockets(port, host)
    except OSError as wrong:
        raise UserError(
            f"Cannot listen on {host}:{port} ({wrong.strerror}): choose another with --port or "
            "--host."
        ) from None
    pages = build_applications(
        {"/": lambda: overview(feed), "/instance": lambda: instance(feed)}, title="Anomalies"
    )
    application = _Application(
        pages,
        hosts,
        use_index=False,
        check_unused_sessions_milliseconds=CHECK,
        unused_session_lifetime_milliseconds=UNUSED,
        websocket_ping_interval=PING,
        websocket_compression_level=6,
        websocket_compression_mem_level=5,
        compress_response=True,
        extra_patterns=[
            ("/healthz", _Health, {"problem": feed.problem, "feed": feed}),
            ("/livez", _Health, {"problem": feed.stopped, "feed": feed}),
        ],
        log_function=lambda _handler: None,
    )
    http = HTTPServer(application, idle_connection_timeout=HEADERS, body_timeout=HEADERS)
    http.add_sockets(sockets)
    server = BaseServer(IOLoop.current(), application, http)
    server.start()
    PeriodicCallback(application.free_memory, CHECK).start()
    return server


class _Application(BokehTornado):
    """The pages, for the names on the list only, and so many at a time."""

    def __init__(self, pages: Any, hosts: Hosts, **options: Any) -> None:
        self._hosts = hosts
        self._warned: set[str] = set()
        self._pages = 0
        super().__init__(pages, **options)

    def get_handler_delegate(
        self,
        request: HTTPServerRequest,
        target_class: type[RequestHandler],
        target_kwargs: dict[str, Any] | None = None,
        path_args: list[bytes] | None = None,
        path_kwargs: dict[str, bytes] | None = None,
    ) -> Any:
        """Choose what answers a request; every request comes by here."""
        name = self._hosts.wrong(
            request.headers.get("Host"), request.headers.get("Origin"), _local(request)
        )
        if name is not None:
            self._warn(name)
            target_class, target_kwargs = _Forbidden, {"name": name}
            path_args, path_kwargs = [], {}
        elif issubclass(target_class, DocHandler):
            target_class = _Page
        elif issubclass(target_class, WSHandler):
            target_class = _Socket
        elif issubclass(target_class, AutoloadJsHandler):  # for pages inside others: not here
            target_class, target_kwargs = ErrorHandler, {"status_code": 404}
        return super().get_handler_delegate(
            request, target_class, target_kwargs, path_args, path_kwargs
        )

    def resources(self, absolute_url: str | bool | None = None) -> Any:
        """Return the scripts of a page: without those of formulas and WebGL, which it has not."""
        found = super().resources(absolute_url)
        return found.clone(components=[it for it in found.components if it not in UNUSED_SCRIPTS])

    def is_full(self) -> bool:
        """Return whether as many pages are open as may be."""
        return self._count() >= PAGES

    def _count(self) -> int:
        return sum(len(list(it.sessions)) for it in self.applications.values())

    def free_memory(self) -> None:
        """Return the memory of pages that were closed to the machine."""
        before, self._pages = self._pages, self._count()
        if self._pages < before:
            # Python looks for cycles, and the C library for free pages, rarely in a large process.
            gc.collect()
            trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
            if trim is not None:
                trim(0)

    def _warn(self, name: str) -> None:
        if name and name not in self._warned and len(self._warned) < WARNED:
            self._warned.add(name)
            show(_refusal(name))


class _Forbidden(RequestHandler):
    """Answers a request under a name that is not on the list."""

    def initialize(self, name: str) -> None:
        self._name = name

    def prepare(self) -> None:
        self.set_status(403)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{_refusal(self._name)}\n")


class _Health(RequestHandler):
    """Answers 200, or 503 with the problem in a sentence, if there is one."""

    def initialize(self, problem: Callable[[], str | None], feed: Feed) -> None:
        self._problem = problem
        self._feed = feed

    def get(self) -> None:
        problem = self._problem()
        if problem is not None:
            self.set_status(503)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("Cache-Control", "no-store")
        said = problem or f"{self._feed.condition.title}: {self._feed.fleet.readings:,} readings"
        self.finish(f"{one_line(said)}\n")


class _Page(DocHandler):
    application: _Application

    async def get(self, *args: Any, **kwargs: Any) -> None:
        if not self.application.is_full():
            await super().get(*args, **kwargs)  # type: ignore[misc]
            return
        self.set_status(503)
        # A browser tries again by itself.
        self.set_header("Refresh", "10")
        self.set_header("Retry-After", "10")
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{PAGES} pages are open, which is the limit: close one, or wait.\n")


class _Socket(WSHandler):
    application: _Application

    def check_origin(self, _origin: str) -> bool:
        """Allow it: `_Application` has checked it."""
        return True

    async def _async_open(self, token: str) -> None:
        # Without its page, which has been forgotten, a browser would open one anew.
        if self.application.is_full() and not self._is_open(token):
            self.close(1013, "too many pages are open")
            return
        await super()._async_open(token)

    def _is_open(self, token: str) -> bool:
        wanted = get_session_id(token)
        return any(session.id == wanted for session in self.application_context.sessions)


def _refusal(name: str) -> str:
    if not name:
        return "the request names no valid host: open the page by its address."
    return (
        f"the page is not served under the name {name}: to serve it, restart the dashboard with "
        f"--origin {name}."
    )


def _local(request: HTTPServerRequest) -> str:
    """Return the address of this machine that a request was sent to."""
    stream = getattr(request.connection, "stream", None)
    if stream is None or stream.socket is None:
        return ""
    return str(stream.socket.getsockname()[0])


def _is_news(record: logging.LogRecord) -> bool:
    """Return False for errors of browsers that disconnect during an update."""
    wrong = record.exc_info[1] if record.exc_info else None
    return not isinstance(wrong, WebSocketClosedError | StreamClosedError)


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as server:
        try:
            server.bind((host, 0))
        except OSError as wrong:
            raise UserError(
                f"{host} is not an address of this machine ({wrong.strerror}): choose another with "
                "--host."
            ) from None
        port: int = server.getsockname()[1]
        return port
