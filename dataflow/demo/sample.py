"""The sample stream: 14 days of CPU of eight invented EC2 instances, with labeled anomalies.

A seed gives the same bytes on every platform and Python version. The code therefore uses only
operations that IEEE 754 rounds the same way everywhere (`+ - * /`, comparisons, integers) and
`Random.random()`, the one method whose sequence Python guarantees. It uses no `gauss`, `sin`, `exp`
or `**` (their last bit depends on the platform's math library), no `sum` of floats (compensated
since Python 3.12) and no numpy. A reading is an integer divided by 500, so it prints exactly.
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
"""A Monday, at midnight."""
DAYS = 14
PER_DAY = 288
READINGS = DAYS * PER_DAY
"""Readings of each instance, five minutes apart."""

# The sum of four uniform numbers has the variance 1/3; the square root of 3 scales it to 1.
BELL = 1.7320508075688772


@dataclass(frozen=True)
class Reading:
    """One reading: its index within the instance, from 0, and CPU in percent, 0 to 100."""

    index: int
    timestamp: datetime
    value: float
    instance: str


@dataclass(frozen=True)
class Labelled:
    """One anomaly: readings `start` to `end - 1` of the instance show the fault."""

    instance: str
    fault: Fault
    start: int
    end: int
    window: tuple[datetime, datetime]


@dataclass(frozen=True)
class Sample:
    """The readings by index and instance, and the anomalies by instance and time."""

    readings: list[Reading]
    anomalies: list[Labelled]

    def csv(self) -> str:
        """Return the readings in the tutorial's format: `index,timestamp,value,instance`."""
        rows = (f"{r.index},{r.timestamp},{r.value!r},{r.instance}\n" for r in self.readings)
        return "index,timestamp,value,instance\n" + "".join(rows)

    def windows(self) -> dict[str, list[list[str]]]:
        """Return the labels in the format of NAB's `combined_windows.json`, by instance."""
        windows: dict[str, list[list[str]]] = {r.instance: [] for r in self.readings[: len(HOSTS)]}
        for anomaly in self.anomalies:
            first, last = anomaly.window
            windows[anomaly.instance].append([f"{t:%Y-%m-%d %H:%M:%S.%f}" for t in (first, last)])
        return windows


def generate(seed: int = SEED) -> Sample:
    """Return the sample of a seed, 0 or above. Takes about a second.

    >>> sample = generate()
    >>> len(sample.readings), len(sample.anomalies)
    (32256, 16)
    """
    hosts = sorted(HOSTS, key=lambda host: host.instance)
    streams = [_stream(host, Random(seed * len(hosts) + n)) for n, host in enumerate(hosts)]
    readings = [
        Reading(index, _time(host, index), values[index], host.instance)
        for index in range(READINGS)
        for host, (values, _) in zip(hosts, streams, strict=True)
    ]
    return Sample(readings, [anomaly for _, anomalies in streams for anomaly in anomalies])


def write(folder: Path, seed: int = SEED) -> tuple[Path, Path]:
    """Write the two files of the sample into a folder, overwriting; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files(seed).items():
        (folder / name).write_bytes(content)
    return folder / CSV, folder / LABELS


def files(seed: int = SEED) -> dict[str, bytes]:
    """Return the contents of the two files of the sample, by name."""
    sample = generate(seed)
    labels = json.dumps(sample.windows(), indent=1) + "\n"
    return {CSV: sample.csv().encode(), LABELS: labels.encode()}


def _time(host: Host, index: int) -> datetime:
    return START + timedelta(minutes=5 * index + host.minute)


def _stream(host: Host, random: Random) -> tuple[list[float], list[Labelled]]:
    """Return the values and the anomalies of an instance."""
    anomalies = [_place(host, fault, random) for fault in host.faults]
    # The index that each reading takes its time of day from: a lost rhythm follows another clock.
    clock = list(range(READINGS))
    for anomaly in anomalies:
        if anomaly.fault.kind == "lost rhythm":
            for index in range(anomaly.start, anomaly.end):
                stopped = anomaly.fault.stopped_at
                clock[index] = index - anomaly.fault.late if stopped is None else stopped

    load = list(_load(host, clock, random))
    noise_factors = [1.0] * READINGS
    for anomaly in anomalies:
        _apply(anomaly, load, noise_factors)
    values = list(_readings(host, load, noise_factors, random))
    for anomaly in anomalies:
        if anomaly.fault.kind == "stuck value":
            start, end = anomaly.start, anomaly.end
            values[start:end] = [values[start - 1]] * (end - start)
    return values, anomalies


def _place(host: Host, fault: Fault, random: Random) -> Labelled:
    start = round(PER_DAY * _between(random, fault.earliest, fault.latest))
    end = start + max(1, round(12 * fault.hours * _between(random, 0.9, 1.1)))
    # As in NAB, the windows of an instance hold a tenth of its readings together. Here a window
    # starts with its anomaly, not half a window before: the delay counts from the start of the
    # anomaly, and an early alert is not a lucky hit.
    last = start + READINGS // 10 // len(host.faults) - 1
    return Labelled(host.instance, fault, start, end, (_time(host, start), _time(host, last)))


def _load(host: Host, clock: list[int], random: Random) -> Iterator[float]:
    """Yield the load at each reading, in percent, before all faults except lost rhythms."""
    daily = [_between(random, 1 - host.daily, 1 + host.daily) for _ in range(DAYS + 1)]
    wander = 0.0
    burst_left, burst_height = 0, 0.0
    for index, now in enumerate(clock):
        wander = 0.97 * wander + 0.243 * _bell(random)
        load = _rhythm(host, now, daily) * (1 + host.wander * wander)
        for deploy in host.deploys:
            since = index - deploy.day * PER_DAY
            if since >= 0:
                load = load * deploy.factor + (deploy.restart if since < 2 else 0)
        load += _jobs(host, now, random)
        if burst_left == 0 and random.random() < _chance(host.bursts, now):
            # The cube makes most bursts short.
            chance = random.random()
            burst_left = 1 + int(host.bursts.longest * chance * chance * chance)
            burst_height = _between(random, host.bursts.low, host.bursts.high)
        if burst_left > 0:
            burst_left -= 1
            load += burst_height * _between(random, 0.95, 1.05)
        yield load


def _rhythm(host: Host, now: int, daily: list[float]) -> float:
    """Return the level at this time of the day and week, interpolated between full hours."""
    hour, minutes = divmod(5 * now, 60)
    weight = minutes / 60
    weight *= weight * (3 - 2 * weight)
    return (1 - weight) * _level(host, hour, daily) + weight * _level(host, hour + 1, daily)


def _level(host: Host, hour: int, daily: list[float]) -> float:
    day = hour // 24
    busy = host.day[hour % 24] - host.floor
    return host.floor + busy * daily[day] * (host.weekend if day % 7 in WEEKEND else 1)


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


def _apply(anomaly: Labelled, load: list[float], noise_factors: list[float]) -> None:
    size = anomaly.fault.size
    for index in range(anomaly.start, anomaly.end):
        match anomaly.fault.kind:
            case "spike" | "level shift":
                load[index] += size
            case "slow creep":
                load[index] += size * (index - anomaly.start + 1) / (anomaly.end - anomaly.start)
            case "drop":
                load[index] = size
            case "extra noise":
                noise_factors[index] = size


def _readings(
    host: Host, load: list[float], noise_factors: list[float], random: Random
) -> Iterator[float]:
    """Yield what CloudWatch reports: the mean of five minutes, each in hundredths of a percent."""
    carry = 0.0
    for now, noise_factor in zip(load, noise_factors, strict=True):
        hundredths = 0
        for _ in range(5):
            spread = noise_factor * (host.noise + host.growth * now) if now > 0 else 0.0
            minute = now + spread * _bell(random)
            if minute > 99.7:
                minute = _between(random, 98.2, 100)
            # Processor time is counted in whole steps; the rest is carried into the next minute.
            carry += max(0.0, minute)
            steps = int(carry / host.step)
            carry -= steps * host.step
            hundredths += min(int(100 * steps * host.step + random.random()), 10_000)
        yield hundredths / 500


def _bell(random: Random) -> float:
    # The sum of four is close to a normal distribution, within 3.5 standard deviations.
    return BELL * (random.random() + random.random() + random.random() + random.random() - 2)


def _between(random: Random, low: float, high: float) -> float:
    return low + (high - low) * random.random()
