"""Signs the links by which a verdict may be given, for a few days. Pure."""

from __future__ import annotations

import hashlib
import hmac

from dataflow.records import encode

__all__ = ["is_valid", "signed"]

DAY = 86_400
LASTS = 3 * DAY
"""Seconds for which a link is valid at least: it ends with a day, and is the same for a day."""


def signed(key: str, instance: str, name: str, now: float) -> dict[str, str]:
    """Return what the address of the page says of an anomaly or incident of an instance.

    `name` is its id and `now` the seconds since 1970. An empty key signs nothing.

    >>> signed("", "web-1", "5", 0.0)
    {'fine': '5'}
    >>> asked = signed("secret", "web-1", "5", 1.0)
    >>> asked["until"], is_valid("secret", "web-1", **asked, now=1.0)
    ('345600', True)
    >>> is_valid("secret", "web-2", **asked, now=1.0), is_valid("secret", "web-1", **asked, now=1e6)
    (False, False)
    """
    if not key:
        return {"fine": name}
    until = str((int(now) // DAY + 1) * DAY + LASTS)
    return {"fine": name, "until": until, "signature": _signature(key, instance, name, until)}


def is_valid(key: str, instance: str, fine: str, until: str, signature: str, *, now: float) -> bool:
    """Return whether an address was signed with a key, and is still valid."""
    expected = _signature(key, instance, fine, until)
    if not hmac.compare_digest(expected.encode(), signature.encode()):
        return False
    return now < int(until)  # what was signed is a number


def _signature(key: str, instance: str, name: str, until: str) -> str:
    said = encode((instance, name, until))
    return hmac.new(key.encode(), said, hashlib.sha256).hexdigest()
