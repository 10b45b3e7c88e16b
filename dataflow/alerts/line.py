"""What standard output shows on a terminal: one line an alert, and one when it is over."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dataflow.records import ALL, Anomaly, Incident, Over

__all__ = ["lasted", "line"]


def line(record: Any) -> str | None:
    """Return the line that tells a person of a record; None if it is no news.

    An anomaly is news if it is an alert, an incident if it is resolved, or opened by silence: an
    alert has opened the others. That of a group is news too, and stands for those of its members.

    >>> line(Over("web-1", "e", 1393632000.0, "recovered", 45_900.0))
    '2014-03-01 00:00:00  web-1  over after 12 h 45 min: recovered'
    """
    if isinstance(record, Anomaly):
        return _alert(record) if record.alert else None
    if isinstance(record, Over):
        of_all = record.metric in (None, ALL)
        name = record.instance if of_all else f"{record.instance} {record.metric}"
        return _over(name, _clock(record.time), record.ended, record.duration)
    if isinstance(record, Incident):
        if record.folded:
            return None
        at = "" if record.updated_at is None else f"{record.updated_at:%Y-%m-%d %H:%M:%S}"
        if record.ended is not None:
            return _over(record.instance, at, record.ended, record.duration or 0.0)
        silent = "  silent" if record.kind == "silence" else ""
        if record.spread is not None:
            members = f"{record.spread.affected} of {record.spread.size} instances"
            return f"{at}  {record.instance}  {members} together{silent}"
        return f"{at}  {record.instance}{silent}" if silent else None
    return None


def _alert(anomaly: Anomaly) -> str:
    return f"{anomaly.timestamp}  {anomaly.instance}  score {anomaly.score:.2f}  {anomaly.why}"


def _over(instance: str, at: str, ended: str, seconds: float) -> str:
    return f"{at}  {instance}  over after {lasted(seconds)}: {ended}"


def _clock(time: float | None) -> str:
    return "" if time is None else f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M:%S}"


def lasted(seconds: float) -> str:
    """Return a duration in days, hours and minutes.

    >>> lasted(0.0), lasted(300.0), lasted(90_000.0)
    ('one reading', '5 min', '1 d 1 h')
    """
    minutes = round(seconds / 60)
    parts = [(minutes // 1440, "d"), (minutes // 60 % 24, "h"), (minutes % 60, "min")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "one reading"
