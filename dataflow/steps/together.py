"""The step `score_together`: the detectors of all metrics of an instance, and its own score.

One state holds them all, so that they are scored in the order of the partition: the combined scores
are then the same when a resumed flow reads again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import msgspec
from bytewax import operators as op
from bytewax.operators import KeyedStream

from dataflow.alerts.episode import Band, EpisodeRules, Watched
from dataflow.detectors.base import Detector, Verdict
from dataflow.detectors.sealing import seal, unseal
from dataflow.detectors.together import THRESHOLD, Combined, Memory, Together
from dataflow.errors import UserError
from dataflow.records import MetricShare, Reading, series_key, series_parts
from dataflow.runtime.stateful_map import stateful_map
from dataflow.settings import Settings
from dataflow.steps.exchange import Keyed
from dataflow.steps.rules import Rules as Ruled
from dataflow.steps.score import Scored, ScoredBatch, Scorer

__all__ = ["TogetherScorer", "judged", "refuse_windows", "scorer", "threshold"]

MARK = b"together/1 "
"""Begins the bytes of an instance."""

DIGITS = 4
"""Decimals of a mean surprise and of the shares of metrics: more mean nothing."""


class _Forgotten(NamedTuple):
    """Says that a metric of an instance is forgotten, by its key."""

    key: str


class _Judged(NamedTuple):
    """The readings of each metric of an instance in a batch, by their keys, and all together.

    No readings of a key say that the metric is forgotten, and `forgotten` that the instance is.
    """

    each: list[ScoredBatch]
    together: list[Scored]
    forgotten: bool = False


class _Instance:
    """The state of each metric, what is kept of all together, and their episode.

    `passed` are the steps that the episode has not taken, and `limit` is the bound of the mean
    surprise that was ordinary before the episode.
    """

    __slots__ = ("limit", "memory", "metrics", "passed", "watched")

    def __init__(self) -> None:
        self.metrics: dict[str | None, Any] = {}
        self.memory = Memory()
        self.watched: Watched | None = None
        self.passed = 0
        self.limit: float | None = None


class _Saved(msgspec.Struct, array_like=True):
    metrics: list[tuple[str | None, bytes]]
    memory: Memory
    watched: Watched | None
    passed: int
    limit: float | None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Saved).decode

_Value: TypeAlias = list[Reading] | _Forgotten


class TogetherScorer(NamedTuple):
    """The stateful step, and how its states are written as bytes."""

    score: Callable[[_Instance | None, _Value], tuple[_Instance | None, _Judged]]
    dump: Callable[[_Instance], bytes]
    load: Callable[[bytes], _Instance]


def refuse_windows(settings: Settings) -> None:
    """Raise `UserError` if metrics are to be judged together by a detector of windows.

    Its scores come too late for those of other metrics.
    """
    if settings.together:
        raise UserError(
            f"ANOMALY_TOGETHER does not work with the detector {settings.detector}, which scores "
            "many readings at a time: use another one."
        )


def threshold(settings: Settings) -> float:
    """Return the threshold of all metrics together."""
    return THRESHOLD if settings.threshold is None else settings.threshold


def judged(
    normal: KeyedStream[list[Reading]], scorer: TogetherScorer
) -> tuple[KeyedStream[list[Scored]], KeyedStream[list[Scored]]]:
    """Add the steps; return the readings of each metric by its key, and all together by instance.

    No readings say that the metric, or the instance, is forgotten.
    """
    values = op.flat_map_batch("by_instance", normal, _by_instance)
    found = stateful_map("score_together", values, *scorer)
    each = op.flat_map_batch("of_each", found, _of_each)
    return each, op.flat_map_batch("of_all", found, _of_all)


def _by_instance(batch: list[Keyed]) -> list[tuple[str, _Value]]:
    """Return the readings of instances and what is forgotten, by instance."""
    out: list[tuple[str, _Value]] = []
    for key, readings in batch:
        if readings:
            out.append((key, readings))
        else:
            out.append((series_parts(key)[0], _Forgotten(key)))
    return out


def _of_each(batch: list[tuple[str, _Judged]]) -> list[ScoredBatch]:
    """Return the readings of each metric by their keys."""
    return [one for _, judged in batch for one in judged.each]


def _of_all(batch: list[tuple[str, _Judged]]) -> list[ScoredBatch]:
    """Return the steps of each instance; none if it is forgotten."""
    out: list[ScoredBatch] = []
    for instance, judged in batch:
        if judged.together or judged.forgotten:
            out.append((instance, judged.together))
    return out


def scorer(
    settings: Settings, detector: Detector[Any], single: Scorer, ruled: Ruled | None = None
) -> TogetherScorer:
    """Return the stateful step: an instance's state and readings to the next and what is judged.

    `single` scores each metric by itself. None of its anomalies is an alert. `ruled` has the
    thresholds by pattern; what is kept of an instance does not depend on them but for its episode.
    """
    limit = threshold(settings)
    rules = EpisodeRules(limit, settings.interval, settings.incident_quiet)
    together = Together(settings.interval, detector.threshold, settings.default_metric)

    def score(instance: _Instance | None, value: _Value) -> tuple[_Instance | None, _Judged]:
        if isinstance(value, _Forgotten):
            return forget(instance, value.key)
        if instance is None:
            instance = _Instance()
        metrics = instance.metrics
        each: dict[str, list[Scored]] = {}
        found: list[Scored] = []
        for reading in value:
            metric = reading.metric
            # One by one: what is said of all depends on the order.
            metrics[metric], scored = single.score(metrics.get(metric), [reading])
            for one, verdict, finding in scored:
                if finding is not None:
                    finding = finding._replace(alert=False, opens=False)
                each.setdefault(series_key(one.instance, metric), []).append(
                    (one, verdict, finding)
                )
                if one.time is not None:
                    for combined in together.take(instance.memory, one, verdict[0]):
                        found.append(judge(instance, combined))
        return instance, _Judged(list(each.items()), found)

    def forget(instance: _Instance | None, key: str) -> tuple[_Instance | None, _Judged]:
        _, metric = series_parts(key)
        if instance is not None:
            instance.metrics.pop(metric, None)
            together.forget(instance.memory, metric)
            if not instance.metrics:
                instance = None
        return instance, _Judged([(key, [])], [], instance is None)

    def judge(instance: _Instance, combined: Combined) -> Scored:
        score, reading = combined.score, combined.reading
        reading.value = round(reading.value, DIGITS)
        lower = None if combined.expected is None else 0.0
        verdict = Verdict(score, _rounded(combined.expected), lower, _rounded(combined.upper))
        watched = instance.watched
        within = watched is not None and watched.episode is not None
        own = rules
        if ruled is not None and (within or score > min(limit, ruled.floor)):
            own = ruled.of_all(reading, limit)
        if score <= own.threshold and not within:
            instance.passed += 1
            return reading, verdict, None
        if not within:
            instance.limit = verdict.upper
        band = None if instance.limit is None else _up_to(instance.limit)
        instance.watched, finding = own.take(watched, reading, score, band, instance.passed)
        instance.passed = 0
        if finding is not None and finding.anomaly:
            finding = finding._replace(metrics=tuple(map(_share, combined.metrics)))
        return reading, verdict, finding

    def dump(instance: _Instance) -> bytes:
        watched = instance.watched
        if watched is not None and rules.forgets(watched, instance.passed):
            watched = None
        metrics = [(name, single.dump(state)) for name, state in instance.metrics.items()]
        saved = _Saved(metrics, instance.memory, watched, instance.passed, instance.limit)
        return seal(MARK, _encode(saved))

    def load(data: bytes) -> _Instance:
        saved = _decode(unseal(MARK, data, detector.name))
        instance = _Instance()
        instance.metrics = {name: single.load(state) for name, state in saved.metrics}
        instance.memory, instance.watched = saved.memory, saved.watched
        instance.passed, instance.limit = saved.passed, saved.limit
        return instance

    return TogetherScorer(score, dump, load)


def _up_to(limit: float) -> Band:
    return lambda value, _time: value <= limit


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def _share(one: MetricShare) -> MetricShare:
    return MetricShare(one.metric, round(one.share, DIGITS), one.score)
