"""Recognizes a written record when a resumed flow computes it again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import msgspec

from dataflow.records import ALL, Source

__all__ = ["BY_SEQUENCE", "BY_SOURCE", "Identity", "Key"]

Key: TypeAlias = tuple[str | int, ...]
"""What identifies a record among those of its kind."""


class _Written(msgspec.Struct):
    source: Source
    metric: str | None = None


class _WrittenIncident(msgspec.Struct):
    id: str
    sequence: int


class Identity(NamedTuple):
    """The part of a record that stays the same when a resumed flow computes it again.

    `of` returns it for a record. `read` returns it for a written line, and raises `ValueError` if
    the bytes are not such a record. `keys` is the type of a list of them.
    """

    of: Callable[[Any], Key]
    read: Callable[[bytes], Key]
    keys: Any

    def of_line(self, line: bytes) -> Key | None:
        """Return the identity of a written line; None if the line is incomplete."""
        if not line.endswith(b"\n"):
            return None
        try:
            return self.read(line)
        except ValueError:
            return None


_read_written = msgspec.json.Decoder(_Written).decode
_read_incident = msgspec.json.Decoder(_WrittenIncident).decode


def _place(record: Any) -> Key:
    source = record.source
    place: Key = (source.topic, source.partition, source.offset)
    if record.metric == ALL:
        # The last reading of a step may be an anomaly of its own.
        return (*place, source.number, ALL)
    # As it was before a record could hold several readings, so that what is pending stays known.
    return (*place, source.number) if source.number else place


def _number(incident: Any) -> tuple[str, int]:
    return incident.id, incident.sequence


BY_SOURCE = Identity(_place, lambda line: _place(_read_written(line)), list[Key])
"""For anomalies and rejected records: a reading yields at most one, and one of all metrics."""

BY_SEQUENCE = Identity(_number, lambda line: _number(_read_incident(line)), list[Key])
"""For incidents: a reading may yield several, and timers yield some."""
