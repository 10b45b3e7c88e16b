"""The sine wave with outliers from the tutorial on the isolation forest.

A seed raises the same points on every platform. The last digits of the sine depend on the
platform's math library.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from dataflow.records import encode

__all__ = ["RAISED", "RISE", "STEP", "TOPIC", "Point", "points", "records"]

TOPIC = "raw-data"
STEP = 0.1
"""Radians between two points."""
RAISED = 0.01
"""The probability that a point is raised."""
RISE = 5.0
"""The most by which a point is raised."""


class Point(NamedTuple):
    """One point of the wave: its index from 0, its value, and whether it is raised."""

    time_step: int
    value: float
    raised: bool


def points(count: int, seed: int = 42) -> Iterator[Point]:
    """Yield the first `count` points of the wave of a seed.

    >>> wave = list(points(1000))
    >>> round(wave[1].value, 4), sum(point.raised for point in wave)
    (0.0998, 11)
    """
    random = Random(seed)
    for time_step in range(count):
        value = math.sin(time_step * STEP)
        raised = random.random() < RAISED
        if raised:
            value += RISE * random.random()
        yield Point(time_step, value, raised)


def records(count: int, seed: int = 42) -> Iterator[bytes]:
    """Yield the points in the tutorial's format, which does not say which points are raised.

    >>> list(records(2))
    [b'{"value":0.0,"time_step":0}', b'{"value":0.09983341664682815,"time_step":1}']
    """
    for point in points(count, seed):
        yield encode({"value": point.value, "time_step": point.time_step})
