"""What of a detector's opinion counts: the judge between a score and its episode.

The detector and its states never depend on it: they take every reading as it is.
"""

from __future__ import annotations

from typing import Protocol

from dataflow.alerts.episode import EpisodeRules
from dataflow.detectors.base import Verdict
from dataflow.records import Reading
from dataflow.settings import Settings
from dataflow.steps.normalize import scale_of
from dataflow.verdicts.record import Following

__all__ = ["Judge", "Judges", "Series", "Small", "distance"]


class Judge(Protocol):
    """Says what is an anomaly, of readings in an episode and of those with a score above a floor.

    It must say the same whenever the same reading comes again.
    """

    @property
    def floor(self) -> float:
        """The score up to which no reading is an anomaly; never above any threshold."""

    def __call__(self, reading: Reading, verdict: Verdict) -> tuple[Verdict, EpisodeRules]:
        """Return the verdict and the rules of episodes whose threshold applies to it.

        Of a reading that is to be none, the score is at most the threshold; at most
        `EpisodeRules.keep`, if it belongs to no trouble either.
        """


class Series(Protocol):
    """What the judges of a series keep of it: the verdict that has kept it quiet lately."""

    following: Following | None


class Judges(Protocol):
    """Gives each series a judge of its own."""

    def over(self, judge: Judge | None, series: Series, readings: list[Reading]) -> Judge | None:
        """Return the judge of a series' readings in a batch; the given one if it has none."""


def distance(settings: Settings, reading: Reading, expected: float) -> float:
    """Return how far a normalized reading is from the expected value, in its unit as it came."""
    scale = settings.scale if reading.metric is None else scale_of(reading.unit)
    return abs(reading.value - expected) * (1.0 if scale is None else scale)


class Small:
    """Holds down what is closer to the expected value than ANOMALY_LEAST."""

    def __init__(self, settings: Settings, rules: EpisodeRules) -> None:
        self._settings = settings
        self._rules = rules
        self.floor = rules.threshold

    def __call__(self, reading: Reading, verdict: Verdict) -> tuple[Verdict, EpisodeRules]:
        """Return the verdict; of a small one, its score is the threshold."""
        rules, expected = self._rules, verdict.expected
        if (
            verdict[0] > rules.threshold
            and expected is not None
            and distance(self._settings, reading, expected) < self._settings.least
        ):
            verdict = verdict._replace(score=rules.threshold)
        return verdict, rules
