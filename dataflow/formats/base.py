"""What every format has: it reads the readings of a raw record, or says why it cannot."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, TypeAlias

import msgspec

from dataflow.formats.metrics import BOUNDS, CPU, MAX_LENGTH, Labels, Wanted
from dataflow.records import Raw, Reading, Rejected, seconds

__all__ = [
    "DIGITS",
    "MAX_INDEX",
    "MAX_INSTANCE_LENGTH",
    "MAX_READINGS",
    "PERCENT",
    "Decode",
    "Fields",
    "Format",
    "Point",
    "RecordError",
    "Reject",
    "Skip",
    "bounds",
    "inverted",
    "rounded",
    "short",
    "usual_time",
]

MAX_INSTANCE_LENGTH = 256
"""Characters of an instance's name, at most."""

MAX_INDEX = 2**63
"""An index is below this, or text of at most `MAX_INSTANCE_LENGTH` characters."""

ABOVE = 0.05
"""Values above the scale by at most this share of it are the scale: hosts report 101% CPU."""

BELOW = 1e-6
"""Values below 0 by at most this share of the scale are 0: differences of counters are rounded."""

MAX_READINGS = 100_000
"""Readings of a record, at most, those that are skipped included."""

MAX_REJECTED = 100
"""Rejected readings of a record, at most: a record of a megabyte may hold 500,000 broken ones."""

PERCENT = 100.0
"""The scale of CPU in percent."""

DIGITS = 10
"""Digits after the point of a value that was computed from those of a record."""

TEN_TO_DIGITS = 10.0**DIGITS

Reject: TypeAlias = Callable[[Raw, str, str], Rejected]
"""Makes a rejected record of a raw one, the code of the reason, and a sentence."""

Skip: TypeAlias = Callable[[int], object]
"""Counts readings that the settings do not select."""

Decode: TypeAlias = Callable[[list[Raw]], list[Reading | Rejected]]
"""Reads a batch of records: their readings, and what is rejected, in the order of the records."""


class Fields(msgspec.Struct, frozen=True):
    """What the settings say about records: the names of their fields, and the range of values.

    `key` and `time` are None where records have no such field; `only_instance` is then the name of
    the one instance. `index` is None where readings go by their time. Values lie in 0 to `scale`;
    None: they have no bounds. A value that is outside by little is the bound.

    A name that begins with `/` is a path: a JSON Pointer (RFC 6901). `each` is the path of a list,
    each element of which is a reading: all other paths begin at the element. Only records with each
    of the pairs of path and pattern in `where` are read, and of `invert`ed values what is missing
    to the scale. `renamed` says that the settings name the key: formats that know where it is
    search for this name instead. `metrics` are the names and patterns of the metrics to read,
    `metric` the field with the name of a record's metric, None where all are of one, and `labels`
    the tags or paths of what is kept of each reading.
    """

    key: str | None
    time: str | None
    index: str | None
    value: str
    only_instance: str | None
    scale: float | None
    where: tuple[tuple[str, str], ...] = ()
    each: str | None = None
    invert: bool = False
    renamed: bool = False
    metrics: tuple[str, ...] = (CPU,)
    metric: str | None = None
    labels: tuple[str, ...] = ()


class Point(msgspec.Struct, frozen=True, gc=False, repr_omit_defaults=True):
    """What a format reads from a record.

    `value` is in the unit of the input (0 to the scale), `time` is None or what
    `dataflow.records.seconds` reads: text, or a number of seconds, milliseconds, microseconds or
    nanoseconds since 1970; `index` counts the readings of the instance, and is None where nothing
    does. `counter` has seconds of CPU that only grow, of which the flow makes a
    share: those that were idle, and all. The value is then the whole scale. `part` names the CPU
    whose idle seconds they are, where each comes in a reading of its own; all are then 0.

    `metric` is the name of a metric that is not CPU. Its value is as it came, in `unit`: between 0
    and 100 if that is `%`, between 0 and 1 if it is `ratio`, else without bounds. A format may
    return all metrics: those that the settings do not select are skipped. `labels` are what
    `Labels.of` returns.
    """

    instance: str
    value: float
    time: str | int | float | None
    index: str | int | float | None = None
    counter: tuple[float, float] | None = None
    part: str | None = None
    metric: str | None = None
    unit: str | None = None
    labels: dict[str, str] | None = None


class RecordError(ValueError):
    """Raised by a format that cannot read a record.

    `reason` is a short code, by which rejected records are counted and replayed; the message is a
    sentence for the person who reads them. `instance`, `time` (seconds since 1970) and `metric` are
    those of the record where they could be read: an instance that sends unusable values still
    sends. `part` has the bytes of one reading of many, if they are a record of their own.
    """

    def __init__(
        self,
        sentence: str,
        reason: str = "bad-record",
        instance: str | None = None,
        time: float | None = None,
        part: bytes | None = None,
        metric: str | None = None,
    ) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.instance = instance
        self.time = time
        self.part = part
        self.metric = metric


class Format(ABC):
    """How a raw record becomes readings. Subclass it for a format of your own.

    A subclass implements `read`. Everything else is done for it: the checks of what it returns,
    rejected records, offsets. Select it with ANOMALY_FORMAT=module:Class. It must be pure: the same
    bytes give the same points, for the flow reads records again after a crash.

    >>> class Comma(Format):
    ...     def read(self, value: bytes) -> Point:
    ...         host, time, cpu = value.decode().split(",")
    ...         return Point(host, float(cpu), time)
    >>> from dataflow.records import Source
    >>> def reject(raw: Raw, reason: str, sentence: str) -> Rejected:
    ...     return Rejected(reason, sentence, Source("cpu", raw.partition, raw.offset), None)
    >>> decode = Comma(Fields(None, None, None, "", None, 100)).decoder(reject)
    >>> batch = [Raw(0, 7, b"web-1,2025-03-14,42.5"), Raw(0, 8, b"web-1,2025-03-15,420")]
    >>> good, bad = decode(batch)
    >>> good.value, bad.error
    (42.5, 'the value is 420, outside 0 to 100')
    """

    names: tuple[str, str, str, str] = ("the instance", "the value", "the time", "the index")
    """What sentences call the fields of a point."""

    percent: ClassVar[bool] = False
    """Whether values are percentages of CPU, whatever ANOMALY_SCALE says of other formats."""

    cpu_names: ClassVar[tuple[str, ...]] = ()
    """What the feed calls CPU: ANOMALY_METRICS selects CPU by these names too."""

    def __init__(self, fields: Fields) -> None:
        self.fields = fields
        self.wanted = Wanted(fields.metrics, self.cpu_names)
        self.labels = Labels(fields.labels)
        self.labelled = bool(fields.labels)
        self.several = self.wanted.others
        self.only_cpu = not self.several and not self.labelled
        self._no_cpu = self.percent and not self.wanted.cpu
        self._as_it_is = self.percent and fields.scale in (None, PERCENT)

    @abstractmethod
    def read(self, value: bytes) -> Point | Iterable[Point | RecordError | None]:
        """Read the bytes of a record: a point, or many of them.

        Raise `RecordError`, or any `ValueError`, to reject the record with a sentence. Any other
        exception rejects it too, with the name of the exception. Among many points, a `RecordError`
        rejects one, and None skips one that the settings do not select; the place of each counts.
        """

    def key(self, value: bytes) -> str | None:
        """Return the instance of a record, to key it by; None if it has none, or several."""
        try:
            found = self.read(value)
            points = (found,) if isinstance(found, Point) else found
            names = {point.instance for point in points if isinstance(point, Point)}
        except Exception:
            return None
        return names.pop() if len(names) == 1 else None

    @property
    def usual(self) -> bool:
        """Whether values are percentages as they are, of instances that have their own name."""
        named = self.fields.key is not None and not self.fields.renamed
        return self._as_it_is and self.only_cpu and named

    def decoder(self, reject: Reject, skip: Skip = lambda count: None) -> Decode:
        """Return the function that reads a batch of records. It never raises."""

        def decode(batch: list[Raw]) -> list[Reading | Rejected]:
            out: list[Reading | Rejected] = []
            for raw in batch:
                out += self.readings(raw, reject, skip)
            return out

        return decode

    def readings(self, raw: Raw, reject: Reject, skip: Skip) -> Sequence[Reading | Rejected]:
        """Return the readings of a record, and what of it is rejected. It never raises."""
        if raw.value is None:
            return (reject(raw, "no-value", "the record has no value (a tombstone)"),)
        try:
            found = self.read(raw.value)
            if isinstance(found, Point):
                if (found.metric is not None or self._no_cpu) and self._is_other(found):
                    skip(1)
                    return ()
                return (self._reading(found, raw, 0),)
            return self._many(found, raw, reject, skip)
        except Exception as wrong:
            return (self._rejected(wrong, raw, reject),)

    def _many(
        self,
        found: Iterable[Point | RecordError | None],
        raw: Raw,
        reject: Reject,
        skip: Skip,
    ) -> list[Reading | Rejected]:
        out: list[Reading | Rejected] = []
        broken: list[tuple[int, int, Exception]] = []
        skipped, number = 0, -1
        for number, point in enumerate(found):
            if number >= MAX_READINGS:
                raise RecordError(
                    f"the record holds over {MAX_READINGS:,} readings", "too-many-readings"
                )
            if point is None:
                skipped += 1
                continue
            try:
                if isinstance(point, RecordError):
                    raise point
                if (point.metric is not None or self._no_cpu) and self._is_other(point):
                    skipped += 1
                    continue
                out.append(self._reading(point, raw, number))
            except Exception as wrong:
                broken.append((len(out), number, wrong))
        if broken:
            alone, first = number == 0, broken[0][1]
            for place, at, error in reversed(broken[:MAX_REJECTED]):
                part = self._rejected_part(error, raw, at, reject, alone=alone, first=at == first)
                out.insert(place, part)
            if len(broken) > MAX_REJECTED:
                more = f"; {len(broken) - MAX_REJECTED:,} more readings of the record are rejected"
                last = next(at for at in range(len(out) - 1, -1, -1) if _is_rejected(out[at]))
                rejected = out[last]
                assert isinstance(rejected, Rejected)
                out[last] = msgspec.structs.replace(rejected, error=rejected.error + more)
        if skipped:
            skip(skipped)
        return out

    def _rejected_part(
        self, wrong: Exception, raw: Raw, number: int, reject: Reject, *, alone: bool, first: bool
    ) -> Rejected:
        """Return the rejection of one reading of a record.

        Its bytes are its own if it has some, else those of the record, which are kept once.
        """
        part = wrong.part if isinstance(wrong, RecordError) else None
        kept = raw.value if alone else part
        if kept is None and first:
            kept = raw.value
        rejected = self._rejected(wrong, Raw(raw.partition, raw.offset, kept), reject)
        if not number:
            return rejected
        source = msgspec.structs.replace(rejected.source, number=number)
        return msgspec.structs.replace(rejected, source=source)

    def _rejected(self, wrong: Exception, raw: Raw, reject: Reject) -> Rejected:
        if not isinstance(wrong, RecordError):
            kind = "" if isinstance(wrong, ValueError) else f"{type(wrong).__name__}: "
            return reject(raw, "bad-record", f"the record cannot be read: {kind}{wrong}")
        rejected = reject(raw, wrong.reason, str(wrong))
        if wrong.instance is None:
            return rejected
        # The reading is lost, not the sign that its instance sends.
        return msgspec.structs.replace(
            rejected, instance=wrong.instance, time=wrong.time, metric=wrong.metric
        )

    def _is_other(self, point: Point) -> bool:
        """Return whether a point is of a metric that the settings do not select."""
        metric = point.metric
        return self._no_cpu if metric is None else not self.wanted.named(metric)

    def _reading(self, point: Point, raw: Raw, number: int) -> Reading:
        instance, value, stamp, index = point.instance, point.value, point.time, point.index
        time: float | None
        if (
            self._as_it_is
            and point.metric is None
            and index is None
            and value.__class__ is float
            and 0.0 <= value <= PERCENT
            and instance.__class__ is str
            and 0 < len(instance) <= MAX_INSTANCE_LENGTH
            and not (self.several and "\0" in instance)
            and isinstance(stamp, int)
            and (time := usual_time(stamp)) is not None
        ):
            pass  # as a rule
        else:
            value, time = self._check(point)
        counter, part = point.counter, point.part
        if counter is not None:
            idle, total = counter
            if not (0.0 <= idle < math.inf and (part or idle <= total * (1.0 + BELOW) < math.inf)):
                raise RecordError(
                    "the idle seconds are not within all seconds", "out-of-range", instance, time
                )
        return Reading(
            *(instance, stamp, index, value, time, raw.partition, raw.offset, number),
            *(counter, part, point.metric, point.unit, point.labels),
        )

    def _check(self, point: Point) -> tuple[float, float | None]:
        """Return the value, within its bounds, and the time of a point. Raises `RecordError`."""
        instance, index = point.instance, point.index
        instance_name, value_name, time_name, index_name = self.names
        if not isinstance(instance, str) or not 0 < len(instance) <= MAX_INSTANCE_LENGTH:
            raise RecordError(
                f"{instance_name} is not text of 1 to {MAX_INSTANCE_LENGTH} characters",
                "bad-instance",
            )
        metric = point.metric
        if self.several and "\0" in instance:
            raise RecordError(
                f"{instance_name} holds a NUL, which separates it from a metric", "bad-instance"
            )
        if metric is not None and not 0 < len(metric) <= MAX_LENGTH:
            raise RecordError(
                f"the name of the metric has not 1 to {MAX_LENGTH} characters: {short(metric)}",
                "bad-metric",
            )
        time = bad_time = None
        if point.time is not None:
            try:
                time = seconds(point.time)
            except (TypeError, ValueError) as error:
                bad_time = f"{time_name} cannot be read as a time ({error}): {short(point.time)}"
        try:
            if metric is None:
                value = self._bounded(point.value, value_name)
            else:
                scale = None if point.unit is None else BOUNDS.get(point.unit)
                value = _within(point.value, scale, f"{value_name} of {metric}")
            if bad_time:
                raise RecordError(bad_time, "bad-timestamp")
            if isinstance(index, str):
                if len(index) > MAX_INSTANCE_LENGTH:
                    raise RecordError(
                        f"{index_name} is too large: over {MAX_INSTANCE_LENGTH} characters",
                        "bad-index",
                    )
            elif index is not None and not abs(index) < MAX_INDEX:
                raise RecordError(
                    f"{index_name} is too large: {short(index)}, not below 2^63", "bad-index"
                )
        except RecordError as wrong:
            wrong.instance, wrong.time, wrong.metric = instance, time, metric
            raise
        return value, time

    def _bounded(self, value: int | float, name: str) -> float:
        """Return a value, or the bound that it is outside of by little. Raises `RecordError`."""
        scale = PERCENT if self.percent else self.fields.scale
        value = _within(value, scale, name)
        if scale is None:
            return value
        if self.percent and self.fields.scale is not None:
            return value if self.fields.scale == scale else value / scale * self.fields.scale
        return inverted(value, scale) if self.fields.invert else value


def _within(value: int | float, scale: float | None, name: str) -> float:
    """Return a value of 0 to the scale, or the bound that it is outside of by little.

    Raises `RecordError` for any other value, and for one that is not finite.
    """
    try:
        finite = isinstance(value, (int, float)) and math.isfinite(value)
    except OverflowError:  # an integer that is too large for a float
        finite = False
    if not finite:
        raise RecordError(f"{name} is not a finite number", "not-a-number")
    if scale is None:
        return float(value)
    low, high = bounds(scale)
    if not low <= value <= high:
        raise RecordError(f"{name} is {short(value)}, outside 0 to {short(scale)}", "out-of-range")
    return min(max(float(value), 0.0), float(scale))


def inverted(value: float, scale: float) -> float:
    """Return what is missing to the scale, without the digits that the subtraction makes up.

    >>> inverted(95.34, 100.0)
    4.66
    """
    return rounded(scale - value)


def rounded(value: float) -> float:
    """Return `round(value, DIGITS)`, for most percentages in half the time.

    Python goes by the decimal digits. Here the product is off by at most 0.0002, so that only the
    digits of a half could be other ones; and both return the number that is nearest to the digits.

    >>> rounded(4.659999999999997), rounded(1 / 3)
    (4.66, 0.3333333333)
    """
    if 0.0 < value <= PERCENT:
        scaled = value * TEN_TO_DIGITS
        whole = round(scaled)
        if -0.499 < scaled - whole < 0.499:
            return whole / TEN_TO_DIGITS
    return round(value, DIGITS)


def usual_time(stamp: int) -> float | None:
    """Return a time of the years 2001 to 2286 in seconds; None if the number may be another.

    >>> usual_time(1741449600000), usual_time(20140214143000)
    (1741449600.0, None)
    """
    if 10**9 <= stamp < 10**10:
        return float(stamp)
    if 10**12 <= stamp < 10**13:
        return stamp / 1e3
    return stamp / 1e9 if 10**18 <= stamp < 10**19 else None


def _is_rejected(record: Reading | Rejected) -> bool:
    return isinstance(record, Rejected)


def bounds(scale: float) -> tuple[float, float]:
    """Return the least and the greatest value that count as 0 and as the scale.

    >>> bounds(1.0)
    (-1e-06, 1.05)
    """
    return -BELOW * scale, (1 + ABOVE) * scale


def short(value: object) -> str:
    """Return a value as it is shown in a sentence: exact, but of at most 40 characters.

    >>> short(100.00000000000001), short(5.0), short("now")
    ('100.00000000000001', '5', "'now'")
    """
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        text = "a number of over 4,300 digits"
    if isinstance(value, float):
        text = text.removesuffix(".0")
    return text if len(text) <= 40 else text[:37] + "..."
