"""What a preview says: the incidents and alerts that two runs differ in, and how many there are."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

import msgspec

from dataflow.records import Anomaly, Incident, seconds
from dataflow.rerun.changes import (
    Change,
    Sign,
    Window,
    changes,
    changes_of_alerts,
    last_records,
    opened,
)
from dataflow.rerun.run import Ran

__all__ = ["InstanceCounts", "Pair", "Report", "Side", "report", "time_of", "window_of"]

DAY = 86_400.0


class Side(msgspec.Struct):
    """What one run makes in the window; `..._per_day` are None if readings have no times.

    Incidents that are folded into that of their group do not count. `anomalies` and `rejected` are
    of the whole input.
    """

    incidents: int
    incidents_per_day: float | None
    alerts: int
    alerts_per_day: float | None
    anomalies: int
    rejected: int


class InstanceCounts(msgspec.Struct):
    """The incidents and alerts of one instance, or group, before and after."""

    instance: str
    incidents: tuple[int, int]
    alerts: tuple[int, int]


class Pair(msgspec.Struct):
    """The last records of an incident that changed."""

    before: Incident
    after: Incident


class Report(msgspec.Struct):
    """The difference between two runs over the same input; all times are in seconds since 1970."""

    settings: dict[str, list[str]]
    start: float | None
    end: float | None
    readings: int
    instances: int
    before: Side
    after: Side
    gained: list[Incident]
    lost: list[Incident]
    changed: list[Pair]
    alerts_gained: list[Anomaly]
    alerts_lost: list[Anomaly]
    worst: list[InstanceCounts]

    @property
    def differs(self) -> bool:
        """Whether an incident is gained, lost or changed."""
        return bool(self.gained or self.lost or self.changed)

    def changes(self) -> list[Change]:
        """Return the incidents that differ, in the order of time."""
        found = [Change("+", None, one) for one in self.gained]
        found += [Change("-", one, None) for one in self.lost]
        found += [Change("~", one.before, one.after) for one in self.changed]
        return sorted(found, key=lambda one: opened(one.shown))

    def alerts(self) -> list[tuple[Sign, Anomaly]]:
        """Return the alerts that differ, in the order of time."""
        found: list[tuple[Sign, Anomaly]] = [("+", one) for one in self.alerts_gained]
        found += [("-", one) for one in self.alerts_lost]
        return sorted(found, key=lambda one: (time_of(one[1]) or 0.0, one[1].instance, one[0]))


def window_of(
    runs: tuple[Ran, Ran], since: float | None, start: float | None, end: float | None
) -> Window:
    """Return the window that is asked for: the last `since` seconds, or from `start` to `end`.

    The last seconds are those before the latest reading; readings from the future do not count.
    """
    if since is None:
        return Window(start, end)
    last = max((run.last for run in runs if run.last is not None), default=None)
    return Window(None if last is None else min(last, time.time()) - since)


def report(runs: tuple[Ran, Ran], window: Window, settings: dict[str, list[str]]) -> Report:
    """Compare the run of the settings before with that of those after."""
    before, after = runs
    found = [
        one
        for one in changes(before.incidents, after.incidents)
        if any(_in(window, side) for side in (one.before, one.after))
    ]
    alerts = [
        one for one in changes_of_alerts(before.alerts, after.alerts) if window.has(time_of(one[1]))
    ]
    start, end = _span(runs, window)
    days = None if start is None or end is None or end <= start else (end - start) / DAY
    counts = [_Counts(run, window) for run in runs]
    names = {*counts[0].names, *counts[1].names}
    return Report(
        settings=settings,
        start=start,
        end=end,
        readings=after.readings,
        instances=after.instances,
        before=counts[0].side(before, days),
        after=counts[1].side(after, days),
        gained=[one.shown for one in found if one.sign == "+"],
        lost=[one.shown for one in found if one.sign == "-"],
        changed=[Pair(one.before, one.after) for one in found if one.before and one.after],
        alerts_gained=[one for sign, one in alerts if sign == "+"],
        alerts_lost=[one for sign, one in alerts if sign == "-"],
        worst=sorted((_of_instance(name, counts) for name in names), key=_badness),
    )


class _Counts:
    def __init__(self, run: Ran, window: Window) -> None:
        counted = [one for one in last_records(run.incidents) if not one.folded]
        self.incidents = Counter(one.instance for one in counted if _in(window, one))
        self.alerts = Counter(one.instance for one in run.alerts if window.has(time_of(one)))
        self.names = {*self.incidents, *self.alerts}

    def side(self, run: Ran, days: float | None) -> Side:
        incidents, alerts = self.incidents.total(), self.alerts.total()
        return Side(
            incidents,
            None if days is None else incidents / days,
            alerts,
            None if days is None else alerts / days,
            run.anomalies,
            run.rejected,
        )


def _of_instance(name: str, counts: Iterable[_Counts]) -> InstanceCounts:
    before, after = counts
    return InstanceCounts(
        name,
        (before.incidents[name], after.incidents[name]),
        (before.alerts[name], after.alerts[name]),
    )


def _badness(one: InstanceCounts) -> tuple[int, int, int, str]:
    """Order by the incidents of the worse run, then by how much the runs differ."""
    before, after = one.incidents
    return -max(before, after), -abs(after - before), -max(one.alerts), one.instance


def _in(window: Window, one: Incident | None) -> bool:
    if one is None:
        return False
    return window.has(None if one.opened_at is None else one.opened_at.timestamp())


def time_of(alert: Anomaly) -> float | None:
    """Return the time of an alert in seconds since 1970; None if it is not known."""
    try:
        return None if alert.timestamp is None else seconds(alert.timestamp)
    except (ValueError, OverflowError):  # of a format with times of its own
        return None


def _span(runs: tuple[Ran, Ran], window: Window) -> tuple[float | None, float | None]:
    """Return the part of the window in which there are readings."""
    firsts = [run.first for run in runs if run.first is not None]
    lasts = [run.last for run in runs if run.last is not None]
    if not firsts or not lasts:
        return None, None
    start, end = min(firsts), max(lasts)
    return (
        start if window.start is None else max(start, window.start),
        end if window.end is None else min(end, window.end),
    )
