"""Says of records that no format reads what they seem to be, and what to do about it. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from dataflow.formats.framing import unframed

__all__ = ["seems"]

PACKED = (
    "the values seem to be packed, as by Snappy: let the producer send them as they are, with "
    "Kafka's own compression (compression.type) if they are to be small."
)

LOOK = 20
"""Records that are looked at."""

_STATSD = re.compile(rb"[^\s:|]+:[^\s|]+\|(?:c|g|ms|h|s|d)\b").match
_PACKED = (b"\x82SNAPPY\0", b"\xff\x06\0\0sNaPpY", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")
"""How Snappy's two frames, zstd and lz4 begin."""


def seems(values: Iterable[bytes | None]) -> str | None:
    """Return a sentence about the first record that seems to be something that is known.

    >>> seems([None, b"ec2.cpu:41.5|g|#instance:i-1"]).partition(":")[0]
    'the records seem to be those of StatsD, which have no time'
    """
    known = (value for value, _ in zip(values, range(LOOK), strict=False) if value)
    return next(filter(None, map(_seems, known)), None)


def _seems(value: bytes) -> str | None:
    if _STATSD(value):
        return (
            "the records seem to be those of StatsD, which have no time: let Telegraf's input "
            "statsd take them and write to Kafka."
        )
    if value[:1] == b"\0" and len(value) > 5 and value[5:6] not in b"{[":
        return (
            "the records seem to be Avro or Protobuf of a schema registry: let the producer use "
            "its JSON serializer, or read them by a format of your own (docs/extending.md)."
        )
    try:
        record = msgspec.json.decode(unframed(value))
    except (ValueError, RecursionError):
        # A block of Snappy has its length first, and the beginning of the text as it is.
        block = b'{"' in value[1:12] and value.lstrip()[:1] not in b"{["
        return PACKED if block or value.startswith(_PACKED) else None
    if isinstance(record, dict) and ("MetricDataResults" in record or "Datapoints" in record):
        return (
            "the records are answers of CloudWatch's API, which name no instance: "
            "`python -m dataflow cloudwatch` asks for the same and writes readings."
        )
    return None
