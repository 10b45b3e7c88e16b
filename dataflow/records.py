"""The records that pass through the flow, and how they are written as JSON.

Raw       what a partition or a file held, undecoded
Reading   a valid `Metric`: one value of one instance at one time
Rejected  a record that was refused, and why
Anomaly   a reading whose score lies above the threshold
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

__all__ = [
    "Anomaly",
    "Raw",
    "Reading",
    "Rejected",
    "Source",
    "anomaly_id",
    "encode",
    "seconds",
    "source_of",
]

encode = msgspec.json.Encoder().encode


class Source(msgspec.Struct, frozen=True, gc=False):
    """Where a record was read: topic, partition and offset; of a file: its name, 0, the record."""

    topic: str
    partition: int
    offset: int


class Raw(msgspec.Struct, frozen=True, gc=False):
    """An undecoded record and where it stood."""

    partition: int
    offset: int
    value: bytes | None


class Reading(msgspec.Struct, gc=False):
    """One value of one instance.

    `timestamp` and `index` are as they came (index a number where it is one); `time` is the
    timestamp in seconds since 1970, UTC. Both are None where the settings name no field for them.
    `value` is as it came, and 0 to 1 once normalized.
    """

    instance: str
    timestamp: str | int | float | None
    index: str | int | float
    value: float
    time: float | None
    partition: int
    offset: int


class Rejected(msgspec.Struct, frozen=True):
    """A refused record: the kind of reason, a sentence, where it stood, and its bytes (base64).

    `raw` is None if the record had no value, or more bytes than can be kept.
    """

    reason: str
    error: str
    source: Source
    raw: str | None


class Anomaly(msgspec.Struct, frozen=True):
    """A reading that the detector found anomalous; `value` to `upper` are in 0 to 1."""

    instance: str
    timestamp: str | int | float | None
    index: str | int | float
    value: float
    score: float
    threshold: float
    expected: float | None
    lower: float | None
    upper: float | None
    detector: str
    id: str
    source: Source


def anomaly_id(instance: str, index: str | int | float, timestamp: str | int | float | None) -> str:
    """Name an anomaly, always the same for the same reading.

    >>> anomaly_id("24ae8d", 7, "2014-02-14 15:05:00")
    '53c87c90a668877e7f2f1a40'
    """
    key = encode((instance, index, timestamp))
    return hashlib.blake2b(key, digest_size=12).hexdigest()


@lru_cache(maxsize=8192)
def _parse_time(text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return _check_time(float(text))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def _check_time(number: float) -> float:
    # 1e11 seconds lie in the year 5138; as milliseconds they are March 1973.
    time = number / 1000 if abs(number) >= 1e11 else float(number)
    if not abs(time) < 253402300800:
        raise ValueError("outside the years that a calendar has")
    return time


def seconds(timestamp: str | int | float) -> float:
    """Read a timestamp as seconds since 1970, UTC; ValueError if it is none.

    `YYYY-MM-DD HH:MM:SS`, ISO 8601 with or without a zone (none means UTC), or seconds or
    milliseconds since 1970, as a number or as text.

    >>> seconds("2014-02-14 14:30:00") == seconds("2014-02-14T15:30:00+01:00") == 1392388200
    True
    >>> seconds(1392388200000) == seconds("1392388200") == 1392388200
    True
    """
    if isinstance(timestamp, str):
        if len(timestamp) > 64:  # before it is remembered: hostile text would fill the memory
            raise ValueError("too long for a time")
        return _parse_time(timestamp)
    return _check_time(timestamp)


class _Written(msgspec.Struct):
    source: Source


_read_written = msgspec.json.Decoder(_Written).decode


def source_of(line: bytes) -> Source | None:
    """Return where a written record was read, by its line; None if the line is not whole."""
    if not line.endswith(b"\n"):
        return None
    try:
        return _read_written(line).source
    except ValueError:
        return None
