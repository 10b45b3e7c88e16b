"""The state of all instances on the page: readings and anomalies in, rows and series out. Pure.

The flow writes anomalies only; scores and bands of ordinary readings are in no topic. The fleet
therefore runs the same detector on the same readings, with one state for each instance. Detectors
are deterministic, so its scores equal the flow's to the bit if it has read everything that the flow
has read, from the first reading on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np

from dataflow.alerts.episode import EpisodeRules
from dataflow.calendars.clock import Clock
from dataflow.dashboard import lanes
from dataflow.dashboard.history import REPORTED, SCORED, History, Rows
from dataflow.dashboard.intake import row_name
from dataflow.dashboard.rules import Ruling
from dataflow.dashboard.trouble import State, Trouble
from dataflow.detectors.base import AnyDetector, Verdict, WindowedDetector
from dataflow.incidents.maintenance import Window, after
from dataflow.records import Anomaly, Reading, seconds
from dataflow.steps.judge import Judge
from dataflow.steps.score import Scored, scorer

__all__ = ["DAY", "HOUR", "Fleet", "Overview", "Row", "Silence"]

HOUR = 3600.0
DAY = 86_400.0

PENDING = 10_000
"""Anomalies kept at most that came before their readings."""


class Silence(NamedTuple):
    """When an instance counts as silent: the flow's settings.

    It misses `missing` readings, which come each `interval` seconds, or in longer steps if its last
    ones did. After `gone` more seconds it counts as switched off; 0: never. `excepted` are patterns
    of names whose silence is no trouble.
    """

    missing: int = 3
    interval: float = 300.0
    gone: float = DAY
    excepted: tuple[str, ...] = ()


class Row(NamedTuple):
    """One instance in the overview; times are seconds since 1970, values as the flow scores them.

    `silent` are the seconds since its last reading, None if it sends. `since` is when its trouble
    began: the last reading before a silence, or the first anomaly of an episode that has not ended;
    None if there is none. `score` is NaN if the detector has not scored the reading yet. `day`
    counts anomalies of the day before the fleet's clock, None if readings have no time.
    `maintained` is when the maintenance window ends in which the trouble lies, None if it does not.
    """

    instance: str
    state: State
    since: float | None
    silent: float | None
    trouble: Trouble | None
    value: float
    score: float
    day: int | None
    last_anomaly: float | None
    place: float
    maintained: float | None = None


class Overview(NamedTuple):
    """The rows of all instances, the fleet's clock, and the time for which all this is said."""

    rows: list[Row]
    clock: float | None
    present: float | None


class Fleet:
    """The last `keep` readings of each instance, scored.

    `whole` means that readings come from the first one on. Only then a score above the threshold is
    an anomaly here before the flow has reported it. Otherwise only an anomaly that the flow reports
    is one: a detector that starts in the middle needs weeks to agree with the flow's.

    `bounded` means that values are from 0 to 1; bounds are then clipped to it, as in the flow.
    `rules`, `clocks` and `judge` are those of the flow's step `score`, and `say` says why a reading
    is an anomaly. `silence` says when an instance is silent. `ruling` returns what applies to the
    instance of a reading; None: the threshold does, and there is no maintenance.

    >>> from dataflow.detectors import make
    >>> fleet = Fleet(make("tutorial"), keep=100)
    >>> for n, value in enumerate((0.5, 0.45, 0.43, 0.44, 0.445, 0.9)):
    ...     fleet.add(Reading("a", 300 * n, n, value, 300.0 * n, 0, n))
    >>> [(row.instance, round(row.score, 3), row.since) for row in fleet.overview().rows]
    [('a', 0.827, 1500.0)]
    """

    def __init__(
        self,
        detector: AnyDetector,
        keep: int,
        *,
        threshold: float | None = None,
        whole: bool = True,
        bounded: bool = True,
        rules: EpisodeRules | None = None,
        clocks: Callable[[str], Clock | None] | None = None,
        say: Callable[[Scored], str] | None = None,
        silence: Silence | None = None,
        quiet: float = HOUR,
        judge: Judge | None = None,
        ruling: Callable[[Reading], Ruling] | None = None,
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
        self._silence = silence or Silence()
        self._quiet = quiet
        self._rules = rules or EpisodeRules(self.threshold, self._silence.interval, quiet)
        self._say = say or (lambda _scored: "")
        self._ruling = ruling or (lambda _reading: Ruling(self.threshold))
        self._score = None
        if not isinstance(detector, WindowedDetector):
            self._score = scorer(detector, self._rules, _backwards, clocks, judge).score
        self._histories: dict[str, History] = {}
        self._pending: OrderedDict[tuple[str, float, float], Anomaly] = OrderedDict()
        self._overview: tuple[tuple[int, float | None], Overview] | None = None
        self._clock: tuple[int, float | None] | None = None

    def __len__(self) -> int:
        """Return how many instances there are."""
        return len(self._histories)

    def __contains__(self, instance: str) -> bool:
        """Return whether an instance has been seen."""
        return instance in self._histories

    def add(self, reading: Reading) -> None:
        """Score and keep a normalized reading."""
        name = row_name(reading.instance, reading.metric)
        track = self._histories.get(name)
        if track is None:
            track = self._histories[name] = History(self.keep)
        track.newest = reading
        place = _place_of(reading)
        self.timed = reading.time is not None
        track.add(place, reading.value)
        self.readings += 1
        self.revision += 1
        if self._score is not None:
            track.state, scored = self._score(track.state, [reading])
            for one in scored:
                self._judge(track, track.total - 1, one)
        else:
            track.state, said = self._detector.update(track.state, reading.value, reading.time)
            track.waiting.append(reading)
            self._settle(track, said)  # type: ignore[arg-type]
        if self._pending:
            key = (name, place, float(np.float32(reading.value)))
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

    def ruling(self, instance: str) -> Ruling:
        """Return what applies to an instance, as of its newest reading.

        Raises `KeyError` if it is new.
        """
        newest = self._histories[instance].newest
        assert newest is not None
        return self._ruling(newest)

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

    def overview(self, present: float | None = None) -> Overview:
        """Return a row for each instance, in the order of their first readings.

        `present` is the time for which it is said who is silent; None: the fleet's clock.
        """
        present = self.clock() if present is None else present
        if self._overview is None or self._overview[0] != (self.revision, present):
            self._overview = ((self.revision, present), self._rows(present))
        return self._overview[1]

    def spark(self, instance: str) -> str:
        """Return the last day of an instance, or its last 288 readings, as an SVG."""
        span = DAY if self.timed else 288.0
        return self._histories[instance].spark(span, 0.02 if self._bounded else 0.0)

    def lanes(self, present: float | None) -> str:
        """Return the swim lanes of the day before `present`, as HTML; empty without anomalies.

        They are those of the instances with anomalies in that day, the worst scores first.
        """
        if present is None or not self.timed:
            return ""
        found = []
        for instance, track in self._histories.items():
            if track.marked and max(track.marked) > present - DAY:
                threshold = self.ruling(instance).threshold
                found.append(lanes.worst(instance, track.rows(), present, threshold))
        found.sort(key=lambda lane: -np.nanmax(lane.scores, initial=0.0))
        shown = found[: lanes.LANES]
        return lanes.drawn(shown, len(found), present)

    def patience(self) -> float:
        """Return the seconds without a reading after which an instance counts as silent.

        It is that of the instance with the newest reading.
        """
        if not self._histories:
            return self._silence.missing * self._silence.interval
        newest = max(self._histories.values(), key=lambda track: float(track.last()["place"]))
        return self._limit(newest)

    def _limit(self, track: History) -> float:
        interval = self._silence.interval
        step = track.step()
        return (self._silence.missing or 3) * (step if step > 2 * interval else interval)

    def _rows(self, present: float | None) -> Overview:
        clock = self.clock()
        rows = [self._row(*each, clock, present) for each in self._histories.items()]
        return Overview(rows, clock, present)

    def row(self, instance: str, present: float | None = None) -> Row:
        """Return the row of one instance, as `overview` does. Raises `KeyError` if it is new."""
        clock = self.clock()
        track = self._histories[instance]
        return self._row(instance, track, clock, clock if present is None else present)

    def _row(
        self, instance: str, track: History, clock: float | None, present: float | None
    ) -> Row:
        last = track.last()
        marked = track.marked
        if clock is not None:
            while len(marked) > 1 and marked[0] <= clock - DAY:
                marked.popleft()
        place = float(last["place"])
        state, since, silent = State.ORDINARY, None, self._silent(track, place, present)
        trouble = track.trouble
        if trouble is not None and not self.whole and place - trouble.last >= self._quiet:
            trouble = track.trouble = None  # no record says that it is over
        if trouble is not None and not trouble.opens:
            trouble = None
        if silent is not None:
            since, state = place, self._silent_state(instance, track, silent)
        elif trouble is not None:
            since, state = trouble.since, State.TROUBLED
        maintained = None
        if since is not None and state is State.TROUBLED and self.timed:
            begins = since if silent is None else since + self._limit(track)
            now = place if present is None or silent is None else present
            maintained = _maintained(self.ruling(instance).windows, begins, now)
            state = State.TROUBLED if maintained is None else State.MAINTAINED
        return Row(
            instance,
            state,
            since,
            silent,
            trouble,
            float(last["value"]),
            float(last["score"]),
            None if clock is None else sum(at > clock - DAY for at in marked),
            max(marked) if marked else None,
            place,
            maintained,
        )

    def _silent(self, track: History, place: float, present: float | None) -> float | None:
        if present is None or not self.timed:
            return None
        silent = present - place
        # The step is measured only where it matters.
        if silent <= (self._silence.missing or 3) * self._silence.interval:
            return None
        return silent if silent > self._limit(track) else None

    def _silent_state(self, instance: str, track: History, silent: float) -> State:
        rules = self._silence
        if any(fnmatchcase(instance, pattern) for pattern in rules.excepted):
            return State.GONE
        gone = rules.gone and silent > self._limit(track) + rules.gone
        return State.GONE if gone else State.TROUBLED

    def _settle(self, track: History, said: Sequence[Verdict]) -> None:
        """Apply verdicts to the waiting readings: to all of them, or to none."""
        if not said:
            return
        first = track.total - len(track.waiting)
        for number, (reading, verdict) in enumerate(
            zip(track.waiting, said, strict=True), start=first
        ):
            track.watched, finding = self._rules.take(
                track.watched, reading, verdict.score, None, near=verdict.near
            )
            self._judge(track, number, (reading, verdict, finding))
        track.waiting = []

    def _judge(self, track: History, number: int, scored: Scored) -> None:
        reading, verdict, finding = scored
        bound = self._bound
        track.judge(
            number,
            verdict.score,
            bound(verdict.expected),
            bound(verdict.lower),
            bound(verdict.upper),
        )
        if not self.whole:
            return
        if finding is not None and finding.anomaly:
            track.mark(number, SCORED)
        if finding is None or finding.ended is not None:
            track.trouble = None
        elif finding.trouble:
            why = self._say(scored) if finding.alert else ""
            place = _place_of(reading)
            self._extend(track, finding.episode, place, verdict.score, why, finding.opens)

    def _note(self, track: History, number: int, anomaly: Anomaly) -> None:
        # The flow has read everything, so its score replaces the one computed here.
        track.judge(number, anomaly.score, anomaly.expected, anomaly.lower, anomaly.upper)
        track.mark(number, REPORTED)
        if not self.whole:
            place = float(track.row(number)["place"])
            self._extend(track, anomaly.episode, place, anomaly.score, anomaly.why, anomaly.alert)

    def _extend(
        self, track: History, episode: str, place: float, score: float, why: str, opens: bool
    ) -> None:
        """Add a reading to the trouble of an instance, or begin one."""
        trouble = track.trouble
        if trouble is None or trouble.episode != episode:
            track.trouble = Trouble(episode, place, place, score, place, why, opens)
            return
        trouble.last = max(trouble.last, place)
        trouble.opens = trouble.opens or opens
        trouble.why = why or trouble.why
        if score > trouble.score:
            trouble.score, trouble.peak = score, place

    def _bound(self, value: float | None) -> float | None:
        return value if value is None or not self._bounded else min(max(value, 0.0), 1.0)


def _maintained(windows: tuple[Window, ...], begins: float, now: float) -> float | None:
    """Return when the windows end that cover all from `begins` to `now`; None if they do not.

    >>> _maintained((Window(100.0, 50.0),), 120.0, 149.0)
    150.0
    >>> _maintained((Window(100.0, 50.0),), 120.0, 150.0)
    >>> _maintained((Window(100.0, 50.0),), 99.0, 120.0)
    """
    ends = after(windows, begins)
    return ends if ends > max(begins, now) else None


def _backwards(_reading: Reading) -> None:
    """Take no notice of a reading that is older than the one before it: the flow warns of it."""


def _place_of(reading: Reading) -> float:
    return _place(reading.time, reading.index, reading.offset)


def _place(time: float | None, index: str | int | float | None, offset: int) -> float:
    """Return the position of a reading on the axis: its time, else its index, else its offset."""
    if time is not None:
        return time
    return float(index) if isinstance(index, (int, float)) else float(offset)
