"""The step `anomaly`: a scored reading becomes the anomaly record that is written."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec

from dataflow.alerts.sentence import PERCENT, Metric, sentence, sentence_of_all
from dataflow.detectors.base import AnyDetector
from dataflow.records import Anomaly, Reading, Source, anomaly_id
from dataflow.settings import Settings
from dataflow.steps.normalize import scale_of
from dataflow.steps.rules import Rules
from dataflow.steps.score import Scored

__all__ = ["bounder", "from_scored", "index_namer", "metrics_of", "sayer"]


def index_namer(field: str | None) -> Callable[[Anomaly], Anomaly]:
    """Return the function that repeats an anomaly's index in one more field, `field`.

    So readers find the same field, such as `time_step`, in the input and in the anomalies. The name
    of a field that every anomaly has, a path, or none changes nothing.
    """
    if field is None or field.startswith("/") or field in Anomaly.__struct_fields__:
        return lambda anomaly: anomaly
    make = _anomaly_with(field)
    return lambda anomaly: make(*msgspec.structs.astuple(anomaly), anomaly.index)


@cache
def _anomaly_with(field: str) -> Callable[..., Anomaly]:
    def reduce(self: Anomaly) -> Any:
        # For another process of a cluster, which has to define the type first.
        return _restore, (field, *msgspec.structs.astuple(self))

    kind: Any = msgspec.defstruct(
        "Anomaly",
        [("repeated_index", str | int | float | None, 0)],
        bases=(Anomaly,),
        rename={"repeated_index": field},
        namespace={"__reduce__": reduce},
        frozen=True,
    )
    make: Callable[..., Anomaly] = kind
    return make


def _restore(field: str, *values: Any) -> Anomaly:
    return _anomaly_with(field)(*values)


def bounder(scale: float | None) -> Callable[[float | None], float | None]:
    """Return the function that limits an expected value to 0..1, the range of CPU.

    With a scale of None, values have no range: it returns them unchanged.
    """
    if scale is None:
        return lambda value: value
    return lambda value: None if value is None else min(max(value, 0.0), 1.0)


def metrics_of(settings: Settings) -> Callable[[Reading], Metric]:
    """Return the function that says what a reading measures, as far as is known."""
    percent = settings.scale == PERCENT
    named = settings.value_field != "value" and settings.metric_field is None
    name = settings.value_field if named else "CPU" if percent else "value"
    default = Metric(name, settings.scale, "%" if percent else None)

    def of(reading: Reading) -> Metric:
        if reading.metric is None:
            return default
        return Metric(reading.metric, scale_of(reading.unit), reading.unit)

    return of


def sayer(settings: Settings, detector: AnyDetector) -> Callable[[Scored], str]:
    """Return the function that says in a sentence why a scored reading is an anomaly."""
    metrics = metrics_of(settings)
    threshold = detector.threshold

    def say(scored: Scored) -> str:
        reading, verdict, finding = scored
        if finding is not None and finding.metrics is not None:
            return sentence_of_all(finding.metrics, threshold)
        metric = metrics(reading)
        bounded = bounder(metric.scale)
        lower, upper = bounded(verdict.lower), bounded(verdict.upper)
        bounds = None if lower is None or upper is None else (lower, upper)
        explanation = None if finding is None else finding.explanation
        return sentence(metric, reading.value, verdict.expected, bounds, explanation)

    return say


def from_scored(
    settings: Settings, detector: AnyDetector, threshold: float, rules: Rules | None = None
) -> Callable[[Scored], Anomaly]:
    """Return the step from a scored reading to the anomaly record."""
    topic = settings.source_name
    name = detector.name
    with_index = index_namer(settings.index_field)
    metrics = metrics_of(settings)
    default = settings.default_metric
    groups = settings.groups
    say = sayer(settings, detector)
    together = settings.together

    def convert(scored: Scored) -> Anomaly:
        reading, verdict, finding = scored
        assert finding is not None
        metric = metrics(reading)
        bounded = bounder(metric.scale)
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
            id=anomaly_id(reading.instance, reading.index, reading.timestamp, reading.metric),
            source=Source(topic, reading.partition, reading.offset, reading.number),
            alert=finding.alert,
            episode=finding.episode,
            raw=metric.raw(reading.value),
            unit=metric.unit,
            reasons=None if finding.explanation is None else finding.explanation.reasons,
            ordinary=None if finding.explanation is None else finding.explanation.ordinary,
            why=say(scored),
            metric=default if reading.metric is None else reading.metric,
            labels=reading.labels or {},
            group=groups.of(reading.instance, reading.labels),
            together=together,
            metrics=finding.metrics,
        )
        return with_index(anomaly if rules is None else rules.anomaly(anomaly))

    return convert
