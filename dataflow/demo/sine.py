"""The sine wave with outliers that the isolation forest's tutorial looks at.

The seed decides which points are raised, on every platform; the last digits of the sine are those
of the platform's mathematical library.
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
"""The share of points that are raised, each by chance."""
RISE = 5.0
"""By how much at most."""


class Point(NamedTuple):
    """One point of the wave: its number from 0 on, its value, and whether it was raised."""

    time_step: int
    value: float
    raised: bool


def points(count: int, seed: int = 42) -> Iterator[Point]:
    """Yield the first points of the wave that belongs to a seed.

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
    """Yield the points as the tutorial's producer writes them; nothing tells which are raised.

    >>> list(records(2))
    [b'{"value":0.0,"time_step":0}', b'{"value":0.09983341664682815,"time_step":1}']
    """
    for point in points(count, seed):
        yield encode({"value": point.value, "time_step": point.time_step})
