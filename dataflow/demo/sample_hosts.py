"""The eight instances of the sample: the load of each, and its faults.

Loads are in percent of CPU. Days are fractions, counted from the Monday on which the sample starts:
3.5 is Thursday noon. The ids are invented.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["HOSTS", "WEEKEND", "Bursts", "Deploy", "Fault", "Host", "Job"]

EVERY_DAY = (0, 1, 2, 3, 4, 5, 6)
WEEKEND = (5, 6)


@dataclass(frozen=True)
class Job:
    """Scheduled work: from minute `first` of the day, every `every` minutes, for `length` minutes.

    `jitter` is the most minutes by which one run takes longer, at random.
    """

    first: int
    every: int
    length: int
    height: float
    jitter: float = 0
    days: tuple[int, ...] = EVERY_DAY


@dataclass(frozen=True)
class Bursts:
    """Random work: the mean number of bursts an hour, by hour of the day.

    Each lasts up to `longest` readings and adds `low` to `high`; below 0 it is a pause. On Saturday
    and Sunday the number is multiplied by `weekend`.
    """

    hourly: tuple[float, ...] = (0.0,) * 24
    longest: int = 1
    low: float = 0
    high: float = 0
    weekend: float = 1


@dataclass(frozen=True)
class Deploy:
    """A new release, not an anomaly: from `day` on, the same work takes `factor` times the CPU.

    `restart` is added to the load for ten minutes.
    """

    day: float
    factor: float
    restart: float = 0


@dataclass(frozen=True)
class Fault:
    """An anomaly that starts at random between two days and lasts `hours`, plus or minus 10%.

    `grade` is easy (leaves the range seen before at once), fair (visible in a plot of the instance)
    or hard (visible only in context: the hour, the job, the noise). `size` is added to the load;
    for a drop it is the load itself, for extra noise a factor. A lost rhythm follows a clock that
    is `late` by a number of readings, or is stopped at reading `stopped_at`.
    """

    kind: str
    grade: str
    earliest: float
    latest: float
    hours: float
    story: str
    size: float = 0
    late: int = 0
    stopped_at: int | None = None


@dataclass(frozen=True)
class Host:
    """The ordinary behavior of an instance.

    `day` is the level at each hour of a workday. Its part above `floor` is multiplied by `weekend`
    on Saturday and Sunday, and each day by a random factor of 1 +- `daily`. The standard deviation
    of a minute is `noise` + `growth` x load; `wander` is that of a slow drift, relative to the
    level. Readings come `minute` minutes after each full five; a minute's CPU is a multiple of
    `step`.
    """

    instance: str
    minute: int
    floor: float
    day: tuple[float, ...]
    weekend: float = 1
    daily: float = 0
    noise: float = 0
    growth: float = 0
    wander: float = 0
    step: float = 0.01
    jobs: tuple[Job, ...] = ()
    bursts: Bursts = Bursts()
    deploys: tuple[Deploy, ...] = ()
    faults: tuple[Fault, ...] = ()


def _hours(text: str) -> tuple[float, ...]:
    return tuple(float(level) for level in text.split())


WEB = Host(
    instance="3fb07c",
    minute=2,
    floor=14,
    day=_hours("19 17 16 15 15 16 19 26 37 46 51 53 50 51 54 55 53 49 44 41 38 34 28 23"),
    weekend=0.55,
    daily=0.09,
    noise=1.4,
    growth=0.08,
    wander=0.05,
    jobs=(Job(first=185, every=1440, length=25, height=12),),
    bursts=Bursts((0.03,) * 24, longest=4, low=5, high=15),
    deploys=(Deploy(3.46, factor=0.93, restart=18), Deploy(10.6, factor=1.06, restart=15)),
    faults=(
        Fault("spike", "easy", 5.1, 5.9, 0.4, "a crawler on a Saturday", size=55),
        Fault(
            "lost rhythm", "hard", 9.21, 9.25, 9, "no traffic all morning", stopped_at=9 * 288 + 54
        ),
    ),
)
BASTION = Host(
    instance="0c94e1",
    minute=0,
    floor=0.11,
    day=(0.11,) * 24,
    noise=0.035,
    step=1 / 3,
    jobs=(
        Job(first=405, every=1440, length=5, height=1.3),
        Job(first=20, every=180, length=5, height=0.07),
    ),
    bursts=Bursts((0.012,) * 24, longest=2, low=0.1, high=0.5),
    faults=(
        Fault("level shift", "fair", 4.2, 6.0, 15, "a miner that keeps itself small", size=0.4),
        Fault("spike", "hard", 10.0, 12.8, 0.2, "the daily job at another hour", size=1.25),
    ),
)
API = Host(
    instance="b81d56",
    minute=3,
    floor=40,
    day=_hours("41 41 40 40 40 40 41 42 43 44 44 45 45 45 45 45 44 44 44 43 43 42 42 41"),
    weekend=0.5,
    daily=0.1,
    noise=4.5,
    growth=0.02,
    wander=0.012,
    jobs=(
        Job(first=0, every=10, length=5, height=5),
        Job(first=5, every=60, length=5, height=4, jitter=8),
    ),
    bursts=Bursts((0.015,) * 24, longest=2, low=7, high=16),
    deploys=(Deploy(6.6, factor=0.92, restart=12),),
    faults=(
        Fault("slow creep", "fair", 3.6, 4.3, 14, "a leak, ended by a restart", size=9),
        Fault("extra noise", "fair", 9.2, 11.5, 8, "two versions fight over a lock", size=2.5),
    ),
)
BATCH = Host(
    instance="e2576a",
    minute=1,
    floor=1.9,
    day=(1.9,) * 24,
    noise=0.35,
    growth=0.02,
    wander=0.06,
    jobs=(Job(first=0, every=360, length=10, height=7),),
    bursts=Bursts(
        (0.25,) * 6 + (0.6,) * 14 + (0.35,) * 4, longest=22, low=48, high=97, weekend=0.4
    ),
    faults=(
        Fault("level shift", "fair", 4.5, 5.5, 11, "a job that never ends", size=93),
        Fault("slow creep", "hard", 10.2, 11.4, 12, "the floor rises under the jobs", size=3.6),
    ),
)
RENDER = Host(
    instance="7d12f9",
    minute=4,
    floor=92.5,
    day=(92.5,) * 24,
    noise=2.1,
    wander=0.014,
    jobs=(Job(first=150, every=1440, length=15, height=-9, jitter=9),),
    bursts=Bursts((0.06,) * 24, longest=5, low=-13, high=-4),
    deploys=(Deploy(8.43, factor=0.975, restart=-30),),
    faults=(
        Fault("drop", "easy", 3.0, 5.2, 5, "its queue is cut off", size=24),
        Fault("stuck value", "hard", 10.1, 12.4, 4, "the agent repeats its last reading"),
    ),
)
DATABASE = Host(
    instance="946ac3",
    minute=0,
    floor=11.5,
    day=_hours(
        "12 12 12 12 12 12 12.5 13 14 15 15.6 16 15.6 15.4 15.8 16 15.6 15 14.4 14 13.6 13 12.6 12"
    ),
    weekend=0.4,
    daily=0.12,
    noise=0.6,
    growth=0.03,
    wander=0.03,
    jobs=(
        Job(first=125, every=1440, length=45, height=34, jitter=12),
        Job(first=125, every=1440, length=85, height=6, days=(6,)),
        Job(first=35, every=60, length=5, height=1.6),
    ),
    bursts=Bursts((0.0,) * 8 + (0.12,) * 11 + (0.0,) * 5, longest=5, low=2, high=9, weekend=0.2),
    deploys=(Deploy(4.62, factor=1.1, restart=9),),
    faults=(
        Fault("lost rhythm", "hard", 8.07, 8.085, 15, "its clock is nine hours slow", late=112),
        Fault("level shift", "fair", 10.4, 12.2, 12, "a query plan has gone wrong", size=6),
    ),
)
CACHE = Host(
    instance="58e03d",
    minute=2,
    floor=2.3,
    day=_hours(
        "2.3 2.3 2.3 2.3 2.3 2.3 2.4 2.5 2.6 2.8 2.9 2.9 2.8 2.8 2.9 3 2.9 2.8 2.7 2.6 2.6 2.5 2.4 "
        "2.3"
    ),
    weekend=0.6,
    daily=0.2,
    noise=0.12,
    growth=0.04,
    wander=0.02,
    jobs=(
        Job(first=10, every=30, length=5, height=0.45),
        Job(first=245, every=1440, length=10, height=3.5),
    ),
    bursts=Bursts((0.03,) * 24, longest=4, low=0.3, high=1.5),
    faults=(
        Fault("stuck value", "fair", 4.3, 6.5, 7, "the agent hangs"),
        Fault("extra noise", "hard", 9.1, 12.5, 6, "keys expire all at once, and again", size=2.6),
    ),
)
BUILDER = Host(
    instance="c6a94f",
    minute=1,
    floor=0.8,
    day=(0.8,) * 24,
    noise=0.25,
    growth=0.015,
    wander=0.04,
    jobs=(Job(first=180, every=1440, length=40, height=62, jitter=10),),
    bursts=Bursts(
        _hours("0 0 0 0 0 0 0 .3 .9 1.8 2.4 2.4 1.4 1.8 2.4 2.4 2 1.4 .7 .3 .2 .1 0 0"),
        longest=9,
        low=55,
        high=115,
        weekend=0.02,
    ),
    faults=(
        Fault("drop", "fair", 7.36, 7.44, 6, "stopped all of a Monday morning"),
        Fault("lost rhythm", "hard", 12.84, 12.9, 5, "builds on a Saturday night", late=1272),
    ),
)

HOSTS = (WEB, BASTION, API, BATCH, RENDER, DATABASE, CACHE, BUILDER)
