"""Made-up CPU of five kinds of instances with known anomalies, for what NAB has no files of."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from dataflow.alerts.news import held

KINDS = ("daily", "weekly", "hourly job", "wandering", "nightly batch")
START = 1_396_310_400.0  # a Tuesday, 00:00


@dataclass
class Instance:
    """Readings, their times, and the anomalies as [first, last] of the places where they show."""

    values: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    anomalies: list[tuple[int, int]] = field(default_factory=list)


def instance(kind, seed, days=40, per_day=288, change=None, change_day=12):
    """Make an instance; from `change_day` on, `change(days since)` multiplies all its values.

    After the change, an anomaly each 1.5 to 3.5 days: a spike, a plateau, an outage or noise.
    """
    rng = random.Random(f"{kind} {seed}")
    made = Instance()
    noise = wander = 0.0
    unit = per_day / 288
    size = (2.5, 2.0, 0.5, 1.5, 0.8)[KINDS.index(kind)]
    for i in range(days * per_day):
        day, at = divmod(i / per_day, 1)
        noise = 0.6 * noise + 0.8 * rng.gauss(0, 1)
        wander += rng.gauss(0, 0.03)
        level = {
            "daily": 40 + 20 * math.sin(math.tau * at),
            "weekly": 35 + 25 * max(0, math.sin(math.tau * (at - 0.25))) * (day % 7 < 5),
            "hourly job": 8 + 4 * (i % (per_day // 24) == 0),
            "wandering": 30 + wander,
            "nightly batch": 5 + 50 * (24 / 288 <= at < 36 / 288),
        }[kind]
        made.values.append(max(level + size * noise, 0.05))
        made.times.append(START + i * 86_400 / per_day)
    at = (change_day + 4) * per_day
    while at < (days - 3) * per_day:
        at += int(rng.uniform(1.5, 3.5) * per_day)
        form = rng.randrange(4)
        length = round((3, 48, 24, 48)[form] * unit)
        for i in range(at, min(at + length, len(made.values))):
            value = made.values[i]
            made.values[i] = (
                value + 14 * size,
                value + 7 * size,
                0.1 + 0.02 * rng.random(),
                max(value + 5 * size * rng.gauss(0, 1), 0.05),
            )[form]
        made.anomalies.append((at, at + length + round(12 * unit)))
    for i, value in enumerate(made.values):
        since = i / per_day - change_day
        made.values[i] = value / 400 * (change(since) if change and since >= 0 else 1)
    return made


def replay(detector, made):
    """Return the places of the alerts."""
    state, scores = None, []
    for value, time in zip(made.values, made.times, strict=True):
        state, verdict = detector.update(state, value, time)
        scores.append(0.0 if verdict.near else verdict.score)
    found = held(scores, detector.threshold, getattr(detector, "interval", 300.0))
    return [i for i, score in enumerate(found) if score > detector.threshold]


def judge(detector, instances, per_day=288, change_day=12):
    """Return the share of anomalies that were found, and the other alerts an instance and day.

    The first 12 days and the day after the change count for neither.
    """
    found = asked = false = 0
    days = 0.0
    for made in instances:
        alerts = replay(detector, made)
        counted = set(range((change_day + 1) * per_day, len(made.values)))
        for first, last in made.anomalies:
            asked += 1
            found += any(first <= alert <= last for alert in alerts)
            counted -= set(range(first, last + per_day // 4))
        false += sum(alert in counted for alert in alerts)
        days += len(counted) / per_day
    return found / asked, false / days
