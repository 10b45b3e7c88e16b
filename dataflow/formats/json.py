"""Flat JSON objects: the format of the tutorial, one reading per record."""

from __future__ import annotations

import math
from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeVar

import msgspec

from dataflow.formats.base import (
    MAX_INDEX,
    MAX_INSTANCE_LENGTH,
    Fields,
    Format,
    Point,
    RecordError,
    Reject,
)
from dataflow.records import Raw, Reading, Rejected, seconds

__all__ = ["Json"]

CACHED = 8192
"""Maximum number of parsed times, and of parsed indexes, that are cached."""

CACHED_LENGTH = 64
"""Maximum length of a cached text, in characters."""

_parse_number = msgspec.json.Decoder(int | float).decode

T = TypeVar("T")


class _Parsed(dict[str, T]):
    """A cache of parsed texts: readings of other instances have the same times and indexes.

    It is emptied when full, so hostile input cannot fill the memory.
    """

    def __init__(self, parse: Callable[[str], T]) -> None:
        super().__init__()
        self._parse = parse

    def __missing__(self, text: str) -> T:
        value = self._parse(text)
        if len(text) <= CACHED_LENGTH:
            if len(self) >= CACHED:
                self.clear()
            self[text] = value
        return value


class Json(Format):
    """Reads `{"index": 0, "timestamp": "2014-02-14 14:30:00", "value": 13.2, "instance": "i-1"}`.

    The settings name the fields; further fields are ignored. Numbers may be text.

    >>> fields = Fields("instance", "timestamp", "index", "value", None, 100.0)
    >>> Json(fields).read(b'{"index": "7", "timestamp": 0, "value": "13.2", "instance": "i-1"}')
    Point(instance='i-1', value=13.2, time=0, index=7)
    """

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        # Not strict: numbers may be text, as the tutorial's producer writes them.
        self._parse: Callable[[bytes], Any] = msgspec.json.Decoder(
            _metric(fields), strict=False
        ).decode
        key_type = msgspec.defstruct("Key", [("key", str)], rename={"key": fields.key or "key"})
        self._parse_key = msgspec.json.Decoder(key_type).decode

    def read(self, value: bytes) -> Point:
        """Read a record; `RecordError` says what is wrong with it."""
        reading = self.decoder(_raise)(Raw(0, 0, value))
        assert isinstance(reading, Reading)
        return Point(reading.instance, reading.value, reading.timestamp, reading.index)

    def key(self, value: bytes) -> str | None:
        """Return the instance of a record, None if it has none; its other fields may be wrong."""
        if self.fields.key is None:
            return self.fields.only_instance
        try:
            key: str = self._parse_key(value).key  # type: ignore[attr-defined]
        except (ValueError, RecursionError):
            return None
        return key

    def decoder(self, reject: Reject) -> Callable[[Raw], Reading | Rejected]:
        """Return the function that reads a record: one call, as every record passes it."""
        fields, parse = self.fields, self._parse
        scale = fields.scale
        low, high = (-math.inf, math.inf) if scale is None else (0.0, scale)
        time_of: Callable[[Any], float | None] = seconds if fields.time else lambda _: None
        times, indexes = _Parsed(seconds), _Parsed(_number)

        def decode(raw: Raw) -> Reading | Rejected:
            try:
                read = parse(raw.value)  # type: ignore[arg-type]  # None is rejected below
                instance, index, value = read.instance, read.index, read.value
                # NaN and the infinities fail one of these comparisons.
                if (
                    low <= value <= high
                    and value - value == 0.0
                    and 0 < len(instance) <= MAX_INSTANCE_LENGTH
                ):
                    timestamp = read.timestamp
                    time = times[timestamp] if timestamp.__class__ is str else time_of(timestamp)
                    if index.__class__ is str:
                        index = indexes[index]
                    elif not abs(index) < MAX_INDEX:
                        raise ValueError
                    return Reading(
                        instance, timestamp, index, value, time, raw.partition, raw.offset
                    )
            except Exception:
                pass
            return reject(raw, *_reason(raw.value, fields))

        return decode


def _raise(raw: Raw, reason: str, sentence: str) -> Rejected:
    raise RecordError(sentence, reason)


def _number(text: str) -> str | int | float:
    """Return an index as a number if it is one. Raises `ValueError` if it is too long."""
    if len(text) > MAX_INSTANCE_LENGTH:
        raise ValueError
    if text.isdecimal() and text.isascii() and len(text) <= 18:
        return int(text)
    try:
        number: int | float = _parse_number(text)
    except ValueError:
        return text
    return number


def _metric(fields: Fields) -> type[msgspec.Struct]:
    """Return the type that records are decoded to; fields that records lack are constants of it."""
    names = {
        "instance": fields.key,
        "timestamp": fields.time,
        "index": fields.index,
        "value": fields.value,
    }
    kinds = {"instance": str, "value": float}
    constants: dict[str, Any] = {"instance": fields.only_instance, "timestamp": None}
    if fields.time == fields.index:  # msgspec cannot decode one field twice
        del names["timestamp"]
        constants["timestamp"] = property(attrgetter("index"))
    rename = {name: field for name, field in names.items() if field is not None}
    return msgspec.defstruct(
        "Metric",
        [(name, kinds.get(name, str | int | float)) for name in rename],
        rename=rename,
        namespace={name: value for name, value in constants.items() if name not in rename},
        gc=False,
    )


def _reason(value: bytes | None, fields: Fields) -> tuple[str, str]:
    """Return the reason for a rejection and a sentence: slow, field by field."""
    names = fields.key, fields.time, fields.index, fields.value
    key_field, time_field, index_field, value_field = names
    if value is None:
        return "no-value", "the record has no value (a tombstone)"
    if not value.strip():
        return "no-value", "the record is empty"
    try:
        record = msgspec.json.decode(value)
    except RecursionError:
        return "not-json", "the record is nested too deeply"
    except UnicodeDecodeError:
        return "not-json", "the record is not UTF-8"
    except ValueError as error:  # msgspec's errors are ValueErrors
        return "not-json", f"the record is not JSON: {error}"
    if not isinstance(record, dict):
        return "not-an-object", f"the record is {_kind(record)}, not a JSON object"
    for field in names:
        if field is not None and field not in record:
            return "missing-field", f"the field {field!r} is missing"
    reason = (
        (key_field and _instance_reason(record[key_field], key_field))
        or _value_reason(record[value_field], value_field, fields.scale)
        or (time_field and _time_reason(record[time_field], time_field))
    )
    if reason:
        return reason
    index = record[index_field]
    if isinstance(index, bool) or not isinstance(index, (str, int, float)):
        return "bad-index", f"{index_field!r} is {_kind(index)}, neither a number nor text"
    return "bad-index", f"{index_field!r} is too large"


def _instance_reason(instance: Any, field: str) -> tuple[str, str] | None:
    if not isinstance(instance, str):
        return "bad-instance", f"{field!r} is {_kind(instance)}, not text"
    if not instance:
        return "bad-instance", f"{field!r} is empty"
    if len(instance) > MAX_INSTANCE_LENGTH:
        return "bad-instance", f"{field!r} is longer than {MAX_INSTANCE_LENGTH} characters"
    return None


def _time_reason(timestamp: Any, field: str) -> tuple[str, str] | None:
    if isinstance(timestamp, bool) or not isinstance(timestamp, (str, int, float)):
        return "bad-timestamp", f"{field!r} is {_kind(timestamp)}, not a time"
    try:
        seconds(timestamp)
    except (ValueError, OverflowError):
        return "bad-timestamp", f"{field!r} cannot be read as a time: {_shown(timestamp)}"
    return None


def _value_reason(number: Any, field: str, scale: float | None) -> tuple[str, str] | None:
    if isinstance(number, bool) or not isinstance(number, (str, int, float)):
        return "not-a-number", f"{field!r} is {_kind(number)}, not a number"
    try:
        number = float(number)
    except ValueError:
        return "not-a-number", f"{field!r} is not a number: {_shown(number)}"
    except OverflowError:
        return "not-a-number", f"{field!r} is too large for a number"
    if not math.isfinite(number):
        return "not-a-number", f"{field!r} is not a finite number"
    if scale is not None and not 0 <= number <= scale:
        return "out-of-range", f"{field!r} is {number:.12g}, outside 0 to {scale:.12g}"
    return None


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "text", bool: "true or false"}
    return "null" if value is None else names.get(type(value), "a number")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
