"""Serves the pages. Browsers send requests to this process only."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from typing import Any

import holoviews as hv
import panel as pn
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClosedError

from dataflow.dashboard.feed import Feed
from dataflow.dashboard.instance import instance
from dataflow.dashboard.overview import overview
from dataflow.errors import UserError

__all__ = ["Served", "serve"]

Served = Any
"""A listening Bokeh server; its `io_loop` runs until it is stopped."""


def serve(feed: Feed, host: str, port: int, origins: Sequence[str] = ()) -> Served:
    """Return a server that listens. The caller starts `feed`.

    `origins` are further names, as `host:port`, under which browsers may open the page; a page of
    another origin cannot read the data. Raises `UserError` if the address or port is not available.
    """
    pn.extension("tabulator", inline=False)
    hv.extension("bokeh", logo=False)
    for name in ("tornado.access", "bokeh.server.views.ws"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("asyncio").addFilter(_is_news)
    pages: dict[str, Any] = {
        "/": lambda: overview(feed),
        "/instance": lambda: instance(feed),
    }
    port = port or _free_port(host)
    try:
        return pn.io.server.get_server(
            pages,
            address=host,
            port=port,
            websocket_origin=[*_names(host, port), *origins],
            title="Anomalies",
            use_index=False,
        )
    except OSError as wrong:
        raise UserError(
            f"Cannot listen on {host}:{port} ({wrong.strerror}): choose another with --port or "
            "--host."
        ) from None


def _is_news(record: logging.LogRecord) -> bool:
    """Return False for errors of browsers that disconnect during an update."""
    wrong = record.exc_info[1] if record.exc_info else None
    return not isinstance(wrong, WebSocketClosedError | StreamClosedError)


def _names(host: str, port: int) -> list[str]:
    names = {host}
    if host in ("127.0.0.1", "localhost", "0.0.0.0", "::", "::1"):
        names |= {"127.0.0.1", "localhost"}
    if host in ("0.0.0.0", "::"):
        names.add(socket.gethostname().lower())
        names.add(socket.getfqdn().lower())
    return sorted(f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name in names)


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
