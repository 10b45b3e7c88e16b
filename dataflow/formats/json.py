"""Flat JSON objects: the format of the tutorial, one reading per record."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeGuard, TypeVar

import msgspec

from dataflow.formats.base import (
    MAX_INDEX,
    MAX_INSTANCE_LENGTH,
    Fields,
    Format,
    Point,
    RecordError,
    Reject,
    short,
)
from dataflow.records import Raw, Reading, Rejected, number, seconds

__all__ = ["Json"]

CACHED = 8192
"""Maximum number of parsed times, and of parsed indexes, that are cached."""

CACHED_LENGTH = 64
"""Maximum length of a cached text, in characters."""

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
        self.names = (
            repr(fields.key),
            repr(fields.value),
            repr(fields.time),
            repr(fields.index),
        )
        # Not strict: numbers may be text, as the tutorial's producer writes them.
        self._parse: Callable[[bytes], Any] = msgspec.json.Decoder(
            _metric(fields), strict=False
        ).decode
        key_type = msgspec.defstruct("Key", [("key", str)], rename={"key": fields.key or "key"})
        self._parse_key = msgspec.json.Decoder(key_type).decode

    def read(self, value: bytes) -> Point:
        """Read a record, field by field; `RecordError` says what is wrong with it."""
        record = _object(value)
        try:
            return self._point(record)
        except RecordError as wrong:
            wrong.instance, wrong.time = self._origin(record)
            raise

    def _point(self, record: dict[str, Any]) -> Point:
        fields = self.fields
        for field in (fields.key, fields.time, fields.index, fields.value):
            if field is not None and field not in record:
                raise RecordError(f"the field {field!r} is missing", "missing-field")
        instance = fields.only_instance if fields.key is None else record[fields.key]
        if not isinstance(instance, str):
            raise RecordError(f"{fields.key!r} is {_kind(instance)}, not text", "bad-instance")
        if not instance:
            raise RecordError(f"{fields.key!r} is empty", "bad-instance")
        if len(instance) > MAX_INSTANCE_LENGTH:
            raise RecordError(
                f"{fields.key!r} is longer than {MAX_INSTANCE_LENGTH} characters", "bad-instance"
            )
        value = _value(record[fields.value], fields.value)
        time = None if fields.time is None else record[fields.time]
        if fields.time is not None and not _is_scalar(time):
            raise RecordError(f"{fields.time!r} is {_kind(time)}, not a time", "bad-timestamp")
        index = record[fields.index]
        if not _is_scalar(index):
            raise RecordError(
                f"{fields.index!r} is {_kind(index)}, neither a number nor text", "bad-index"
            )
        if isinstance(index, str) and len(index) <= MAX_INSTANCE_LENGTH:
            index = _index(index)
        return Point(instance, value, time, index)

    def _origin(self, record: dict[str, Any]) -> tuple[str | None, float | None]:
        """Return the instance and the time of a record that cannot be used, None if unknown."""
        fields = self.fields
        instance = fields.only_instance if fields.key is None else record.get(fields.key)
        if not isinstance(instance, str) or not 0 < len(instance) <= MAX_INSTANCE_LENGTH:
            return None, None
        time = None if fields.time is None else record.get(fields.time)
        try:
            return instance, seconds(time) if _is_scalar(time) else None
        except ValueError:
            return instance, None

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
        times, indexes = _Parsed(seconds), _Parsed(_index)
        read_carefully = super().decoder(reject)

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
                    if index.__class__ is str or abs(index) < MAX_INDEX:
                        return Reading(
                            instance, timestamp, index, value, time, raw.partition, raw.offset
                        )
            except Exception:
                pass
            # A number in a form that msgspec does not read, a value that is clamped, or an error.
            return read_carefully(raw)

        return decode


def _index(text: str) -> str | int | float:
    """Return an index as a number if it is one. Raises `ValueError` if it is too long."""
    if len(text) > MAX_INSTANCE_LENGTH:
        raise ValueError
    if text.isdecimal() and text.isascii() and len(text) <= 18:
        return int(text)
    try:
        return number(text)
    except ValueError:
        return text


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


def _object(value: bytes) -> dict[str, Any]:
    """Return a record as a dict. Raises `RecordError` if it is no JSON object."""
    if not value.strip():
        raise RecordError("the record is empty", "no-value")
    try:
        record = msgspec.json.decode(value)
    except RecursionError:
        raise RecordError("the record is nested too deeply", "not-json") from None
    except UnicodeDecodeError:
        raise RecordError("the record is not UTF-8", "not-json") from None
    except ValueError as error:  # msgspec's errors are ValueErrors
        record = _with_infinite_numbers(value) if "out of range" in str(error) else None
        if record is None:
            raise RecordError(f"the record is not JSON: {error}", "not-json") from None
    if not isinstance(record, dict):
        raise RecordError(f"the record is {_kind(record)}, not a JSON object", "not-an-object")
    return record


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _with_infinite_numbers(value: bytes) -> Any:
    """Return a record with a number that is too large for a float, None if it is not JSON."""
    try:
        return json.loads(value, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None


def _value(value: Any, field: str) -> int | float:
    if not _is_scalar(value):
        raise RecordError(f"{field!r} is {_kind(value)}, not a number", "not-a-number")
    if not isinstance(value, str):
        return value
    try:
        return number(value)
    except ValueError:
        pass
    finite = " finite" if value.lower().lstrip("+-") in ("nan", "inf", "infinity") else ""
    raise RecordError(f"{field!r} is not a{finite} number: {short(value)}", "not-a-number")


def _is_scalar(value: Any) -> TypeGuard[str | int | float]:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "text", bool: "true or false"}
    return "null" if value is None else names.get(type(value), "a number")
