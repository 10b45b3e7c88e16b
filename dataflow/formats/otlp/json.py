"""Reads the metrics of OTLP in JSON, in which fields that are 0 or empty are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from dataflow.formats.base import RecordError
from dataflow.formats.framing import documents
from dataflow.formats.json import decoded
from dataflow.formats.otlp.metric import Attributes, Metric, Number, Summary

__all__ = ["from_json"]


class _Value(msgspec.Struct, gc=False, frozen=True):
    stringValue: str | None = None  # noqa: N815
    intValue: str | int | None = None  # noqa: N815
    boolValue: bool | None = None  # noqa: N815
    doubleValue: float | None = None  # noqa: N815
    kvlistValue: _Pairs | None = None  # noqa: N815


class _Pair(msgspec.Struct, gc=False, frozen=True):
    key: str = ""
    value: _Value = _Value()


class _Pairs(msgspec.Struct, gc=False, frozen=True):
    values: list[_Pair] = []


class _JsonNumber(msgspec.Struct, gc=False, frozen=True):
    timeUnixNano: int = 0  # noqa: N815
    asDouble: float | None = None  # noqa: N815
    asInt: int | None = None  # noqa: N815
    attributes: list[_Pair] = []
    flags: int = 0


class _JsonSummary(msgspec.Struct, gc=False, frozen=True):
    timeUnixNano: int = 0  # noqa: N815
    count: float = 0.0
    sum: float = 0.0
    attributes: list[_Pair] = []


class _Points(msgspec.Struct, gc=False, frozen=True):
    dataPoints: list[msgspec.Raw] = []  # noqa: N815
    aggregationTemporality: int | str = 2  # noqa: N815
    isMonotonic: bool = False  # noqa: N815


DELTA = (1, "1", "AGGREGATION_TEMPORALITY_DELTA")


class _JsonMetric(msgspec.Struct, gc=False, frozen=True):
    name: str = ""
    unit: str = ""
    gauge: _Points | None = None
    sum: _Points | None = None
    summary: _Points | None = None


class _Resource(msgspec.Struct, gc=False, frozen=True):
    attributes: list[_Pair] = []


class _Scope(msgspec.Struct, gc=False, frozen=True):
    metrics: list[msgspec.Raw] = []


class _ResourceMetrics(msgspec.Struct, gc=False, frozen=True):
    resource: _Resource = _Resource()
    scopeMetrics: list[_Scope] = []  # noqa: N815


class _Request(msgspec.Struct, gc=False, frozen=True):
    resourceMetrics: list[_ResourceMetrics] | msgspec.UnsetType = msgspec.UNSET  # noqa: N815
    resource: _Resource = _Resource()
    name: str | msgspec.UnsetType = msgspec.UNSET


# Not strict: 64-bit numbers are text in JSON.
_request = msgspec.json.Decoder(_Request, strict=False).decode
_metric = msgspec.json.Decoder(_JsonMetric).decode
_numbers = msgspec.json.Decoder(_JsonNumber, strict=False).decode
_summaries = msgspec.json.Decoder(_JsonSummary, strict=False).decode


def from_json(
    content: bytes, reads: Callable[[str], bool]
) -> Iterator[Metric | RecordError | None]:
    """Yield the metrics of a record; None for one whose name `reads` does not select."""
    for document, request in _requests(content):
        if isinstance(request, RecordError):
            yield request
        elif not isinstance(request.resourceMetrics, msgspec.UnsetType):
            for one in request.resourceMetrics:
                attributes = _attributes(one.resource.attributes)
                for scope in one.scopeMetrics:
                    for metric in scope.metrics:
                        yield _json_metric(metric, attributes, reads)
        elif not isinstance(request.name, msgspec.UnsetType):  # a metric, its resource inside
            attributes = _attributes(request.resource.attributes)
            yield _json_metric(document, attributes, reads)
        else:
            yield RecordError(
                "the field 'resourceMetrics' is missing", "missing-field", part=document
            )


def _requests(content: bytes) -> Iterator[tuple[bytes, _Request | RecordError]]:
    """Yield the documents of a record, and what they say."""
    try:
        yield content, _request(content)
        return
    except (ValueError, RecursionError):
        pass  # there are several, or it is something else
    for document in documents(content):
        try:
            yield document, _request(document)
        except (ValueError, RecursionError) as error:
            yield document, _wrong(document, error)


def _wrong(document: bytes, error: Exception) -> RecordError:
    try:
        decoded(document)
    except RecordError as wrong:
        wrong.part = document
        return wrong
    return RecordError(f"the record is no OTLP: {error}", "bad-record", part=document)


def _json_metric(
    document: bytes | msgspec.Raw, resource: Attributes, reads: Callable[[str], bool]
) -> Any:
    try:
        metric = _metric(document)
        if not reads(metric.name):
            return None
        found = metric.gauge or metric.sum
        numbers = [] if found is None else list(map(_json_number, found.dataPoints))
        summary = [] if metric.summary is None else map(_json_summary, metric.summary.dataPoints)
        delta = found is not None and found.aggregationTemporality in DELTA
        grows = metric.sum is not None and metric.sum.isMonotonic
        return Metric(resource, metric.name, numbers, list(summary), delta, grows, metric.unit)
    except (ValueError, RecursionError) as error:
        return RecordError(f"a metric cannot be read: {error}", "bad-record")


def _json_number(document: msgspec.Raw) -> Number:
    point = _numbers(document)
    value = point.asDouble if point.asInt is None else float(point.asInt)
    return Number(
        point.timeUnixNano, None if point.flags & 1 else value, _attributes(point.attributes)
    )


def _json_summary(document: msgspec.Raw) -> Summary:
    point = _summaries(document)
    return Summary(point.timeUnixNano, point.count, point.sum, _attributes(point.attributes))


def _attributes(pairs: list[_Pair]) -> Attributes:
    found: Attributes = {}
    for pair in pairs:
        value = pair.value
        content: Any = value.stringValue
        if (
            content is None
            or value.boolValue is not None
            or value.doubleValue is not None
            or value.kvlistValue is not None
        ):
            content = _content(value)  # as a rule it is text, and nothing else
        found[pair.key] = content
    return found


def _content(value: _Value) -> Any:
    if value.kvlistValue is not None:
        return _attributes(value.kvlistValue.values)
    if value.stringValue is None and value.intValue is not None:
        return str(value.intValue)
    if value.boolValue is not None:
        return str(value.boolValue).lower()
    return value.stringValue if value.doubleValue is None else str(value.doubleValue)
