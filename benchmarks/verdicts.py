"""How much verdicts keep quiet, and what else is lost by it, on made-up fleets.

    python benchmarks/verdicts.py [--first 1000] [--instances 200]

Each instance has three weeks of its habit, and five weeks with two kinds of anomalies. One comes
again: a backup, a job, a restart, at the same time of a day that no rhythm gives, each 2 to 7 days,
some minutes earlier or later, and 15% larger or smaller. The others come each day or two, at any
time: spikes, plateaus, outages, noise, shifts.

The first of those that come again that has an alert gets the verdict `fine`, when its episode is
over. Counted are the four weeks after it: those that come again and have an alert without the
verdict, and which share of them has none with it; and the same of the others, which are lost.

The constants of `dataflow/verdicts/pattern.py` were chosen on the instances 0 to 399.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from dataflow.alerts.episode import EpisodeRules
from dataflow.alerts.news import Heard, News
from dataflow.detectors.calibrated.detector import Calibrated
from dataflow.records import Anomaly, Reading, Source
from dataflow.steps.score import Scored, scorer
from dataflow.verdicts.pattern import Case, pattern_of
from dataflow.verdicts.record import Feedback, Following, Quiet

DAY = 288
STEP = 300.0
START = 1_396_310_400.0  # a Tuesday, 00:00 UTC
HABIT_DAYS = 21
DAYS = HABIT_DAYS + 35
COUNTED_DAYS = 28
THRESHOLD = 0.5
NAME = "host"

HABITS = {"daily": 2.5, "weekly": 2.0, "hourly job": 0.5, "wandering": 1.5, "nightly batch": 0.8}
"""Each with the size of its noise, in percent."""

AGAIN = ("backup", "spikes", "drop", "restart", "noisy job")

Span = tuple[int, int]
"""The first reading of an anomaly, and the one after its last."""


@dataclass
class Made:
    """The values of an instance, 0 to 1, and its anomalies."""

    values: list[float]
    again: list[Span] = field(default_factory=list)
    others: list[Span] = field(default_factory=list)


class Share(NamedTuple):
    """How many of those that come again are quiet, and how many of the others are lost."""

    again: int = 0
    quiet: int = 0
    others: int = 0
    lost: int = 0

    def __str__(self) -> str:
        """Return both as shares."""
        return (
            f"{self.quiet / max(self.again, 1):.1%} of {self.again:,} that came again were quiet, "
            f"{self.lost / max(self.others, 1):.2%} of {self.others:,} others were lost"
        )


def habit(kind: str, rng: random.Random) -> list[float]:
    """Return CPU of an instance without anomalies, in percent."""
    noise = wander = 0.0
    values = []
    for at in range(DAYS * DAY):
        day, hour = divmod(at / DAY, 1)
        noise = 0.6 * noise + 0.8 * rng.gauss(0, 1)
        wander += rng.gauss(0, 0.03)
        level = {
            "daily": 40 + 20 * math.sin(math.tau * hour),
            "weekly": 35 + 25 * max(0, math.sin(math.tau * (hour - 0.25))) * (day % 7 < 5),
            "hourly job": 8 + 4 * (at % 12 == 0),
            "wandering": 30 + wander,
            "nightly batch": 5 + 50 * (24 / 288 <= hour < 36 / 288),
        }[kind]
        values.append(max(level + HABITS[kind] * noise, 0.05))
    return values


def made(number: int) -> Made:
    """Return the instance of a number; its number is its seed."""
    rng = random.Random(f"verdict {number}")
    kind = list(HABITS)[number % len(HABITS)]
    form = AGAIN[number // len(HABITS) % len(AGAIN)]
    values = habit(kind, rng)
    instance = Made(values)
    busy = _again(instance, form, rng, 25 if kind != "hourly job" else 15)
    _others(instance, busy, HABITS[kind], rng)
    instance.values = [min(max(value, 0.05), 100.0) / 100 for value in values]
    return instance


def _again(instance: Made, form: str, rng: random.Random, least: float) -> set[int]:
    """Add what comes again; return the readings that it and two hours around it take."""
    values, busy = instance.values, set()
    hour, size = rng.randrange(DAY), rng.uniform(least, 2 * least)
    shortest, longest = {"spikes": (1, 3), "restart": (2, 5), "noisy job": (8, 19)}.get(
        form, (6, 24)
    )
    length = rng.randint(shortest, longest)
    day = HABIT_DAYS
    while (first := day * DAY + hour + round(rng.uniform(-4, 4))) + DAY <= len(values):
        lasts = max(1, round(length * rng.uniform(0.8, 1.2)))
        by = size * rng.uniform(0.85, 1.15)
        for at in range(first, first + lasts):
            if form == "drop":
                values[at] = 0.2 + 0.05 * rng.random()
            elif form == "restart":
                values[at] += by * (1 - (at - first) / lasts)
            else:
                values[at] += by * (rng.uniform(0.5, 1.5) if form == "noisy job" else 1)
        instance.again.append((first, first + lasts))
        busy |= set(range(first - 24, first + lasts + 24))
        day += rng.choice((2, 3, 4, 5, 7))
    return busy


def _others(instance: Made, busy: set[int], size: float, rng: random.Random) -> None:
    values, first = instance.values, HABIT_DAYS * DAY
    while (first := first + int(rng.uniform(0.7, 2.2) * DAY)) + DAY <= len(values):
        form = rng.randrange(6)
        lasts = (3, 48, 24, 48, 12, rng.randrange(1, 30))[form]
        by, jump = rng.uniform(6, 16) * size, rng.uniform(20, 55)
        side = rng.choice((1, 1, -1))
        if busy & set(range(first, first + lasts)):
            continue
        for at in range(first, first + lasts):
            value = values[at]
            values[at] = (
                value + by,
                value + 7 * size,
                0.1 + 0.02 * rng.random(),
                value + 5 * size * rng.gauss(0, 1),
                value + side * 0.7 * by,
                value + jump,
            )[form]
        instance.others.append((first, first + lasts))


def scored(instance: Made) -> list[Scored]:
    """Return what the step `score` finds."""
    step = scorer(Calibrated(), EpisodeRules(THRESHOLD, STEP, 3600.0), lambda _: None)
    readings = [
        Reading(NAME, START + STEP * at, at, value, START + STEP * at, 0, at)
        for at, value in enumerate(instance.values)
    ]
    return step.score(None, readings)[1]


def alerts(found: Iterable[Scored], quiet: Quiet, first: int = 0) -> set[int]:
    """Return the places of the alerts if what verdicts keep quiet is no anomaly.

    `first` is the place of the first reading.
    """
    news, heard = News(THRESHOLD, STEP), Heard()
    following: Following | None = None
    places = set()
    for at, (reading, verdict, _) in enumerate(found, first):
        kept = None
        if NAME in quiet:
            assert reading.time is not None
            assert verdict.expected is not None
            kept = quiet.take(NAME, Case(reading.time, reading.value, verdict.expected), following)
            following = kept or following
        if verdict.score <= THRESHOLD or verdict.near or kept is not None:
            heard.passed(1)
        elif news.take(heard, verdict.score):
            places.add(at)
    return places


def verdict(found: list[Scored], alert: int) -> Feedback:
    """Return the verdict on the episode of an alert, once it is over."""
    finding = found[alert][2]
    assert finding is not None
    anomalies = [
        Anomaly(
            *(NAME, reading.timestamp, reading.index, reading.value, one.score, THRESHOLD),
            *(one.expected, one.lower, one.upper, "calibrated", "", Source("cpu", 0, 0)),
        )
        for reading, one, other in found
        if other is not None and other.anomaly and other.episode == finding.episode
    ]
    return Feedback(id=finding.episode, verdict="fine", pattern=pattern_of(anomalies))


def of_one(number: int) -> Share:
    """Return what a verdict does to the instance of a number."""
    instance = made(number)
    found = scored(instance)
    before = alerts(found, Quiet([], "cpu"))

    def seen(span: Span, places: set[int]) -> bool:
        return any(at in places for at in range(span[0], span[1] + 13))

    first = next((span for span in instance.again if seen(span, before)), None)
    if first is None:
        return Share()
    alert = min(at for at in before if first[0] <= at)
    given = verdict(found, alert)
    finding = found[alert][2]
    assert given.pattern is not None
    assert finding is not None
    since = 1 + max(
        at for at, (*_, one) in enumerate(found) if one and one.episode == finding.episode
    )
    # What came before changes nothing of what is compared.
    known = alerts(found[since:], Quiet([], "cpu"), since)
    kept = alerts(found[since:], Quiet([given], "cpu"), since)
    last = since + COUNTED_DAYS * DAY
    again = [it for it in instance.again if since <= it[0] < last and seen(it, known)]
    others = [it for it in instance.others if since <= it[0] < last and seen(it, known)]
    return Share(
        len(again),
        sum(not seen(span, kept) for span in again),
        len(others),
        sum(not seen(span, kept) for span in others),
    )


def total(numbers: Iterable[int]) -> Share:
    """Return what verdicts do to the instances of these numbers."""
    shares = [of_one(number) for number in numbers]
    return Share(*map(sum, zip(*shares, strict=True)))


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--first", type=int, default=1000, help="number of the first instance")
    parser.add_argument("--instances", type=int, default=200)
    arguments = parser.parse_args()
    print(total(range(arguments.first, arguments.first + arguments.instances)))


if __name__ == "__main__":
    main()
