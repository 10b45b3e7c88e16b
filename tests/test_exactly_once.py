"""A model of the whole: input, snapshots, outputs and any sequence of lives of the flow.

The outputs are the real ones. The file is a real file. The topic is a log in memory, with a mark at
the end of each transaction as in Apache Kafka, and retention: only so can thousands of lives be
tried. `test_faults.py` kills real flows on real brokers.
"""

from __future__ import annotations

import itertools
import pickle
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)
from test_counters import anomaly, incident

from dataflow import kafka
from dataflow.kafka import topics
from dataflow.records import Anomaly, Incident, Rejected, Source, encode
from dataflow.settings import Settings
from dataflow.sinks.identity import BY_SEQUENCE, BY_SOURCE, Identity
from dataflow.sinks.jsonl import JsonLinesSink
from dataflow.sinks.kafka import KafkaSink

Record = Anomaly | Incident | Rejected

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where the files of the model are: it synchronizes them thousands of times."""

OPTIONS = Settings(_env_file=None)

PARTITIONS = 2
RECORDS = 12
"""Records of the input in each partition."""


def anomalies_of(partition: int, offset: int) -> list[Record]:
    """Return what the flow computes of an input record: every third has anomalies, and so on.

    A record may hold several readings: some have two anomalies, the numbers of which are apart.
    """
    if offset % 3:
        return []
    numbers = (0, 5) if offset % 2 else (offset % 4,)
    return [
        _replace(anomaly(None), source=Source("cpu", partition, offset, number))
        for number in numbers
    ]


def rejected_of(partition: int, offset: int) -> list[Record]:
    return [
        Rejected("empty", "", Source("cpu", partition, offset, number), None)
        for number in range(offset % 3)
    ]


def incidents_of(partition: int, offset: int) -> list[Record]:
    """A reading may cause several records of incidents."""
    first = incident("anomaly", "opened")
    return [
        _replace(
            first,
            id=f"{partition}-{offset // 4}",
            sequence=2 * (offset % 4) + number,
            source=Source("cpu", partition, offset),
        )
        for number in range(offset % 3)
    ]


def _replace(record: Any, **fields: Any) -> Any:
    return type(record)(
        **{name: getattr(record, name) for name in record.__struct_fields__} | fields
    )


KINDS: dict[str, tuple[Callable[[int, int], list[Record]], Identity]] = {
    "anomalies": (anomalies_of, BY_SOURCE),
    "rejected": (rejected_of, BY_SOURCE),
    "incidents": (incidents_of, BY_SEQUENCE),
}


class Store:
    """What an output needs of a recovery store."""

    id = "store"

    def __init__(self) -> None:
        self._began: dict[str, Any] = {}

    def began(self, output: str, position: Callable[[], Any]) -> Any:
        if output not in self._began:
            self._began[output] = position()
        return self._began[output]


class Lives(RuleBasedStateMachine):
    """Any number of lives on one store; `Output` is a file or a topic."""

    kind: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.compute, self.identity = KINDS[self.kind]
        self.store = Store()
        self.read = [0] * PARTITIONS
        self.part: Any = None
        self.saved = pickle.dumps(([0] * PARTITIONS, None))

    # What an output has to do.
    def sink(self) -> Any:
        raise NotImplementedError

    def written(self) -> list[bytes]:
        """Return the records that a reader finds, or would have found before retention."""
        raise NotImplementedError

    def start(self) -> None:
        self.read, state = pickle.loads(self.saved)
        sink = self.sink()
        self.part = sink.build_part("flow.write", sink.list_parts()[0], state)

    def stop(self) -> None:
        """What happens to the output if its process is killed."""

    @initialize()
    def begin(self) -> None:
        self.start()

    @rule(partition=st.integers(0, PARTITIONS - 1), count=st.integers(1, RECORDS))
    def process(self, partition: int, count: int) -> None:
        start = self.read[partition]
        end = min(start + count, RECORDS)
        self.read[partition] = end
        records = [one for at in range(start, end) for one in self.compute(partition, at)]
        if records:
            self.part.write_batch(records)

    @rule(kept=st.sampled_from([True, True, False]))
    def save(self, kept: bool) -> None:
        """Take a snapshot; the flow may be killed before the store has it."""
        snapshot = pickle.dumps((self.read, self.part.snapshot()))
        if kept:
            self.saved = snapshot

    @rule()
    def kill(self) -> None:
        self.stop()
        self.start()

    def teardown(self) -> None:
        """Let a last life come to the end: nothing is missing, and nothing is there twice."""
        try:
            for partition in range(PARTITIONS):
                self.process(partition, RECORDS)
            self.part.snapshot()
            wanted = Counter(
                encode(record)
                for partition, offset in itertools.product(range(PARTITIONS), range(RECORDS))
                for record in self.compute(partition, offset)
            )
            assert Counter(self.written()) == wanted
            assert not self.left_over()
        finally:
            self.clean()

    def left_over(self) -> int:
        """Return how many records the output still expects: at the end, all are computed again."""
        return len(self.part._pending)

    def clean(self) -> None: ...


class OnFile(Lives):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY))
        self.path = self.folder / "found.jsonl"

    def sink(self) -> JsonLinesSink:
        return JsonLinesSink(self.path, self.store, identity=self.identity)  # type: ignore[arg-type]

    def written(self) -> list[bytes]:
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        return [line[:-1] for line in lines if line.endswith(b"\n")]

    def stop(self) -> None:
        self.part.close()  # the lock goes with the process
        with self.path.open("ab") as file:  # and the last write may be cut off
            file.write(b'{"source":{"topic":"cpu","partition":0,"off')

    def clean(self) -> None:
        shutil.rmtree(self.folder)


class Message:
    """A record of the topic in memory, as the client returns it."""

    def __init__(self, partition: int, offset: int, value: bytes) -> None:
        self._partition, self._offset, self._value = partition, offset, value

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def value(self) -> bytes:
        return self._value


class Topic:
    """Its log by partition: records, and None for the mark of a transaction."""

    def __init__(self) -> None:
        self.first = [0] * PARTITIONS
        self.logs: list[list[bytes | None]] = [[] for _ in range(PARTITIONS)]

    def ranges(self, _settings: object, _name: str) -> dict[int, tuple[int, int]]:
        return {
            partition: (self.first[partition], len(log)) for partition, log in enumerate(self.logs)
        }

    def ends(self, _settings: object, _name: str) -> dict[int, int]:
        return {partition: len(log) for partition, log in enumerate(self.logs)}

    def read_from(self, _s: object, _name: str, offsets: dict[int, int]) -> Iterator[Message]:
        for partition, log in enumerate(self.logs):
            assert offsets[partition] >= self.first[partition], "Offset out of range"
            for offset in range(offsets[partition], len(log)):
                value = log[offset]
                if value is not None:
                    yield Message(partition, offset, value)

    def producer(self, _settings: object, _name: str) -> Topic:
        self.open: list[tuple[bytes, Any]] = []
        return self

    def begin_transaction(self) -> None:
        assert not self.open

    def produce(
        self, _topic: str, value: bytes, _key: str, on_delivery: Any, headers: None
    ) -> None:
        assert headers is None
        self.open.append((value, on_delivery))

    def commit_transaction(self, _timeout: float) -> None:
        used = set()
        for value, deliver in self.open:
            partition = len(value) % PARTITIONS if len(self.logs[0]) % 3 else 0
            log = self.logs[partition]
            log.append(value)
            used.add(partition)
            deliver(None, Message(partition, len(log) - 1, value))
        for partition in used:
            self.logs[partition].append(None)
        self.open = []

    def flush(self, _timeout: float) -> int:
        return 0


class OnTopic(Lives):
    def __init__(self) -> None:
        super().__init__()
        self.topic = Topic()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(topics, "existing_partitions", lambda *_: list(range(PARTITIONS)))
        self.patch.setattr(kafka, "end_offsets", self.topic.ends)
        self.patch.setattr(kafka, "topic_ranges", self.topic.ranges, raising=False)
        self.patch.setattr(kafka, "read_from", self.topic.read_from)
        self.patch.setattr(kafka, "transactional_producer", self.topic.producer)

    def sink(self) -> KafkaSink:
        return KafkaSink(OPTIONS, "out", "ANOMALY_X", self.store, self.identity)  # type: ignore[arg-type]

    def written(self) -> list[bytes]:
        return [value for log in self.topic.logs for value in log if value is not None]

    @rule(partition=st.integers(0, PARTITIONS - 1))
    def retention_deletes_what_the_last_snapshot_covers(self, partition: int) -> None:
        """Up to the mark after the last record that the last kept snapshot names."""
        _, state = pickle.loads(self.saved)
        if state is not None:
            _, place = state if isinstance(state, tuple) else ("out", state["out"][0])
            log, first = self.topic.logs[partition], place.get(partition, 0)
            if first < len(log) and log[first] is None:
                first += 1
            self.topic.first[partition] = max(self.topic.first[partition], first)

    def clean(self) -> None:
        self.patch.undo()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("output", [OnFile, OnTopic])
def test_any_sequence_of_lives_writes_each_record_once(
    output: type[Lives], kind: str, long: bool
) -> None:
    machine = type(f"{output.__name__}{kind}", (output,), {"kind": kind})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=2000 if long else 60,
            stateful_step_count=40 if long else 30,
            deadline=None,
            derandomize=not long,
        ),
    )
