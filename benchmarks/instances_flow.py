"""The flow of `instances.py`: ours, with a source that generates its readings.

Started as `python -m bytewax.run instances_flow -s 0`, so that each batch of the source is an
epoch; INSTANCES_PLAN says what to generate. At its end the source writes its measurements to a
file.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from dataflow import flow as ours
from dataflow import sources
from dataflow.records import Raw
from dataflow.steps import filter

START = 1_709_251_200
"""Time of the first readings, in seconds since 1970."""


class Plan(msgspec.Struct):
    """What to generate: `records` of `instances` in turn, `batch` of them in an epoch."""

    instances: int
    records: int
    batch: int
    interval: int
    started: float
    figures: str
    leave: bool = False
    """Whether to exit at once, without a last snapshot."""


class Seen(msgspec.Struct):
    """The measurements of a run: clock and CPU in seconds since the command, memory in bytes."""

    read_after: float = 0.0
    scored_after: float = 0.0
    scored_cpu: float = 0.0
    read_until: float = 0.0
    read_cpu: float = 0.0
    peak: int = 0
    rounds: list[tuple[float, float, int]] = []
    """Of each complete round: CPU without generating the readings, clock, memory after it."""


PLAN = msgspec.json.decode(os.environ["INSTANCES_PLAN"], type=Plan)
SEEN = Seen()


def memory() -> int:
    """Return the resident bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Made(FixedPartitionedSource[Raw, int]):
    """Readings of all instances in turn; its state is the number of the next one."""

    def list_parts(self) -> list[str]:
        """Return the only partition."""
        return ["made"]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _MadePart:
        """Continue with the reading that the last snapshot names."""
        return _MadePart(resume_state or 0)


class _MadePart(StatefulSourcePartition[Raw, int]):
    def __init__(self, start: int) -> None:
        self._next = start
        self._making = 0.0
        self._mark: tuple[float, float] | None = None

    def next_batch(self) -> list[Raw]:
        started = time.thread_time()
        if self._mark is None:
            SEEN.read_after = time.monotonic() - PLAN.started
            self._mark = self._now()
        elif self._next % PLAN.instances == 0:
            self._round(self._mark)
        turn, first = divmod(self._next, PLAN.instances)
        if self._next >= PLAN.records:
            SEEN.read_until = time.monotonic() - PLAN.started
            SEEN.read_cpu = time.process_time()
            SEEN.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            Path(PLAN.figures).write_bytes(msgspec.json.encode(SEEN))
            if PLAN.leave:
                os._exit(0)
            raise StopIteration
        count = min(PLAN.batch, PLAN.instances - first, PLAN.records - self._next)
        at = START + PLAN.interval * turn
        made = [
            Raw(
                0,
                self._next + number,
                b'{"index":%d,"timestamp":%d,"value":%d.%d,"instance":"i-%08x"}'
                % (turn, at, 20 + (key * 7 + turn * 3) % 11, (key + turn) % 10, key),
            )
            for number, key in enumerate(range(first, first + count))
        ]
        self._next += count
        self._making += time.thread_time() - started
        return made

    def _now(self) -> tuple[float, float]:
        return time.process_time() - self._making, time.monotonic()

    def _round(self, mark: tuple[float, float]) -> None:
        now = self._now()
        SEEN.rounds.append((now[0] - mark[0], now[1] - mark[1], memory()))
        self._mark = now

    def snapshot(self) -> int:
        return self._next


def noticed(above: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the factory of the filter, to see when the first score arrives."""

    def watched(*arguments: Any) -> Callable[[Any], Any]:
        keep = above(*arguments)

        def look(batch: Any) -> Any:
            if not SEEN.scored_after:
                SEEN.scored_after = time.monotonic() - PLAN.started
                SEEN.scored_cpu = time.process_time()
            return keep(batch)

        return look

    return watched


def flow() -> Dataflow:
    """Build our flow with this source."""
    sources.source = lambda settings, store: Made()
    filter.above = noticed(filter.above)
    return ours.flow()
