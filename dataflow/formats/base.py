"""What every format has: it reads one raw record, or says why it cannot."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from dataflow.records import Raw, Reading, Rejected, seconds

__all__ = ["MAX_INDEX", "MAX_INSTANCE_LENGTH", "Fields", "Format", "Point", "RecordError", "Reject"]

MAX_INSTANCE_LENGTH = 256
"""Characters of an instance's name, at most."""

MAX_INDEX = 2**63
"""An index is below this, or text of at most `MAX_INSTANCE_LENGTH` characters."""

Reject: TypeAlias = Callable[[Raw, str, str], Rejected]
"""Makes a rejected record of a raw one, the code of the reason, and a sentence."""


class Fields(msgspec.Struct, frozen=True):
    """What the settings say about records: the names of their fields, and the range of values.

    `key` and `time` are None where records have no such field; `only_instance` is then the name of
    the one instance. Values lie in 0 to `scale`; None: they have no bounds.
    """

    key: str | None
    time: str | None
    index: str
    value: str
    only_instance: str | None
    scale: float | None


class Point(msgspec.Struct, frozen=True):
    """What a format reads from a record.

    `value` is in the unit of the input (0 to the scale), `time` is ISO 8601 text, or seconds or
    milliseconds since 1970, or None; `index` counts the readings of the instance.
    """

    instance: str
    value: float
    time: str | int | float | None
    index: str | int | float


class RecordError(ValueError):
    """Raised by a format that cannot read a record.

    `reason` is a short code, by which rejected records are counted and replayed; the message is a
    sentence for the person who reads them.
    """

    def __init__(self, sentence: str, reason: str = "bad-record") -> None:
        super().__init__(sentence)
        self.reason = reason


class Format(ABC):
    """How a raw record becomes a reading. Subclass it for a format of your own.

    A subclass implements `read`. Everything else is done for it: the checks of what it returns,
    rejected records, offsets. Select it with ANOMALY_FORMAT=module:Class. It must be pure: the same
    bytes give the same point, for the flow reads records again after a crash.

    >>> class Comma(Format):
    ...     def read(self, value: bytes) -> Point:
    ...         host, time, cpu = value.decode().split(",")
    ...         return Point(host, float(cpu), time, time)
    >>> decode = Comma(Fields(None, None, "", "", None, 100)).decoder(lambda raw, code, why: why)
    >>> decode(Raw(0, 7, b"web-1,2025-03-14T16:00,42.5")).value
    42.5
    >>> decode(Raw(0, 8, b"web-1,2025-03-14T16:00,420"))
    'the value is 420, outside 0 to 100'
    """

    def __init__(self, fields: Fields) -> None:
        self.fields = fields

    @abstractmethod
    def read(self, value: bytes) -> Point:
        """Read the bytes of a record.

        Raise `RecordError`, or any `ValueError`, to reject the record with a sentence. Any other
        exception rejects it too, with the name of the exception.
        """

    def key(self, value: bytes) -> str | None:
        """Return the instance of a record, to key it by; None if it cannot be read."""
        try:
            return self.read(value).instance
        except Exception:
            return None

    def decoder(self, reject: Reject) -> Callable[[Raw], Reading | Rejected]:
        """Return the function that reads a record. It never raises."""
        scale = self.fields.scale

        def decode(raw: Raw) -> Reading | Rejected:
            if raw.value is None:
                return reject(raw, "no-value", "the record has no value (a tombstone)")
            try:
                point = self.read(raw.value)
                _check(point, scale)
                time = None if point.time is None else seconds(point.time)
            except RecordError as wrong:
                return reject(raw, wrong.reason, str(wrong))
            except Exception as wrong:
                kind = "" if isinstance(wrong, ValueError) else f"{type(wrong).__name__}: "
                return reject(raw, "bad-record", f"the record cannot be read: {kind}{wrong}")
            return Reading(
                point.instance,
                point.time,
                point.index,
                float(point.value),
                time,
                raw.partition,
                raw.offset,
            )

        return decode


def _check(point: Point, scale: float | None) -> None:
    instance, value, index = point.instance, point.value, point.index
    if not isinstance(instance, str) or not 0 < len(instance) <= MAX_INSTANCE_LENGTH:
        raise RecordError(
            f"the instance is not text of 1 to {MAX_INSTANCE_LENGTH} characters", "bad-instance"
        )
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        raise RecordError("the value is not a finite number", "not-a-number")
    if scale is not None and not 0 <= value <= scale:
        raise RecordError(f"the value is {value:.12g}, outside 0 to {scale:.12g}", "out-of-range")
    size = len(index) <= MAX_INSTANCE_LENGTH if isinstance(index, str) else abs(index) < MAX_INDEX
    if not size:
        raise RecordError("the index is too large", "bad-index")
