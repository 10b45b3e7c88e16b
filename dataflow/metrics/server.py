"""Serves the metrics and the health of this process: `/metrics`, `/healthz`, `/readyz`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING

from prometheus_client import make_wsgi_app

from dataflow.metrics import counters
from dataflow.metrics.http import serve
from dataflow.runtime.arguments import arguments
from dataflow.settings import Settings

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

__all__ = ["start"]

TIMEOUT = 5.0
"""Seconds to wait for Bytewax's own server."""

_ours = make_wsgi_app()


def start(settings: Settings) -> None:
    """Start to serve this process's metrics, if a port is set.

    Raises `UserError` if the port is taken or the address is not of this machine.
    """
    counters.describe(settings, arguments().recovery_directory)
    host, port = settings.metrics_host, settings.metrics_port
    if port is None:
        return
    serve(host, port, _answer, "ANOMALY_METRICS_PORT")


def _answer(request: WSGIEnvironment, respond: StartResponse) -> Iterable[bytes]:
    match request["PATH_INFO"]:
        case "/metrics":
            return _all_metrics(request, respond)
        case "/healthz":
            status, text = "200 OK", "alive\n"
        case "/readyz" if counters.OPENED:
            status, text = "200 OK", "ready\n"
        case "/readyz":
            status, text = "503 Service Unavailable", "no partition is open yet\n"
        case _:
            status, text = "404 Not Found", "not found: use /metrics, /healthz or /readyz\n"
    respond(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [text.encode()]


def _all_metrics(request: WSGIEnvironment, respond: StartResponse) -> Iterable[bytes]:
    """Answer with our metrics, and with Bytewax's if its own server runs: only it has them."""
    # Bytewax checks only whether the variable is set.
    if "BYTEWAX_DATAFLOW_API_ENABLED" in os.environ:
        port = int(os.environ.get("BYTEWAX_DATAFLOW_API_PORT", "3030"))
        bytewax = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
        try:
            bytewax.request("GET", "/metrics")
            both = bytewax.getresponse().read()
        except (OSError, HTTPException):  # it has not started yet
            pass
        else:
            respond("200 OK", [("Content-Type", "text/plain; version=0.0.4; charset=utf-8")])
            return [both]
        finally:
            bytewax.close()
    ours: Iterable[bytes] = _ours(request, respond)
    return ours
