r"""Reads InfluxDB's line protocol: `measurement,tag=value field=1,other="text" time`. Pure.

Written from its specification: commas, spaces and equals signs in names are escaped by a backslash,
text is in double quotes, and a number may end in `i` or `u`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from dataflow.formats.base import RecordError

__all__ = ["Line", "last_of", "lines", "plain_line"]


class Line(NamedTuple):
    """A line: its measurement, tags, fields, its time as the line has it, and its bytes.

    What Telegraf writes as JSON has the same parts.
    """

    name: str
    tags: dict[str, str]
    fields: dict[str, Any]
    time: str | int | float | None
    text: bytes | msgspec.Raw


_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII).fullmatch
_INTEGER = re.compile(r"[+-]?\d{1,20}[iu]", re.ASCII).fullmatch
_TIME = re.compile(r"-?\d{1,20}", re.ASCII).fullmatch
_BOOLEANS = {
    **dict.fromkeys(("t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("f", "F", "false", "False", "FALSE"), False),
}


# Possessive, so that nothing is tried twice.
_NAME = rb'[^\\",= \r\n\t]++'
_EXPONENT = rb"(?:[eE][+-]?+\d++)?+"
_PLAIN_NUMBER = rb"[+-]?+(?:\d{1,20}+(?:[iu]|(?:\.\d*+)?+%b)|\.\d++%b)" % (_EXPONENT, _EXPONENT)
_PLAIN_FIELD = rb"%b=%b" % (_NAME, _PLAIN_NUMBER)
_PLAIN = re.compile(
    rb"((?!#)%b)((?:,%b=%b)*+) (%b(?:,%b)*+) (\d{10,19})"
    % (_NAME, _NAME, _NAME, _PLAIN_FIELD, _PLAIN_FIELD)
).fullmatch


def plain_line(line: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Return the name, tags, fields and time of a line that has nothing but numbers in its fields.

    Each tag and each field is after a comma. Raises `ValueError` for any other line.

    >>> plain_line(b"cpu,host=a idle=58.5,n=4i 1741449600")
    (b'cpu', b',host=a', b',idle=58.5,n=4i', b'1741449600')
    """
    found = _PLAIN(line)
    if found is None:
        raise ValueError
    name, tags, fields, time = found.groups()
    return name, tags, b"," + fields, time


def last_of(pairs: bytes, name: bytes) -> bytes:
    """Return the value of the last pair of a name, which is between a comma and an equals sign.

    Raises `ValueError` if there is none.

    >>> last_of(b",host=a,cpu=cpu0", b",host=")
    b'a'
    """
    begin = pairs.rindex(name) + len(name)
    end = pairs.find(b",", begin)
    return pairs[begin:] if end < 0 else pairs[begin:end]


def lines(content: bytes) -> Iterator[Line | RecordError]:
    """Yield the lines of a record; one that is none is an error, and affects no other.

    >>> text = b'cpu,host=a\\\\ b idle=58.5,n=4i,up=t,os="x y" 17\\ncpu idle=oops 17\\n'
    >>> line, wrong = lines(text)
    >>> line.name, line.tags, line.fields, line.time
    ('cpu', {'host': 'a b'}, {'idle': 58.5, 'n': 4, 'up': True, 'os': 'x y'}, 17)
    >>> str(wrong)
    "the line is not in influx format: 'oops' is no value"
    """
    for text in _texts(content):
        try:
            yield _line(text.decode(), text)
        except UnicodeDecodeError:
            yield RecordError("the line is not UTF-8", "bad-record", part=text)
        except ValueError as error:
            yield RecordError(f"the line is not in influx format: {error}", "bad-record", part=text)


def _texts(content: bytes) -> Iterator[bytes]:
    """Yield the lines that are not empty or comments; quoted text may hold ends of lines."""
    if b'"' not in content:
        parts = content.split(b"\n")
    else:
        parts, open_text = [], b""
        for part in content.split(b"\n"):
            open_text = open_text + b"\n" + part if open_text else part
            if _quotes(open_text) % 2 == 0:
                parts.append(open_text)
                open_text = b""
        if open_text:
            parts.append(open_text)
    for part in parts:
        if (line := part.strip(b" \r\t")) and not line.startswith(b"#"):
            yield line


def _quotes(text: bytes) -> int:
    return text.count(b'"') - text.count(b'\\"')


def _line(text: str, raw: bytes) -> Line:
    if "\\" not in text and '"' not in text:
        series, _, rest = text.partition(" ")
        fields, _, time = rest.strip().partition(" ")
        name, *tags = series.split(",")
        pairs = dict(_pair(tag) for tag in tags)
        values = {key: _value(value) for key, value in map(_pair, fields.split(","))}
    else:
        head, place = _until(text, 0, " ")
        name, *tags = _split(head, ",")
        pairs = {_plain(key): _plain(value) for key, value in map(_escaped_pair, tags)}
        values, place = _fields(text, place)
        name, time = _plain(name), text[place:]
    if not name:
        raise ValueError("it begins with no name")
    time = time.strip()
    if time and not _TIME(time):
        raise ValueError(f"{time[:40]!r} is no time")
    return Line(name, pairs, values, int(time) if time else None, raw)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and value) or "=" in value:
        raise ValueError(f"{text[:40]!r} is no name and value")
    return key, value


def _escaped_pair(text: str) -> tuple[str, str]:
    parts = _split(text, "=")
    if len(parts) != 2 or not all(parts):
        raise ValueError(f"{text[:40]!r} is no name and value")
    return parts[0], parts[1]


def _split(text: str, separator: str) -> list[str]:
    """Split a text where a separator is not escaped."""
    parts, start, place = [], 0, 0
    while place < len(text):
        if text[place] == "\\":
            place += 2
            continue
        if text[place] == separator:
            parts.append(text[start:place])
            start = place + 1
        place += 1
    return [*parts, text[start:]]


def _until(text: str, place: int, separator: str) -> tuple[str, int]:
    """Return the text up to a separator that is not escaped, and the place after it."""
    start = place
    while place < len(text) and text[place] != separator:
        place += 2 if text[place] == "\\" else 1
    return text[start:place], place + 1


def _plain(text: str) -> str:
    return re.sub(r"\\([,= ])", r"\1", text)


def _fields(text: str, place: int) -> tuple[dict[str, str | int | float | bool], int]:
    values: dict[str, str | int | float | bool] = {}
    while place < len(text) and text[place] == " ":
        place += 1
    while True:
        key, place = _until(text, place, "=")
        if not key or place > len(text):
            raise ValueError("a field has no value")
        if text[place : place + 1] == '"':
            start = place = place + 1
            while place < len(text) and text[place] != '"':
                place += 2 if text[place] == "\\" else 1
            if place >= len(text):
                raise ValueError("a text has no end")
            values[_plain(key)] = re.sub(r'\\(["\\])', r"\1", text[start:place])
            place += 1
        else:
            start = place
            while place < len(text) and text[place] not in ", ":
                place += 1
            values[_plain(key)] = _value(text[start:place])
        if text[place : place + 1] != ",":
            return values, place
        place += 1


def _value(text: str) -> str | int | float | bool:
    if _NUMBER(text):
        return float(text)
    if _INTEGER(text):
        return int(text[:-1])
    try:
        return _BOOLEANS[text]
    except KeyError:
        raise ValueError(f"{text[:40]!r} is no value") from None
