"""One JSON POST, and what its answer means for the delivery.

Python's own client is enough: it checks certificates against the authorities of the system and uses
the proxies of the environment. The caller decides when to retry. Redirects are not followed: they
would turn the POST into a GET and drop the record.
"""

from __future__ import annotations

import base64
import email.utils
import http.client
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from dataflow.records import encode

__all__ = ["Answer", "host", "post"]

TIMEOUT = 10.0
"""Seconds for connecting, and for each read and write."""

WRONG_RECORD = frozenset({400, 406, 411, 413, 414, 415, 422, 431})
"""Statuses that the same record always gets. All others may change, so they are retried."""

LONGEST_WAIT = 3600.0
"""Seconds of a Retry-After at most."""


@dataclass(frozen=True)
class Answer:
    """The HTTP status, None if there was no answer, and the reason in words.

    `wait` is the number of seconds that a Retry-After asks for, else 0.
    """

    status: int | None
    reason: str
    wait: float = 0.0

    @property
    def accepted(self) -> bool:
        """Whether the record is delivered: a status from 200 to 299."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def rejected(self) -> bool:
        """Whether the target will never accept this record, so that a retry is useless."""
        return self.status in WRONG_RECORD


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect)


def host(address: str) -> str:
    """Return the host and port of an address; the rest may be a secret.

    >>> host("https://user:pass@hooks.example:8443/services/T0/SECRET")
    'hooks.example:8443'
    """
    return urlsplit(address).netloc.rpartition("@")[2]


def post(address: str, body: object, key: str) -> Answer:
    """Post a body as JSON. The answer holds any error, without the address.

    `key` is sent as the header Idempotency-Key. User and password of the address become a header.
    """
    parts = urlsplit(address)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "ec2-anomaly-dataflow",
        "Idempotency-Key": key,
    }
    if "@" in parts.netloc:
        user, _, password = parts.netloc.rpartition("@")[0].partition(":")
        login = f"{unquote(user)}:{unquote(password)}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(login).decode()}"
        address = urlunsplit(parts._replace(netloc=host(address)))
    try:
        request = urllib.request.Request(address, encode(body), headers, method="POST")
        with _opener.open(request, timeout=TIMEOUT) as response:
            return Answer(response.status, str(response.reason))
    except urllib.error.HTTPError as error:
        with error:
            wait = _wait(error.headers.get("Retry-After"))
            return Answer(error.code, f"status {error.code}", wait)
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
