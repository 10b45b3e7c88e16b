"""The step `score`: one detector state per instance, updated by each reading; and its episodes."""

from __future__ import annotations

import hashlib
import math
import zlib
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import msgspec

from dataflow.alerts.episode import Band, EpisodeRules, Finding, Watched
from dataflow.calendars.clock import Clock
from dataflow.detectors import make
from dataflow.detectors.base import (
    PICKLED,
    AnyDetector,
    Detector,
    Explanation,
    Verdict,
    WindowedDetector,
)
from dataflow.detectors.calibrated.detector import Calibrated
from dataflow.detectors.first_day import Known, Newcomer, explain
from dataflow.detectors.sealing import seal, unseal
from dataflow.errors import UserError
from dataflow.metrics import counters
from dataflow.records import Reading
from dataflow.settings import Settings
from dataflow.steps.first_day import FirstDay, Member
from dataflow.steps.judge import Judge, Judges, Small
from dataflow.steps.repeats import Times
from dataflow.steps.times import Backwards
from dataflow.verdicts.record import Following

__all__ = [
    "Scored",
    "ScoredBatch",
    "ScoredQueue",
    "Scorer",
    "detector",
    "episode_rules",
    "explainer",
    "form_of_states",
    "scorer",
]

WATCHED = b"watched/2 "
"""Begins the bytes of an instance that had an anomaly lately."""

NEW = b"first-day/1 "
"""Begins the bytes of an instance that began with another's state, in its first readings."""

Scored = tuple[Reading, Verdict, Finding | None]
"""A reading, the detector's opinion of it, and what it is in its episode; None if in none."""

ScoredBatch = tuple[str, list[Scored]]
"""The key of an instance's metric, and its readings in a batch with their verdicts."""


class ScoredQueue:
    """What the scorer of one flow found, for that of another flow over the same readings.

    Both take the same batches in the same order, and their detectors differ by the threshold only,
    on which no score depends: so the second one scores nothing. `lowest` returns the score above
    which it has to know what was known before a reading.

    A batch is the readings as the first flow judged them, and of those that may matter to either
    flow, by their number, the detector's own verdict and what was known before.
    """

    def __init__(self) -> None:
        self.lowest: Callable[[], float] = lambda: math.inf
        self.batches: deque[tuple[list[Scored], dict[int, tuple[Verdict, Known | None]]]] = deque()


def detector(settings: Settings) -> AnyDetector:
    """Return the detector that the settings name.

    Raises `UserError` if it cannot work with them.
    """
    try:
        made = make(
            settings.detector,
            seed=settings.seed,
            interval=settings.interval,
            threshold=settings.threshold,
        )
    except ValueError as error:
        raise UserError(
            f"the detector {settings.detector} cannot work with these settings: {error}"
        ) from None
    if settings.together and isinstance(made, Calibrated):
        made.ignore_runs()
    if settings.least:
        _expects(settings, made)
    return made


def _expects(settings: Settings, made: AnyDetector) -> None:
    """Raise `UserError` if ANOMALY_LEAST has nothing to measure from."""
    if settings.together:
        raise UserError(
            "ANOMALY_LEAST is in the unit of one metric, and ANOMALY_TOGETHER judges all of an "
            "instance: leave out one of them."
        )
    state, expected = None, None
    if not isinstance(made, WindowedDetector):
        for value in (0.25, 0.5, 0.25):
            state, verdict = made.update(state, value, None)
            expected = verdict.expected
    if expected is None:
        raise UserError(
            f"ANOMALY_LEAST counts from the expected value, and the detector {settings.detector} "
            "expects none: leave it out, or use a detector such as calibrated."
        )


def form_of_states(detector: AnyDetector) -> str:
    """Return a fingerprint of the detector's version, trees and parameters: of its first state.

    It changes if the detector learns differently or if River draws its trees differently.
    """
    state, _ = detector.update(None, 0.25, 0.0)
    data = detector.dump(state)
    if data.startswith(PICKLED):
        # The pickle itself can differ from process to process: the order of a set does.
        data = data.partition(b"\n")[0]
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def episode_rules(settings: Settings, detector: AnyDetector) -> EpisodeRules:
    """Return the rules of episodes for these settings."""
    threshold = detector.threshold if settings.threshold is None else settings.threshold
    return EpisodeRules(threshold, settings.interval, settings.incident_quiet)


def explainer(settings: Settings) -> Callable[[float], Detector[Any] | None]:
    """Return the function from another threshold to the same detector with it, None if it has none.

    The detectors are made at the first need, and only asked to explain.
    """

    @cache
    def of(threshold: float) -> Detector[Any] | None:
        kept = settings.model_copy(update={"threshold": threshold})
        try:
            made = detector(kept)
        except UserError:
            return None
        return None if isinstance(made, WindowedDetector) else made

    return of


def judge(settings: Settings, rules: EpisodeRules) -> Judge | None:
    """Return the judge for these settings; None if the threshold says all."""
    return Small(settings, rules) if settings.least else None


class _Habit(NamedTuple):
    """What a detector knew before an episode: its state, and whether a value is expected by it.

    Both are None of a detector that expects nothing. `shift` is by how much the values of this
    instance are above those of the state, if that is of another one.
    """

    state: Any
    band: Band | None
    shift: float = 0.0


class _Instance:
    """The detector's state of one instance, and the time of its last reading (NaN: not known).

    `watched` is None but for an instance that had an anomaly lately, and `passed` the number of
    readings that it has not taken since. `habit` is what the detector knew before the episode that
    the instance is in; None outside of episodes. `following` is the verdict that has kept it quiet
    lately. `times` has the times of its readings, if they have no index. `member` is None where new
    members of groups begin with nothing.
    """

    __slots__ = (
        "clock",
        "following",
        "habit",
        "last",
        "member",
        "passed",
        "state",
        "times",
        "watched",
    )

    def __init__(
        self, state: Any, watched: Watched | None = None, times: Times | None = None
    ) -> None:
        self.state = state
        self.clock: Clock | None = None
        self.last = math.nan
        self.times = times
        self.watched = watched
        self.passed = 0
        self.habit: _Habit | None = None
        self.following: Following | None = None
        self.member: Member | None = None


class Scorer(NamedTuple):
    """The stateful step, and how its states are written as bytes.

    They are the detector's own bytes; those of an instance that had an anomaly lately stand behind
    a mark and what is kept of its episode.
    """

    score: Callable[[_Instance | None, list[Reading]], tuple[_Instance | None, list[Scored]]]
    dump: Callable[[_Instance], bytes]
    load: Callable[[bytes], _Instance]


class _Saved(msgspec.Struct, array_like=True):
    watched: Watched | None
    state: bytes
    passed: int = 0
    habit: bytes = b""


class _SavedQuiet(_Saved, array_like=True):
    """What is saved of an instance that a verdict has kept quiet lately."""

    following: Following | None = None


class _New(msgspec.Struct, array_like=True):
    newcomer: bytes
    shift: float
    state: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_SavedQuiet).decode
_decode_new = msgspec.msgpack.Decoder(_New).decode


def scorer(
    detector: Detector[Any],
    rules: EpisodeRules,
    backwards: Backwards,
    clocks: Callable[[str], Clock | None] | None = None,
    judge: Judge | None = None,
    first_day: FirstDay | None = None,
    quiet: Judges | None = None,
    explainer: Callable[[float], Detector[Any] | None] | None = None,
    scores_to: ScoredQueue | None = None,
    scores_from: ScoredQueue | None = None,
) -> Scorer:
    """Return the stateful step: an instance's state and readings to the next state and verdicts.

    It takes all readings of an instance in a batch: a call for each would cost more than the work.
    Readings without an index whose time was there already, and first counters, are dropped.
    No readings say that the instance is forgotten: its state is discarded. `backwards` is called
    with each reading that is older than the one before it. `clocks` gives an instance the clock by
    which its detector knows the hour; None: UTC. `judge` says what is an anomaly; None: what is
    above the threshold. `first_day` gives new members of groups another member's state to begin
    with; None: they begin with nothing. `quiet` has the verdicts of people; None: there are none.
    `explainer` returns the same detector with another threshold, which finds the ordinary range
    where that threshold applies; None: there is no such range. `scores_to` gets all that is scored;
    with `scores_from` nothing is, and its batches are judged instead: neither with `first_day`, and
    the second one with a detector that keeps what was known before an anomaly.
    """
    update = detector.update
    threshold = rules.threshold
    sizes = counters.STATES
    # The score above which the detector keeps what explains a reading.
    explained = threshold if scores_to is None else math.inf

    def lowest() -> float:
        """Return the score up to which no reading is an anomaly, but for verdicts."""
        return threshold if judge is None else judge.floor

    if scores_from is not None:
        scores_from.lowest = lowest

    def score(
        instance: _Instance | None, readings: list[Reading]
    ) -> tuple[_Instance | None, list[Scored]]:
        nonlocal explained
        if not readings:
            return None, []
        if instance is None:
            instance = _Instance(None)
            if first_day is not None:
                instance.member = first_day.begin(readings)
        if clocks is not None and instance.clock is None:
            instance.clock = clocks(readings[0].instance) or _utc
        clock = instance.clock
        judging = judge if quiet is None else quiet.over(judge, instance, readings)
        # Readings up to `looked` matter to no flow that gets the scores.
        floor = looked = threshold if judging is None else judging.floor
        noted: dict[int, tuple[Verdict, Known | None]] | None = None
        if judge is not None or scores_to is not None:
            low = lowest()
            if scores_to is not None:
                noted = {}
                low = min(low, scores_to.lowest())
                looked = min(floor, low)
            if low < explained:
                explained = low
                detector.explain_from(explained)
        member = instance.member
        learn: Callable[[Any, float, float | None], tuple[Any, Verdict]] = update
        if member is not None and member.newcomer is not None:
            learn = member.newcomer.update
        state, last = instance.state, instance.last
        episode = instance.habit is not None
        scored: list[Scored] = []
        timed = readings[0].index is None
        if timed:
            if instance.times is None:
                instance.times = Times()
            readings = instance.times.news(readings)
        for reading in readings:
            time = reading.time
            if reading.index is None and not timed:  # one of a format that counts only some
                if instance.times is None:
                    instance.times = Times()
                news = instance.times.take(reading)
                if news is None:
                    continue
                reading, time = news, news.time
            if time is not None:
                if time < last:
                    backwards(reading)
                last = time
                if clock is not None:
                    time = clock(time)
            state, verdict = learn(state, reading.value, time)
            # `verdict[0]` is faster than `verdict.score`.
            if verdict[0] > looked or episode:
                # Taken in any case: the detector keeps it no longer.
                known = known_before(instance, state) if verdict[0] > explained else None
                if noted is not None:
                    noted[len(scored)] = verdict, known
                    if verdict[0] <= floor and not episode:
                        scored.append((reading, verdict, None))
                        continue
                instance.state = state
                scored.append(judged(instance, reading, verdict, time, known, judging, len(scored)))
                episode = instance.habit is not None
            else:
                scored.append((reading, verdict, None))
        instance.passed += len(scored)
        instance.state, instance.last = state, last
        if member is not None and scored:
            if member.newcomer is not None and member.newcomer.over:
                member.newcomer = None
            member.learned += len(scored)
            if member.learned >= member.due and instance.habit is None and first_day is not None:
                first_day.lend(member, state, scored[-1][0])
        if sizes.wanted:
            sizes.add(len(dump(instance)))
        if scores_to is not None and noted is not None:
            scores_to.batches.append((scored, noted))
        return instance, scored

    def follow(
        instance: _Instance | None, readings: list[Reading]
    ) -> tuple[_Instance | None, list[Scored]]:
        assert scores_from is not None
        if not readings:
            return None, []
        if instance is None:
            instance = _Instance(None)
        if clocks is not None and instance.clock is None:
            instance.clock = clocks(readings[0].instance) or _utc
        clock = instance.clock
        judging = judge if quiet is None else quiet.over(judge, instance, readings)
        floor = threshold if judging is None else judging.floor
        scored, noted = scores_from.batches.popleft()
        if noted or instance.habit is not None or judging is not judge:
            found, scored = scored, []
            for number, (reading, verdict, _) in enumerate(found):
                verdict, known = noted.get(number, (verdict, None))
                if verdict[0] > floor or instance.habit is not None:
                    time = reading.time
                    if clock is not None and time is not None:
                        time = clock(time)
                    scored.append(judged(instance, reading, verdict, time, known, judging, number))
                else:
                    scored.append((reading, verdict, None))
        instance.passed += len(scored)
        return instance, scored

    def judged(
        instance: _Instance,
        reading: Reading,
        verdict: Verdict,
        time: float | None,
        known: Known | None,
        judging: Judge | None,
        number: int,
    ) -> Scored:
        """Judge a reading of an episode or with a high score, the `number`th of its batch."""
        own = rules
        if judging is not None:
            verdict, own = judging(reading, verdict)
        if instance.habit is None and verdict[0] <= own.threshold:
            return reading, verdict, None
        found = find(instance, reading, verdict, time, instance.passed + number, own, known)
        instance.passed = -number - 1
        return reading, verdict, found

    def find(
        instance: _Instance,
        reading: Reading,
        verdict: Verdict,
        time: float | None,
        passed: int,
        own: EpisodeRules,
        before: Known | None,
    ) -> Finding | None:
        found = before if verdict[0] > own.threshold else None
        habit = instance.habit
        band = None if habit is None else habit.band
        watched, finding = own.take(
            instance.watched, reading, verdict.score, band, passed, verdict.near
        )
        instance.watched = watched
        if watched is None or watched.episode is None:
            instance.habit = None
        elif habit is None:
            known = found
            if verdict.lower is not None and known is None:
                known = Known(detector.load(detector.dump(instance.state)), 0.0)
            if verdict.lower is None or known is None:
                known = Known(None, 0.0)
            instance.habit = habit_of(known, instance)
        if finding is not None and found is not None:
            finding = finding._replace(
                explanation=explain(detector, found, reading.value, time)
                if newcomer_of(instance) is not None
                else explanation(found.state, reading, time, finding.alert, own.threshold)
            )
        return finding

    def known_before(instance: _Instance, state: Any) -> Known | None:
        newcomer = newcomer_of(instance)
        if newcomer is not None:
            return newcomer.before()
        before = detector.before(state)
        return None if before is None else Known(before, 0.0)

    def explanation(
        before: Any, reading: Reading, time: float | None, alert: bool, limit: float
    ) -> Explanation | None:
        # The ordinary range is that of the threshold with which a detector was made.
        by: Detector[Any] | None = detector
        if alert and limit != threshold:
            by = None if explainer is None else explainer(limit)
        if by is None:
            return detector.explain(before, reading.value, time, False)
        return by.explain(before, reading.value, time, alert)

    def habit_of(known: Known, instance: _Instance) -> _Habit:
        if known.state is None:
            return _Habit(None, None)
        band = band_of(detector, known, instance)
        return _Habit(known.state, band, known.shift)

    def dump(instance: _Instance) -> bytes:
        data = detector.dump(instance.state)
        watched = instance.watched
        if watched is not None and rules.forgets(watched, instance.passed):
            watched = None
        following = instance.following
        if watched is not None or following is not None or data.startswith(WATCHED):
            habit = instance.habit
            known = b"" if habit is None or habit.state is None else detector.dump(habit.state)
            saved = _Saved(watched, data, instance.passed, known)
            if following is not None:
                saved = _SavedQuiet(watched, data, instance.passed, known, following)
            # What the detector knew before an episode is much like what it knows.
            data = seal(WATCHED, zlib.compress(_encode(saved), 1 if known else 0))
        member, habit = instance.member, instance.habit
        newcomer = b""
        if member is not None and member.newcomer is not None:
            newcomer = member.newcomer.dump()
        shift = 0.0 if habit is None else habit.shift
        if newcomer or shift or data.startswith(NEW):
            data = seal(NEW, _encode(_New(newcomer, shift, data)))
        return data if instance.times is None else instance.times.dump(data)

    def load(data: bytes) -> _Instance:
        times, data = Times.load(data)
        newcomer, shift = b"", 0.0
        if data.startswith(NEW):
            new = _decode_new(unseal(NEW, data, detector.name))
            newcomer, shift, data = new.newcomer, new.shift, new.state
        if not data.startswith(WATCHED):
            instance = _Instance(detector.load(data), None, times)
        else:
            saved = _decode(zlib.decompress(unseal(WATCHED, data, detector.name)))
            instance = _Instance(detector.load(saved.state), saved.watched, times)
            instance.passed, instance.following = saved.passed, saved.following
            if saved.watched is not None and saved.watched.episode is not None:
                known = detector.load(saved.habit) if saved.habit else None
                instance.habit = habit_of(Known(known, shift), instance)
        if first_day is not None:
            instance.member = first_day.resumed(newcomer)
        return instance

    return Scorer(score if scores_from is None else follow, dump, load)


def newcomer_of(instance: _Instance) -> Newcomer | None:
    """Return what scores an instance in place of its own state; None if nothing does."""
    newcomer = None if instance.member is None else instance.member.newcomer
    return None if newcomer is None or newcomer.over else newcomer


def _utc(time: float) -> float:
    return time


def band_of(detector: Detector[Any], known: Known, instance: _Instance) -> Band:
    """Return whether a value lies where a detector with this state expects it of an instance."""
    state, shift = known

    def within(value: float, time: float | None) -> bool:
        clock = instance.clock
        if clock is not None and time is not None:
            time = clock(time)
        verdict = detector.score(state, value - shift, time)
        lower, upper = verdict.lower, verdict.upper
        return lower is None or upper is None or lower <= value - shift <= upper

    return within
