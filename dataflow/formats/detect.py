"""Finds out by some records which format they have, and which settings read them. Pure.

A choice is `sure` if records of another meaning cannot look the same. Others are only proposed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from dataflow.formats.base import Fields, Point, RecordError
from dataflow.formats.framing import documents, unframed
from dataflow.formats.influx import Line, lines
from dataflow.formats.json import Json
from dataflow.formats.otlp import Otlp, is_json
from dataflow.formats.paths import UNSET, find, parse

__all__ = ["Choice", "choose", "detect", "guess"]

LOOK = 100
"""Records of a batch that are looked at."""

Where = tuple[tuple[str, str], ...]


class Choice(NamedTuple):
    """A format, and the settings that differ from the default, by their names; None is `none`."""

    format: str
    settings: Mapping[str, Any] = {}
    sure: bool = True


ENVELOPES = ("/payload/after", "/payload", "/data", "/after", "/value", "/record", "/fields")
"""Where Connect, Debezium and CloudEvents keep what they carry."""

_decode = msgspec.json.Decoder().decode


def choose(values: Iterable[bytes | None], fields: Fields, *, sure: bool = True) -> Choice | None:
    """Return the choice for records of a topic or a file, None if none can be used.

    The fields of the settings come first: if any of the records can be read with them as they are,
    the format is `json`. `sure`: only a choice that cannot be wrong.

    >>> fields = Fields("instance", "timestamp", "index", "value", None, 100.0)
    >>> choose([b"?", b'{"instance": "a", "timestamp": 0, "value": 5}'], fields)
    Choice(format='json', settings={'index_field': None}, sure=True)
    >>> choose([b"cpu,cpu=cpu-total,host=a usage_idle=58.5 1741449600000000000"], fields)
    Choice(format='telegraf', settings={}, sure=True)
    """
    known = [value for value, _ in zip(values, range(LOOK), strict=False) if value]
    plain = Json(fields)
    if any(_reads(plain, value) for value in known):
        return Choice("json")
    unsure: Choice | None = None
    for value in known:
        found = detect(value, fields)
        if found is not None and found.sure:
            return found
        unsure = unsure or found
    return None if sure else unsure


def _reads(plain: Json, value: bytes) -> bool:
    try:
        found = plain.read(value)
    except RecordError:
        return False
    return isinstance(found, Point) or any(isinstance(one, Point) for one in found)


def detect(value: bytes, fields: Fields) -> Choice | None:
    """Return the choice for one record, None if nothing is known that looks like it."""
    try:
        content = unframed(value)
        if not is_json(content):
            return _not_json(content, fields)
        parts = documents(content)[:LOOK]
    except RecordError:
        return None
    for part in parts:
        try:
            record = _decode(part)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and (found := _of(record, fields)) is not None:
            return found
    return None


def _not_json(content: bytes, fields: Fields) -> Choice | None:
    first = next(lines(content[:65536]), None)
    if isinstance(first, Line):
        return Choice("telegraf")
    try:
        return Choice("otlp") if any(True for _ in Otlp(fields).read(content)) else None
    except RecordError:
        return None


def _of(record: dict[str, Any], fields: Fields) -> Choice | None:
    for format, marks in FEEDS:
        if all(find(record, path) is not UNSET for path in marks):
            return _named(format, record)
    if isinstance(message := record.get("message"), str):
        inner = detect(message.encode(), fields)
        return inner if inner is not None and inner.format == "cloudwatch" else None
    if isinstance(bodies := record.get("records"), list) and "requestId" in record:
        ok = any(isinstance(body, dict) and "data" in body for body in bodies)
        return Choice("cloudwatch") if ok else None
    return _json(record, fields)


FEEDS = tuple(
    (format, tuple(map(parse, marks)))
    for format, marks in (
        ("cloudwatch", ("/namespace", "/metric_name", "/timestamp")),
        ("otlp", ("/resourceMetrics",)),
        ("otlp", ("/resource", "/name", "/gauge")),
        ("otlp", ("/resource", "/name", "/sum")),
        ("otlp", ("/resource", "/name", "/summary")),
        ("telegraf", ("/name", "/fields", "/tags", "/timestamp")),
        ("telegraf", ("/metrics/0/name", "/metrics/0/fields", "/metrics/0/timestamp")),
        ("prometheus", ("/labels/__name__", "/name", "/timestamp", "/value")),
        ("metricbeat", ("/@timestamp", "/event/dataset")),
        ("vector", ("/name", "/kind", "/gauge")),
        ("vector", ("/name", "/kind", "/counter")),
        ("vector", ("/metric/name", "/metric/kind")),
        ("fluent-bit", ("/cpu_p",)),
        ("collectd", ("/plugin", "/values", "/dstypes", "/host")),
    )
)
"""What records of each feed have, and no others."""


def _named(format: str, record: dict[str, Any]) -> Choice:
    hosts = ("host", "hostname", "instance_id", "instance", "ec2_instance_id")
    if format == "fluent-bit" and not any(isinstance(record.get(host), str) for host in hosts):
        return Choice(format, {"key_field": None}, sure=False)
    return Choice(format)


def _json(record: dict[str, Any], fields: Fields) -> Choice | None:
    """Return how to read an object with the fields of the settings, here or in an envelope."""
    if _has(record, fields, ""):
        return Choice("json", {} if _index(record, fields, "") else {"index_field": None})
    if "usage_idle" in record and {"name", "cpu", "host", "timestamp"} <= record.keys():
        where = (("/name", "cpu"), ("/cpu", "cpu-total"))
        names = {"key_field": "host", "value_field": "usage_idle", "index_field": None}
        return Choice("json", {**names, "where": where, "invert": True})
    for prefix in ENVELOPES:
        inner = find(record, parse(prefix))
        if isinstance(inner, dict) and _has(inner, fields, prefix):
            names = {
                "key_field": None if fields.key is None else f"{prefix}/{fields.key}",
                "value_field": f"{prefix}/{fields.value}",
                "time_field": None if fields.time is None else f"{prefix}/{fields.time}",
                "index_field": f"{prefix}/{fields.index}"
                if _index(inner, fields, prefix)
                else None,
            }
            return Choice("json", names)
    return None


def _has(record: dict[str, Any], fields: Fields, prefix: str) -> bool:
    names = [name for name in (fields.key, fields.value, fields.time) if name is not None]
    if prefix and any(name.startswith("/") for name in names):
        return False
    return all(find(record, parse(name)) is not UNSET for name in names)


def _index(record: dict[str, Any], fields: Fields, prefix: str) -> bool:
    if fields.index is None or (prefix and fields.index.startswith("/")):
        return False
    return find(record, parse(fields.index)) is not UNSET


KEYS = (
    *("instance", "instance_id", "instanceId", "InstanceId", "host", "hostname", "node", "device"),
    *("server", "machine", "name"),
)
TIMES = (
    *("timestamp", "time", "ts", "@timestamp", "Timestamp", "Time", "datetime", "date"),
    *("event_time", "created_at", "at"),
)
VALUES = (
    *("value", "cpu", "cpu_percent", "cpu_usage", "cpu_utilization", "CPUUtilization", "usage"),
    *("Average", "utilization", "cpu_pct", "load", "usage_active"),
)


def guess(values: Iterable[bytes | None]) -> Choice | None:
    """Return a guess by the names of the fields of JSON objects, which a person has to confirm.

    >>> guess([b'{"host": "a", "ts": 1741449600, "cpu": 41.5}']).settings["value_field"]
    'cpu'
    """
    for value in values:
        try:
            record = _decode(documents(unframed(value or b""))[0])
        except (ValueError, RecursionError, IndexError):
            continue
        if isinstance(record, dict) and (found := _guess(record)) is not None:
            return found
    return None


def _guess(record: dict[str, Any]) -> Choice | None:
    value = next((name for name in VALUES if _is_number(record.get(name))), None)
    time = next((name for name in TIMES if name in record), None)
    key = next((name for name in KEYS if isinstance(record.get(name), (str, int))), None)
    if value is None or time is None:
        return None
    names = {"key_field": key, "value_field": value, "time_field": time, "index_field": None}
    usual = {"key_field": "instance", "value_field": "value", "time_field": "timestamp"}
    other = {name: field for name, field in names.items() if usual.get(name, "index") != field}
    return Choice("json", other, sure=False)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
