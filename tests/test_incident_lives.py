"""What a flow writes of an instance, over any sequence of lives: each record once, and the same."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import Judge
from test_incidents import STEP, check, readings_of, scores

from dataflow.detectors import make
from dataflow.records import Incident, Reading
from dataflow.settings import Settings
from dataflow.steps import incidents


class KilledError(Exception):
    """The process was killed while it wrote."""


class Lives:
    """The input, the store, the output and the clock of a flow that is killed again and again.

    The output skips a record whose id and sequence it holds. Here it must be the same record.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, log: list[Any]) -> None:
        self.log = log
        self.now = 1_000_000.0
        self.folder = folder
        monkeypatch.setattr(incidents.time, "monotonic", lambda: self.now)
        self.settings = Settings(
            _env_file=None, incidents=True, interval=STEP, silence_gone=3600, incident_quiet=600
        )
        self.written: dict[tuple[str, int], Incident] = {}
        self.saved: tuple[int, dict[str, bytes]] = (0, {})
        self.left: int | None = None
        self.process = 0
        self.start()

    def start(self) -> None:
        """Resume from the last snapshot, in another process of the cluster: workers may change."""
        self.left = None
        self.process = 1 - self.process
        store: Any = SimpleNamespace(folder=self.folder, process=self.process)
        self.build = incidents.monitors(self.settings, make("tutorial"), store)
        self.next, states = self.saved
        self.logics = {name: self.build(state) for name, state in states.items()}

    def save(self) -> None:
        states = {name: logic.snapshot() for name, logic in self.logics.items()}
        self.saved = (self.next, states)

    def write(self, records: Any) -> None:
        for record in records:
            if self.left is not None:
                if not self.left:
                    raise KilledError
                self.left -= 1
            same = (record.id, record.sequence)
            assert self.written.setdefault(same, record) == record

    def read(self, most: int) -> None:
        """Read some of the log, as a batch: regrouped by instance."""
        groups: defaultdict[str, list[Any]] = defaultdict(list)
        for scored in self.log[self.next : self.next + most]:
            groups[scored[0].instance].append(scored)
        self.next = min(self.next + most, len(self.log))
        for name, scored in groups.items():
            if name not in self.logics:
                self.logics[name] = self.build(None)
            self.write(self.logics[name].on_batch([scored])[0])

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += 50.0
            for logic in self.logics.values():
                self.write(logic.on_notify()[0])


def merged(histories: list[list[tuple[float, float | None]]]) -> list[Any]:
    """One log of several instances, each ending with five ordinary readings."""
    log = []
    for number, history in enumerate(histories):
        # Its incidents must be over in the end.
        for reading, found in readings_of([*history, *[(STEP, None)] * 5]):
            reading.instance = f"host-{number}"
            log.append((reading, found))
    log.sort(key=lambda it: (it[0].time, it[0].instance))
    judge = Judge(600.0)
    return [
        judge.scored(Reading(r.instance, r.time, r.index, r.value, r.time, 0, offset), score)
        for offset, (r, score) in enumerate(log)
    ]


actions = st.lists(
    st.tuples(
        st.sampled_from(["read", "read", "wait", "wait", "save", "kill", "cut"]),
        st.integers(1, 5),
    ),
    min_size=10,
    max_size=50,
)


@settings(max_examples=60, deadline=None)
@given(
    histories=st.lists(
        st.lists(
            st.tuples(st.sampled_from([STEP, STEP, STEP, 900.0, 1200.0, 8000.0]), scores),
            min_size=1,
            max_size=8,
        ),
        min_size=1,
        max_size=3,
    ),
    actions=actions,
)
def test_over_any_lives_each_record_is_written_once_and_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    histories: list[list[tuple[float, float | None]]],
    actions: list[tuple[str, int]],
) -> None:
    """`wait` lets the clock decide, `cut` kills the flow in the middle of what it writes next."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        flow = Lives(tmp_path_factory.mktemp("store"), monkeypatch, merged(histories))
        for action, number in [*actions, ("kill", 1)]:
            try:
                if action == "read":
                    flow.read(number)
                elif action == "wait":
                    flow.wait([0, 100, 1900, 2500, 6000, 9000][number])
                elif action == "save":
                    flow.save()
                elif action == "cut":
                    flow.left = number - 1
                else:
                    flow.start()
            except KilledError:
                flow.start()
        while flow.next < len(flow.log):
            flow.read(4)
    for name in {reading.instance for reading, *_ in flow.log}:
        records = [it for it in flow.written.values() if it.instance == name]
        check(records)
        opened = {it.id for it in records if it.state == "opened"}
        ended = {it.id for it in records if it.state == "resolved"}
        # After the last reading an instance may be silent, and is not back.
        last = max(reading.offset for reading, *_ in flow.log if reading.instance == name)
        silent = {it.id for it in records if it.kind == "silence" and it.source.offset == last}
        assert opened - ended <= silent
        assert ended <= opened


def test_the_clock_does_not_contradict_what_a_killed_flow_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silent, back, killed before a snapshot: the next process waits before it reads that again."""
    flow = Lives(tmp_path, monkeypatch, merged([[(STEP, None), (STEP, None)]]))
    flow.read(1)
    flow.wait(2500)
    flow.save()
    flow.read(1)
    assert [it.ended for it in flow.written.values()] == [None, "returned"]
    flow.start()
    flow.wait(9000)
    flow.read(10)
    assert [it.ended for it in flow.written.values()] == [None, "returned"]
