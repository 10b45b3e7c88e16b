"""What makes a written record the same as one that a resumed flow computes again."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import msgspec

from dataflow.records import Source

__all__ = ["BY_SEQUENCE", "BY_SOURCE", "Identity"]


class _Written(msgspec.Struct):
    source: Source


class _Told(msgspec.Struct):
    id: str
    sequence: int


class Identity(NamedTuple):
    """What makes a written record the same as one that a resumed flow computes again.

    `of` tells it of a record, `read` of what was written, and raises ValueError if that is none.
    """

    of: Callable[[Any], Hashable]
    read: Callable[[bytes], Hashable]

    def of_line(self, line: bytes) -> Hashable | None:
        """Tell it of a written line; None if the line is not whole."""
        if not line.endswith(b"\n"):
            return None
        try:
            return self.read(line)
        except ValueError:
            return None


_read_written = msgspec.json.Decoder(_Written).decode


_read_told = msgspec.json.Decoder(_Told).decode


def _read_sequence(line: bytes) -> Hashable:
    told = _read_told(line)
    return told.id, told.sequence


BY_SOURCE = Identity(lambda record: record.source, lambda line: _read_written(line).source)
"""Anomalies and refused records: one reading makes one at the most."""


BY_SEQUENCE = Identity(lambda incident: (incident.id, incident.sequence), _read_sequence)
"""Incidents: one reading may make several, and the clock makes some."""
