"""Runs flows over an input that ends, in the calling thread. Checked with Bytewax `CHECKED_WITH`.

Bytewax's own engine runs one flow in a process, and handing items from step to step takes it a
third of the time of a flow. This one calls the steps of a `Dataflow` one after the other, a batch
at a time, and lets several flows take the same readings.

It calls what Bytewax calls, in the order of one worker: of a batch, a stateful step takes the keys
in their order. It takes no snapshots and resumes nothing.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeAlias

from bytewax.dataflow import Dataflow, Operator
from bytewax.inputs import DynamicSource
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import DynamicSink

__all__ = ["run"]

LONGEST_SLEEP = 0.1
"""Seconds after which a source without records is asked again at the latest."""

NEVER: Final = datetime.max.replace(tzinfo=UTC)

Take: TypeAlias = Callable[[list[Any]], object]
"""Takes a batch of items."""


class Gathered(NamedTuple):
    """A step that returns pairs of key and list, of which the lists of many batches become one.

    They are held until there are `most` elements, so that the next steps take many elements of a
    key at a time: what is known of the key then stays in the CPU's cache. They go on in batches of
    about `part` elements, so that a batch does too, from step to step. Where the step returns an
    empty list, or something comes to the stream `before`, all that is held goes on first.
    """

    step: str
    before: str
    most: int = 60_000
    part: int = 1_500


def run(
    flows: Sequence[Dataflow], shared: Collection[str] = (), gathered: Gathered | None = None
) -> None:
    """Run flows until their input ends, which must be the same where steps are shared.

    `shared` are ids of steps, such as `normalize`, that only the first flow runs: what they return
    goes on in all flows. Of what has come to a flow, the first flow is the last to take it.

    Raises what a step or a source raises, and `TypeError` for a step that cannot be run here.
    """
    wiring = _Wiring(shared)
    for number in reversed(range(len(flows))):
        wiring.add(number, flows[number], None if number else gathered)
    _read(wiring.parts, wiring.stateful)
    for end in wiring.ends:
        end()


Down: TypeAlias = Callable[[str], list[Take]]
"""Returns who takes what comes of a stream."""


class _Wiring:
    """Who takes what, in flows that run together."""

    def __init__(self, shared: Collection[str]) -> None:
        self.parts: list[_Part] = []
        self.stateful: list[_Stateful] = []
        self.ends: list[Callable[[], object]] = []
        """What is to be done at the end, in this order, from the first flow on."""
        self._shared = shared
        self._takers: defaultdict[tuple[int, str], list[Take]] = defaultdict(list)

    def add(self, number: int, flow: Dataflow, gathered: Gathered | None) -> None:
        """Add a flow."""
        outside = self._shared if number else ()
        ends: list[Callable[[], object]] = []

        def stream(name: str) -> list[Take]:
            return self._takers[0 if _step(name) in outside else number, name]

        for step in _core(flow.substeps):
            own = _step(step.step_id)
            if own in outside:
                continue
            if type(step).__name__ == "input":
                self.parts += _parts(step, stream(step.down.stream_id))
                continue
            down: Down = stream
            if gathered is not None and own == gathered.step:
                hold = _Hold(stream(step.down.stream_id), gathered.most, gathered.part)
                stream(f"{flow.flow_id}.{gathered.before}").insert(0, hold.release)
                ends.append(hold.release)
                down = hold.instead
            take = _taker(step, down)
            if isinstance(take, _Stateful):
                self.stateful.append(take)
                ends.append(take.end)
                take = take.take
            for name in _names(step):
                stream(name).append(take)
        self.ends = ends + self.ends


def _step(name: str) -> str:
    """Return the step of an id, of a step or a stream."""
    return name.split(".")[1]


def _core(steps: Sequence[Operator]) -> Iterator[Any]:
    """Yield the steps of which all others are made, in their order."""
    for step in steps:
        if getattr(step, "core", False):
            yield step
        else:
            yield from _core(step.substeps)


def _names(step: Any) -> list[str]:
    """Return the streams that a step takes."""
    return [name for port in step.ups_names for name in getattr(step, port).stream_ids.values()]


def _taker(step: Any, stream: Down) -> Take | _Stateful:
    """Return what takes the batches that come to a step."""
    match type(step).__name__:
        case "flat_map_batch":
            return _flat_map(step.mapper, stream(step.down.stream_id))
        case "branch":
            outs = (stream(port.stream_id) for port in (step.trues, step.falses))
            return _branch(step.predicate, *outs)
        case "merge":
            down = stream(step.down.stream_id)
            return lambda batch: _emit(down, batch)
        case "stateful_batch":
            return _Stateful(step.builder, stream(step.down.stream_id))
        case "output" if isinstance(step.sink, DynamicSink):
            return step.sink.build(step.step_id, 0, 1).write_batch
    raise TypeError(f"{step.step_id} cannot be run here: {type(step).__name__}")


def _emit(takers: list[Take], batch: list[Any]) -> None:
    if batch:
        for take in takers:
            take(batch)


def _flat_map(mapper: Callable[[list[Any]], Any], down: list[Take]) -> Take:
    def take(batch: list[Any]) -> None:
        found = mapper(batch)
        _emit(down, found if isinstance(found, list) else list(found))

    return take


def _branch(predicate: Callable[[Any], bool], trues: list[Take], falses: list[Take]) -> Take:
    def take(batch: list[Any]) -> None:
        chosen = list(filter(predicate, batch))
        _emit(trues, chosen)
        if len(chosen) < len(batch):
            _emit(falses, [item for item in batch if not predicate(item)])

    return take


class _Stateful:
    """A step with a logic for each key."""

    def __init__(
        self, builder: Callable[[Any], StatefulBatchLogic[Any, Any, Any]], down: list[Take]
    ) -> None:
        self._builder = builder
        self._down = down
        self._logics: dict[str, StatefulBatchLogic[Any, Any, Any]] = {}
        self._wakes: dict[str, datetime] = {}
        self.wake = NEVER
        """When it is to be notified at the earliest."""

    def take(self, batch: list[tuple[str, Any]]) -> None:
        """Take a batch of pairs of key and value."""
        values: defaultdict[str, list[Any]] = defaultdict(list)
        for key, value in batch:
            values[key].append(value)
        out: list[tuple[str, Any]] = []
        logics = self._logics
        for key in sorted(values):
            logic = logics.get(key)
            if logic is None:
                logic = logics[key] = self._builder(None)
            self._done(key, logic, logic.on_batch(values[key]), out)
        _emit(self._down, out)

    def notify(self, now: datetime) -> None:
        """Notify the keys that have asked for a time that has come."""
        due = sorted(key for key, wake in self._wakes.items() if wake <= now)
        self._each(due, "on_notify")
        self.wake = min(self._wakes.values(), default=NEVER)

    def end(self) -> None:
        """Say that nothing more comes."""
        self._each(sorted(self._logics), "on_eof")

    def _each(self, keys: list[str], event: str) -> None:
        out: list[tuple[str, Any]] = []
        for key in keys:
            logic = self._logics[key]
            self._done(key, logic, getattr(logic, event)(), out)
        _emit(self._down, out)

    def _done(self, key: str, logic: Any, result: Any, out: list[tuple[str, Any]]) -> None:
        found, discard = result
        for one in found:
            out.append((key, one))
        wake = None
        if discard:
            del self._logics[key]
        else:
            wake = logic.notify_at()
        if wake is not None:
            self._wakes[key] = wake
            self.wake = min(self.wake, wake)
        elif self._wakes:
            self._wakes.pop(key, None)


class _Hold:
    """Holds lists of keys: see `Gathered`."""

    def __init__(self, down: list[Take], most: int, part: int) -> None:
        self._down = down
        self._most = most
        self._part = part
        self._held: dict[str, list[Any]] = {}
        self._count = 0

    def instead(self, _: str) -> list[Take]:
        """Return what takes the batches in place of those behind."""
        return [self.take]

    def take(self, batch: list[tuple[str, list[Any]]]) -> None:
        """Take a batch of pairs of key and list."""
        if not all(elements for _, elements in batch):
            self.release()
            _emit(self._down, batch)
            return
        held = self._held
        for key, elements in batch:
            before = held.get(key)
            if before is None:
                held[key] = elements
            else:
                before += elements
            self._count += len(elements)
        if self._count >= self._most:
            self.release()

    def release(self, _: object = None) -> None:
        """Pass on what is held."""
        held, self._held, self._count = self._held, {}, 0
        batch: list[tuple[str, list[Any]]] = []
        count = 0
        for key, elements in held.items():
            for first in range(0, len(elements), self._part):
                some = elements[first : first + self._part]
                batch.append((key, some))
                count += len(some)
                if count >= self._part:
                    _emit(self._down, batch)
                    batch, count = [], 0
        _emit(self._down, batch)


class _Part:
    """A part of a source, and who takes its batches."""

    def __init__(self, part: Any, down: list[Take]) -> None:
        self._part = part
        self._down = down
        self.awake: datetime | None = None

    def next(self) -> bool:
        """Pass on the next batch; return whether there may be more."""
        try:
            batch = self._part.next_batch()
        except StopIteration:
            self._part.close()
            return False
        _emit(self._down, batch if isinstance(batch, list) else list(batch))
        self.awake = self._part.next_awake()
        return True


def _parts(step: Any, down: list[Take]) -> list[_Part]:
    source = step.source
    if isinstance(source, DynamicSource):
        return [_Part(source.build(step.step_id, 0, 1), down)]
    names = source.list_parts()
    return [_Part(source.build_part(step.step_id, name, None), down) for name in names]


def _read(parts: list[_Part], stateful: list[_Stateful]) -> None:
    """Read all parts in turn until each has ended."""
    while parts:
        now = datetime.now(UTC)
        ready = [part for part in parts if part.awake is None or part.awake <= now]
        ended = [part for part in ready if not part.next()]
        if ended:
            parts = [part for part in parts if part not in ended]
        now = datetime.now(UTC)
        for one in stateful:
            if one.wake <= now:
                one.notify(now)
        if not ready and parts:
            wait = min(part.awake or now for part in parts) - now
            time.sleep(min(max(wait.total_seconds(), 0.0), LONGEST_SLEEP))
