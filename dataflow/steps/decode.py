"""A raw record becomes a reading, or is refused with a reason: the one place that decodes."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeAlias, TypeGuard, TypeVar

import msgspec

from dataflow.records import Raw, Reading, Rejected, Source, seconds
from dataflow.settings import Settings

__all__ = ["MAX_INSTANCE_LENGTH", "decoder", "is_reading", "key_reader", "origin", "reject"]

MAX_INSTANCE_LENGTH = 256

MAX_RAW = 700_000
"""Bytes of a refused record that are kept: as base64 they fit into Kafka's megabyte."""

MAX_INDEX = 2**63
"""An index is below this, or text of at most `MAX_INSTANCE_LENGTH` characters."""

Fields: TypeAlias = tuple[str | None, str | None, str, str]
"""What a record calls its instance, time, index and value; None: it has no such field."""

REMEMBERED = 8192
"""Times and indexes whose reading is remembered, at most."""

REMEMBERED_LENGTH = 64
"""Characters of the longest that is."""

_parse_number = msgspec.json.Decoder(int | float).decode

T = TypeVar("T")


class _Known(dict[str, T]):
    """What texts were read as: the next instances' readings have the same times and indexes.

    Texts that hostile input invents do not fill the memory: it forgets all when it is full.
    """

    def __init__(self, read: Callable[[str], T]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, text: str) -> T:
        found = self._read(text)
        if len(text) <= REMEMBERED_LENGTH:
            if len(self) >= REMEMBERED:
                self.clear()
            self[text] = found
        return found


def decoder(settings: Settings) -> Callable[[Raw], Reading | Rejected]:
    """Return the function that reads a record. It never raises: what is wrong is `Rejected`."""
    fields = (settings.key_field, settings.time_field, settings.index_field, settings.value_field)
    scale = settings.scale
    low, high = (-math.inf, math.inf) if scale is None else (0.0, scale)
    # Not strict: numbers may come as text, as the tutorial's producer writes them.
    parse: Callable[[bytes], Any] = msgspec.json.Decoder(_metric(settings), strict=False).decode
    time_of: Callable[[Any], float | None] = seconds if settings.time_field else lambda _: None
    times, indexes = _Known(seconds), _Known(_number)

    def decode(raw: Raw) -> Reading | Rejected:
        try:
            read = parse(raw.value)  # type: ignore[arg-type]  # None is refused below
            instance, index, value = read.instance, read.index, read.value
            # NaN and the infinities fail the comparison, or the one after it.
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
                return Reading(instance, timestamp, index, value, time, raw.partition, raw.offset)
        except Exception:
            pass
        reason, error = _reason(raw.value, fields, scale)
        return reject(settings, raw, reason, error)

    return decode


def _number(text: str) -> str | int | float:
    """Return an index as a number where it is one; ValueError if it is too long."""
    if len(text) > MAX_INSTANCE_LENGTH:
        raise ValueError
    if text.isdecimal() and text.isascii() and len(text) <= 18:
        return int(text)
    try:
        number: int | float = _parse_number(text)
    except ValueError:
        return text
    return number


def _metric(settings: Settings) -> type[msgspec.Struct]:
    """Return the type that a record is read as; what no field names is the same in all of them."""
    names = {
        "instance": settings.key_field,
        "timestamp": settings.time_field,
        "index": settings.index_field,
        "value": settings.value_field,
    }
    kinds = {"instance": str, "value": float}
    constants: dict[str, Any] = {"instance": settings.only_instance, "timestamp": None}
    if settings.time_field == settings.index_field:  # one field cannot be read twice
        del names["timestamp"]
        constants["timestamp"] = property(attrgetter("index"))
    rename = {name: field for name, field in names.items() if field is not None}
    return msgspec.defstruct(
        "Metric",
        [(name, kinds.get(name, str | int | float)) for name in rename],
        rename=rename,
        namespace={name: it for name, it in constants.items() if name not in rename},
        gc=False,
    )


def reject(settings: Settings, raw: Raw, reason: str, error: str) -> Rejected:
    """Refuse a record: the kind of reason, and a sentence."""
    kept = raw.value
    if kept is not None and len(kept) > MAX_RAW:
        error = f"{error}; its {len(kept):,} bytes are too many to keep"
        kept = None
    return Rejected(
        reason=reason,
        error=error,
        source=Source(settings.source_name, raw.partition, raw.offset),
        raw=None if kept is None else base64.b64encode(kept).decode(),
    )


def _reason(value: bytes | None, fields: Fields, scale: float | None) -> tuple[str, str]:
    """Say why a record is refused: slowly, field by field, in words."""
    key_field, time_field, index_field, value_field = fields
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
    except ValueError as wrong:  # msgspec's errors are ValueErrors
        return "not-json", f"the record is not JSON: {wrong}"
    if not isinstance(record, dict):
        return "not-an-object", f"the record is JSON, but {_kind(record)} and not an object"
    for field in fields:
        if field is not None and field not in record:
            return "missing-field", f"the field {field!r} is missing"
    reason = (
        (key_field and _instance_reason(record[key_field], key_field))
        or _value_reason(record[value_field], value_field, scale)
        or (time_field and _time_reason(record[time_field], time_field))
    )
    if reason:
        return reason
    index = record[index_field]
    if isinstance(index, bool) or not isinstance(index, (str, int, float)):
        return "bad-index", f"{index_field!r} is {_kind(index)} and neither a number nor text"
    return "bad-index", f"{index_field!r} is too large"


def _instance_reason(instance: Any, field: str) -> tuple[str, str] | None:
    if not isinstance(instance, str):
        return "bad-instance", f"{field!r} is {_kind(instance)} and not text"
    if not instance:
        return "bad-instance", f"{field!r} is empty"
    if len(instance) > MAX_INSTANCE_LENGTH:
        return "bad-instance", f"{field!r} is longer than {MAX_INSTANCE_LENGTH} characters"
    return None


def _time_reason(timestamp: Any, field: str) -> tuple[str, str] | None:
    if isinstance(timestamp, bool) or not isinstance(timestamp, (str, int, float)):
        return "bad-timestamp", f"{field!r} is {_kind(timestamp)} and not a time"
    try:
        seconds(timestamp)
    except (ValueError, OverflowError):
        return "bad-timestamp", f"{field!r} cannot be read as a time: {_shown(timestamp)}"
    return None


def _value_reason(number: Any, field: str, scale: float | None) -> tuple[str, str] | None:
    if isinstance(number, bool) or not isinstance(number, (str, int, float)):
        return "not-a-number", f"{field!r} is {_kind(number)} and not a number"
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


def is_reading(record: Reading | Rejected) -> TypeGuard[Reading]:
    """Tell a reading from a refused record."""
    return isinstance(record, Reading)


def origin(rejected: Rejected) -> str:
    """Return what refused records are keyed by: there may be no instance in them."""
    return str(rejected.source.partition)


def key_reader(settings: Settings) -> Callable[[bytes], str | None]:
    """Return the function that reads a record's instance, None if it has none."""
    if settings.key_field is None:
        # One key all the same: without any, they would be spread over the partitions.
        return lambda record: settings.topic
    key_type = msgspec.defstruct("Key", [("key", str)], rename={"key": settings.key_field})
    decode = msgspec.json.Decoder(key_type).decode

    def key_of(record: bytes) -> str | None:
        try:
            key: str = decode(record).key  # type: ignore[attr-defined]
        except (ValueError, RecursionError):
            return None
        return key

    return key_of
