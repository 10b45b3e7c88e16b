"""Applies the rules of the file ANOMALY_RULES in the flow, each version from its place on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from msgspec import UNSET
from msgspec.structs import replace

from dataflow.alerts.episode import EpisodeRules
from dataflow.calendars import zones
from dataflow.detectors.base import AnyDetector, Verdict, WindowedDetector
from dataflow.errors import UserError, stop_process
from dataflow.incidents.maintenance import Window
from dataflow.metrics import counters
from dataflow.records import Anomaly, Incident, Reading
from dataflow.recovery.places import NONE, Places
from dataflow.rules.document import Applied, Document, Limits, parse
from dataflow.rules.watch import Watch, read
from dataflow.settings import Settings
from dataflow.steps.judge import distance
from dataflow.warnings import say, warn

__all__ = ["KIND", "At", "Rules", "limits", "rules"]

KIND = "rules"
"""The kind of the document in the log of places."""


class At(NamedTuple):
    """What applies to a reading, and the version of the rules that say so."""

    applied: Applied
    version: str


NOTHING = At(Applied(), NONE)


def limits(settings: Settings, detector: AnyDetector) -> Limits:
    """Return what rules cannot say with these settings."""
    levels = expected = times = ""
    if settings.together:
        expected = (
            "ANOMALY_TOGETHER judges all metrics of an instance, which have no common unit and no "
            "side: leave it out"
        )
    elif isinstance(detector, WindowedDetector):
        levels = (
            f"the detector {settings.detector} scores many readings at a time, late: leave it out, "
            "or use a detector such as calibrated"
        )
    elif not expects(detector):
        expected = (
            f"the detector {settings.detector} expects no value to count from: leave it out, or "
            "use a detector such as calibrated"
        )
    if settings.time_field is None:
        times = "readings have no time: name their field in ANOMALY_TIME_FIELD, which is none"
    return Limits(levels, expected, times)


def expects(detector: AnyDetector) -> bool:
    """Return whether a detector has an expected value."""
    state, expected = None, None
    if not isinstance(detector, WindowedDetector):
        for value in (0.25, 0.5, 0.25):
            state, verdict = detector.update(state, value, None)
            expected = verdict.expected
    return expected is not None


def rules(
    settings: Settings, detector: AnyDetector, threshold: float, places: Places | None
) -> Rules | None:
    """Return the rules of the flow, and watch their file from now on; None if there never were any.

    Raises `UserError` if the file cannot be used, and no earlier version is known.
    """
    if places is None or not (settings.rules or places.of(KIND)):
        return None
    found = Rules(settings, detector, threshold, places)
    found.begin()
    return found


class Rules:
    """The rules by the place of a reading; and the judge that holds to them."""

    def __init__(
        self, settings: Settings, detector: AnyDetector, threshold: float, places: Places
    ) -> None:
        self.places = places
        self._settings = settings
        self._limits = limits(settings, detector)
        self._zones = zones.parse(settings.time_zone)
        self._groups = settings.groups
        self._threshold = threshold
        self._documents: dict[str, Document] = {}
        self._episodes: dict[float, EpisodeRules] = {}
        self._count = 0
        self._floor = threshold
        self.judges = not self._limits.levels
        """Whether rules can say which readings are anomalies."""
        self.wrong = ""
        """Why the file cannot be used, in a sentence; empty if it can."""

    def begin(self) -> None:
        """Let the version apply that the file has now, and those that follow.

        Raises `UserError` if it cannot be used, and no earlier version is known.
        """
        if not self._settings.rules:
            self.places.stage(KIND, b"")
            return
        path = Path(self._settings.rules)
        found: bytes | str = b""
        try:
            found = content = read(path)
            self._check(content)
        except ValueError as error:
            before = self.places.newest(KIND)
            if before == NONE:
                raise UserError(
                    f"the rules in {path} cannot be used: {error}; "
                    f"`python -m dataflow rules check {path}` checks them."
                ) from None
            self.places.stage(KIND, self.places.document(before))
            self._refuse(str(error))
            found = found or str(error)
        else:
            self.places.stage(KIND, content)
        self._show()
        Watch(path, self._changed, found).start()

    def _check(self, content: bytes) -> None:
        parse(content, self._zones, self._limits)

    def _changed(self, found: bytes | str) -> None:
        """Take what the file holds from now on; what cannot be used changes nothing."""
        try:
            if isinstance(found, str):
                raise ValueError(found)
            self._check(found)
        except ValueError as error:
            self._refuse(str(error))
            return
        counters.RULES_REFUSED.set(0)
        self.wrong = ""
        before = self.places.staged(KIND)
        version = self.places.stage(KIND, found)
        self._show()
        if version != before:
            say(
                f"the rules in {self._settings.rules} apply to each reading from the next one on "
                f"({version or 'none'})"
            )

    def _refuse(self, why: str) -> None:
        self.wrong = why
        counters.RULES_REFUSED.set(1)
        warn(
            "rules",
            f"the rules in {self._settings.rules} cannot be used, and those of before "
            f"({self.places.staged(KIND) or 'none'}) still apply: {why}.",
        )

    def _show(self) -> None:
        counters.RULES.clear()
        counters.RULES.labels(self.places.staged(KIND)).set(1)

    def document(self, version: str) -> Document:
        """Return the rules of a version that applies anywhere."""
        found = self._documents.get(version)
        if found is None:
            try:
                found = parse(self.places.document(version), self._zones)
            except ValueError as error:
                stop_process(
                    f"the recovery store holds rules that this version cannot read ({error}): run "
                    "the version that wrote them, or start with a new store."
                )
            self._documents[version] = found
        return found

    def _at(
        self,
        instance: str,
        metric: str,
        group: str | None,
        labels: dict[str, str] | None,
        partition: int,
        offset: int,
    ) -> At:
        version = self.places.at(KIND, partition, offset)
        if version == NONE:
            return NOTHING
        return At(self.document(version).of(instance, metric, group, labels), version)

    def at(self, reading: Reading) -> At:
        """Return what applies to a reading, and the version that says so."""
        metric = reading.metric or self._settings.default_metric
        group = self._groups.of(reading.instance, reading.labels)
        place = (reading.partition, reading.offset)
        return self._at(reading.instance, metric, group, reading.labels, *place)

    def of(self, reading: Reading) -> Applied:
        """Return what applies to a reading."""
        return self.at(reading).applied

    @property
    def floor(self) -> float:
        """The lowest threshold of all versions that may apply to a reading."""
        if self._count != self.places.count:
            self._count = self.places.count
            lowest = [self.document(version).lowest for version in self.places.of(KIND)]
            self._floor = min([self._threshold, *(one for one in lowest if one is not None)])
        return self._floor

    def of_all(self, reading: Reading, threshold: float) -> EpisodeRules:
        """Return the rules of episodes of all metrics together; `threshold` applies without any."""
        own = self.of(reading).threshold
        return self.episodes(threshold if own is None else own)

    def episodes(self, threshold: float) -> EpisodeRules:
        """Return the rules of episodes with a threshold."""
        found = self._episodes.get(threshold)
        if found is None:
            settings = self._settings
            found = EpisodeRules(threshold, settings.interval, settings.incident_quiet)
            self._episodes[threshold] = found
        return found

    def __call__(self, reading: Reading, verdict: Verdict) -> tuple[Verdict, EpisodeRules]:
        """Judge a reading: see `dataflow.steps.judge.Judge`."""
        applied = self.of(reading)
        threshold = self._threshold if applied.threshold is None else applied.threshold
        episodes = self.episodes(threshold)
        score, expected = verdict.score, verdict.expected
        if expected is None:
            return verdict, episodes
        wrong = (
            reading.value < expected if applied.direction == "high" else reading.value > expected
        )
        if applied.direction is not None and wrong:
            # On the other side there is no trouble, so it does not last either.
            return verdict._replace(score=min(score, episodes.keep)), episodes
        least = self._settings.least if applied.least is None else applied.least
        if score > threshold and least and distance(self._settings, reading, expected) < least:
            verdict = verdict._replace(score=threshold)
        return verdict, episodes

    def windows(self, reading: Reading) -> tuple[Window, ...]:
        """Return the maintenance windows of a reading's instance."""
        version = self.places.at(KIND, reading.partition, reading.offset)
        # Silence asks for each instance each minute.
        if version == NONE or not self.document(version).has_windows:
            return ()
        return self.of(reading).windows

    def anomaly(self, found: Anomaly) -> Anomaly:
        """Return the anomaly with its threshold and the version of the rules."""
        source = found.source
        place = (source.partition, source.offset)
        applied, version = self._at(found.instance, found.metric, found.group, found.labels, *place)
        if version == NONE:
            return found
        own = found.threshold
        if self.judges and applied.threshold is not None:
            own = applied.threshold
        return replace(found, threshold=own, rules=version)

    def incidents(self, batch: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        """Return a batch of incidents, each with what the rules say of its reading's instance."""
        return [
            (key, self._incident(found) if isinstance(found, Incident) else found)
            for key, found in batch
        ]

    def _incident(self, found: Incident) -> Incident:
        source = found.source
        group = self._groups.of(found.instance, found.labels)
        place = (source.partition, source.offset)
        applied, version = self._at(found.instance, found.metric, group, found.labels, *place)
        if version == NONE:
            return found
        return replace(
            found,
            rules=version,
            team=applied.team or UNSET,
            severity=applied.severity or UNSET,
            runbook=applied.runbook or UNSET,
        )
