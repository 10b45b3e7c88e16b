"""Keeps quiet what people have called fine, each verdict from its place on."""

from __future__ import annotations

from dataflow.alerts.episode import EpisodeRules
from dataflow.detectors.base import AnyDetector, Verdict
from dataflow.errors import UserError, stop_process
from dataflow.metrics import counters
from dataflow.records import Reading, key_of
from dataflow.recovery.places import NONE, Places
from dataflow.settings import Settings
from dataflow.steps import calendars
from dataflow.steps.anomaly import bounder, metrics_of
from dataflow.steps.judge import Judge, Series
from dataflow.steps.rules import limits
from dataflow.verdicts import watch
from dataflow.verdicts.pattern import Case
from dataflow.verdicts.record import InForce, Quiet
from dataflow.warnings import say, warn

__all__ = ["KIND", "Verdicts", "verdicts"]

KIND = "verdicts"
"""The kind of the document in the log of places."""

NOTHING = Quiet([], "")


def verdicts(
    settings: Settings, detector: AnyDetector, rules: EpisodeRules, places: Places | None
) -> Verdicts | None:
    """Return the verdicts of the flow, and read them from now on.

    None without verdicts, now and in what the store may have to repeat. Raises `UserError` if the
    topic or the file cannot be read, or if verdicts cannot work with these settings.
    """
    if places is None or not (settings.verdicts or places.of(KIND)):
        return None
    wrong = limits(settings, detector)
    if settings.verdicts and (reason := wrong.levels or wrong.expected):
        raise UserError(f"ANOMALY_VERDICTS cannot be used: {reason}.")
    found = Verdicts(settings, rules, places)
    found.begin()
    return found


class Verdicts:
    """What is quiet by the place of a reading."""

    def __init__(self, settings: Settings, rules: EpisodeRules, places: Places) -> None:
        self.places = places
        self.rules = rules
        self._settings = settings
        self._default = settings.default_metric
        self._clocks = calendars.of(settings)
        self._metrics = metrics_of(settings)
        self._quiet: dict[str, Quiet] = {NONE: NOTHING}
        self._refused = 0
        self._known: frozenset[str] = frozenset()
        self._count = -1

    def begin(self) -> None:
        """Let the verdicts apply that are there now, and those that follow."""
        if not self._settings.verdicts:
            self.places.stage(KIND, b"")
            return
        kept = watch.begin(self._settings, self._changed)
        self.places.stage(KIND, kept.document())
        self._show(kept)

    def _changed(self, kept: InForce) -> None:
        before = self.places.staged(KIND)
        version = self.places.stage(KIND, kept.document())
        self._show(kept)
        if version != before:
            many = "1 verdict applies" if len(kept) == 1 else f"{len(kept):,} verdicts apply"
            say(f"{many} to each reading from the next one on ({version or 'none'})")

    def _show(self, kept: InForce) -> None:
        counters.VERDICTS.set(len(kept))
        counters.VERDICTS_REFUSED.set(kept.refused)
        if kept.refused > self._refused:
            warn(
                "verdicts",
                f"a record in {self._settings.verdicts} is no verdict ({kept.reason}): it changes "
                "nothing; find the program that writes it.",
            )
        self._refused = kept.refused

    def quiet(self, version: str) -> Quiet:
        """Return what a version keeps quiet."""
        found = self._quiet.get(version)
        if found is None:
            try:
                document = self.places.document(version)
                interval = self._settings.interval
                found = Quiet.read(document, self._default, interval, self._clocks)
            except ValueError as error:
                stop_process(
                    f"the recovery store holds verdicts that this version cannot read ({error}): "
                    "run the version that wrote them, or start with a new store."
                )
            self._quiet[version] = found
        return found

    def over(self, judge: Judge | None, series: Series, readings: list[Reading]) -> Judge | None:
        """Return the judge of a series in a batch: see `dataflow.steps.judge.Judges`."""
        if self._count != self.places.count:
            self._count = self.places.count
            known = (self.quiet(version).series for version in self.places.of(KIND))
            self._known = frozenset().union(*known)
        key = key_of(readings[0])
        if key in self._known:
            return _Calm(self, judge, series, key)
        series.following = None
        return judge

    def case(self, reading: Reading, verdict: Verdict) -> Case | None:
        """Return a reading as the anomaly of it would say it; None without a time or a size."""
        if reading.time is None or verdict.expected is None:
            return None
        expected = bounder(self._metrics(reading).scale)(verdict.expected)
        assert expected is not None
        return Case(reading.time, reading.value, expected)


class _Calm:
    """The judge of a series that has a verdict: it looks at each reading."""

    floor = -1.0

    def __init__(self, verdicts: Verdicts, judge: Judge | None, series: Series, key: str) -> None:
        self._verdicts = verdicts
        self._judge = judge
        self._series = series
        self._key = key

    def __call__(self, reading: Reading, verdict: Verdict) -> tuple[Verdict, EpisodeRules]:
        """Return the verdict; of what is quiet, its score is that of a reading without trouble."""
        rules, verdicts, series = self._verdicts.rules, self._verdicts, self._series
        if self._judge is not None:
            verdict, rules = self._judge(reading, verdict)
        version = verdicts.places.at(KIND, reading.partition, reading.offset)
        quiet = verdicts.quiet(version)
        case = verdicts.case(reading, verdict)
        if case is None or self._key not in quiet:
            return verdict, rules
        kept = quiet.take(self._key, case, series.following)
        if kept is None:
            if series.following is not None and quiet.is_over(self._key, case, series.following):
                series.following = None
            return verdict, rules
        series.following = kept
        if verdict.score > rules.threshold:
            counters.KEPT_QUIET.inc()
        return verdict._replace(score=min(verdict.score, rules.keep)), rules
