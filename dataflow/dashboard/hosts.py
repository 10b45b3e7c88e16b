"""The names under which browsers may open the page. Pure.

A page of another site can let its name lead to this machine (DNS rebinding): to the browser, our
server is then that site, and its scripts may read every answer. Only the name in the request tells
the two apart, so each request is held against a list.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

from dataflow.errors import UserError

__all__ = ["Hosts"]

PORTS = {"http": 80, "https": 443}
"""Ports that browsers leave out."""

LOCAL = ("127.0.0.1", "::1", "localhost")
ANY = ("0.0.0.0", "::", "")

_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


class _Address(NamedTuple):
    scheme: str
    host: str
    port: int | None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme and self.scheme + '://'}{host}" + (
            f":{self.port}" if self.port else ""
        )


class Hosts:
    """The names of a server that listens on `host` and `port`, and further `origins`.

    An origin is a name, `metrics.example.org`, with a port if browsers show one,
    `metrics.example.org:8443`, or a whole address, `https://metrics.example.org`. Raises
    `UserError` if one is none of these.

    >>> hosts = Hosts("127.0.0.1", 5006, ["https://metrics.example.org"])
    >>> hosts.wrong("localhost:5006", None, "127.0.0.1") is None
    True
    >>> hosts.wrong("metrics.example.org", "https://metrics.example.org", "127.0.0.1") is None
    True
    >>> hosts.wrong("evil.example:5006", "http://evil.example:5006", "127.0.0.1")
    'evil.example:5006'
    """

    def __init__(self, host: str, port: int, origins: Iterable[str] = ()) -> None:
        self._any = host in ANY
        self._port = port
        names = {host.lower()} - set(ANY)
        if self._any or host in LOCAL:
            names.update(LOCAL)
        if self._any:
            names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        self._origins = {(name, port) for name in names}
        self._hosts: set[tuple[str, int | None]] = set(self._origins)
        if port == PORTS["http"]:
            self._hosts |= {(name, None) for name in names}
        for text in origins:
            for given in text.split(","):
                self._add(given.strip())

    def _add(self, text: str) -> None:
        try:
            # The page may be below a path of its proxy's.
            scheme, host, port = _parsed(text, path=True)
        except ValueError:
            raise UserError(
                f"--origin {text!r} is not a name under which browsers open a page: give a name "
                "such as metrics.example.org, metrics.example.org:8443 or "
                "https://metrics.example.org."
            ) from None
        usual = [PORTS[scheme]] if scheme else PORTS.values()
        places = {(host, port)} if port else {(host, port) for port in usual}
        self._origins |= places
        # A proxy may pass the name on without the port.
        self._hosts |= {(host, None), *places}

    def wrong(self, host: str | None, origin: str | None, local: str) -> str | None:
        """Return the name that is not on the list, as `--origin` takes it; None if all are.

        `host` and `origin` are the request's headers, `local` the address at which it arrived.
        """
        try:
            asked = _parsed(host or "", schemes=("",))
            if asked[1:] not in self._hosts and not self._reached(asked, local):
                return str(asked)
            if origin is None:
                return None
            came = _parsed(origin, schemes=tuple(PORTS))
        except ValueError:
            return ""
        place = (came.host, came.port or PORTS[came.scheme])
        if place in self._origins or self._reached(_Address("", *place), local):
            return None
        return str(came)

    def _reached(self, address: _Address, local: str) -> bool:
        # A browser that asks an address, not a name, has not been led here by another's name.
        return self._any and (address.host, address.port) == (local, self._port)


def _parsed(text: str, schemes: tuple[str, ...] = ("", *PORTS), *, path: bool = False) -> _Address:
    """Split a host, with or without scheme, port and path. Raises `ValueError` if it is none."""
    if re.search(r"[\s\x00-\x1f@?#\\]", text):
        raise ValueError(text)
    scheme, found, rest = text.rpartition("://")
    scheme = scheme.lower()
    if scheme not in schemes or (found and not scheme):
        raise ValueError(text)
    try:
        return _Address(scheme, str(ipaddress.IPv6Address(rest)), None)
    except ValueError:
        parts = urlsplit(f"//{rest}")
    if (parts.path and not path) or parts.netloc.endswith(":") or parts.port == 0:
        raise ValueError(text)
    return _Address(scheme, _name(parts.hostname or ""), parts.port)


def _name(host: str) -> str:
    """Return a name as browsers send it. Raises `ValueError` if it is none."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        name = host.removesuffix(".").encode("idna").decode().lower()
        if not _NAME.fullmatch(name):
            raise ValueError(host) from None
        return name
