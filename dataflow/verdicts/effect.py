"""What a verdict would have kept quiet of the anomalies that the flow has written. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from dataflow.calendars.clock import Clock
from dataflow.records import Anomaly, series_key
from dataflow.verdicts.pattern import AFTER, INTERVALS_AFTER, Pattern, case_of, pattern_of
from dataflow.verdicts.record import Feedback, Following, Quiet

__all__ = ["DAYS", "Effect", "Loss", "Proposal", "effect", "episode_of", "propose", "trouble_of"]

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


class Proposal(NamedTuple):
    """A verdict that is not given yet: the episode, its first alert, its pattern and its effect.

    `lasts` says that nothing came after the episode: it may not be over.
    """

    episode: list[Anomaly]
    alert: Anomaly
    pattern: Pattern
    effect: Effect
    lasts: bool


def propose(
    series: Sequence[Anomaly],
    name: str,
    interval: float = 300.0,
    clocks: Callable[[str], Clock | None] | None = None,
) -> Proposal:
    """Return what a verdict on the anomaly or incident of an id would be.

    `series` are the anomalies of its metric of its instance, in their order. Raises `ValueError`,
    with a sentence, if there is none, or if it has no pattern.
    """
    episode = trouble_of(series, name, interval)
    if not episode:
        raise ValueError(
            f"no anomaly and no incident of anomalies has the id {name}: take it from the record; "
            "silences and incidents of groups have no pattern, those of their members do."
        )
    try:
        pattern = pattern_of(episode)
    except ValueError as error:
        raise ValueError(f"{name} has no pattern to keep quiet: {error}.") from None
    alert = next((one for one in episode if one.alert), episode[0])
    episodes = {one.episode or one.id for one in episode}
    found = effect(pattern, episodes, series, interval, clocks)
    return Proposal(episode, alert, pattern, found, series[-1].id == episode[-1].id)


def trouble_of(series: Sequence[Anomaly], name: str, interval: float = 300.0) -> list[Anomaly]:
    """Return the episode of an id; if it has no alert, together with what it follows.

    Scores stay high after a trouble. With a long interval, what is left of that may be an episode
    of its own, whose values are as expected.
    """
    found = episode_of(series, name)
    while found and not any(one.alert for one in found):
        before = next((at for at, one in enumerate(series) if one.id == found[0].id), 0) - 1
        first = case_of(found[0])
        last = case_of(series[before]) if before >= 0 else None
        after = max(AFTER, INTERVALS_AFTER * interval)
        if first is None or last is None or not 0 <= first.time - last.time <= after:
            break
        found = [*episode_of(series[: before + 1], series[before].id), *found]
    return found


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
    episodes: Collection[str],
    anomalies: Sequence[Anomaly],
    interval: float = 300.0,
    clocks: Callable[[str], Clock | None] | None = None,
) -> Effect:
    """Return what a verdict would have kept quiet in the last 14 days of a series.

    `anomalies` are those of the metric of the instance, in their order, and `episodes` what the
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
        tuple(loss for name, loss in losses.items() if loss.quiet and name not in episodes),
    )
