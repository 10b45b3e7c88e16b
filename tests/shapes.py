"""Ten shapes of trouble, and the incidents that the flow's own code makes of them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection
from typing import NamedTuple

from dataflow.alerts.episode import EpisodeRules
from dataflow.detectors.calibrated.detector import Calibrated
from dataflow.incidents.episodes import EpisodeTracker
from dataflow.incidents.rules import Judged, Rules
from dataflow.records import Incident, Reading
from dataflow.steps.score import Scored, scorer

DAY = 288
BEFORE = 21 * DAY
"""Readings before the trouble; it begins at midnight."""

START = 1_396_310_400.0  # a Tuesday, 00:00 UTC
STEP = 300.0

Change = Callable[[int, float, random.Random], float]
"""The value in place of an ordinary one, by the number of the reading since the trouble began."""


def habit(at: int, rng: random.Random) -> float:
    """CPU of a host with a daily habit of 5 to 35%."""
    return 20 + 15 * math.sin(math.tau * at / DAY) + rng.gauss(0, 1.5)


def series(change: Change, after: int = 3 * DAY, seed: int = 0) -> list[float]:
    """Three weeks of habit, then the trouble, from 0 to 1."""
    rng, own = random.Random(seed), random.Random(f"trouble {seed}")
    values = []
    for at in range(BEFORE + after):
        value = habit(at, rng)
        if at >= BEFORE:
            value = change(at - BEFORE, value, own)
        values.append(min(max(value, 0.0), 100.0) / 100)
    return values


class Found(NamedTuple):
    """What the flow finds from the beginning of the trouble on."""

    scored: list[Scored]
    incidents: list[Incident]
    stored: int
    """Bytes of the largest state that was saved."""

    @property
    def resolved(self) -> list[tuple[float, float, str]]:
        """Hours from the beginning to the opening and the end of each incident, and its end."""
        return [
            (hours(one.opened_at), hours(one.resolved_at), str(one.ended))
            for one in self.incidents
            if one.state == "resolved"
        ]


def hours(moment: object) -> float:
    return (moment.timestamp() - START) / 3600 - BEFORE / 12  # type: ignore[attr-defined]


def run(values: list[float], breaks: Collection[int] = ()) -> Found:
    """Pass the values through the steps; at `breaks`, the states are saved and loaded."""
    detector = Calibrated()
    step = scorer(detector, EpisodeRules(0.5, STEP, 3600.0), lambda reading: None)
    readings = [
        Reading("host", START + STEP * at, at, value, START + STEP * at, 0, at)
        for at, value in enumerate(values)
    ]
    tracker, state, stored = EpisodeTracker(Rules(), "host"), None, 0
    scored: list[Scored] = []
    incidents: list[Incident] = []
    for at, one in enumerate(readings):
        if at in breaks and state is not None:
            data = step.dump(state)
            stored = max(stored, len(data))
            state = step.load(data)
        state, found = step.score(state, [one])
        scored += found
        ((reading, verdict, finding),) = found
        judged = None if finding is None else Judged(finding, verdict.score, verdict.expected)
        records = tracker.add(STEP * at, reading, judged)
        incidents += records if at >= BEFORE else []
    return Found(scored[BEFORE:], incidents, stored)


def within(first: int, last: int, value: Change) -> Change:
    """Trouble in these readings, the first included; the habit before and after."""
    return lambda at, usual, rng: value(at, usual, rng) if first <= at < last else usual


HALF = DAY // 2
SHAPES: dict[str, Change] = {
    "pinned": within(0, HALF, lambda at, usual, rng: 99.5),
    "stuck": within(0, HALF, lambda at, usual, rng: 21.3),
    "dropped to 0": within(0, HALF, lambda at, usual, rng: 0.0),
    "slow leak": within(0, 2 * DAY, lambda at, usual, rng: usual + 60 * at / (2 * DAY)),
    "noisy": within(0, HALF, lambda at, usual, rng: usual + rng.gauss(0, 12)),
    "lost rhythm": within(0, 2 * DAY, lambda at, usual, rng: 20 + rng.gauss(0, 1.5)),
    "level shift that stays": within(0, 10**9, lambda at, usual, rng: usual + 40),
    "flapping": within(0, HALF, lambda at, usual, rng: 90.0 if at // 4 % 2 == 0 else usual),
    "two spikes an hour apart": lambda at, usual, rng: 90.0 if at in (0, 12) else usual,
    "a spike within trouble": within(
        0, HALF, lambda at, usual, rng: 99.5 if at == 60 else 55 + rng.gauss(0, 1.5)
    ),
}
