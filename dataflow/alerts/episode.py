"""Episodes: the anomalies of one instance that belong together, and how each episode ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from dataflow.alerts.news import Heard, News, odds
from dataflow.records import Explanation, MetricShare, Reading, incident_id

__all__ = ["Band", "Ended", "Episode", "EpisodeRules", "Finding", "Watched"]

KEEP = 2 / 3
"""An episode lasts while the odds of the score are above this share of the threshold's."""

ASTRAY = 2
"""Values in a row outside of what was expected before: one alone is noise."""

LASTING = 6
"""Anomalies in a row that a person has to know of, even where none of them is an alert.

Not if they come about daily.
"""

LATE = 0.75
"""The share of the quiet time after which values are compared with the band of before."""

ADAPTING = 3
"""The quiet times after which a trouble is over, if its values did not come back either, of an
instance that has adapted to another one lately: it leaves that habit in several steps."""

WEEK = 7 * 86_400.0
"""A time that steps back by more is a clock that was set; by less, a reading that comes late."""

Ended: TypeAlias = Literal["recovered", "adapted"]

Band: TypeAlias = Callable[[float, float | None], bool]
"""Whether a value at a time is what was expected of the instance before its episode began."""


class Episode(msgspec.Struct, array_like=True):
    """An episode that has not ended.

    Its clock adds up the seconds between readings from its first anomaly on; `newest` is the latest
    time of a reading, and `last` the clock at the last reading that belonged to the trouble.
    `expected` and `beside` count late readings since then, by whether they were as before the
    episode.
    """

    id: str
    since: float | None
    newest: float | None
    clock: float = 0.0
    last: float = 0.0
    opens: bool = False
    row: int = 0
    astray: int = 0
    expected: int = 0
    beside: int = 0
    alerted: bool = False


class Watched(msgspec.Struct, array_like=True):
    """What is kept of an instance that had an anomaly lately: its last news, and its episode.

    `adapted`: it has adapted to the trouble of an episode before.
    """

    heard: Heard
    episode: Episode | None = None
    adapted: bool = False


class Finding(NamedTuple):
    """What is found of a reading in an episode: an anomaly, or one before the episode's end.

    `anomaly`: its score is above the threshold. `alert`: it is news. `trouble`: it belongs to the
    trouble, though it may be no anomaly. `opens`: the episode had an alert, or lasts. `ended`: the
    episode ended here, and how. `duration`: seconds from the first anomaly to the last reading of
    the trouble. `explanation`: why it is an anomaly, if the detector can say. `metrics`: of all
    metrics together, which they are. `alerted`: of a reading that is no anomaly, whether the
    episode had an alert.
    """

    episode: str
    anomaly: bool
    alert: bool
    trouble: bool
    opens: bool
    ended: Ended | None = None
    duration: float = 0.0
    explanation: Explanation | None = None
    metrics: tuple[MetricShare, ...] | None = None
    alerted: bool = False


class EpisodeRules:
    """The rules of episodes, for all instances.

    A reading belongs to the trouble if its score is above the threshold, or if its odds are above
    two thirds of the threshold's and its value is the second in a row that is not what was expected
    before.

    The episode ends with the first other reading at least `quiet` seconds after the last of these:
    `recovered` if most of the late readings since lie where the instance was expected before the
    episode, and `adapted` if the detector has learned another habit; the next time that it would,
    three times as late.

    `interval` is counted for each reading where readings have no time.
    """

    def __init__(self, threshold: float, interval: float, quiet: float) -> None:
        self.threshold = threshold
        self._news = News(threshold, interval)
        self._interval = interval
        self._quiet = quiet
        keep = KEEP * odds(threshold)
        self.keep = keep / (keep + 1.0) if threshold < 1.0 else 1.0
        """The score up to which a reading that is no anomaly belongs to no trouble."""

    def take(
        self,
        watched: Watched | None,
        reading: Reading,
        score: float,
        band: Band | None,
        passed: int = 0,
        near: bool = False,
    ) -> tuple[Watched | None, Finding | None]:
        """Take a reading with its score; return what to keep of the instance, and what is found.

        Readings outside episodes that are no anomalies need not be taken; `passed` is their number
        since the last reading that was. `band` is what was expected before the episode, None
        if that is not known. `near`: the value is as expected, see `Verdict`.
        """
        anomaly = score > self.threshold
        if watched is None:
            if not anomaly:
                return None, None
            watched = Watched(Heard())
        heard, alert = watched.heard, False
        heard.passed(passed)
        if anomaly and not near:
            alert = self._news.take(heard, score)
        else:
            heard.passed(1)
        episode = watched.episode
        if episode is None:
            if not anomaly:
                return (None if self.forgets(watched, 0) else watched), None
            episode = Episode(incident_id("anomaly", reading), reading.time, reading.time)
            watched.episode = episode
        else:
            self._pass(episode, reading.time)
        if anomaly:
            episode.row += 1
            episode.alerted = episode.alerted or alert
            lasts = episode.row >= LASTING and not heard.usual
            episode.opens = episode.opens or alert or lasts
        else:
            episode.row = 0
            if not self._belongs(episode, reading, score, band):
                return watched, self._calm(watched, episode, reading, band)
        episode.last = episode.clock
        episode.expected = episode.beside = 0
        return watched, Finding(
            episode.id, anomaly, alert, True, episode.opens, None, episode.clock
        )

    def forgets(self, watched: Watched, passed: int) -> bool:
        """Return whether nothing has to be kept of an instance `passed` readings after the last."""
        if watched.episode is not None:
            return False
        heard = watched.heard
        kept = self._news.memory if heard.daily else self._news.hold
        return heard.since + passed >= kept

    def _pass(self, episode: Episode, time: float | None) -> None:
        newest = episode.newest
        if time is None or newest is None:
            episode.clock += self._interval
        elif time > newest:
            episode.clock += time - newest
            episode.newest = time
        elif newest - time > WEEK:
            episode.newest = time

    def _belongs(self, episode: Episode, reading: Reading, score: float, band: Band | None) -> bool:
        """Return whether a reading that is no anomaly belongs to the trouble."""
        if score <= self.keep:
            return False
        if band is None:
            return True
        episode.astray = 0 if band(reading.value, reading.time) else episode.astray + 1
        return episode.astray >= ASTRAY

    def _calm(
        self, watched: Watched, episode: Episode, reading: Reading, band: Band | None
    ) -> Finding:
        passed = episode.clock - episode.last
        # The first calm readings may be on the way back, and each comparison takes time.
        if passed >= LATE * self._quiet and band is not None:
            if band(reading.value, reading.time):
                episode.expected += 1
            else:
                episode.beside += 1
        ended: Ended | None = None
        back = episode.expected >= episode.beside
        if passed >= (ADAPTING if watched.adapted and not back else 1) * self._quiet:
            ended = "recovered" if back else "adapted"
            watched.adapted = watched.adapted or not back
            watched.episode = None
        return Finding(
            *(episode.id, False, False, False, episode.opens, ended, episode.last),
            alerted=episode.alerted,
        )
