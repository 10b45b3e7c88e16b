"""The records that pass through the flow, and how they are written as JSON.

Raw       an undecoded record of a partition or file; BadLine: a line that is none
Reading   one value of one instance at one time
Rejected  a record that could not be used, and why
Anomaly   a reading with a score above the threshold
Over      the end of an episode, for people who watch the flow
Incident  a change of an incident: the anomalies, or the silence, of one instance
"""

from __future__ import annotations

import hashlib
import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal, TypeAlias

import msgspec

__all__ = [
    "ALL",
    "Anomaly",
    "BadLine",
    "Explanation",
    "Incident",
    "Kind",
    "Member",
    "MetricShare",
    "Outcome",
    "Over",
    "Raw",
    "Reading",
    "Reason",
    "Rejected",
    "Severity",
    "Source",
    "Spread",
    "anomaly_id",
    "encode",
    "incident_id",
    "key_of",
    "number",
    "seconds",
    "series_key",
    "series_parts",
]

encode = msgspec.json.Encoder().encode

ALL = "*"
"""The metric of what is said of all metrics of an instance together."""


class Source(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Where a record was read: topic, partition, offset; for a file: its name, 0, record number.

    Where a record holds many readings, `number` counts them from 0, and is written unless it is 0.
    """

    topic: str
    partition: int
    offset: int
    number: int = 0


class Raw(msgspec.Struct, frozen=True, gc=False):
    """An undecoded record, its partition and its offset."""

    partition: int
    offset: int
    value: bytes | None


class BadLine(Raw, frozen=True, gc=False):
    """A line of a file that holds no record: `value` is the line, and `error` says why."""

    error: str


class Reading(msgspec.Struct, gc=False, omit_defaults=True):
    """One value of one instance.

    `timestamp` and `index` are as in the record, but an index that is a number in text is a number;
    it is None where readings have none. `time` is the timestamp in seconds since 1970, UTC.
    `timestamp` and `time` are None if the settings name no time field. `value` is as in the record,
    and 0 to 1 once normalized. `number` is the place of the reading in its record, from 0.
    `counter` has the seconds that a host's CPUs were idle so far, and all their seconds: the value
    is then the whole scale, until the reading before gives the share that was in use between. With
    a `part`, the name of one CPU, only its idle seconds are known, and all are 0. `metric` is None
    for what is scored by default, CPU; `unit` is that of any other metric, if it is known. `labels`
    are those that the settings ask for.
    """

    instance: str
    timestamp: str | int | float | None
    index: str | int | float | None
    value: float
    time: float | None
    partition: int
    offset: int
    number: int = 0
    counter: tuple[float, float] | None = None
    part: str | None = None
    metric: str | None = None
    unit: str | None = None
    labels: dict[str, str] | None = None


def series_key(instance: str, metric: str | None) -> str:
    """Return the key by which the flow keeps what it knows of a metric of an instance.

    Of what is scored by default, it is the instance: recovery stores of before know no other. An
    instance with several metrics has no NUL in its name, so no two series have one key.

    >>> series_key("web-1", None), series_key("web-1", "mem.used_percent")
    ('web-1', 'web-1\\x00mem.used_percent')
    """
    return instance if metric is None else f"{instance}\0{metric}"


def series_parts(key: str) -> tuple[str, str | None]:
    """Return the instance and the metric of a key.

    >>> series_parts("web-1"), series_parts(series_key("web-1", "load"))
    (('web-1', None), ('web-1', 'load'))
    """
    instance, separator, metric = key.partition("\0")
    return instance, metric if separator else None


def key_of(reading: Reading) -> str:
    """Return the key of a reading's series."""
    return series_key(reading.instance, reading.metric)


class Rejected(msgspec.Struct, frozen=True, omit_defaults=True):
    """A rejected record: the kind of reason, a sentence, its source, and its bytes in base64.

    `raw` is None if the record had no value, or more bytes than can be kept. `instance`, `time`
    (seconds since 1970) and `metric` are set, and written, where they could be read though the
    record could not.
    """

    reason: str
    error: str
    source: Source
    raw: str | None
    instance: str | None = None
    time: float | None = None
    metric: str | None = None


Kind: TypeAlias = Literal["hour", "level", "jump", "lately", "range", "stuck"]


class Reason(msgspec.Struct, frozen=True):
    """One part of a score: its kind, and its share of the whole, from 0 to 1.

    `hour`: off the habit of this hour. `level`: off the level of the last day. `jump`: a jump since
    the reading before. `lately`: the readings of the last hours, more than this one. `range`:
    beyond all of the last weeks. `stuck`: unchanged for far longer than ever.
    """

    kind: Kind
    share: float


class Explanation(msgspec.Struct, frozen=True):
    """Why a reading is an anomaly: the shares of its reasons add up to 1.

    `ordinary` is the range of values around the expected one with which this reading would not have
    been one; None if no value would have been ordinary, or if it was not asked for. `known` are the
    seconds that the range of the last weeks covers.
    """

    reasons: tuple[Reason, ...]
    ordinary: tuple[float, float] | None = None
    known: float | None = None


class MetricShare(msgspec.Struct, frozen=True):
    """One metric of an instance: its share of what all of them say, from 0 to 1, and its score."""

    metric: str
    share: float
    score: float


class Anomaly(msgspec.Struct, frozen=True):
    """A reading with a score above the threshold; `value` to `upper` are from 0 to 1.

    Of a metric without bounds, such as bytes, these are as they came. `metric` is `cpu` for CPU,
    whatever the feed calls it, and else the feed's name; `labels` are those of the reading that the
    settings ask for, and `group` is the group of the instance, null if it is in none.

    `alert` says whether it is news: the first of an episode, or one that is twice as bad as what
    was known and not within an hour of an alert, or that comes hours later; but not one whose value
    is as expected at its hour. `episode` is the same for anomalies that belong together; the
    incident of an episode has it as its `id`. `raw` is the value as it came, in `unit` if that is
    known. `reasons` say what made the score, by shares of the whole; `ordinary` is the range in
    which the value would have been no anomaly, of alerts only; both are null where the detector
    cannot say. `why` is all that in a sentence.

    `together` says whether the metrics of the instance are judged together: then only anomalies of
    the metric `*` are alerts. Of these, `value` is the mean surprise of the metrics, in thresholds
    of the detector, and `metrics` are all that count, by their shares of it.

    `rules` is the version of the rules that applied to the reading, where there are any.
    """

    instance: str
    timestamp: str | int | float | None
    index: str | int | float | None
    value: float
    score: float
    threshold: float
    expected: float | None
    lower: float | None
    upper: float | None
    detector: str
    id: str
    source: Source
    # Records of earlier versions have neither: each was an alert.
    alert: bool = True
    episode: str = ""
    raw: float | None = None
    unit: str | None = None
    reasons: tuple[Reason, ...] | None = None
    ordinary: tuple[float, float] | None = None
    why: str = ""
    metric: str = "cpu"
    labels: dict[str, str] = {}
    group: str | None = None
    together: bool = False
    metrics: tuple[MetricShare, ...] | None = None
    rules: str | msgspec.UnsetType = msgspec.UNSET


class Over(msgspec.Struct, frozen=True):
    """The end of an episode, as it is shown to people; see `Incident.ended`.

    `time` is that of the reading that ends it, in seconds since 1970; `duration` the seconds from
    the first anomaly to the last reading of the trouble.
    """

    instance: str
    episode: str
    time: float | None
    ended: Literal["recovered", "adapted"]
    duration: float
    metric: str | None = None


def anomaly_id(
    instance: str,
    index: str | int | float | None,
    timestamp: str | int | float | None,
    metric: str | None = None,
) -> str:
    """Return the id of an anomaly, always the same for the same reading.

    >>> anomaly_id("24ae8d", 7, "2014-02-14 15:05:00")
    '53c87c90a668877e7f2f1a40'
    """
    key = encode((instance, index, timestamp, *(() if metric is None else (metric,))))
    return hashlib.blake2b(key, digest_size=12).hexdigest()


Outcome: TypeAlias = Literal["recovered", "adapted", "returned", "gone", "quiet"]
"""How an incident ended; see `Incident`."""


Severity: TypeAlias = Literal["critical", "error", "warning", "info"]
"""How urgent an incident is, as PagerDuty names it."""


class Member(msgspec.Struct, frozen=True):
    """A member of a group in the group's incident: since when, and the id of its own incident."""

    instance: str
    since: datetime | None
    incident: str


class Spread(msgspec.Struct, frozen=True):
    """How far the incident of a group has come: to `affected` of `size` members.

    `members` are those that are affected in the order of their onset, the first hundred at most.
    """

    affected: int
    size: int
    members: tuple[Member, ...]


class Incident(msgspec.Struct, frozen=True):
    """A change of an incident: one record when it opens, some updates, one when it is resolved.

    `sequence` counts the records of an incident from 0. `since` is the time of the first anomaly,
    or of the last reading before a silence; `updated_at` is the time of this record. `ended` says
    how the incident ended: `recovered` (the instance is as it was before), `adapted` (it stays as
    it is, and that is its habit now), `returned` (after a silence) or `gone` (silent for too long);
    `quiet` in records of earlier versions. Score, value and expected value are those of the worst
    reading, at `peak_at`; `reasons`, `ordinary` and `why` are those of the alert that opened the
    incident, as in an anomaly; a silence has the value before it, no score and no `peak_at`.
    `anomalies` counts those so far. `duration` is the seconds from `since` to the last reading that
    belonged to the trouble, or for which the instance is silent. All times are UTC, and null if
    readings have none. `source` is the reading that caused this record, and `labels` are its
    labels. `metric` is that of the anomalies, and `group` the group of the instance, as in an
    anomaly; `metrics` are those of the alert that opened an incident of all metrics together.

    The incident of a group has a `spread`, and the group as its `instance`; score and value are
    those of its worst member, `reasons`, `ordinary`, `why`, `labels` and `metrics` those of the
    first. `part_of` is the id of the group's incident that an incident belongs to, or belonged to:
    while it is `folded`, the group's incident stands for it.

    `rules` is the version of the rules that applied to the reading that caused the record, and
    `team`, `severity` and `runbook` (an address) are what they say of the instance; each is absent
    where there is none.
    """

    instance: str
    kind: Literal["anomaly", "silence"]
    state: Literal["opened", "updated", "resolved"]
    id: str
    sequence: int
    since: datetime | None
    opened_at: datetime | None
    updated_at: datetime | None
    resolved_at: datetime | None
    ended: Outcome | None
    score: float | None
    peak_at: datetime | None
    value: float
    expected: float | None
    anomalies: int
    source: Source
    duration: float | None = None
    reasons: tuple[Reason, ...] | None = None
    ordinary: tuple[float, float] | None = None
    why: str = ""
    metric: str = "cpu"
    labels: dict[str, str] = {}
    group: str | None = None
    spread: Spread | None = None
    part_of: str | None = None
    folded: bool = False
    metrics: tuple[MetricShare, ...] | None = None
    rules: str | msgspec.UnsetType = msgspec.UNSET
    team: str | msgspec.UnsetType = msgspec.UNSET
    severity: Severity | msgspec.UnsetType = msgspec.UNSET
    runbook: str | msgspec.UnsetType = msgspec.UNSET


def incident_id(kind: str, reading: Reading) -> str:
    """Return the id of an incident, always the same for the same kind and first reading.

    A reading with a time is the same wherever it lies in a topic, and in which one. Without a time,
    only its place tells it from others with its index.

    >>> incident_id("silence", Reading("24ae8d", None, 7, 0.5, None, 0, 56))
    '62dc762dde32d4760e5bad26'
    >>> first = Reading("24ae8d", "2014-02-14", 7, 0.5, 1392336000.0, partition=0, offset=56)
    >>> again = Reading("24ae8d", "2014-02-14", 7, 0.5, 1392336000.0, partition=2, offset=9)
    >>> incident_id("silence", first) == incident_id("silence", again)
    True
    """
    place: tuple[int, ...] = ()
    if reading.time is None:
        place = (reading.partition, reading.offset)
        place += (reading.number,) if reading.number else ()
    metric = () if reading.metric is None else (reading.metric,)
    key = encode((kind, reading.instance, reading.index, reading.timestamp, *place, *metric))
    return hashlib.blake2b(key, digest_size=12).hexdigest()


def number(text: str) -> int | float:
    """Return a number written as text. Values, indexes and times share this grammar.

    It is a number of JSON in ASCII digits, and may also begin with `+`, zeros or the decimal point.
    Blanks, underscores and other digits are not part of a number. Raises `ValueError` if the text
    is no number, or is longer than 4,000 characters.

    >>> number("12"), number("+00012"), number(".5"), number("1e3")
    (12, 12, 0.5, 1000.0)
    >>> number("1_000")
    Traceback (most recent call last):
    ValueError: not a number
    """
    # Python reads no integer of more than 4,300 digits.
    if len(text) > 4000 or not _is_number(text):
        raise ValueError("not a number")
    # Only an integer has none of these.
    return float(text) if not _FRACTION.isdisjoint(text) else int(text)


_is_number = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?").fullmatch
_FRACTION = frozenset(".eE")

FIRST_TIME = datetime(1000, 1, 1, tzinfo=UTC).timestamp()
LAST_TIME = datetime(9000, 1, 1, tzinfo=UTC).timestamp()
"""Times lie between: what is computed from them, such as the end of a silence, has a year too."""


def seconds(timestamp: str | int | float) -> float:
    """Return a timestamp as seconds since 1970, UTC.

    It may be `YYYY-MM-DD HH:MM:SS`, ISO 8601 with or without a zone (none means UTC), RFC 1123 such
    as `Fri, 14 Feb 2014 14:30:00 GMT`, or a number since 1970, also as text, of seconds, or from
    1e11 on of milliseconds, from 1e14 on of microseconds, and from 1e17 on of nanoseconds: each
    gives the years 1973 to 5138. Digits alone are such a number; only 14 digits that spell a date
    from 1900 to 2199, as `20140214143000` does, are that date: in milliseconds they would lie after
    the year 2570.

    Raises `ValueError` if it is anything else, or lies outside the years 1000 to 8999.

    >>> seconds("2014-02-14 14:30:00") == seconds("2014-02-14T15:30:00+01:00") == 1392388200
    True
    >>> seconds(1392388200000) == seconds("1392388200") == seconds("20140214143000") == 1392388200
    True
    >>> seconds("Fri, 14 Feb 2014 14:30:00 GMT")
    1392388200.0
    """
    if isinstance(timestamp, str):
        if len(timestamp) > 64:
            raise ValueError("too long for a time")
        time = _from_text(timestamp)
    else:
        time = _from_number(timestamp)
    # NaN fails too.
    if not FIRST_TIME <= time < LAST_TIME:
        raise ValueError("outside the years 1000 to 8999")
    return time


def _from_text(text: str) -> float:
    if _is_number(text):
        return _from_number(number(text))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = _from_rfc_1123(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def _from_rfc_1123(text: str) -> datetime:
    # The library reads much else, such as `1 Jan 99`: only times that begin with a day are read.
    if _DAY(text):
        try:
            return parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError):
            pass
    raise ValueError("neither ISO 8601 nor a number")


_DAY = re.compile(r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{1,2} [A-Z][a-z]{2} \d{4} \d\d:\d\d").match


def _from_number(count: int | float) -> float:
    size = abs(count)
    if size < 1e11:
        return float(count)
    if size < 1e14:
        # Below, 14 digits begin with a year before 1900.
        spelled = _spelled(int(count)) if count >= 19e12 else None
        return count / 1e3 if spelled is None else spelled + count % 1
    if size < 1e17:
        return count / 1e6
    # An integer may be too large for a float.
    return count / 1e9 if size < 1e21 else math.inf


def _spelled(digits: int) -> float | None:
    """Return the time that 14 digits spell as YYYYMMDDHHMMSS, None if they spell none."""
    text = str(digits)
    if not "1900" <= text[:4] < "2200":
        return None
    try:
        moment = datetime.fromisoformat(f"{text[:8]}T{text[8:]}")
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC).timestamp()
