"""Takes the content out of a raw record: what producers and libraries wrap around it. Pure.

A byte order mark, gzip, the five bytes of a schema registry, and several JSON documents in one
record: an array, or one after another.
"""

from __future__ import annotations

import json
import zlib

import msgspec

from dataflow.formats.base import MAX_READINGS, RecordError

__all__ = ["documents", "elements", "unframed"]

MAX_UNPACKED = 16_777_216
"""Bytes of a record that gzip has packed, at most: a megabyte may unpack to a gigabyte."""

LAYERS = 4
"""Wrappings around one another, at most."""

BOM = b"\xef\xbb\xbf"
GZIP = b"\x1f\x8b\x08"

REGISTRY = 5
"""Bytes that a schema registry's serializer writes first: a zero, and the number of a schema."""

_parts = msgspec.json.Decoder(list[msgspec.Raw]).decode
_any = msgspec.json.Decoder().decode
_scan = json.JSONDecoder().raw_decode


def unframed(value: bytes) -> bytes:
    """Return the content of a record without what is wrapped around it.

    Raises `RecordError` if it is packed and cannot be unpacked, or is too large then.

    >>> unframed(b"\\x00\\x00\\x00\\x00\\x2a" + BOM + b'{"value": 5}')
    b'{"value": 5}'
    """
    for _ in range(LAYERS):
        if value.startswith(BOM):
            value = value[len(BOM) :]
        elif value.startswith(GZIP):
            value = _unpacked(value)
        elif value[:1] == b"\x00" and value[REGISTRY : REGISTRY + 3].startswith((b"{", b"[", BOM)):
            value = value[REGISTRY:]
        else:
            break
    return value


def _unpacked(value: bytes) -> bytes:
    found = b""
    while value.startswith(GZIP):  # packed files may be concatenated
        unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            found += unpack.decompress(value, MAX_UNPACKED + 1 - len(found))
        except zlib.error as error:
            raise RecordError(f"the record is not gzip: {error}", "bad-gzip") from None
        if len(found) > MAX_UNPACKED:
            raise RecordError(
                f"the record unpacks to more than {MAX_UNPACKED:,} bytes", "too-large"
            )
        if not unpack.eof:
            raise RecordError("the record is gzip that ends too early", "bad-gzip")
        value = unpack.unused_data
    return found


def documents(content: bytes) -> list[bytes]:
    """Return the JSON documents of a record, those of an array each for itself.

    Content that is no JSON is returned as it is, for its reader to say what is wrong.

    >>> documents(b'{"a": 1}\\n{"b": 2}\\n'), documents(b'[{"a": 1}, 5]')
    ([b'{"a": 1}', b'{"b": 2}'], [b'{"a": 1}', b'5'])
    """
    head = content[:64].lstrip()[:1]
    if head == b"[":
        return elements(content)
    first, _, rest = content.partition(b"\n")
    if not rest.strip():
        return [content] if _is_one(content) else _apart(content)
    # The first line of one object on several lines does not end it.
    if not first.rstrip().endswith((b"}", b"]")) or _is_one(content):
        return [content]
    found: list[bytes] = []
    for line in content.split(b"\n"):
        if line := line.strip():
            found += elements(line) if line.startswith(b"[") else [line]
    return found


def elements(content: bytes) -> list[bytes]:
    """Return the elements of a JSON array; content that is none, as it is."""
    try:
        parts = _parts(content)
    except (ValueError, RecursionError):
        return [content]
    if len(parts) > MAX_READINGS:
        raise RecordError(f"the record holds over {MAX_READINGS:,} readings", "too-many-readings")
    return [bytes(part) for part in parts]


def _is_one(content: bytes) -> bool:
    try:
        _any(content)
    except RecursionError:
        return True
    except ValueError as error:
        return "trailing characters" not in str(error)
    return True


def _apart(content: bytes) -> list[bytes]:
    """Return JSON objects that follow one another; content that is not only such, as it is."""
    found: list[bytes] = []
    try:
        text = content.decode()
        place = 0
        while place < len(text):
            if text[place] in " \t\r\n":
                place += 1
                continue
            one, end = _scan(text, place)
            if not isinstance(one, dict):
                return [content]
            found.append(text[place:end].encode())
            place = end
    except (ValueError, RecursionError):
        return [content]
    return found
