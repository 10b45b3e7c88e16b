"""What the records of the flow are as CloudEvents 1.0. Pure.

`source` and `id` together are the same for a record that is written or delivered again, so that a
consumer can drop it. https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
"""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from typing import TypeAlias
from urllib.parse import quote

from dataflow.records import Anomaly, Incident, Rejected, seconds

__all__ = ["NAME", "attributes", "headers", "text"]

NAME = "ec2-anomaly-dataflow"

FORBIDDEN = {"Cc", "Cn", "Cs"}
"""Categories of the characters that an attribute must not have, and of those without a meaning."""

Record: TypeAlias = Anomaly | Incident | Rejected


def attributes(record: Record) -> dict[str, str]:
    """Return the attributes of a record: `subject` and `time` only where they are known.

    >>> from dataflow.records import Source
    >>> attributes(Rejected("empty", "It is empty.", Source("ec2 metrics", 0, 7), None))["source"]
    '/ec2-anomaly-dataflow/ec2%20metrics'
    """
    kind, identity, time = _identity(record)
    found = {
        "specversion": "1.0",
        "id": text(identity),
        "source": f"/{NAME}/{quote(record.source.topic, safe='')}",
        "type": f"{NAME}.{kind}",
        "datacontenttype": "application/json",
    }
    if record.instance:
        found["subject"] = text(record.instance)
    if time is not None:
        found["time"] = time.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return found


def headers(record: Record) -> dict[str, str | bytes | None]:
    """Return the attributes as headers of a Kafka record in binary mode.

    The value of the record is what it is without: whoever does not know CloudEvents reads it.
    """
    found = attributes(record)
    kind = found.pop("datacontenttype")
    return {"content-type": kind, **{f"ce_{name}": value for name, value in found.items()}}


def text(value: str) -> str:
    r"""Return a text as an attribute may have it: other characters are escaped, as in Python.

    >>> text("web\n1"), text("é 😀")
    ('web\\n1', 'é 😀')
    """
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in FORBIDDEN
        else character
        for character in value
    )


def _identity(record: Record) -> tuple[str, str, datetime | None]:
    """Return the end of the type, the id, and the time of a record."""
    match record:
        case Anomaly():
            return "anomaly", record.id, _moment(record.timestamp)
        case Incident():
            identity = f"{record.id}-{record.sequence}"
            return f"incident.{record.state}", identity, record.updated_at
        case Rejected():
            source = record.source
            # A reading that was sent again has a mark, of another reason.
            parts = [source.partition, source.offset, source.number, record.reason]
            return "rejected", "-".join(map(str, parts)), _moment(record.time)


def _moment(timestamp: str | int | float | None) -> datetime | None:
    if timestamp is None:
        return None
    try:
        return datetime.fromtimestamp(seconds(timestamp), UTC)
    except (ValueError, OverflowError):
        return None
