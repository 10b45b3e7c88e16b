"""JSON objects whose fields the settings name: by default those of the tutorial."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from fnmatch import fnmatchcase
from operator import attrgetter
from typing import Any, NamedTuple, TypeGuard, TypeVar

import msgspec

from dataflow.formats.base import (
    MAX_INDEX,
    MAX_INSTANCE_LENGTH,
    Decode,
    Fields,
    Format,
    Point,
    RecordError,
    Reject,
    Skip,
    inverted,
    short,
    usual_time,
)
from dataflow.formats.framing import documents, unframed
from dataflow.formats.metrics import BOUNDS, CPU, MAX_LENGTH, unit_of
from dataflow.formats.paths import UNSET, Shape, find, parse, shape
from dataflow.records import Raw, Reading, Rejected, number, seconds

__all__ = ["Json", "decoded", "is_scalar", "kind_of", "number_of"]

CACHED = 8192
"""Maximum number of parsed times, and of parsed indexes, that are cached."""

CACHED_LENGTH = 64
"""Maximum length of a cached text, in characters."""

CPU_NAMES = frozenset(
    (
        *(CPU, "cpuutilization", "cpu_utilization", "cpu_usage", "cpu_percent", "cpu_pct"),
        *("cpu.utilization", "cpu.usage", "cpu.percent", "cpu_usage_percent"),
        *("system.cpu.utilization", "aws/ec2/cpuutilization"),
    )
)
"""What CPU is called, in small letters."""

T = TypeVar("T")


class Series(NamedTuple):
    """A metric by the name that records have: `metric` is None of CPU, and of the only one."""

    metric: str | None
    unit: str | None

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value."""
        most = None if self.unit is None else BOUNDS.get(self.unit)
        return (-math.inf, math.inf) if most is None else (0.0, most)


ONE = Series(None, None)


class _Parsed(dict[str, T]):
    """A cache of parsed texts: readings of other instances have the same times and indexes.

    It is emptied when full, so hostile input cannot fill the memory.
    """

    def __init__(self, parse: Callable[[str], T]) -> None:
        super().__init__()
        self._parse = parse

    def __missing__(self, text: str) -> T:
        value = self._parse(text)
        if len(text) <= CACHED_LENGTH:
            if len(self) >= CACHED:
                self.clear()
            self[text] = value
        return value


class Json(Format):
    """Reads `{"index": 0, "timestamp": "2014-02-14 14:30:00", "value": 13.2, "instance": "i-1"}`.

    The settings name the fields, by name or by path; further fields are ignored. Numbers may be
    text, and the name of an instance a whole number. A record may hold several such objects.

    ANOMALY_METRIC_FIELD names the field with the name of a metric. `cpu`, `CPUUtilization` and the
    like are CPU; of other metrics, only a name that says a percentage or a ratio gives bounds.

    >>> fields = Fields("instance", "timestamp", "index", "value", None, 100.0)
    >>> Json(fields).read(b'{"index": "7", "timestamp": 0, "value": "13.2", "instance": "i-1"}')
    Point(instance='i-1', value=13.2, time=0, index=7)
    >>> fields = Fields("/tags/host", "/timestamp", None, "/fields/usage_idle", None, 100.0,
    ...                 where=(("/name", "cpu"),), each="/metrics", invert=True)
    >>> record = {"name": "cpu", "tags": {"host": "a"}, "fields": {"usage_idle": 58.5}}
    >>> Json(fields).read(msgspec.json.encode({"metrics": [record | {"timestamp": 0}, {}]}))
    [Point(instance='a', value=58.5, time=0), None]
    """

    def __init__(self, fields: Fields) -> None:
        super().__init__(fields)
        self.names = (
            repr(fields.key),
            repr(fields.value),
            repr(fields.time),
            repr(fields.index),
        )
        self._series: dict[str, Series | None] = {}
        self._cpu = ""
        self._where = [(path, pattern, parse(path)) for path, pattern in fields.where]
        self._each = None if fields.each is None else parse(fields.each)
        self._paths = {
            name: parse(field)
            for name in ("key", "time", "index", "value", "metric")
            if (field := getattr(fields, name)) is not None
        }
        names = (fields.key, fields.time, fields.index, fields.value)
        flat = not any(name.startswith("/") for name in names if name is not None)
        one = fields.metric is None and not fields.labels and not fields.where and not fields.each
        self._plain = flat and fields.index is not None and one
        key = parse(fields.key or "key")
        found = shape({"key": (key, str | int)}) if not fields.each else None
        self._parse_key = None if found is None else msgspec.json.Decoder(found.type).decode
        self._get_key = None if found is None else found.get("key")

    def read(self, value: bytes) -> Point | list[Point | RecordError | None]:
        """Read a record, field by field; `RecordError` says what is wrong with it."""
        content = unframed(value)
        if not content.strip():
            raise RecordError("the record is empty", "no-value")
        found = documents(content)
        if found != [content] and not any(one.lstrip().startswith(b"{") for one in found):
            raise RecordError("the record is an array, not a JSON object", "not-an-object")
        if self._each is not None:
            found = [part for one in found for part in self._elements(one, self._each)]
        elif len(found) == 1 and content.lstrip()[:1] != b"[":
            point = self._one(found[0])
            return [None] if point is None else point
        return [self._part(one) for one in found]

    def _elements(self, document: bytes, each: tuple[str, ...]) -> list[bytes]:
        """Return the elements of the list of readings in a document, each as JSON."""
        record = decoded(document)
        if (what := find(record, each)) is UNSET:
            raise RecordError(f"the field {self.fields.each!r} is missing", "missing-field")
        if not isinstance(what, list):
            raise RecordError(
                f"{self.fields.each!r} is {kind_of(what)}, not an array", "not-an-array"
            )
        return [msgspec.json.encode(one) for one in what]

    def _part(self, document: bytes) -> Point | RecordError | None:
        try:
            return self._one(document)
        except RecordError as wrong:
            wrong.part = self._alone(document)
            return wrong

    def _alone(self, document: bytes) -> bytes:
        """Return a reading of many as a record of its own, which is read the same way."""
        if self._each is None:
            return document
        body: Any = [msgspec.Raw(document)]
        for step in reversed(self._each):
            body = {step: body}
        return msgspec.json.encode(body)

    def _one(self, document: bytes) -> Point | None:
        record = decoded(document)
        if not all(self._matches(record, *one) for one in self._where):
            return None
        series = self._metric(record)
        if series is None:
            return None
        try:
            return self._point(record, series)
        except RecordError as wrong:
            wrong.instance, wrong.time = self._origin(record)
            wrong.metric = series.metric
            raise

    @staticmethod
    def _matches(record: Any, field: str, pattern: str, path: tuple[str, ...]) -> bool:
        found = find(record, path)
        if not isinstance(found, str):
            if found is UNSET or isinstance(found, (dict, list)):
                return False
            found = msgspec.json.encode(found).decode()
        return fnmatchcase(found, pattern)

    def _point(self, record: Any, series: Series) -> Point:
        fields = self.fields
        found: dict[str, Any] = {"key": fields.only_instance, "time": None, "index": None}
        for name, path in self._paths.items():
            if name == "metric":
                continue
            found[name] = find(record, path)
            if found[name] is UNSET:
                field = getattr(fields, name)
                raise RecordError(f"the field {field!r} is missing", "missing-field")
        instance = found["key"]
        if isinstance(instance, int) and not isinstance(instance, bool):
            instance = short(instance)
        if not isinstance(instance, str):
            raise RecordError(f"{fields.key!r} is {kind_of(instance)}, not text", "bad-instance")
        if not instance:
            raise RecordError(f"{fields.key!r} is empty", "bad-instance")
        if len(instance) > MAX_INSTANCE_LENGTH:
            raise RecordError(
                f"{fields.key!r} is longer than {MAX_INSTANCE_LENGTH} characters", "bad-instance"
            )
        value = number_of(found["value"], fields.value)
        time = found["time"]
        if fields.time is not None and not is_scalar(time):
            raise RecordError(f"{fields.time!r} is {kind_of(time)}, not a time", "bad-timestamp")
        index = found["index"]
        if fields.index is not None and not is_scalar(index):
            raise RecordError(
                f"{fields.index!r} is {kind_of(index)}, neither a number nor text", "bad-index"
            )
        if isinstance(index, str) and len(index) <= MAX_INSTANCE_LENGTH:
            index = _index(index)
        labels = self.labels.of(record, record)
        return Point(
            instance, value, time, index, metric=series.metric, unit=series.unit, labels=labels
        )

    def _series_of(self, name: str) -> Series | None:
        """Return what a metric is, by its name; None if it is not selected.

        Raises `RecordError` if it is a second one that is called CPU.
        """
        try:
            return self._series[name]
        except KeyError:
            pass
        found: Series | None = Series(name, unit_of(name))
        if name.lower() in CPU_NAMES:
            found = ONE if self.wanted.cpu or self.wanted.named(name) else None
            if found is not None:
                self._cpu = self._cpu or name
                if name != self._cpu:
                    raise RecordError(
                        f"the metrics {self._cpu!r} and {name!r} are both CPU: select one of them "
                        "by its name in ANOMALY_METRICS",
                        "bad-metric",
                    )
        elif not self.wanted.named(name):
            found = None
        if len(self._series) >= CACHED:
            self._series.clear()
        self._series[name] = found
        return found

    def _metric(self, record: Any) -> Series | None:
        """Return which metric a record is of, None if it is not selected."""
        if self.fields.metric is None:
            return ONE
        name = find(record, self._paths["metric"])
        if name is UNSET:
            raise RecordError(f"the field {self.fields.metric!r} is missing", "missing-field")
        if not isinstance(name, str) or not name:
            raise RecordError(
                f"{self.fields.metric!r} is {kind_of(name)}, no name of a metric", "bad-metric"
            )
        return self._series_of(name)

    def _origin(self, record: Any) -> tuple[str | None, float | None]:
        """Return the instance and the time of a record that cannot be used, None if unknown."""
        key, time = self._paths.get("key"), self._paths.get("time")
        instance = self.fields.only_instance if key is None else find(record, key)
        if isinstance(instance, int) and not isinstance(instance, bool):
            instance = short(instance)
        if not isinstance(instance, str) or not 0 < len(instance) <= MAX_INSTANCE_LENGTH:
            return None, None
        stamp = None if time is None else find(record, time)
        try:
            return instance, seconds(stamp) if is_scalar(stamp) else None
        except ValueError:
            return instance, None

    def key(self, value: bytes) -> str | None:
        """Return the instance of a record, None if it has none; its other fields may be wrong."""
        if self.fields.key is None:
            return self.fields.only_instance
        if self._parse_key is not None and self._get_key is not None:
            try:
                key = self._get_key(self._parse_key(unframed(value)))
            except (ValueError, RecursionError):
                pass
            else:
                return None if key is UNSET else str(key)
        return super().key(value)

    def decoder(self, reject: Reject, skip: Skip = lambda count: None) -> Decode:
        """Return the function that reads a batch: one loop, as every record passes it."""
        return self._plain_loop(reject, skip) if self._plain else self._loop(reject, skip)

    def _plain_loop(self, reject: Reject, skip: Skip) -> Decode:
        fields = self.fields
        # Not strict: numbers may be text, as the tutorial's producer writes them.
        parse: Callable[[bytes], Any] = msgspec.json.Decoder(_metric(fields), strict=False).decode
        scale = fields.scale
        low, high = (-math.inf, math.inf) if scale is None else (0.0, scale)
        timeless = fields.time is None
        times, indexes = _Parsed(seconds), _Parsed(_index)
        invert, read_carefully = fields.invert, self.readings

        def decode(batch: list[Raw]) -> list[Reading | Rejected]:
            out: list[Reading | Rejected] = []
            add = out.append
            for raw in batch:
                try:
                    read = parse(raw.value)  # type: ignore[arg-type]  # None is rejected below
                    instance, index, value = read.instance, read.index, read.value
                    # NaN and the infinities fail one of these comparisons.
                    if (
                        low <= value <= high
                        and value - value == 0.0
                        and 0 < len(instance) <= MAX_INSTANCE_LENGTH
                    ):
                        timestamp = read.timestamp
                        if timestamp.__class__ is str:
                            time: float | None = times[timestamp]
                        else:
                            time = None if timeless else usual_time(timestamp) or seconds(timestamp)
                        if index.__class__ is str:
                            index = indexes[index]
                        if index.__class__ is str or abs(index) < MAX_INDEX:
                            if invert:
                                value = inverted(value, high)
                            partition, offset = raw.partition, raw.offset
                            add(Reading(instance, timestamp, index, value, time, partition, offset))
                            continue
                except Exception:
                    pass
                # A number in a form that msgspec does not read, a value that is clamped, a record
                # of many readings, or an error.
                out += read_carefully(raw, reject, skip)
            return out

        return decode

    def _shape(self) -> Shape | None:
        """Return how to decode all fields that are read; None if types cannot.

        Conditions are named by their number.
        """
        fields = self.fields
        exact = not any(set(pattern) & set("*?[") for _, pattern, _ in self._where)
        if not exact or self._each is not None:
            return None
        scalar, any_scalar = str | int | float, str | int | float | bool | None
        kinds: dict[str, Any] = {
            **{"key": str | int, "value": float},
            **{"time": scalar, "index": scalar, "metric": str},
        }
        wanted: dict[str, tuple[tuple[str, ...], Any]] = {
            name: (path, kinds[name]) for name, path in self._paths.items()
        }
        wanted |= {f"where {at}": (path, any_scalar) for at, (*_, path) in enumerate(self._where)}
        wanted |= {f"label {label}": (parse(label), any_scalar) for label in fields.labels}
        constants = {"key": fields.only_instance, "time": None, "index": None, "metric": None}
        return shape(wanted, {name: one for name, one in constants.items() if name not in wanted})

    def _loop(self, reject: Reject, skip: Skip) -> Decode:
        fields = self.fields
        found = self._shape()
        if found is None:
            return super().decoder(reject, skip)
        parse_record: Callable[[bytes], Any] = msgspec.json.Decoder(found.type, strict=False).decode
        fields_of = found.get("key", "time", "index", "value")
        names = [f"where {at}" for at in range(len(self._where))]
        conditions = found.get(*names) if names else None
        patterns: Any = tuple(pattern for _, pattern, _ in self._where)
        if len(names) == 1:  # one field is returned as it is, several as a tuple
            (patterns,) = patterns
        each_condition = [
            (found.get(name), pattern)
            for name, (_, pattern, _) in zip(names, self._where, strict=True)
        ]
        metric_of = None if fields.metric is None else found.get("metric")
        labels = [(parse(label)[-1], found.get(f"label {label}")) for label in fields.labels]
        several, timeless = self.several, fields.time is None
        scale, invert = fields.scale, fields.invert
        low, high = (-math.inf, math.inf) if scale is None else (0.0, scale)
        times, indexes = _Parsed(seconds), _Parsed(_index)
        series_of, read_carefully = self._series_of, self.readings

        def is_other(record: Any) -> bool:
            """Return whether a record that fails a condition is to be skipped without a look."""
            is_at = next(found for of, want in each_condition if (found := of(record)) != want)
            return isinstance(is_at, str) or is_at is UNSET

        def labels_of(record: Any) -> dict[str, str] | None:
            found = {
                name: str(one)[:MAX_LENGTH] for name, of in labels if _is_label(one := of(record))
            }
            return found or None

        def read(raw: Raw) -> Reading | None:
            """Read a record, None if it is not selected; any exception: look at it carefully."""
            record = parse_record(raw.value)  # type: ignore[arg-type]
            if conditions is not None and conditions(record) != patterns:
                if is_other(record):
                    return None
                raise ValueError
            series, least, most = ONE, low, high
            if metric_of is not None:
                named = series_of(metric_of(record))
                if named is None:
                    return None
                if named is not ONE:
                    series, (least, most) = named, named.bounds
            instance, timestamp, index, value = fields_of(record)
            if instance.__class__ is int:
                instance = str(instance)
            # NaN and the infinities fail one of these comparisons.
            if not (
                least <= value <= most
                and value - value == 0.0
                and 0 < len(instance) <= MAX_INSTANCE_LENGTH
            ):
                raise ValueError
            if several and ("\0" in instance or len(series.metric or "") > MAX_LENGTH):
                raise ValueError
            time: float | None
            if timestamp.__class__ is str:
                time = times[timestamp]
            else:
                time = None if timeless else usual_time(timestamp) or seconds(timestamp)
            if index.__class__ is str:
                index = indexes[index]
            elif index is not None and not abs(index) < MAX_INDEX:
                raise ValueError
            if invert:
                value = inverted(value, high)
            reading = Reading(instance, timestamp, index, value, time, raw.partition, raw.offset)
            if series is not ONE:
                reading.metric, reading.unit = series.metric, series.unit
            if labels:
                reading.labels = labels_of(record)
            return reading

        def decode(batch: list[Raw]) -> list[Reading | Rejected]:
            out: list[Reading | Rejected] = []
            skipped = 0
            for raw in batch:
                try:
                    reading = read(raw)
                except Exception:
                    out += read_carefully(raw, reject, skip)
                    continue
                if reading is None:
                    skipped += 1
                else:
                    out.append(reading)
            if skipped:
                skip(skipped)
            return out

        return decode


def _is_label(value: Any) -> TypeGuard[str | int | float]:
    return isinstance(value, (str, int, float))


def _index(text: str) -> str | int | float:
    """Return an index as a number if it is one. Raises `ValueError` if it is too long."""
    if len(text) > MAX_INSTANCE_LENGTH:
        raise ValueError
    if text.isdecimal() and text.isascii() and len(text) <= 18:
        return int(text)
    try:
        return number(text)
    except ValueError:
        return text


def _metric(fields: Fields) -> type[msgspec.Struct]:
    """Return the type that records are decoded to; fields that records lack are constants of it."""
    names = {
        "instance": fields.key,
        "timestamp": fields.time,
        "index": fields.index,
        "value": fields.value,
    }
    kinds = {"instance": str, "value": float}
    constants: dict[str, Any] = {"instance": fields.only_instance, "timestamp": None}
    if fields.time == fields.index:  # msgspec cannot decode one field twice
        del names["timestamp"]
        constants["timestamp"] = property(attrgetter("index"))
    rename = {name: field for name, field in names.items() if field is not None}
    return msgspec.defstruct(
        "Metric",
        [(name, kinds.get(name, str | int | float)) for name in rename],
        rename=rename,
        namespace={name: value for name, value in constants.items() if name not in rename},
        gc=False,
    )


def decoded(value: bytes) -> dict[str, Any]:
    """Return a JSON object as a dict. Raises `RecordError` if it is none."""
    if not value.strip():
        raise RecordError("the record is empty", "no-value")
    try:
        record = msgspec.json.decode(value)
    except RecursionError:
        raise RecordError("the record is nested too deeply", "not-json") from None
    except UnicodeDecodeError:
        raise RecordError("the record is not UTF-8", "not-json") from None
    except ValueError as error:  # msgspec's errors are ValueErrors
        record = _with_infinite_numbers(value) if "out of range" in str(error) else None
        if record is None:
            raise RecordError(f"the record is not JSON: {error}", "not-json") from None
    if not isinstance(record, dict):
        raise RecordError(f"the record is {kind_of(record)}, not a JSON object", "not-an-object")
    return record


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _with_infinite_numbers(value: bytes) -> Any:
    """Return a record with a number that is too large for a float, None if it is not JSON."""
    try:
        return json.loads(value, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None


def number_of(value: Any, field: str) -> int | float:
    """Return a value that is a number, or text that is one. Raises `RecordError`."""
    if not is_scalar(value):
        raise RecordError(f"{field!r} is {kind_of(value)}, not a number", "not-a-number")
    if not isinstance(value, str):
        return value
    try:
        return number(value)
    except ValueError:
        pass
    finite = " finite" if value.lower().lstrip("+-") in ("nan", "inf", "infinity") else ""
    raise RecordError(f"{field!r} is not a{finite} number: {short(value)}", "not-a-number")


def is_scalar(value: Any) -> TypeGuard[str | int | float]:
    """Return whether a value is text or a number."""
    return isinstance(value, (str, int, float)) and not isinstance(value, bool)


def kind_of(value: object) -> str:
    """Return what a value of JSON is, in words."""
    names = {dict: "an object", list: "an array", str: "text", bool: "true or false"}
    return "null" if value is None else names.get(type(value), "a number")
