"""The records that pass through the flow, and how they are written as JSON.

Raw       what a partition or a file held, undecoded
Reading   a valid `Metric`: one value of one instance at one time
Rejected  a record that was refused, and why
Anomaly   a reading whose score lies above the threshold
Incident  what has become of the anomalies, or of the silence, of one instance
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Literal

import msgspec

__all__ = [
    "Anomaly",
    "Incident",
    "Raw",
    "Reading",
    "Rejected",
    "Source",
    "anomaly_id",
    "encode",
    "incident_id",
    "seconds",
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


class Incident(msgspec.Struct, frozen=True):
    """What has become of an incident: a record as it opens, some while it lasts, one as it ends.

    `sequence` counts its records from 0. `since` is the time of its first anomaly, or of the last
    reading before a silence; `updated_at` that of this record. `ended` says why a resolved one is:
    `quiet`, `returned` (after a silence) or `gone` (silent for too long to come back). The score,
    value and expected value are those of its worst reading, at `peak_at`; a silence has the value
    before it and neither score nor `peak_at`. `anomalies` counts those up to now. All times are
    UTC, and null where readings carry none. `source` is the reading that made this record due.
    """

    instance: str
    kind: Literal["anomaly", "silence"]
    state: Literal["opened", "updated", "resolved"]
    id: str
    sequence: int
    since: datetime | None
    opened_at: datetime | None
    updated_at: datetime | None
    resolved_at: datetime | None
    ended: Literal["quiet", "returned", "gone"] | None
    score: float | None
    peak_at: datetime | None
    value: float
    expected: float | None
    anomalies: int
    source: Source


def incident_id(kind: str, reading: Reading) -> str:
    """Name an incident, always the same for the same kind and first reading of one log.

    >>> incident_id("silence", Reading("24ae8d", None, 7, 0.5, None, 0, 56))
    '62dc762dde32d4760e5bad26'
    """
    key = encode(
        (
            kind,
            reading.instance,
            reading.index,
            reading.timestamp,
            reading.partition,
            reading.offset,
        )
    )
    return hashlib.blake2b(key, digest_size=12).hexdigest()


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
        if len(timestamp) > 64:
            raise ValueError("too long for a time")
        return _parse_time(timestamp)
    return _check_time(timestamp)
