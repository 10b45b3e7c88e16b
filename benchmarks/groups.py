"""How many pages a fault makes that instances of a group share, and what is lost by it.

    python benchmarks/groups.py [--fleet 2] [--seeds 101 102] [--near] [--uneven]

A fleet is made from its number: instances in groups of 40, each with 31 days of a habit that those
of a group have in common. In the last ten days are 30 shared faults and 100 single ones, made from
their seed. A shared fault affects 6 to 40 instances of a group, at once, or one after the other
within two or ten minutes, as a deployment does, for half an hour to half a day, by 25 to 55 points
of CPU; each by up to 30% more or less, or with `--uneven` by 60% less to 20% more, so that some
hardly change. A single fault affects one instance that has no other, at any time. With `--near`,
each begins in the group of a shared fault, a quarter of an hour before it to two hours after.

The readings go through the flow's own detector, episodes and incidents, and these through the rules
of groups. A fault has the incidents of its instances that are not there without faults. Counted are
shared faults that make exactly one page, and single ones whose incident is folded into that of a
group. With `--keep`, incidents are kept in a folder and read from there the next time, for changes
of the rules of groups.

The rules were chosen on fleet 1.
"""

from __future__ import annotations

import argparse
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from msgspec.structs import replace
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from dataflow.alerts.episode import EpisodeRules
from dataflow.detectors.calibrated.detector import Calibrated
from dataflow.incidents.episodes import EpisodeTracker
from dataflow.incidents.groups import GroupRules, GroupTracker, time_of
from dataflow.incidents.rules import Judged, Rules
from dataflow.records import Incident, Reading
from dataflow.steps.groups import TOGETHER
from dataflow.steps.score import scorer

Floats = NDArray[np.float64]

DAY = 288
STEP = 300.0
START = 1_708_905_600.0  # Monday, 26 February 2024, 00:00 UTC
HABIT_DAYS = 21
DAYS = HABIT_DAYS + 10
MEMBERS = 40
FLEET = 2000
SHARED = 30
SINGLE = 100
"""Faults of a fleet of 2,000; another one has as many by its size."""

THRESHOLD = 0.5
QUIET = 3600.0
LATER = QUIET + 3 * STEP
"""Seconds after its end in which a fault may still cause pages."""

HABITS = ("daily", "working days", "hourly job", "wandering", "nightly batch")


@dataclass(frozen=True)
class Fault:
    """A fault: for each instance that it affects, from when to when, and how many percent.

    `begins` and `ends` are of the first and the last one, in seconds since 1970.
    """

    group: int
    begins: float
    ends: float
    affected: dict[int, tuple[float, float, float]]


class Made(NamedTuple):
    """The faults of a fleet."""

    shared: list[Fault]
    single: list[Fault]


class Result(NamedTuple):
    """What became of the faults of a fleet."""

    shared: int = 0
    one_page: int = 0
    single: int = 0
    swallowed: int = 0
    pages: int = 0


def faults(seed: int, instances: int, *, near: bool, uneven: bool) -> Made:
    """Return the faults of a fleet."""
    rng = random.Random(f"groups {seed}")
    groups = instances // MEMBERS
    begin, end = START + HABIT_DAYS * DAY * STEP, START + (DAYS - 0.7) * DAY * STEP
    shared: list[Fault] = []
    while len(shared) < math.ceil(SHARED * instances / FLEET):
        group, at = rng.randrange(groups), rng.uniform(begin, end)
        lasts = 1800 * 24 ** rng.random()
        spread = rng.choice((30.0, 120.0, 600.0))
        size = rng.choice((-1, 1, 1, 1)) * rng.uniform(25, 55)
        if any(
            it.group == group and it.begins - 6 * 3600 < at + lasts and at < it.ends + 6 * 3600
            for it in shared
        ):
            continue
        affected = {}
        for member in rng.sample(range(MEMBERS), rng.randint(6, MEMBERS)):
            lag = rng.uniform(0, spread)
            by = size * (rng.uniform(0.4, 1.2) if uneven else rng.uniform(0.7, 1.3))
            affected[group * MEMBERS + member] = (at + lag, at + lag + lasts, by)
        shared.append(Fault(group, at, at + spread + lasts, affected))
    single: list[Fault] = []
    while len(single) < math.ceil(SINGLE * instances / FLEET):
        instance, at = rng.randrange(groups * MEMBERS), rng.uniform(begin, end)
        if near:
            other = rng.choice(shared)
            instance = other.group * MEMBERS + rng.randrange(MEMBERS)
            at = other.begins + rng.uniform(-900, 7200)
        lasts = 900 * 24 ** rng.random()
        size = rng.choice((-1, 1, 1, 1)) * rng.uniform(25, 55)
        busy = any(instance in it.affected for it in (*shared, *single))
        if not busy:
            one = (at, at + lasts, size)
            single.append(Fault(instance // MEMBERS, at, at + lasts, {instance: one}))
    return Made(shared, single)


def habit(kind: str, rng: Generator, phase: float) -> Floats:
    """Return the CPU of an instance without faults, in percent."""
    at = np.arange(DAYS * DAY)
    day, hour = np.divmod(at / DAY + phase, 1)
    if kind == "daily":
        level = 35 + 15 * np.sin(math.tau * hour)
    elif kind == "working days":
        level = 20 + 25 * np.maximum(0, np.sin(math.tau * (hour - 0.25))) * (day % 7 < 5)
    elif kind == "hourly job":
        level = 12 + 5 * (at % 12 == 0)
    elif kind == "wandering":
        level = 30 + np.cumsum(rng.normal(0, 0.03, len(at)))
    else:
        level = 10 + 30 * ((hour >= 24 / 288) & (hour < 36 / 288))
    noise = rng.normal(0, 1, len(at))
    remembered = np.empty(len(at))
    last = 0.0
    for place, one in enumerate(noise.tolist()):
        last = 0.6 * last + 0.8 * one
        remembered[place] = last
    found: Floats = level * rng.uniform(0.8, 1.2) + rng.uniform(0.8, 2) * remembered
    return found


def incidents_of(instance: int, fleet: int, own: list[Fault]) -> list[Incident]:
    """Return the records of an instance's incidents, as the flow makes them."""
    rng = default_rng([fleet, instance])
    group = instance // MEMBERS
    kind = HABITS[group % len(HABITS)]
    values = habit(kind, rng, default_rng([fleet, group, 1]).uniform())
    times = START + STEP * np.arange(len(values)) + rng.integers(0, int(STEP))
    for fault in own:
        since, until, by = fault.affected[instance]
        during = (since <= times) & (times < until)
        values[during] += by * rng.uniform(0.9, 1.1, int(during.sum()))
    name = name_of(instance)
    readings = [
        Reading(name, time, place, min(max(value, 0.05), 100.0) / 100, time, 0, place)
        for place, (value, time) in enumerate(zip(values.tolist(), times.tolist(), strict=True))
    ]
    step = scorer(Calibrated(), EpisodeRules(THRESHOLD, STEP, QUIET), lambda _: None)
    tracker = EpisodeTracker(Rules(silence=0.0), name)
    found: list[Incident] = []
    follows = False
    for reading, verdict, finding in step.score(None, readings)[1]:
        if finding is None and not follows:
            continue
        follows = finding is not None
        assert reading.time is not None
        judged = None if finding is None else Judged(finding, verdict.score, verdict.expected)
        for record in tracker.add(reading.time - START, reading, judged):
            found.append(replace(record, group=f"g{group:02}"))
    return found


def name_of(instance: int) -> str:
    """Return the name of an instance by its number."""
    return f"g{instance // MEMBERS:02}-{instance % MEMBERS:02}"


Kept = Callable[[str, Callable[[], list[Incident]]], list[Incident]]
"""Returns what a name stands for: as it was kept, or made now."""


def keeper(folder: Path | None) -> Kept:
    """Return what keeps incidents in a folder; without one, makes them anew."""

    def kept(name: str, make: Callable[[], list[Incident]]) -> list[Incident]:
        if folder is None:
            return make()
        path = folder / f"{name}.msgpack"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(msgspec.msgpack.encode(make()))
        return msgspec.msgpack.decode(path.read_bytes(), type=list[Incident])

    return kept


def changed(made: Made, fleet: int) -> list[Incident]:
    """Return the records of the instances that have a fault."""
    own: defaultdict[int, list[Fault]] = defaultdict(list)
    for fault in (*made.shared, *made.single):
        for instance in fault.affected:
            own[instance].append(fault)
    return [one for instance in own for one in incidents_of(instance, fleet, own[instance])]


def in_order(records: Iterable[Incident]) -> list[Incident]:
    """Return records in the order in which the step `groups` takes them."""
    return sorted(records, key=lambda it: (time_of(it), it.instance, it.id, it.sequence))


def gathered(records: list[Incident]) -> list[Incident]:
    """Return what the rules of groups make of records in the order of their times."""
    rules = GroupRules(STEP, TOGETHER * QUIET, TOGETHER * QUIET)
    trackers: dict[str, GroupTracker] = {}
    out: list[Incident] = []
    for record in records:
        assert record.group is not None
        tracker = trackers.setdefault(record.group, GroupTracker(rules, record.group))
        out += tracker.advance(time_of(record))
        out += tracker.add(record, MEMBERS)
    for tracker in trackers.values():
        out += tracker.release()
    return out


def judge(made: Made, without: set[str], after: list[Incident]) -> Result:
    """Return what became of the faults; `without` are the ids of incidents without faults."""
    paged: set[str] = set()
    opened: defaultdict[str, list[Incident]] = defaultdict(list)
    for record in after:
        if not record.folded:
            paged.add(record.id)
        if record.state == "opened" and record.id not in without:
            opened[record.instance].append(record)

    def of(fault: Fault) -> list[Incident]:
        return [
            one
            for instance in fault.affected
            for one in opened[name_of(instance)]
            if fault.begins <= time_of(one) <= fault.ends + LATER
        ]

    counts: Counter[str] = Counter()
    for fault in made.shared:
        own = of(fault)
        counts["shared"] += bool(own)
        counts["one_page"] += len({it for one in own for it in (one.id, one.part_of)} & paged) == 1
    for fault in made.single:
        own = of(fault)[:1]
        counts["single"] += bool(own)
        counts["swallowed"] += any(one.folded for one in own)
    return Result(**counts, pages=len(paged))


def main() -> None:
    """Print what became of the faults of each fleet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fleet", type=int, default=2, help="number of the fleet")
    parser.add_argument("--seeds", type=int, nargs="+", default=[101, 102], help="of the faults")
    parser.add_argument("--instances", type=int, default=2000)
    parser.add_argument("--near", action="store_true", help="single faults near shared ones")
    parser.add_argument("--uneven", action="store_true", help="shared faults hardly change some")
    parser.add_argument("--keep", type=Path, help="folder in which incidents are kept")
    arguments = parser.parse_args()
    fleet, instances = arguments.fleet, arguments.instances
    kept = keeper(arguments.keep)
    usual = kept(
        f"{fleet}", lambda: [one for it in range(instances) for one in incidents_of(it, fleet, [])]
    )
    print("| seed | shared faults: one page | single faults: folded | pages | without groups |")
    print("| --- | --- | --- | --- | --- |")
    for seed in arguments.seeds:
        near, uneven = arguments.near, arguments.uneven
        made = faults(seed, instances, near=near, uneven=uneven)
        name = f"{fleet}-{seed}{'-near' * near}{'-uneven' * uneven}"
        own = kept(name, lambda made=made: changed(made, fleet))  # type: ignore[misc]
        affected = {name_of(it) for one in (*made.shared, *made.single) for it in one.affected}
        records = in_order([*own, *(one for one in usual if one.instance not in affected)])
        found = judge(made, {one.id for one in usual}, gathered(records))
        print(
            f"| {seed} | {found.one_page} of {found.shared} | {found.swallowed} of {found.single} "
            f"| {found.pages:,} | {len({one.id for one in records}):,} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
