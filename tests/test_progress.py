"""Whether an instance is silent by the progress of the others: never while it sends on time."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.incidents.monitor import InstanceMonitor
from dataflow.incidents.rules import Rules
from dataflow.incidents.silence import Progress
from dataflow.records import Reading

INTERVAL = 300.0
RULES = Rules(interval=INTERVAL, silence=3 * INTERVAL, wall=6 * INTERVAL)
START = 1_709_251_200.0
MONTH = 30 * 86_400.0


@dataclass
class World:
    """Instances that send on time, and what reads their topic: batch by batch, worker by worker."""

    seed: int
    instances: int
    backlog: int
    partitions: int
    workers: int
    apart: bool
    by_instance: bool
    lives: int
    stops: int | None = None
    together: bool = False
    now: float = 0.0
    random: random.Random = field(init=False)
    last_sent: float = field(init=False)
    last_offset: int = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def readings(self) -> list[tuple[float, Reading]]:
        """In the order of the log, each with the time at which it was written."""
        offsets: defaultdict[int, int] = defaultdict(int)
        phases = [self.random.uniform(0, INTERVAL) for _ in range(self.instances)]
        # Hours behind the others, an instance moves them only once it is known not to catch up.
        hours = [] if self.stops is not None else [-7200.0, 7200.0]
        shifts = [
            self.random.choice([0.0, *hours, -MONTH, 3 * MONTH]) if self.apart else 0.0
            for _ in range(self.instances)
        ]
        rounds = self.backlog + 20
        sent = [
            (phases[i] + INTERVAL * at, i, at)
            for i in range(self.instances)
            for at in range(rounds)
            if i != self.stops or at < rounds - 12
        ]
        live = INTERVAL * self.backlog
        if self.by_instance:
            sent.sort(key=lambda it: (it[0] >= live, it[1] if it[0] < live else 0, it[0]))
        else:
            sent.sort()
        out = []
        for now, i, at in sent:
            partition = i % self.partitions
            time = START + now + shifts[i]
            reading = Reading(f"i-{i}", time, at, 0.5, time, partition, offsets[partition])
            if i == self.stops:
                self.last_sent, self.last_offset = now, reading.offset
            offsets[partition] += 1
            out.append((now, reading))
        return out

    def batches(self, log: list[tuple[float, Reading]]) -> Iterator[list[tuple[float, Reading]]]:
        """All of the backlog in a few batches, then as it comes."""
        at, live = 0, INTERVAL * self.backlog
        while at < len(log):
            old = log[at][0] < live
            size = self.random.choice([40, 300, 1000] if old else [1, 2, 7])
            batch = [it for it in log[at : at + size] if not old or it[0] < live]
            yield batch
            at += len(batch)

    def progress(self) -> Progress:
        # While a batch passes, no time does.
        return Progress(together=self.together, wait=1.0, now=lambda: self.now)

    def run(self) -> Iterator[tuple[float, dict[str, InstanceMonitor]]]:
        """Yield the time, and the monitors, whenever all that was read has passed the step."""
        progress = self.progress()
        monitors: dict[str, InstanceMonitor] = {}
        for batch in self.batches(self.readings()):
            groups: defaultdict[str, list[Reading]] = defaultdict(list)
            for _, reading in batch:
                groups[reading.instance].append(reading)
            order = sorted(groups, key=lambda name: int(name[2:]) % self.workers)
            for name in order:
                if name not in monitors:
                    monitors[name] = InstanceMonitor(RULES, progress, name)
                for reading in groups[name]:
                    monitors[name].add(reading, None)
                if self.workers > 1 and len(batch) > 7 and self.random.random() < 0.2:
                    # Another worker asks before this batch has passed everywhere.
                    self.random.choice(list(monitors.values())).overdue(0.0)
            self.now += 2.0
            if self.lives and self.random.random() < 0.1:
                self.lives -= 1
                saved = [monitor.dump() for monitor in monitors.values()]
                self.random.shuffle(saved)
                progress = self.progress()
                loaded = [InstanceMonitor.load(RULES, progress, each) for each in saved]
                monitors = {one.last.instance: one for one in loaded if one.last is not None}
            yield batch[-1][0], monitors


worlds = st.builds(
    World,
    seed=st.integers(0, 2**32),
    instances=st.integers(2, 9),
    backlog=st.integers(0, 60),
    partitions=st.integers(1, 3),
    workers=st.integers(1, 3),
    apart=st.booleans(),
    by_instance=st.just(False),
    lives=st.integers(0, 3),
    together=st.booleans(),
)


def check_none_is_silent(world: World) -> None:
    for now, monitors in world.run():
        silent = {name: one.overdue(0.0) for name, one in monitors.items() if one.overdue(0.0)}
        assert not silent, (now, silent)


@settings(max_examples=200, deadline=None)
@given(worlds)
def test_instances_that_send_on_time_are_never_silent(world: World) -> None:
    check_none_is_silent(world)


def test_the_smallest_example() -> None:
    """Eight instances in a partition, a backlog of 50 readings each, then all on time."""
    check_none_is_silent(World(1, 8, 50, 1, 1, apart=False, by_instance=False, lives=0))


@settings(max_examples=100, deadline=None)
@given(
    st.builds(
        World,
        seed=st.integers(0, 2**32),
        instances=st.integers(2, 9),
        backlog=st.integers(0, 60),
        partitions=st.integers(1, 2),
        workers=st.integers(1, 2),
        apart=st.just(False),
        by_instance=st.just(True),
        lives=st.integers(0, 2),
    )
)
def test_a_backlog_that_was_written_instance_by_instance(world: World) -> None:
    check_none_is_silent(world)


@settings(max_examples=200, deadline=None)
@given(worlds, st.integers(0, 8))
def test_an_instance_that_stops_is_found(world: World, stops: int) -> None:
    """At the first check at which the others have come further by the limit: two of them.

    That is some intervals later at most: each of them was last seen up to an interval ago, and a
    batch holds the readings of two.
    """
    world.instances, world.partitions = max(4, world.instances), 1
    world.stops = stops % world.instances
    name = f"i-{world.stops}"
    found = False
    for now, monitors in world.run():
        silent = {each for each, one in monitors.items() if one.overdue(0.0)}
        if name in monitors and monitors[name].read == {0: world.last_offset}:
            found = found or name in silent
            assert found or now - world.last_sent <= RULES.silence + 4 * INTERVAL
    assert found


def test_a_lead_that_an_earlier_version_saved_makes_nobody_silent() -> None:
    """States with leads of many hours, as the regrouped backlog of a start made them."""
    world = World(1, 8, 0, 1, 1, apart=False, by_instance=False, lives=0)
    progress = Progress()
    monitors: dict[str, InstanceMonitor] = {}
    for number, (_, reading) in enumerate(world.readings()):
        name = reading.instance
        if number == 40:
            saved = {name: one.dump() for name, one in monitors.items()}
            progress = Progress()
            monitors = {
                name: InstanceMonitor.load(RULES, progress, _as_before(data, 15_000.0 * at))
                for at, (name, data) in enumerate(saved.items())
            }
        if name not in monitors:
            monitors[name] = InstanceMonitor(RULES, progress, name)
        monitors[name].add(reading, None)
        assert not any(one.overdue(0.0) for one in monitors.values())


def _as_before(data: bytes, lead: float) -> bytes:
    """Return a state as an earlier version saved it."""
    import msgspec

    version, clock, _, episodes, silence, *_ = msgspec.msgpack.decode(data)
    return msgspec.msgpack.encode([version, clock, lead, episodes, silence[:3]])
