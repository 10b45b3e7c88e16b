"""One JSON POST, and what its answer means for whoever must deliver.

Python's own client is enough for it: it checks certificates against the system's authorities and
heeds the proxies of the environment; when to try again is decided by the caller, who never gives
up. Redirects are not followed: they would turn the POST into a GET and drop the record.
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
"""Seconds for a connection, and for each wait while talking on it."""

WRONG_RECORD = frozenset({400, 406, 411, 413, 414, 415, 422, 431})
"""Answers that the same record will always get; all others may be mended at the other end."""

LONGEST_WAIT = 3600.0
"""Seconds that a Retry-After may ask for."""


@dataclass(frozen=True)
class Answer:
    """What a receiver said: the HTTP status, None if it did not answer, and why in words.

    `wait` are the seconds for which it asks to be left alone.
    """

    status: int | None
    reason: str
    wait: float = 0.0

    @property
    def took(self) -> bool:
        """Whether the record has been delivered."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def never(self) -> bool:
        """Whether this record will never be taken."""
        return self.status in WRONG_RECORD


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect)


def host(address: str) -> str:
    """Return what may be shown of an address: the rest may be a secret.

    >>> host("https://user:pass@hooks.example:8443/services/T0/SECRET")
    'hooks.example:8443'
    """
    return urlsplit(address).netloc.rpartition("@")[2]


def post(address: str, body: object, key: str) -> Answer:
    """Post a body as JSON; what goes wrong is in the answer, without the address.

    `key` is sent as the header Idempotency-Key. User and password in the address go into a header.
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
    # Some errors repeat the address, which may be a secret.
    if isinstance(error, ssl.SSLError):
        return str(getattr(error, "verify_message", "") or error.reason or "TLS failed")
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__


def _wait(given: str | None) -> float:
    """Read a Retry-After: seconds, or a date."""
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
