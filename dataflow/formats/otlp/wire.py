"""Walks through protobuf messages without their schema: numbers of fields, and their bytes. Pure.

Only what OTLP needs, and far fewer steps than decoding every message to an object: a metric that is
not asked for is stepped over by its length.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

__all__ = [
    "BYTES",
    "FIXED64",
    "VARINT",
    "double",
    "integer",
    "scan",
    "time_and_value",
    "value_and_time",
    "varint",
]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

double = Struct("<d").unpack_from
integer = Struct("<Q").unpack_from
time_and_value = Struct("<Qxd").unpack_from
value_and_time = Struct("<dxQ").unpack_from

Field = tuple[int, int, int, int]
"""A field: its number, its wire type, and where its content begins and ends; of a varint, its
value stands in place of the beginning."""


def varint(data: bytes, place: int, end: int) -> tuple[int, int]:
    """Return the number at a place, and the place after it. Raises `ValueError` if it has no end.

    >>> varint(b"\\xac\\x02", 0, 2)
    (300, 2)
    """
    value = shift = 0
    while place < end:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            break
    raise ValueError("a number has no end")


def scan(data: bytes, place: int, end: int) -> Iterator[Field]:
    """Yield the fields of the message between two places. Raises `ValueError` if it is none.

    >>> list(scan(b"\\x08\\x96\\x01\\x12\\x02hi", 0, 7))
    [(1, 0, 150, 3), (2, 2, 5, 7)]
    """
    while place < end:
        tag = data[place]
        place += 1
        if tag >= 0x80:
            tag, place = varint(data, place - 1, end)
        number, kind = tag >> 3, tag & 7
        if not number:
            raise ValueError("a field has the number 0")
        if kind == BYTES:
            if place >= end:
                raise ValueError("a field has no length")
            size = data[place]
            place += 1
            if size >= 0x80:
                size, place = varint(data, place - 1, end)
            begin, place = place, place + size
        elif kind == FIXED64:
            begin, place = place, place + 8
        elif kind == VARINT:
            begin, place = varint(data, place, end)
        elif kind == FIXED32:
            begin, place = place, place + 4
        else:
            raise ValueError(f"a field has the unknown type {kind}")
        if place > end:
            raise ValueError("a field is longer than its message")
        yield number, kind, begin, place
