"""Writing bytes whole, whatever signals come."""

from __future__ import annotations

import os

__all__ = ["write_all"]


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`; an OSError if it cannot be.

    A signal may cut a write to a pipe short, and Python's own buffered files then lose what is left
    of it (seen in CPython 3.11: a clean stop left a hole in standard output).
    """
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
