"""The sample stream: fourteen days of CPU of eight made-up EC2 instances, anomalies labelled.

A seed decides every byte, whatever the platform and the Python. Only what IEEE 754 rounds in one
way everywhere is used (`+ - * /`, comparisons, whole numbers), on `Random.random()`, the one method
whose sequence Python promises to keep. Hence no `gauss`, `sin`, `exp` or `**` (the platform's
mathematical library decides their last bit), no `sum` of floats (compensated from Python 3.12 on),
and no numpy. A reading is a whole number of hundredths over 500, so that it prints exactly.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from random import Random

from dataflow.demo.sample_hosts import HOSTS, WEEKEND, Bursts, Fault, Host

__all__ = [
    "CSV",
    "LABELS",
    "READINGS",
    "SEED",
    "Labelled",
    "Reading",
    "Sample",
    "files",
    "generate",
    "write",
]

CSV = "ec2_metrics.csv"
LABELS = "labels.json"
SEED = 20250303
START = datetime(2025, 3, 3)
"""A Monday, midnight."""
DAYS = 14
PER_DAY = 288
READINGS = DAYS * PER_DAY
"""Readings of an instance, five minutes apart."""

# The sum of four uniform numbers has the variance 1/3: times the root of 3, 1.
BELL = 1.7320508075688772


@dataclass(frozen=True)
class Reading:
    """One reading: its number within the instance, from 0 on, and CPU in percent, 0 to 100."""

    index: int
    timestamp: datetime
    value: float
    instance: str


@dataclass(frozen=True)
class Labelled:
    """One anomaly: the fault shows in the readings `start` to `end - 1` of the instance."""

    instance: str
    fault: Fault
    start: int
    end: int
    window: tuple[datetime, datetime]


@dataclass(frozen=True)
class Sample:
    """The readings, ordered by index, then instance; the anomalies, by instance, then time."""

    readings: list[Reading]
    anomalies: list[Labelled]

    def csv(self) -> str:
        """Return the readings in the tutorial's form: `index,timestamp,value,instance`."""
        rows = (f"{r.index},{r.timestamp},{r.value!r},{r.instance}\n" for r in self.readings)
        return "index,timestamp,value,instance\n" + "".join(rows)

    def windows(self) -> dict[str, list[list[str]]]:
        """Return the labels in the form of NAB's `combined_windows.json`, by instance."""
        windows: dict[str, list[list[str]]] = {r.instance: [] for r in self.readings[: len(HOSTS)]}
        for anomaly in self.anomalies:
            first, last = anomaly.window
            windows[anomaly.instance].append([f"{t:%Y-%m-%d %H:%M:%S.%f}" for t in (first, last)])
        return windows


def generate(seed: int = SEED) -> Sample:
    """Make the sample that belongs to a seed, 0 or above, in about a second.

    >>> sample = generate()
    >>> len(sample.readings), len(sample.anomalies)
    (32256, 16)
    """
    hosts = sorted(HOSTS, key=lambda host: host.instance)
    lives = [_live(host, Random(seed * len(hosts) + n)) for n, host in enumerate(hosts)]
    readings = [
        Reading(index, _time(host, index), values[index], host.instance)
        for index in range(READINGS)
        for host, (values, _) in zip(hosts, lives, strict=True)
    ]
    return Sample(readings, [anomaly for _, anomalies in lives for anomaly in anomalies])


def write(folder: Path, seed: int = SEED) -> tuple[Path, Path]:
    """Write the sample's files into a folder, over what is there; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files(seed).items():
        (folder / name).write_bytes(content)
    return folder / CSV, folder / LABELS


def files(seed: int = SEED) -> dict[str, bytes]:
    """Return the contents of the sample's two files, by name."""
    sample = generate(seed)
    labels = json.dumps(sample.windows(), indent=1) + "\n"
    return {CSV: sample.csv().encode(), LABELS: labels.encode()}


def _time(host: Host, index: int) -> datetime:
    return START + timedelta(minutes=5 * index + host.minute)


def _live(host: Host, random: Random) -> tuple[list[float], list[Labelled]]:
    """Return the values and the anomalies of an instance."""
    anomalies = [_place(host, fault, random) for fault in host.faults]
    # The reading whose time a host takes for its own: lost rhythm is living by another clock.
    clock = list(range(READINGS))
    for one in anomalies:
        if one.fault.kind == "lost rhythm":
            for index in range(one.start, one.end):
                stands = one.fault.stands
                clock[index] = index - one.fault.late if stands is None else stands

    load = list(_load(host, clock, random))
    loudness = [1.0] * READINGS
    for one in anomalies:
        _change(load, loudness, one)
    values = list(_readings(host, load, loudness, random))
    for one in anomalies:
        if one.fault.kind == "stuck value":
            values[one.start : one.end] = [values[one.start - 1]] * (one.end - one.start)
    return values, anomalies


def _place(host: Host, fault: Fault, random: Random) -> Labelled:
    start = round(PER_DAY * _between(random, fault.earliest, fault.latest))
    end = start + max(1, round(12 * fault.hours * _between(random, 0.9, 1.1)))
    # NAB gives an instance's windows a tenth of its readings together. Ours start where the
    # anomaly does, not half a window before: delay counts from there, and luck does not count.
    last = start + READINGS // 10 // len(host.faults) - 1
    return Labelled(host.instance, fault, start, end, (_time(host, start), _time(host, last)))


def _load(host: Host, clock: list[int], random: Random) -> Iterator[float]:
    """Yield the load at each reading, in percent, before any fault but the clock's."""
    mood = [_between(random, 1 - host.mood, 1 + host.mood) for _ in range(DAYS + 1)]
    wander = 0.0
    left, height = 0, 0.0
    for index, now in enumerate(clock):
        wander = 0.97 * wander + 0.243 * _bell(random)
        load = _rhythm(host, now, mood) * (1 + host.wander * wander)
        for deploy in host.deploys:
            since = index - deploy.day * PER_DAY
            if since >= 0:
                load = load * deploy.factor + (deploy.restart if since < 2 else 0)
        load += _jobs(host, now, random)
        if left == 0 and random.random() < _chance(host.bursts, now):
            # The cube makes most of them short.
            chance = random.random()
            left = 1 + int(host.bursts.longest * chance * chance * chance)
            height = _between(random, host.bursts.low, host.bursts.high)
        if left > 0:
            left -= 1
            load += height * _between(random, 0.95, 1.05)
        yield load


def _rhythm(host: Host, now: int, mood: list[float]) -> float:
    """Return the level at this hour of the day and week, smooth between the hours."""
    hour, minutes = divmod(5 * now, 60)
    part = minutes / 60
    part *= part * (3 - 2 * part)
    return (1 - part) * _level(host, hour, mood) + part * _level(host, hour + 1, mood)


def _level(host: Host, hour: int, mood: list[float]) -> float:
    day = hour // 24
    busy = host.day[hour % 24] - host.floor
    return host.floor + busy * mood[day] * (host.weekend if day % 7 in WEEKEND else 1)


def _jobs(host: Host, now: int, random: Random) -> float:
    day, minute = divmod(5 * now, 24 * 60)
    load = 0.0
    for job in host.jobs:
        length = job.length + _between(random, 0, job.jitter)
        if day % 7 in job.days and (minute - job.first) % job.every < length:
            load += job.height * _between(random, 0.93, 1.07)
    return load


def _chance(bursts: Bursts, now: int) -> float:
    day, minute = divmod(5 * now, 24 * 60)
    return bursts.hourly[minute // 60] / 12 * (bursts.weekend if day % 7 in WEEKEND else 1)


def _change(load: list[float], loudness: list[float], one: Labelled) -> None:
    size = one.fault.size
    for index in range(one.start, one.end):
        match one.fault.kind:
            case "spike" | "level shift":
                load[index] += size
            case "slow creep":
                load[index] += size * (index - one.start + 1) / (one.end - one.start)
            case "drop":
                load[index] = size
            case "extra noise":
                loudness[index] = size


def _readings(
    host: Host, load: list[float], loudness: list[float], random: Random
) -> Iterator[float]:
    """Yield what CloudWatch tells: the mean of five minutes, each in hundredths of a percent."""
    carry = 0.0
    for now, loud in zip(load, loudness, strict=True):
        hundredths = 0
        for _ in range(5):
            spread = loud * (host.noise + host.growth * now) if now > 0 else 0.0
            minute = now + spread * _bell(random)
            if minute > 99.7:
                minute = _between(random, 98.2, 100)
            # A processor's time is counted in whole steps; what is left counts the next minute.
            carry += max(0.0, minute)
            steps = int(carry / host.step)
            carry -= steps * host.step
            hundredths += min(int(100 * steps * host.step + random.random()), 10_000)
        yield hundredths / 500


def _bell(random: Random) -> float:
    # Four terms are bell-shaped enough, and stop at 3.5 standard deviations.
    return BELL * (random.random() + random.random() + random.random() + random.random() - 2)


def _between(random: Random, low: float, high: float) -> float:
    return low + (high - low) * random.random()
