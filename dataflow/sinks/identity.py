"""Recognizes a written record when a resumed flow computes it again."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import msgspec

from dataflow.records import Source

__all__ = ["BY_SEQUENCE", "BY_SOURCE", "Identity"]


class _Written(msgspec.Struct):
    source: Source


class _WrittenIncident(msgspec.Struct):
    id: str
    sequence: int


class Identity(NamedTuple):
    """The part of a record that stays the same when a resumed flow computes it again.

    `of` returns it for a record, and `read` for a written record; `read` raises `ValueError` if the
    bytes are not such a record.
    """

    of: Callable[[Any], Hashable]
    read: Callable[[bytes], Hashable]

    def of_line(self, line: bytes) -> Hashable | None:
        """Return the identity of a written line; None if the line is incomplete."""
        if not line.endswith(b"\n"):
            return None
        try:
            return self.read(line)
        except ValueError:
            return None


_read_written = msgspec.json.Decoder(_Written).decode


_read_incident = msgspec.json.Decoder(_WrittenIncident).decode


def _read_sequence(line: bytes) -> Hashable:
    incident = _read_incident(line)
    return incident.id, incident.sequence


BY_SOURCE = Identity(lambda record: record.source, lambda line: _read_written(line).source)
"""For anomalies and rejected records: a reading yields at most one."""


BY_SEQUENCE = Identity(lambda incident: (incident.id, incident.sequence), _read_sequence)
"""For incidents: a reading may yield several, and timers yield some."""
