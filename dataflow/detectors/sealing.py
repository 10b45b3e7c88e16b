"""Frames the bytes of a state: version, kind, fingerprint, checksum."""

from __future__ import annotations

from binascii import crc_hqx

__all__ = ["VERSION", "seal", "unseal"]


# The form of the saved bytes: raise it when they change their meaning.
VERSION = 1


def seal(kind: int, fingerprint: bytes, body: bytes) -> bytes:
    """Put 7 bytes before a state's: version and kind, its forest's fingerprint, a checksum."""
    return bytes((VERSION << 4 | kind,)) + fingerprint + crc_hqx(body, 0xFFFF).to_bytes(2) + body


def unseal(kind: int, fingerprint: bytes, data: bytes) -> bytes:
    """Return the body of `seal`'s bytes; ValueError if they are not this forest's."""
    if len(data) < 7:
        raise ValueError(f"Not a half-space trees state: {len(data)} bytes, 7 at the least.")
    if data[0] >> 4 != VERSION:
        raise ValueError(
            f"Half-space trees state of version {data[0] >> 4}; this program reads {VERSION}."
        )
    if data[0] & 15 != kind or data[1:5] != fingerprint:
        raise ValueError(
            "Half-space trees state of another forest: n_trees, height, window_size, limits or "
            "seed differ from the ones it was saved with. Start with those, or without the state."
        )
    if crc_hqx(data[7:], 0xFFFF).to_bytes(2) != data[5:7]:
        raise ValueError("Half-space trees state with a wrong checksum: its bytes were damaged.")
    return data[7:]
