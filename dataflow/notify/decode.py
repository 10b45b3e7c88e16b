"""Reads a record of the topic of incidents, which any program may have written. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import msgspec
from msgspec.structs import replace

from dataflow.records import Incident, encode

__all__ = ["decode"]

LONGEST_RECORD = 64 * 1024
"""Bytes of a record. An incident has less than one thousand, and a name of at most as many."""

LONGEST_ID = 200
"""Characters of an id. The flow's have 24."""

TIMES = ("since", "opened_at", "updated_at", "resolved_at", "peak_at")

_decode = msgspec.json.Decoder(Incident).decode

_MISSING = re.compile(r"required field `(\w+)`")
_PATH = re.compile(r" - at `\$\.([\w.]+)`$")


def decode(value: bytes | None) -> Incident:
    """Return the incident, its times in UTC, so that every notification target can deliver it.

    Raises `ValueError` with the reason if the record is not such an incident. There are few
    different reasons, and none holds anything of the record.

    >>> decode(b"{}")
    Traceback (most recent call last):
    ValueError: the field 'instance' is missing or wrong
    """
    if value is None:
        raise ValueError("it has no value")
    if len(value) > LONGEST_RECORD:
        raise ValueError(f"it is larger than {LONGEST_RECORD // 1024} KiB")
    try:
        incident = _decode(value)
    except msgspec.ValidationError as error:
        found = [*_PATH.findall(str(error)), *_MISSING.findall(str(error))]
        if not found:
            raise ValueError("it is not a JSON object") from None
        raise ValueError(f"the field {'.'.join(found)!r} is missing or wrong") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("it is not JSON") from None
    # The id becomes an HTTP header and a part of our own messages.
    if not (0 < len(incident.id) <= LONGEST_ID and incident.id.isascii()):
        raise ValueError("the field 'id' is empty, too long or not ASCII")
    if not incident.id.isprintable():
        raise ValueError("the field 'id' holds a control character")
    times = {name: _utc(name, getattr(incident, name)) for name in TIMES}
    incident = replace(incident, **times)
    try:
        encode(incident)
    except (ValueError, OverflowError):
        raise ValueError("it cannot be written as JSON again") from None
    return incident


def _utc(name: str, time: datetime | None) -> datetime | None:
    if time is None:
        return None
    if time.tzinfo is None:
        raise ValueError(f"the field {name!r} is a time without a time zone")
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"the field {name!r} is outside the years of the calendar") from None
