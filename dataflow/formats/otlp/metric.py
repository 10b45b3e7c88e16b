"""A metric of OTLP as it is read, from JSON or from protobuf."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

__all__ = ["Attributes", "Metric", "Number", "Summary", "state_in"]

Attributes = dict[str, Any]


class Number(msgspec.Struct, gc=False, frozen=True):
    """A point of a gauge or a sum: its time in ns, its value, None if it has none."""

    time: int
    value: float | None
    attributes: Attributes


class Summary(NamedTuple):
    """A point of a summary."""

    time: int
    number: float
    total: float
    attributes: Attributes


class Metric(NamedTuple):
    """A metric that is read: the attributes of its resource, its name and its points."""

    resource: Attributes
    name: str
    numbers: list[Number]
    summaries: list[Summary]
    delta: bool = False
    """Whether the points say what was added since the ones before."""
    monotonic: bool = False
    """Whether the points only grow."""
    unit: str = ""


def state_in(attributes: Attributes) -> Any:
    """Return the state of a CPU that a point is of, under either name; None if it has none."""
    return attributes.get("state") or attributes.get("cpu.mode")
