"""The step `groups`: the incidents of members that come together become one of their group.

One worker takes the incidents of all groups, as one writes them: they are few. They come from many
workers and partitions, and are taken in the order of their times, so that the same readings give
the same incidents with any number of workers.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from datetime import datetime
from heapq import heappop, heappush
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias

import msgspec
from bytewax import operators as op
from bytewax.dataflow import Stream
from bytewax.operators import KeyedStream, StatefulBatchLogic

from dataflow.errors import stop_process
from dataflow.incidents import groups
from dataflow.incidents.groups import GroupRules, GroupTracker, time_of
from dataflow.incidents.watermark import Watermark
from dataflow.kafka.caught_up import CaughtUp
from dataflow.metrics.counters import INCIDENTS_OPEN
from dataflow.records import Incident, Raw, Reading, series_key
from dataflow.recovery.sequence import Sequence, Step
from dataflow.recovery.store import Store
from dataflow.runtime import epochs, shutdown
from dataflow.runtime.clock import wake
from dataflow.settings import Settings

__all__ = ["Membership", "Passed", "gather", "marked", "rules", "take_marks"]

VERSION = 2

CARRIED_OVER = 1
"""The version before, of the same form, but with other rules. Its incidents are gone on with."""

RULES = 2
"""Version of the rules in `dataflow/incidents/groups.py`."""

KEY = "groups"
"""The only key of the step."""

LONGEST_HOLD = 900.0
"""Seconds for which a member's incident is held at most, where readings come rarely."""

TOGETHER = 2
"""Quiet times after the onset in which members may join that have begun with it; and for which a
member may go on alone, as one does that adapts to its trouble."""

LOOK = 5.0
"""Seconds between two looks at the clock while something is held."""

AHEAD = 2
"""Marks of its partition after which a record is taken whose instance's clock is ahead."""

STUCK = 60.0
"""Seconds after which it is not waited for a record that an earlier process had taken."""


class Passed(NamedTuple):
    """The mark of a partition: the time that its readings had come to before this epoch."""

    partition: int
    time: float


class Membership(NamedTuple):
    """When a series begins (1) or ceases (-1) to count as a member of a group."""

    time: float
    group: str
    metric: str
    change: int


def rules(settings: Settings) -> GroupRules:
    """Return the rules for these settings.

    A reading of each member comes within an interval, and a trouble is over after the quiet time.
    """
    hold = min(settings.interval, LONGEST_HOLD)
    together = TOGETHER * settings.incident_quiet
    return GroupRules(hold, together, max(together, 900.0, settings.interval))


Decode = Callable[[list[Raw]], list[Any]]

_partition = attrgetter("partition")


def marked(decode: Decode) -> Decode:
    """Return the step `decode` that adds a mark to the first batch of each epoch."""
    epoch: dict[int, int] = {}
    reached: dict[int, float] = {}

    def decode_and_mark(batch: list[Raw]) -> list[Any]:
        records = decode(batch)
        if not batch:
            return records
        first, marks = batch[0], []
        partition, number = first.partition, epochs.of(first.partition, first.offset)
        if epoch.get(partition) != number:
            epoch[partition] = number
            if partition in reached:
                marks.append(Passed(partition, reached[partition]))
        times = [
            record.time
            # One of two may have a wrong clock.
            for record in records[len(records) // 2 :][:1] + records[-1:]
            if isinstance(record, Reading) and record.time is not None
        ]
        if times:
            reached[partition] = max(min(times), reached.get(partition, -math.inf))
        return records + marks if marks else records

    def of_each_partition(batch: list[Raw]) -> list[Any]:
        # As a rule a batch is of one partition; Bytewax may put several together.
        if not batch or batch[0].partition == batch[-1].partition:
            return decode_and_mark(batch)
        runs = groupby(batch, key=_partition)
        return [record for _, run in runs for record in decode_and_mark(list(run))]

    return of_each_partition


def take_marks(others: Stream[Any]) -> tuple[Stream[Any], Stream[Passed]]:
    """Split what `decode` returns beside readings into the rest and the marks."""
    split = op.branch("check_passed", others, lambda record: not isinstance(record, Passed))
    return split.trues, split.falses


def gather(
    settings: Settings,
    incidents: KeyedStream[Incident | Membership],
    marks: Stream[Passed],
    partitions: tuple[int, ...],
    store: Store | None,
    caught_up: CaughtUp | None = None,
    *,
    clock_decides: bool = True,
) -> KeyedStream[Incident]:
    """Add the step; return the incidents of members and of groups, by the key of their series.

    `partitions` are those that are read, as far as they are known, and `caught_up` says whether
    the flow has read all that they hold; None if it always has. Without `clock_decides`, all
    incidents are taken at the end of the input.
    """
    merged: Any = op.merge("group_records", incidents, marks)
    keyed: Any = op.map("group_of", merged, _keyed)
    build = logic(settings, store, partitions, caught_up, clock_decides=clock_decides)
    gathered = op.stateful_batch("groups", keyed, build)
    return op.map(
        "group_keys",
        gathered,
        lambda pair: (series_key(pair[1].instance, pair[1].metric), pair[1]),
    )


def _keyed(item: Passed | tuple[str, Incident | Membership]) -> tuple[str, Any]:
    return KEY, item if isinstance(item, Passed) else item[1]


def logic(
    settings: Settings,
    store: Store | None,
    partitions: tuple[int, ...] = (),
    caught_up: CaughtUp | None = None,
    *,
    clock_decides: bool = True,
) -> Callable[[bytes | None], _Groups]:
    """Return the builder of the step's logic: for a new flow, or from its last snapshot."""
    sequence = Sequence(store, KEY, RULES)
    group_rules = rules(settings)
    logic_of = _Groups if clock_decides else _AtTheEnd
    is_read = None if caught_up is None else caught_up.is_read

    def watermark() -> Watermark:
        return Watermark(time.monotonic(), partitions, is_read)

    def build(saved: bytes | None) -> _Groups:
        try:
            return logic_of(group_rules, sequence, watermark(), saved)
        except ValueError as error:
            stop_process(
                f"the recovery store cannot be read ({error}): resume with that version, or start "
                "with a new store."
            )

    return build


class _Waiting(msgspec.Struct, array_like=True):
    """A record to be taken in the order of its time, and the marks of its partition before it."""

    time: float
    incident: Incident
    marks: int = -1

    def order(self) -> tuple[Any, ...]:
        one = self.incident
        return (self.time, one.instance, one.metric, one.kind, one.id, one.sequence)


class _Saved(msgspec.Struct, array_like=True):
    version: int
    number: int
    sizes: list[tuple[str, str, int]]
    trackers: list[tuple[str, str, str, groups.Saved]]
    waiting: list[_Waiting]
    memberships: list[Membership]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Saved).decode

Item: TypeAlias = Incident | Membership | Passed


class _Groups(StatefulBatchLogic[Item, Incident, bytes]):
    """The groups of the flow. `number` counts the steps that were taken in an order of their own.

    After a restart, first the steps are repeated that the earlier process took after its last
    snapshot.
    """

    def __init__(
        self,
        rules: GroupRules,
        sequence: Sequence,
        watermark: Watermark,
        saved: bytes | None,
    ) -> None:
        self._rules = rules
        self._sequence = sequence
        self._watermark = watermark
        self._number = 0
        self._sizes: Counter[tuple[str, str]] = Counter()
        # What is saved in each epoch in which nothing happens: None once that has changed.
        self._saved_idle: bytes | None = None
        self._open = INCIDENTS_OPEN.labels("group")
        self._trackers: dict[tuple[str, str, str], GroupTracker] = {}
        self._waiting: list[_Waiting] = []
        # A heap: of a large fleet, many begin at once.
        self._memberships: list[Membership] = []
        if saved is not None:
            self._load(saved)
        # By id, the time of the last record that waits: a clock may be set back.
        self._last = {one.incident.id: one.time for one in self._waiting}
        self._steps = deque(sequence.since(self._number))
        self._repeated = time.monotonic()
        self._show_open()

    def on_batch(self, values: list[Item]) -> tuple[Iterable[Incident], bool]:
        now = time.monotonic()
        out: list[Incident] = []
        for value in values:
            if isinstance(value, Passed):
                self._watermark.mark(*value, now)
            elif isinstance(value, Membership):
                heappush(self._memberships, value)
            elif value.group is None or value.updated_at is None:
                out.append(value)
            else:
                at = max(time_of(value), self._last.get(value.id, -math.inf))
                self._last[value.id] = at
                self._watermark.seen(at, now)
                marks = self._watermark.marks(value.source.partition)
                self._waiting.append(_Waiting(at, value, marks))
        return out + self._take_ready(now), self.RETAIN

    def on_notify(self) -> tuple[Iterable[Incident], bool]:
        return self._take_ready(time.monotonic()), self.RETAIN

    def on_eof(self) -> tuple[Iterable[Incident], bool]:
        # A stopped flow will be resumed, and what is missing comes then.
        return [] if shutdown.asked() else self._take_until(math.inf), self.RETAIN

    def notify_at(self) -> datetime | None:
        idle = not self._waiting and not self._steps
        if idle and all(tracker.due() is None for tracker in self._trackers.values()):
            return None
        return wake(LOOK)

    def _take_ready(self, now: float) -> list[Incident]:
        """Take what is not to be waited for any longer. As a rule there is nothing."""
        if not (self._waiting or self._memberships or self._trackers or self._steps):
            return []
        out = self._take_until(self._watermark.until(now))
        self._show_open()
        return out

    def _take_until(self, until: float) -> list[Incident]:
        out = self._repeat(ended=until == math.inf)
        if self._steps:
            return out
        steps: list[Step] = []
        ready = [one for one in self._waiting if one.time < until or self._is_ahead(one)]
        if ready:
            taken = set(map(id, ready))
            self._waiting = [one for one in self._waiting if id(one) not in taken]
        for one in sorted(ready, key=_Waiting.order):
            self._count(one.time)
            incident = one.incident
            size = self._sizes[incident.group or "", incident.metric]
            steps.append(Step(incident.id, incident.sequence, size))
            out += self._take(one, size)
        self._count(until)
        passed = self._pass(None if until == math.inf else until)
        if passed:
            steps.append(Step("", until=None if until == math.inf else until))
            out += passed
        if steps:
            self._sequence.add(self._number, steps)
            self._number += len(steps)
            self._saved_idle = None
        return out

    def _is_ahead(self, one: _Waiting) -> bool:
        """Return whether the clock of an instance is ahead, so that its time would never come."""
        partition = one.incident.source.partition
        # Marks of others do not count: this one may be slow.
        if self._watermark.marks(partition) - one.marks <= AHEAD:
            return False
        return self._watermark.of(partition) <= one.time

    def _repeat(self, *, ended: bool) -> list[Incident]:
        """Take what an earlier process has taken, in its order, as far as it has come again."""
        out: list[Incident] = []
        while self._steps:
            step = self._steps[0]
            if step.id:
                one = self._found(step)
                if one is None:
                    break
                self._waiting.remove(one)
                out += self._take(one, step.size)
            else:
                out += self._pass(step.until)
            self._steps.popleft()
            self._number += 1
            self._saved_idle = None
            self._repeated = time.monotonic()
        if self._steps and (ended or time.monotonic() - self._repeated > STUCK):
            # It does not come: another one has decided, such as a maintenance window.
            self._steps.clear()
        return out

    def _found(self, step: Step) -> _Waiting | None:
        return next(
            (
                one
                for one in self._waiting
                if (one.incident.id, one.incident.sequence) == (step.id, step.sequence)
            ),
            None,
        )

    def _count(self, until: float) -> None:
        """Count the members that have begun or ceased up to a time."""
        while self._memberships and self._memberships[0].time <= until:
            _, group, metric, change = heappop(self._memberships)
            self._sizes[group, metric] += change
            self._saved_idle = None

    def _take(self, one: _Waiting, size: int) -> list[Incident]:
        incident = one.incident
        assert incident.group is not None
        if self._last.get(incident.id) == one.time:
            del self._last[incident.id]
        key = (incident.group, incident.metric, incident.kind)
        tracker = self._trackers.get(key)
        if tracker is None:
            tracker = self._trackers[key] = GroupTracker(self._rules, incident.group)
        out = [*tracker.advance(one.time), *tracker.add(incident, size)]
        if tracker.idle:
            del self._trackers[key]
        return out

    def _pass(self, until: float | None) -> list[Incident]:
        """Let time pass for all groups; None: the input ends, so nothing more is held."""
        out: list[Incident] = []
        for key, tracker in sorted(self._trackers.items()):
            out += tracker.release() if until is None else tracker.advance(until)
            if tracker.idle:
                del self._trackers[key]
        return out

    def _show_open(self) -> None:
        """Show in the metrics how many groups have an open incident."""
        self._open.set(sum(one.open for one in self._trackers.values()))

    def snapshot(self) -> bytes:
        idle = not (self._waiting or self._memberships or self._trackers)
        if idle and self._saved_idle is not None:
            return self._saved_idle
        saved = _encode(
            _Saved(
                VERSION,
                self._number,
                [(*key, size) for key, size in self._sizes.items() if size],
                [(*key, tracker.save()) for key, tracker in self._trackers.items()],
                self._waiting,
                self._memberships,
            )
        )
        if idle:
            self._saved_idle = saved
        return saved

    def _load(self, data: bytes) -> None:
        try:
            saved = _decode(data)
        except msgspec.DecodeError:
            saved = None
        if saved is None or saved.version not in (CARRIED_OVER, VERSION):
            raise ValueError("the incidents of groups were saved by another version")
        self._number = saved.number
        for group, metric, size in saved.sizes:
            self._sizes[group, metric] = size
        for group, metric, kind, state in saved.trackers:
            tracker = self._trackers[group, metric, kind] = GroupTracker(self._rules, group)
            tracker.load(state)
        self._waiting, self._memberships = saved.waiting, saved.memberships
        for one in self._waiting:
            one.marks = -1


class _AtTheEnd(_Groups):
    """The groups of an input that ends: its incidents are taken when all are known."""

    def _take_until(self, until: float) -> list[Incident]:
        return super()._take_until(until) if until == math.inf else []

    def notify_at(self) -> datetime | None:
        return None
