"""One thread that reads for all browsers, and the fleet that it fills."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from dataflow.dashboard import present
from dataflow.dashboard.fleet import Fleet, Silence
from dataflow.dashboard.intake import Intake
from dataflow.dashboard.rules import PageRules
from dataflow.dashboard.status import Condition, Counts, Tone
from dataflow.errors import UserError
from dataflow.formats.files import check_file, read_records
from dataflow.records import Anomaly, Raw
from dataflow.settings import Settings
from dataflow.steps import calendars, score
from dataflow.steps.anomaly import sayer

__all__ = ["Feed", "FileFeed", "Shown"]

RATE_SECONDS = 5.0

ROUND = 10.0
"""Seconds between two looks at who has become silent, if no reading arrives."""


class Shown(NamedTuple):
    """What the page shows: the condition, the time that it is about, and how old that is.

    `judged` is the time for which it is said who is silent: minus infinity says of none, as
    partitions may not be read equally far. None stands for the readings' own clock.
    """

    condition: Condition
    time: float | None
    age: present.Age
    judged: float | None


_anomaly = msgspec.json.Decoder(Anomaly).decode


class Feed:
    """The data of the pages. Hold `lock` to read `fleet`, which the thread changes."""

    def __init__(self, settings: Settings, keep: int) -> None:
        """Create the detector. Raises `UserError` if the settings do not allow it."""
        self.settings = settings
        self.keep = keep
        self.lock = threading.Lock()
        self.condition = Condition(Tone.IDLE, "Starting", "Looking for readings.")
        self.source = settings.source_name
        self.since: float | None = None
        self.arrived: float | None = None
        """When the newest reading was written or read, in seconds since 1970."""
        self.verdicts = False
        """Whether viewers may give verdicts."""
        self.ends = False
        """Whether the input is a file, which has an end."""
        self.generation = 0
        """Increases when all that was there has been read: what pages drew before is of a part."""
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._progress: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._detector = score.detector(settings)
        self.rules = PageRules(settings, self._detector)
        self.rules_of_flow: str | None = None
        """The version of the rules that the newest anomaly of the flow has; None without one."""
        self.begin(whole=True)

    def begin(self, *, whole: bool) -> None:
        """Start with an empty fleet. `whole`: readings come from the first one on."""
        settings = self.settings
        self.rules.begin_anew()
        self.intake = Intake(settings)
        self.fleet = Fleet(
            self._detector,
            self.keep,
            threshold=settings.threshold,
            whole=whole,
            bounded=settings.scale is not None and not settings.several_metrics,
            rules=score.episode_rules(settings, self._detector),
            clocks=calendars.of(settings),
            say=sayer(settings, self._detector),
            silence=Silence(
                settings.silence,
                settings.interval,
                settings.silence_gone,
                tuple(filter(None, map(str.strip, settings.silence_except.split(",")))),
            ),
            quiet=settings.incident_quiet,
            judge=self.rules.judge,
            ruling=self.rules.of,
        )
        self.arrived = None
        self._present: float | None = None

    def start(self) -> None:
        """Read in the background, until the process ends or `stop` is called."""
        self._thread = threading.Thread(target=self._guard, name="feed", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to stop."""
        self._stop.set()

    def run(self) -> None:
        """Read until the end, or until `stop`."""
        raise NotImplementedError

    def shown(self) -> Shown:
        """Return the condition, and the time that the page shows. The caller holds the lock."""
        read, fleet = self.condition, self.fleet
        clock, now = fleet.clock(), time.time()
        if read.tone is not Tone.GOOD:
            # Who is silent is known as of the last time that all was read.
            known = self._present
            time_of = max((it for it in (known, clock) if it is not None), default=None)
            return Shown(read, time_of, present.Age.OLD, -math.inf if known is None else known)
        if not fleet.readings:
            return Shown(read, None, present.Age.LIVE, None)
        seen = present.present(
            clock, now // ROUND * ROUND, self.arrived, fleet.patience(), ends=self.ends
        )
        self._present = seen.time
        said = present.condition(read, seen, clock, now)
        return Shown(said, seen.time, seen.age, seen.time)

    def problem(self) -> str | None:
        """Return why this feed does not read, in a sentence; None if it does, or waits for data."""
        stopped = self.stopped()
        if stopped is not None:
            return stopped
        condition = self.condition
        if condition.tone is Tone.TROUBLE:
            return f"{condition.title}: {condition.happening} {condition.to_do}".strip()
        return None

    def stopped(self) -> str | None:
        """Return why this feed will not read again by itself, in a sentence; None if it may."""
        if self._thread is not None and not self._thread.is_alive() and not self.ends:
            return f"The feed has stopped. {self.condition.happening}"
        return None

    def counts(self) -> Counts:
        """Return what has been read, and the rate of the last 5 seconds."""
        now, readings = time.monotonic(), self.fleet.readings
        progress = self._progress
        if readings < progress[-1][1]:
            progress.clear()
        if not progress or now - progress[-1][0] >= 0.5:
            progress.append((now, readings))
        while len(progress) > 2 and now - progress[1][0] > RATE_SECONDS:
            progress.popleft()
        since, before = progress[0]
        rate = (readings - before) / (now - since) if now - since >= 0.5 else 0.0
        return Counts(len(self.fleet), readings, self.intake.rejected, rate)

    def take(self, raws: Iterable[Raw]) -> None:
        """Score raw records. The caller holds the lock."""
        for raw in raws:
            self.rules.reach(raw)
            for reading in self.intake.readings(raw):
                self.fleet.add(reading)

    def take_anomaly(self, line: bytes | None) -> None:
        """Add an anomaly that the flow wrote for this source. The caller holds the lock."""
        try:
            anomaly = _anomaly(line or b"")
            if anomaly.source.topic == self.source:
                self.fleet.report(self.intake.named(anomaly))
                self.rules_of_flow = anomaly.rules if isinstance(anomaly.rules, str) else ""
        except ValueError:
            self.intake.rejected += 1

    def _guard(self) -> None:
        try:
            self.run()
        except Exception as wrong:  # the page must show why it no longer updates
            self.condition = Condition(
                Tone.TROUBLE,
                "Stopped reading",
                f"{wrong}" if isinstance(wrong, UserError) else f"{type(wrong).__name__}: {wrong}",
                "The page no longer updates: fix the cause and restart the dashboard.",
            )
            if not isinstance(wrong, UserError):
                raise


class FileFeed(Feed):
    """Reads the input file of a flow once, and the file of its anomalies if there is one."""

    def __init__(self, settings: Settings, keep: int) -> None:
        """Check the file. Raises `UserError` if it cannot be read."""
        super().__init__(settings, keep)
        self.ends = True
        self._path = Path(settings.input)
        check_file(self._path, settings.columns)
        written = [Path(place) for place in settings.outputs if place.endswith(".jsonl")]
        self._anomalies = written[0] if written else None

    def run(self) -> None:
        """Read both files to their ends."""
        self.condition = Condition(Tone.IDLE, "Loading", f"Reading {self._path}.")
        batch: list[Raw] = []
        for raw in read_records(self._path):
            batch.append(raw)
            if len(batch) == 200:
                self._add(batch)
                batch = []
            if self._stop.is_set():
                return
        self._add(batch)
        with self.lock:
            for reading in self.intake.rest():
                self.fleet.add(reading)
            self.fleet.finish()
            if self._anomalies is not None and self._anomalies.is_file():
                for line in read_records(self._anomalies):
                    self.take_anomaly(line.value)
        if self.fleet.readings:
            said = f"All of {self._path} is read."
            with self.lock:
                self.condition = Condition(Tone.GOOD, "Complete", said)
                self.generation += 1
        else:
            self.condition = Condition(
                Tone.TROUBLE,
                "No readings",
                f"{self._path} has no valid reading.",
                "Check its columns against ANOMALY_KEY_FIELD, ANOMALY_VALUE_FIELD and "
                "ANOMALY_TIME_FIELD.",
            )

    def _add(self, batch: list[Raw]) -> None:
        with self.lock:
            self.take(batch)
        time.sleep(0.001)  # let the server answer browsers
