"""Frames the bytes of a state: a mark that names their form, a checksum, the state."""

from __future__ import annotations

import zlib
from binascii import crc_hqx
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["BIG_CRC32", "CRC16", "LITTLE_CRC32", "Checksum", "damaged", "seal", "unseal"]


class Checksum(NamedTuple):
    """A checksum and its length in bytes. Stored states have one of the three below each."""

    size: int
    of: Callable[[bytes], bytes]


CRC16 = Checksum(2, lambda body: crc_hqx(body, 0xFFFF).to_bytes(2, "big"))
BIG_CRC32 = Checksum(4, lambda body: zlib.crc32(body).to_bytes(4, "big"))
LITTLE_CRC32 = Checksum(4, lambda body: zlib.crc32(body).to_bytes(4, "little"))


def seal(mark: bytes, body: bytes, checksum: Checksum = BIG_CRC32) -> bytes:
    """Put a mark and the checksum of the body before it.

    >>> seal(b"jump/1 ", b"state")
    b'jump/1 \\xa3\\x93\\xd2\\xfbstate'
    """
    return b"".join((mark, checksum.of(body), body))


def unseal(mark: bytes, data: bytes, detector: str, checksum: Checksum = BIG_CRC32) -> bytes:
    """Return the body that `seal` framed; `detector` is its name, for messages.

    Raises ValueError if the bytes have another mark, or another checksum than they should.
    """
    start = len(mark) + checksum.size
    if not data.startswith(mark) or len(data) < start:
        raise ValueError(
            f"This is not a state of detector {detector!r} in this version and with these "
            f"parameters: it begins with {bytes(data[: len(mark)])!r}, not with {mark!r}. "
            "Continue with the detector, version and parameters that stored it, or start with an "
            "empty recovery store."
        )
    body = data[start:]
    if checksum.of(body) != data[len(mark) : start]:
        raise damaged(data, detector)
    return body


def damaged(data: bytes, detector: str) -> ValueError:
    """Return the error for bytes that have changed since they were stored."""
    return ValueError(
        f"This state of detector {detector!r} is damaged: its {len(data)} bytes are not those "
        "that were stored. Start with an empty recovery store."
    )
