"""The state of all instances on the page: readings and anomalies in, rows and series out. Pure.

The flow writes anomalies only; scores and bands of ordinary readings are in no topic. The fleet
therefore runs the same detector on the same readings, with one state for each instance. Detectors
are deterministic, so its scores equal the flow's to the bit if it has read everything that the flow
has read, from the first reading on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dataflow.dashboard.history import REPORTED, SCORED, History, Rows
from dataflow.detectors.base import AnyDetector, Verdict, WindowedDetector
from dataflow.records import Anomaly, Reading, seconds

__all__ = ["DAY", "HOUR", "Fleet", "Overview", "Row"]

HOUR = 3600.0
DAY = 86_400.0

PENDING = 10_000
"""Anomalies kept at most that came before their readings."""


class Row(NamedTuple):
    """One instance in the overview; times are seconds since 1970, values as the flow scores them.

    `score` is NaN if the detector has not scored the reading yet. `hour` and `day` count anomalies
    of the hour and the day before the fleet's clock, None if readings have no time.
    """

    instance: str
    value: float
    score: float
    hour: int | None
    day: int | None
    last_anomaly: float | None
    place: float
    spark: str


class Overview(NamedTuple):
    """The rows of all instances, and the time from which `hour` and `day` count back."""

    rows: list[Row]
    clock: float | None


class Fleet:
    """The last `keep` readings of each instance, scored.

    `whole` means that readings come from the first one on. Only then a score above the threshold is
    an anomaly here before the flow has reported it. Otherwise only an anomaly that the flow reports
    is one: a detector that starts in the middle needs weeks to agree with the flow's.

    `bounded` means that values are from 0 to 1; bounds are then clipped to it, as in the flow.

    >>> from dataflow.detectors import make
    >>> fleet = Fleet(make("tutorial"), keep=100)
    >>> for n, value in enumerate((0.5, 0.45, 0.43, 0.44, 0.445, 0.9)):
    ...     fleet.add(Reading("a", 300 * n, n, value, 300.0 * n, 0, n))
    >>> [(row.instance, round(row.score, 3), row.hour) for row in fleet.overview().rows]
    [('a', 0.827, 1)]
    """

    def __init__(
        self,
        detector: AnyDetector,
        keep: int,
        *,
        threshold: float | None = None,
        whole: bool = True,
        bounded: bool = True,
    ) -> None:
        self.threshold = detector.threshold if threshold is None else threshold
        self.keep = keep
        self.whole = whole
        self.readings = 0
        self.reported = 0
        self.timed = True
        self.revision = 0
        """Increases with each change."""
        self._bounded = bounded
        self._detector = detector
        self._windowed = isinstance(detector, WindowedDetector)
        self._histories: dict[str, History] = {}
        self._pending: OrderedDict[tuple[str, float, float], Anomaly] = OrderedDict()
        self._overview: tuple[int, Overview] | None = None
        self._clock: tuple[int, float | None] | None = None

    def __len__(self) -> int:
        """Return how many instances there are."""
        return len(self._histories)

    def __contains__(self, instance: str) -> bool:
        """Return whether an instance has been seen."""
        return instance in self._histories

    def add(self, reading: Reading) -> None:
        """Score and keep a normalized reading."""
        track = self._histories.get(reading.instance)
        if track is None:
            track = self._histories[reading.instance] = History(self.keep)
        place = _place(reading.time, reading.index, reading.offset)
        self.timed = reading.time is not None
        track.add(place, reading.value)
        self.readings += 1
        self.revision += 1
        track.state, said = self._detector.update(track.state, reading.value, reading.time)
        if self._windowed:
            track.waiting += 1
            self._settle(track, said)  # type: ignore[arg-type]
        else:
            self._judge(track, track.total - 1, said)  # type: ignore[arg-type]
        if self._pending:
            key = (reading.instance, place, float(np.float32(reading.value)))
            anomaly = self._pending.pop(key, None)
            if anomaly is not None:
                self._note(track, track.total - 1, anomaly)

    def report(self, anomaly: Anomaly) -> None:
        """Mark an anomaly that the flow has written, before or after its reading."""
        self.reported += 1
        self.revision += 1
        place = _place(
            None if anomaly.timestamp is None else seconds(anomaly.timestamp),
            anomaly.index,
            anomaly.source.offset,
        )
        track = self._histories.get(anomaly.instance)
        number = None if track is None else track.find(place, anomaly.value)
        if track is not None and number is not None:
            self._note(track, number, anomaly)
            return
        self._pending[anomaly.instance, place, float(np.float32(anomaly.value))] = anomaly
        if len(self._pending) > PENDING:
            self._pending.popitem(last=False)

    def finish(self) -> None:
        """Score the readings that still wait for a score: the input has ended."""
        if isinstance(self._detector, WindowedDetector):
            for track in self._histories.values():
                if track.waiting:
                    track.state, said = self._detector.finish(track.state)
                    self._settle(track, said)
            self.revision += 1

    def rows(self, instance: str) -> Rows:
        """Return the kept readings of an instance by time, as `ROW`s. Raises `KeyError` if new."""
        rows = self._histories[instance].rows()
        return rows[np.argsort(rows["place"], kind="stable")]

    def total(self, instance: str) -> tuple[int, int]:
        """Return a pair that changes with each reading and each anomaly of an instance."""
        track = self._histories[instance]
        return track.total, len(track.marked) + self.reported

    def clock(self) -> float | None:
        """Return the current time according to the readings; None if they have no time.

        It is the third newest of the instances' last times (with few instances the second newest or
        the newest), so that one host with its clock in the future does not make all others old.
        """
        if self._clock is None or self._clock[0] != self.revision:
            self._clock = (self.revision, self._newest())
        return self._clock[1]

    def _newest(self) -> float | None:
        if not self.timed or not self._histories:
            return None
        newest = np.sort([float(track.last()["place"]) for track in self._histories.values()])
        return float(newest[-1 - min(2, len(newest) // 4)])

    def overview(self) -> Overview:
        """Return a row for each instance, in the order of their first readings."""
        if self._overview is None or self._overview[0] != self.revision:
            self._overview = (self.revision, self._rows())
        return self._overview[1]

    def _rows(self) -> Overview:
        clock = self.clock()
        span = DAY if self.timed else 288.0
        least = 0.02 if self._bounded else 0.0
        rows = []
        for instance, track in self._histories.items():
            last = track.last()
            marked = track.marked
            if clock is not None:
                while len(marked) > 1 and marked[0] <= clock - DAY:
                    marked.popleft()
            rows.append(
                Row(
                    instance,
                    float(last["value"]),
                    float(last["score"]),
                    None if clock is None else sum(at > clock - HOUR for at in marked),
                    None if clock is None else sum(at > clock - DAY for at in marked),
                    max(marked) if marked else None,
                    float(last["place"]),
                    track.spark(span, least),
                )
            )
        return Overview(rows, clock)

    def _settle(self, track: History, said: Sequence[Verdict]) -> None:
        """Apply verdicts to the waiting readings: to all of them, or to none."""
        for number, verdict in enumerate(said, start=track.total - track.waiting):
            self._judge(track, number, verdict)
        if len(said):
            track.waiting = 0

    def _judge(self, track: History, number: int, verdict: Verdict) -> None:
        bound = self._bound
        track.judge(
            number,
            verdict.score,
            bound(verdict.expected),
            bound(verdict.lower),
            bound(verdict.upper),
        )
        if self.whole and verdict.score > self.threshold:
            track.mark(number, SCORED)

    def _note(self, track: History, number: int, anomaly: Anomaly) -> None:
        # The flow has read everything, so its score replaces the one computed here.
        track.judge(number, anomaly.score, anomaly.expected, anomaly.lower, anomaly.upper)
        track.mark(number, REPORTED)

    def _bound(self, value: float | None) -> float | None:
        return value if value is None or not self._bounded else min(max(value, 0.0), 1.0)


def _place(time: float | None, index: str | int | float | None, offset: int) -> float:
    """Return the position of a reading on the axis: its time, else its index, else its offset."""
    if time is not None:
        return time
    return float(index) if isinstance(index, (int, float)) else float(offset)
