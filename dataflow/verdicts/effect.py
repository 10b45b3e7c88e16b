"""What a verdict would have kept quiet of the anomalies that the flow has written. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from dataflow.calendars.clock import Clock
from dataflow.records import Anomaly, series_key
from dataflow.verdicts.pattern import Pattern, case_of
from dataflow.verdicts.record import Feedback, Following, Quiet

__all__ = ["DAYS", "Effect", "Loss", "effect", "episode_of"]

DAYS = 14
"""Days that are looked at, before the newest anomaly."""

DAY = 86_400.0


class Loss(NamedTuple):
    """An episode of which a verdict would have kept something quiet: how many of its anomalies.

    `quieted` and `alerts` are its alerts that would not have been written, and all; `first` is its
    first anomaly that would not have been written.
    """

    first: Anomaly
    quiet: int
    anomalies: int
    quieted: int
    alerts: int


class Effect(NamedTuple):
    """What a verdict would have done: `quiet` of `anomalies` of the series, `quieted` of `alerts`.

    `lost` are the other episodes that it touches, without the one that the verdict is about.
    """

    anomalies: int
    quiet: int
    alerts: int
    quieted: int
    lost: tuple[Loss, ...]


def episode_of(anomalies: Iterable[Anomaly], name: str) -> list[Anomaly]:
    """Return the anomalies of the episode that has this id, or that of one of its anomalies."""
    known = list(anomalies)
    episode = next((one.episode for one in known if name in (one.id, one.episode)), None)
    if episode is None:
        return []
    # Records of earlier versions name no episode.
    return [one for one in known if (one.episode == episode if episode else one.id == name)]


def effect(
    pattern: Pattern,
    episode: str,
    anomalies: Sequence[Anomaly],
    interval: float = 300.0,
    clocks: Callable[[str], Clock | None] | None = None,
) -> Effect:
    """Return what a verdict would have kept quiet in the last 14 days of a series.

    `anomalies` are those of the metric of the instance, in their order, and `episode` is what the
    verdict is about.
    """
    metric = pattern.metric
    quiet = Quiet([Feedback(id="", verdict="fine", pattern=pattern)], metric, interval, clocks)
    key = series_key(pattern.instance, None)
    cases = [(one, case) for one in anomalies if (case := case_of(one)) is not None]
    newest = max((case.time for _, case in cases), default=0.0)
    following: Following | None = None
    found: dict[str, list[tuple[Anomaly, bool]]] = {}
    for one, case in cases:
        kept = quiet.take(key, case, following)
        following = kept or following
        if case.time > newest - DAYS * DAY:
            found.setdefault(one.episode or one.id, []).append((one, kept is not None))
    losses = {
        name: Loss(
            next((one for one, is_quiet in seen if is_quiet), seen[0][0]),
            sum(is_quiet for _, is_quiet in seen),
            len(seen),
            sum(one.alert and is_quiet for one, is_quiet in seen),
            sum(one.alert for one, _ in seen),
        )
        for name, seen in found.items()
    }
    return Effect(
        sum(loss.anomalies for loss in losses.values()),
        sum(loss.quiet for loss in losses.values()),
        sum(loss.alerts for loss in losses.values()),
        sum(loss.quieted for loss in losses.values()),
        tuple(loss for name, loss in losses.items() if loss.quiet and name != episode),
    )
