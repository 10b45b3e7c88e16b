"""One thread that reads for all who look at the page, and the fleet that it fills."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import msgspec

from dataflow.dashboard.fleet import Fleet
from dataflow.dashboard.intake import Intake
from dataflow.dashboard.status import GOOD, IDLE, TROUBLE, Condition, Counts
from dataflow.errors import UserError
from dataflow.formats.files import check_file, read_records
from dataflow.records import Anomaly, Raw
from dataflow.settings import Settings
from dataflow.steps import score

__all__ = ["Feed", "FileFeed"]

RATE_SECONDS = 5.0

_anomaly = msgspec.json.Decoder(Anomaly).decode


class Feed:
    """What the pages look at. Whoever reads `fleet` holds `lock`: the thread changes it."""

    def __init__(self, settings: Settings, keep: int) -> None:
        """Make the detector; a UserError if the settings do not allow one."""
        self.settings = settings
        self.keep = keep
        self.lock = threading.Lock()
        self.condition = Condition(IDLE, "Starting", "Looking for the readings.")
        self.source = settings.topic if settings.input == "kafka" else settings.input
        self.since: float | None = None
        self._stop = threading.Event()
        self._pace: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._detector = score.detector(settings)
        self.begin(whole=True)

    def begin(self, *, whole: bool) -> None:
        """Forget what was read; `whole`: what comes begins with the first reading of all."""
        self.intake = Intake(self.settings)
        self.fleet = Fleet(
            self._detector,
            self.keep,
            threshold=self.settings.threshold,
            whole=whole,
            bounded=self.settings.scale is not None,
        )

    def start(self) -> None:
        """Read in the background, until the process ends or `stop` is called."""
        threading.Thread(target=self._guard, name="feed", daemon=True).start()

    def stop(self) -> None:
        """Ask the thread to end."""
        self._stop.set()

    def run(self) -> None:
        """Read until the end, or until `stop`."""
        raise NotImplementedError

    def counts(self) -> Counts:
        """Return what has been read, and how fast of late."""
        now, readings = time.monotonic(), self.fleet.readings
        pace = self._pace
        if readings < pace[-1][1]:
            pace.clear()
        if not pace or now - pace[-1][0] >= 0.5:
            pace.append((now, readings))
        while len(pace) > 2 and now - pace[1][0] > RATE_SECONDS:
            pace.popleft()
        since, before = pace[0]
        rate = (readings - before) / (now - since) if now - since >= 0.5 else 0.0
        return Counts(len(self.fleet), readings, self.intake.refused, rate)

    def take(self, raws: Iterable[Raw]) -> None:
        """Score raw records. The lock is held."""
        for raw in raws:
            for reading in self.intake.readings(raw):
                self.fleet.add(reading)

    def take_anomaly(self, line: bytes | None) -> None:
        """Take what the flow wrote; another topic's anomalies pass by. The lock is held."""
        try:
            anomaly = _anomaly(line or b"")
            if anomaly.source.topic == self.source:
                self.fleet.report(anomaly)
        except ValueError:
            self.intake.refused += 1

    def _guard(self) -> None:
        try:
            self.run()
        except Exception as wrong:  # a page that stands still must say so
            self.condition = Condition(
                TROUBLE,
                "Stopped reading",
                f"{wrong}" if isinstance(wrong, UserError) else f"{type(wrong).__name__}: {wrong}",
                "What is shown stays as it is; start the page again.",
            )
            if not isinstance(wrong, UserError):
                raise


class FileFeed(Feed):
    """Reads the input file of a flow, and the file of its anomalies if there is one, once."""

    def __init__(self, settings: Settings, keep: int) -> None:
        """Look at the file; a UserError if it cannot be read."""
        super().__init__(settings, keep)
        self._path = Path(settings.input)
        check_file(self._path, settings.columns)
        written = [Path(place) for place in settings.outputs if place.endswith(".jsonl")]
        self._found = written[0] if written else None

    def run(self) -> None:
        """Read both files to their ends."""
        self.condition = Condition(IDLE, "Loading", f"Reading {self._path}.")
        batch: list[Raw] = []
        for number, record in enumerate(read_records(self._path)):
            batch.append(Raw(0, number, record))
            if len(batch) == 200:
                self._hand_on(batch)
                batch = []
            if self._stop.is_set():
                return
        self._hand_on(batch)
        with self.lock:
            for reading in self.intake.rest():
                self.fleet.add(reading)
            self.fleet.finish()
            if self._found is not None and self._found.is_file():
                for line in read_records(self._found):
                    self.take_anomaly(line)
        if self.fleet.readings:
            said = f"{self._path} is read to its end; nothing more will come."
            self.condition = Condition(GOOD, "Complete", said)
        else:
            self.condition = Condition(
                TROUBLE,
                "No readings",
                f"{self._path} holds no reading that can be used.",
                "Check its columns against ANOMALY_KEY_FIELD, ANOMALY_VALUE_FIELD and "
                "ANOMALY_TIME_FIELD.",
            )

    def _hand_on(self, batch: list[Raw]) -> None:
        with self.lock:
            self.take(batch)
        time.sleep(0.001)  # those who look are served in between
