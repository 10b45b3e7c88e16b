"""CloudWatch metric streams in JSON, as Firehose delivers them and as others pass them on.

A record holds many objects, a line each, of several namespaces and metrics. CPU of an instance is
`CPUUtilization` of `AWS/EC2` with the one dimension `InstanceId`; other dimensions give statistics
of several instances. `sum / count` is the mean of the period, in percent. In the OpenTelemetry
formats, the same metrics are read by the format `otlp`.

Other metrics of `AWS/EC2` have CloudWatch's name, such as `NetworkIn`, those of other namespaces
the namespace before it, such as `CWAgent/mem_used_percent`, and all of them their further
dimensions behind it. Their value is the mean too.

The lines may also be in base64, in the body of an HTTP request of Firehose, in a field `message` as
Vector writes them, or flat, with names such as `dimensions.InstanceId`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from dataflow.formats.base import (
    MAX_INSTANCE_LENGTH,
    MAX_READINGS,
    PERCENT,
    Decode,
    Fields,
    Format,
    Point,
    RecordError,
    Reject,
    Skip,
    rounded,
    usual_time,
)
from dataflow.formats.framing import documents, unframed
from dataflow.formats.json import decoded, number_of
from dataflow.formats.metrics import series
from dataflow.formats.otlp import Otlp, is_json
from dataflow.records import Raw, Reading, Rejected

__all__ = ["CloudWatch"]

ENVELOPES = 3
"""Envelopes around one another, at most."""

DIMENSION = "InstanceId"

EC2 = "AWS/EC2"
CPU = "CPUUtilization"


class _Statistics(msgspec.Struct, gc=False):
    sum: float
    count: float


class _Datum(msgspec.Struct, gc=False):
    namespace: str
    metric_name: str
    dimensions: dict[str, str]
    timestamp: int
    value: _Statistics


class _Whole(_Datum, gc=False):
    unit: str | None = None
    region: str = ""
    account_id: str = ""
    metric_stream_name: str = ""


class _Envelope(msgspec.Struct, gc=False):
    records: list[_Data] | msgspec.UnsetType = msgspec.UNSET
    message: str | msgspec.UnsetType = msgspec.UNSET


class _Data(msgspec.Struct, gc=False):
    data: str


_datum = msgspec.json.Decoder(_Datum).decode
_whole = msgspec.json.Decoder(_Whole).decode
_envelope = msgspec.json.Decoder(_Envelope).decode

Outcome = Point | RecordError | None


class CloudWatch(Format):
    """Reads the CPU of EC2 instances, and the metrics that are selected; the rest is skipped.

    ANOMALY_KEY_FIELD names another dimension: `AutoScalingGroupName` scores the groups.

    >>> cloudwatch = CloudWatch(Fields("instance", "timestamp", "index", "value", None, 100.0))
    >>> datum = (b'{"namespace": "AWS/EC2", "metric_name": "CPUUtilization", "timestamp": 0,'
    ...          b'"dimensions": {"InstanceId": "i-1"}, "value": {"sum": 207.5, "count": 5.0}}')
    >>> list(cloudwatch.read(datum + b"\\n" + datum.replace(b"CPU", b"Some")))
    [Point(instance='i-1', value=41.5, time=0), None]
    """

    percent = True
    cpu_names = (CPU, f"{EC2}/{CPU}")

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        self._decode = _datum if self.only_cpu else _whole
        self._dimension = fields.key if fields.renamed and fields.key is not None else DIMENSION
        self._otlp = Otlp(fields)

    def decoder(self, reject: Reject, skip: Skip = lambda count: None) -> Decode:
        """Return the function that reads a batch: usual records in one loop, others with care."""
        read_carefully, quickly = self.readings, self._quickly
        if not self.usual:
            return super().decoder(reject, skip)

        def decode(batch: list[Raw]) -> list[Reading | Rejected]:
            out: list[Reading | Rejected] = []
            for raw in batch:
                try:
                    found, skipped = quickly(raw)
                except Exception:
                    out += read_carefully(raw, reject, skip)
                    continue
                out += found
                if skipped:
                    skip(skipped)
            return out

        return decode

    def _quickly(self, raw: Raw) -> tuple[list[Reading], int]:
        """Return the readings of a usual record, and how many are skipped.

        Any exception: it is another one.
        """
        parts = raw.value.split(b"\n")  # type: ignore[union-attr]  # None is rejected with care
        if len(parts) > MAX_READINGS:
            raise ValueError
        out: list[Reading] = []
        number = 0
        for part in parts:
            if not part:
                continue
            datum = _datum(part)
            dimensions = datum.dimensions
            if (
                datum.metric_name == CPU
                and datum.namespace == EC2
                and len(dimensions) == 1
                and DIMENSION in dimensions
            ):
                instance, stamp = dimensions[DIMENSION], datum.timestamp
                total, count = datum.value.sum, datum.value.count
                value = total if count == 1.0 else rounded(total / count)
                time = usual_time(stamp)
                if time is None or not (
                    0.0 <= value <= PERCENT and 0 < len(instance) <= MAX_INSTANCE_LENGTH
                ):
                    raise ValueError
                out.append(
                    Reading(instance, stamp, None, value, time, raw.partition, raw.offset, number)
                )
            number += 1
        if not number:
            raise ValueError
        return out, number - len(out)

    def read(self, value: bytes) -> Iterator[Outcome]:
        """Read the objects of a record."""
        content = value if value[:1] == b"{" else unframed(value)
        if not content.strip():
            raise RecordError("the record is empty", "no-value")
        return self._content(content, ENVELOPES)

    def _content(self, content: bytes, envelopes: int) -> Iterator[Outcome]:
        parts = content.split(b"\n")
        # A line each, as CloudWatch writes them; anything else is taken apart with more care.
        whole = all(part[:1] == b"{" and part[-1:] == b"}" for part in parts if part)
        decode, others = self._decode, self.several
        for part in parts if whole else documents(content):
            if not part:
                continue
            try:
                datum = decode(part)
            except (ValueError, RecursionError):
                several = documents(part) if whole else [part]
                if len(several) > 1:  # objects on one line
                    for one in several:
                        yield from self._content(one, envelopes)
                else:
                    yield from self._object(part, envelopes)
                continue
            if datum.metric_name == CPU and datum.namespace == EC2:
                yield self._selected(datum, part)
            elif others and isinstance(datum, _Whole):
                yield self._other(datum, part)
            else:
                yield None

    def _object(self, document: bytes, envelopes: int) -> Iterator[Outcome]:
        inner = self._opened(document) if envelopes else []
        if inner:
            for content in inner:
                yield from self._inner(content, document, envelopes - 1)
            return
        try:
            yield self._carefully(decoded(document))
        except RecordError as wrong:
            wrong.part = document
            yield wrong

    def _selected(self, datum: _Datum, document: bytes) -> Outcome:
        dimensions = datum.dimensions
        if len(dimensions) != 1 or self._dimension not in dimensions:
            return None
        statistics = datum.value
        if not statistics.count > 0:
            return RecordError("'value.count' is not above 0", "not-a-number", part=document)
        value = statistics.sum / statistics.count
        if value != statistics.sum:
            value = rounded(value)
        if self.labelled and isinstance(datum, _Whole):
            labels = self._labels(document, datum)
            return Point(dimensions[self._dimension], value, datum.timestamp, labels=labels)
        return Point(dimensions[self._dimension], value, datum.timestamp)

    def _other(self, datum: _Whole, document: bytes) -> Outcome:
        """Return a metric that is not CPU, None if it is not selected, or not of an instance."""
        metric = _named(datum.namespace, datum.metric_name)
        if self._dimension not in datum.dimensions or not self.wanted.begins(metric):
            return None
        metric = self._series(metric, datum.dimensions)
        statistics = datum.value
        if not statistics.count > 0:
            return RecordError(
                "'value.count' is not above 0", "not-a-number", part=document, metric=metric
            )
        mean = rounded(statistics.sum / statistics.count)
        return Point(
            *(datum.dimensions[self._dimension], mean, datum.timestamp),
            metric=metric,
            unit=_unit(datum.unit),
            labels=self._labels(document, datum),
        )

    def _series(self, metric: str, dimensions: Mapping[str, str]) -> str:
        return series(
            metric, {name: one for name, one in dimensions.items() if name != self._dimension}
        )

    def _labels(self, document: bytes, datum: _Whole) -> dict[str, str] | None:
        if not self.labelled:
            return None
        record = decoded(document) if self.labels.paths else None
        return self.labels.of(record, datum.dimensions, msgspec.structs.asdict(datum))

    def _opened(self, document: bytes) -> list[str]:
        """Return what an envelope holds, empty if the document is none."""
        try:
            envelope = _envelope(document)
        except (ValueError, RecursionError):
            return []
        if not isinstance(envelope.records, msgspec.UnsetType):
            return [one.data for one in envelope.records]
        return [] if isinstance(envelope.message, msgspec.UnsetType) else [envelope.message]

    def _inner(self, text: str, document: bytes, envelopes: int) -> Iterator[Outcome]:
        content = text.strip().encode()
        try:
            if content[:1] not in (b"{", b"["):
                try:
                    content = base64.b64decode(content, validate=True)
                except binascii.Error:
                    raise RecordError(
                        "what is in the envelope is neither JSON nor base64", "bad-record"
                    ) from None
                content = unframed(content)
                if not is_json(content):
                    yield from self._otlp.read(content)
                    return
            yield from self._content(content, envelopes)
        except RecordError as wrong:
            wrong.part = wrong.part or document
            yield wrong

    def _carefully(self, record: Mapping[str, Any]) -> Point | None:
        """Read an object that is flat, or wrong."""
        for name in ("namespace", "metric_name"):
            if name not in record:
                raise RecordError(f"the field {name!r} is missing", "missing-field")
        namespace, name = record["namespace"], record["metric_name"]
        if not isinstance(namespace, str) or not isinstance(name, str):
            return None
        metric = None if (namespace, name) == (EC2, CPU) else _named(namespace, name)
        if metric is not None and not self.wanted.begins(metric):
            return None
        dimensions = _group(record, "dimensions")
        if self._dimension not in dimensions or (metric is None and len(dimensions) > 1):
            return None
        instance = dimensions[self._dimension]
        unit = None
        if metric is not None:
            metric, unit = self._series(metric, dimensions), _unit(record.get("unit"))
        if not isinstance(instance, str):
            raise RecordError(f"'dimensions.{self._dimension}' is not text", "bad-instance")
        value = _group(record, "value")
        if "timestamp" not in record:
            raise RecordError("the field 'timestamp' is missing", "missing-field", instance)
        if "sum" in value or "count" in value:
            for name in ("sum", "count"):
                if name not in value:
                    raise RecordError(
                        f"the field 'value.{name}' is missing", "missing-field", instance
                    )
            count = number_of(value["count"], "value.count")
            if not count > 0:
                raise RecordError("'value.count' is not above 0", "not-a-number", instance)
            mean = rounded(number_of(value["sum"], "value.sum") / count)
        else:
            statistic = next((name for name in ("average", "max") if name in value), None)
            if statistic is None:
                raise RecordError("the field 'value.sum' is missing", "missing-field", instance)
            mean = number_of(value[statistic], f"value.{statistic}")
        labels = self.labels.of(record, dimensions, record)
        return Point(instance, mean, record["timestamp"], metric=metric, unit=unit, labels=labels)


def _named(namespace: str, name: str) -> str:
    return name if namespace == EC2 else f"{namespace}/{name}"


def _unit(unit: Any) -> str | None:
    """Return a unit of CloudWatch as the flow names it."""
    if not isinstance(unit, str) or unit == "None":
        return None
    return "%" if unit == "Percent" else unit


def _group(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the fields of an object in a record, or those that begin with its name and a dot."""
    found = record.get(name)
    if isinstance(found, dict):
        return found
    prefix = f"{name}."
    return {
        field.removeprefix(prefix): value
        for field, value in record.items()
        if field.startswith(prefix)
    }
