"""What every format has: it reads one raw record, or says why it cannot."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from dataflow.records import Raw, Reading, Rejected, seconds

__all__ = [
    "MAX_INDEX",
    "MAX_INSTANCE_LENGTH",
    "Fields",
    "Format",
    "Point",
    "RecordError",
    "Reject",
    "bounds",
    "short",
]

MAX_INSTANCE_LENGTH = 256
"""Characters of an instance's name, at most."""

MAX_INDEX = 2**63
"""An index is below this, or text of at most `MAX_INSTANCE_LENGTH` characters."""

ABOVE = 0.05
"""Values above the scale by at most this share of it are the scale: hosts report 101% CPU."""

BELOW = 1e-6
"""Values below 0 by at most this share of the scale are 0: differences of counters are rounded."""

Reject: TypeAlias = Callable[[Raw, str, str], Rejected]
"""Makes a rejected record of a raw one, the code of the reason, and a sentence."""


class Fields(msgspec.Struct, frozen=True):
    """What the settings say about records: the names of their fields, and the range of values.

    `key` and `time` are None where records have no such field; `only_instance` is then the name of
    the one instance. Values lie in 0 to `scale`; None: they have no bounds. A value that is outside
    by little is the bound.
    """

    key: str | None
    time: str | None
    index: str
    value: str
    only_instance: str | None
    scale: float | None


class Point(msgspec.Struct, frozen=True):
    """What a format reads from a record.

    `value` is in the unit of the input (0 to the scale), `time` is None or what
    `dataflow.records.seconds` reads: ISO 8601 text, or a number of seconds, milliseconds,
    microseconds or nanoseconds since 1970; `index` counts the readings of the instance.
    """

    instance: str
    value: float
    time: str | int | float | None
    index: str | int | float


class RecordError(ValueError):
    """Raised by a format that cannot read a record.

    `reason` is a short code, by which rejected records are counted and replayed; the message is a
    sentence for the person who reads them. `instance` and `time` (seconds since 1970) are those of
    the record where they could be read: an instance that sends unusable values still sends.
    """

    def __init__(
        self,
        sentence: str,
        reason: str = "bad-record",
        instance: str | None = None,
        time: float | None = None,
    ) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.instance = instance
        self.time = time


class Format(ABC):
    """How a raw record becomes a reading. Subclass it for a format of your own.

    A subclass implements `read`. Everything else is done for it: the checks of what it returns,
    rejected records, offsets. Select it with ANOMALY_FORMAT=module:Class. It must be pure: the same
    bytes give the same point, for the flow reads records again after a crash.

    >>> class Comma(Format):
    ...     def read(self, value: bytes) -> Point:
    ...         host, time, cpu = value.decode().split(",")
    ...         return Point(host, float(cpu), time, time)
    >>> from dataflow.records import Source
    >>> def reject(raw: Raw, reason: str, sentence: str) -> Rejected:
    ...     return Rejected(reason, sentence, Source("cpu", raw.partition, raw.offset), None)
    >>> decode = Comma(Fields(None, None, "", "", None, 100)).decoder(reject)
    >>> decode(Raw(0, 7, b"web-1,2025-03-14T16:00,42.5")).value
    42.5
    >>> decode(Raw(0, 8, b"web-1,2025-03-14T16:00,420")).error
    'the value is 420, outside 0 to 100'
    """

    names: tuple[str, str, str, str] = ("the instance", "the value", "the time", "the index")
    """What sentences call the fields of a point."""

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

        def decode(raw: Raw) -> Reading | Rejected:
            if raw.value is None:
                return reject(raw, "no-value", "the record has no value (a tombstone)")
            try:
                point = self.read(raw.value)
                value, time = self._check(point)
            except RecordError as wrong:
                rejected = reject(raw, wrong.reason, str(wrong))
                if wrong.instance is None:
                    return rejected
                # The reading is lost, not the sign that its instance sends.
                return msgspec.structs.replace(rejected, instance=wrong.instance, time=wrong.time)
            except Exception as wrong:
                kind = "" if isinstance(wrong, ValueError) else f"{type(wrong).__name__}: "
                return reject(raw, "bad-record", f"the record cannot be read: {kind}{wrong}")
            return Reading(
                point.instance, point.time, point.index, value, time, raw.partition, raw.offset
            )

        return decode

    def _check(self, point: Point) -> tuple[float, float | None]:
        """Return the value, within its bounds, and the time of a point. Raises `RecordError`."""
        instance, index = point.instance, point.index
        instance_name, value_name, time_name, index_name = self.names
        if not isinstance(instance, str) or not 0 < len(instance) <= MAX_INSTANCE_LENGTH:
            raise RecordError(
                f"{instance_name} is not text of 1 to {MAX_INSTANCE_LENGTH} characters",
                "bad-instance",
            )
        time = bad_time = None
        if point.time is not None:
            try:
                time = seconds(point.time)
            except (TypeError, ValueError) as error:
                bad_time = f"{time_name} cannot be read as a time ({error}): {short(point.time)}"
        try:
            value = self._bounded(point.value, value_name)
            if bad_time:
                raise RecordError(bad_time, "bad-timestamp")
            if isinstance(index, str):
                if len(index) > MAX_INSTANCE_LENGTH:
                    raise RecordError(
                        f"{index_name} is too large: over {MAX_INSTANCE_LENGTH} characters",
                        "bad-index",
                    )
            elif not abs(index) < MAX_INDEX:
                raise RecordError(
                    f"{index_name} is too large: {short(index)}, not below 2^63", "bad-index"
                )
        except RecordError as wrong:
            wrong.instance, wrong.time = instance, time
            raise
        return value, time

    def _bounded(self, value: int | float, name: str) -> float:
        """Return a value, or the bound that it is outside of by little. Raises `RecordError`."""
        try:
            finite = isinstance(value, (int, float)) and math.isfinite(value)
        except OverflowError:  # an integer that is too large for a float
            finite = False
        if not finite:
            raise RecordError(f"{name} is not a finite number", "not-a-number")
        scale = self.fields.scale
        if scale is None:
            return float(value)
        low, high = bounds(scale)
        if not low <= value <= high:
            raise RecordError(
                f"{name} is {short(value)}, outside 0 to {short(scale)}", "out-of-range"
            )
        return min(max(float(value), 0.0), float(scale))


def bounds(scale: float) -> tuple[float, float]:
    """Return the least and the greatest value that count as 0 and as the scale.

    >>> bounds(1.0)
    (-1e-06, 1.05)
    """
    return -BELOW * scale, (1 + ABOVE) * scale


def short(value: object) -> str:
    """Return a value as it is shown in a sentence: exact, but of at most 40 characters.

    >>> short(100.00000000000001), short(5.0), short("now")
    ('100.00000000000001', '5', "'now'")
    """
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        text = "a number of over 4,300 digits"
    if isinstance(value, float):
        text = text.removesuffix(".0")
    return text if len(text) <= 40 else text[:37] + "..."
