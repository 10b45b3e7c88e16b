"""The step `anomaly`: a scored reading becomes the anomaly that is written."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec

from dataflow.detectors.base import AnyDetector
from dataflow.records import Anomaly, Source, anomaly_id
from dataflow.settings import Settings
from dataflow.steps.score import Scored

__all__ = ["bounder", "index_namer", "reporter"]


def index_namer(field: str) -> Callable[[Anomaly], Anomaly]:
    """Return the step that gives an anomaly one more field, so called, with its index.

    Whoever reads the input and the anomalies then finds the same field, `time_step` say, in both.
    The names that every anomaly has keep their meaning: one of those changes nothing.
    """
    if field in Anomaly.__struct_fields__:
        return lambda anomaly: anomaly
    make = _anomaly_with(field)
    return lambda anomaly: make(*msgspec.structs.astuple(anomaly), anomaly.index)


@cache
def _anomaly_with(field: str) -> Callable[..., Anomaly]:
    def reduce(self: Anomaly) -> Any:
        # To another process of a cluster, which makes the type anew.
        return _remake, (field, *msgspec.structs.astuple(self))

    kind: Any = msgspec.defstruct(
        "Anomaly",
        [("repeated_index", str | int | float)],
        bases=(Anomaly,),
        rename={"repeated_index": field},
        namespace={"__reduce__": reduce},
        frozen=True,
    )
    make: Callable[..., Anomaly] = kind
    return make


def _remake(field: str, *values: Any) -> Anomaly:
    return _anomaly_with(field)(*values)


def bounder(scale: float | None) -> Callable[[float | None], float | None]:
    """Return what keeps an expected value in the range that values have, if they have one."""
    # CPU below nothing or above all is nothing to expect.
    if scale is None:
        return lambda value: value
    return lambda value: None if value is None else min(max(value, 0.0), 1.0)


def reporter(
    settings: Settings, detector: AnyDetector, threshold: float
) -> Callable[[Scored], Anomaly]:
    """Return the step from a scored reading to the anomaly that is written."""
    topic = settings.source_name
    name = detector.name
    named = index_namer(settings.index_field)
    bounded = bounder(settings.scale)

    def report(scored: Scored) -> Anomaly:
        reading, verdict = scored
        anomaly = Anomaly(
            instance=reading.instance,
            timestamp=reading.timestamp,
            index=reading.index,
            value=reading.value,
            score=verdict.score,
            threshold=threshold,
            expected=bounded(verdict.expected),
            lower=bounded(verdict.lower),
            upper=bounded(verdict.upper),
            detector=name,
            id=anomaly_id(reading.instance, reading.index, reading.timestamp),
            source=Source(topic, reading.partition, reading.offset),
        )
        return named(anomaly)

    return report
