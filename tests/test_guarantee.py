"""What holds of any run. Each property has its long form in `make test-faults`."""

from __future__ import annotations

import base64
import itertools
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from bytewax.testing import TestingSink, run_main
from confluent_kafka.admin import NewTopic
from conftest import fill_topic
from faults import wait_for
from hypothesis import given, settings
from hypothesis import strategies as st
from test_source import FakePartition, options, reading_of

from dataflow import kafka
from dataflow.errors import UserError
from dataflow.flow import build
from dataflow.kafka import topics
from dataflow.kafka.caught_up import CaughtUp
from dataflow.kafka.health import SECONDS
from dataflow.metrics import counters
from dataflow.records import Rejected
from dataflow.settings import PREFIX, Settings, load
from dataflow.sources.watch import Watch
from dataflow.steps import score
from dataflow.warnings import Warnings

COUNT = itertools.count()


def examples(long: bool, few: int, many: int) -> settings:
    return settings(max_examples=many if long else few, derandomize=not long)


def totals() -> tuple[float, float]:
    """Readings scored and records rejected so far in this process."""
    (scored,) = counters.READINGS_SCORED.collect()
    (refused,) = counters.RECORDS_REFUSED.collect()
    return (
        scored.samples[0].value,
        sum(it.value for it in refused.samples if it.name.endswith("_total")),
    )


# A run that ends with status 0 has read its input to the end

PARTITIONS = 4

Step = tuple[str, int, int]
"""What is written: how, to which partition, and how many records."""

steps = st.lists(
    st.tuples(
        st.sampled_from(["plain", "committed", "aborted", "tombstones", "bad", "created again"]),
        st.integers(0, PARTITIONS - 1),
        st.integers(1, 40),
    ),
    max_size=12,
)

COMPACTED = {
    "cleanup.policy": "compact",
    "segment.ms": "10",
    "min.cleanable.dirty.ratio": "0.001",
}


class Written(NamedTuple):
    """A record that a reader of the topic must find."""

    partition: int
    key: str
    value: bytes | None
    good: bool


class Topic:
    """Writes steps to a topic, and knows what it holds."""

    def __init__(self, brokers: str, name: str, *, compacted: bool) -> None:
        self.settings = options(brokers)
        self.name = name
        self.compacted = compacted
        self._number = 0
        self._create()

    def _create(self) -> None:
        # The last partition stays empty.
        made = NewTopic(self.name, PARTITIONS + 1, config=COMPACTED if self.compacted else {})
        client = kafka.admin(self.settings)  # must live until the answer
        client.create_topics([made])[self.name].result()
        topics.create(self.settings, [self.name], PARTITIONS + 1)  # waits until it is there
        self._plain = kafka.producer(self.settings)
        self._transactional = kafka.transactional_producer(self.settings, self.name)
        self.held: list[Written] = []

    def write(self, step: Step) -> None:
        how, partition, count = step
        if how == "created again":
            self.delete()
            self._create()
            return
        transaction = how in ("committed", "aborted")
        producer = self._transactional if transaction else self._plain
        if transaction:
            producer.begin_transaction()
        for _ in range(count):
            record = self._record(how, partition)
            producer.produce(self.name, record.value, record.key, partition=partition)
            if how != "aborted":
                self.held.append(record)
        assert producer.flush(60) == 0
        if how == "committed":
            producer.commit_transaction()
        elif how == "aborted":
            producer.abort_transaction()

    def _record(self, how: str, partition: int) -> Written:
        self._number += 1
        value: bytes | None = reading_of(self._number)
        if bad := how in ("tombstones", "bad"):
            value = None if how == "tombstones" else b"{%d" % self._number
        return Written(partition, f"key-{self._number % 7}", value, not bad)

    def compact(self) -> None:
        """Wait until the broker keeps the last record of each key only."""
        time.sleep(0.05)  # longer than a segment lasts: the next record begins another one
        for partition in range(PARTITIONS):
            end = self._record("plain", partition)._replace(key="end")
            self._plain.produce(self.name, end.value, end.key, partition=partition)
            self.held.append(end)
        assert self._plain.flush(60) == 0
        self.held = list({(it.partition, it.key): it for it in self.held}.values())
        wait_for(lambda: len(list(kafka.read_from(self.settings, self.name, {}))) == len(self.held))

    def delete(self) -> None:
        topics.delete(self.settings, [self.name])
        wait_for(lambda: self.name not in kafka.metadata(self.settings).topics)


@pytest.mark.kafka
def test_a_run_that_ends_well_has_read_its_topic_to_the_end(
    request: pytest.FixtureRequest, brokers: str, topic: str, long: bool
) -> None:
    """Every record is scored, or rejected with its raw bytes, whatever the topic went through."""
    compacts = "apache" in request.node.name  # the embedded broker does not

    @examples(long, 6, 150)
    @given(steps, st.booleans())
    def holds(what: list[Step], compacted: bool) -> None:
        written = Topic(brokers, f"{topic}-{next(COUNT)}", compacted=compacted and compacts)
        for step in what:
            written.write(step)
        if written.compacted:
            written.compact()
        own = options(brokers, topic=written.name, follow=False, detector="tutorial")
        rejected: list[tuple[str, Rejected]] = []
        before = totals()
        # Bytewax ends as soon as all outputs have their records: so one of anomalies is needed.
        outputs = {"write_here": TestingSink[Any]([]), "write_rejected": TestingSink(rejected)}
        run_main(build(own, score.detector(own), None, outputs=outputs))
        after = totals()
        bad = [it.value for it in written.held if not it.good]
        assert after[0] - before[0] == len(written.held) - len(bad)
        assert after[1] - before[1] == len(bad)
        raw = [None if it.raw is None else base64.b64decode(it.raw) for _, it in rejected]
        assert sorted(raw, key=str) == sorted(bad, key=str)
        written.delete()

    holds()


# Nothing waits without a line

Phase = tuple[str, int]
"""What a partition does, and for how many looks of the watch."""

phases = st.lists(
    st.tuples(st.sampled_from(["idle", "read", "stalled", "not asked"]), st.integers(1, 6)),
    min_size=1,
    max_size=8,
)


def test_nothing_waits_without_a_line(long: bool) -> None:
    """A partition that holds records, is asked and returns none is named at the third look.

    It is named once each time, and no other partition ever is.
    """

    @examples(long, 100, 20_000)
    @given(st.lists(phases, min_size=1, max_size=5))
    def holds(world: list[list[Phase]]) -> None:
        looks = [[kind for kind, times in it for _ in range(times)] for it in world]
        partitions = {number: FakePartition(10) for number in range(len(looks))}
        ends = dict.fromkeys(partitions, 10)
        stalled_for = dict.fromkeys(partitions, 0)
        said: list[str] = []
        own = Settings(_env_file=None, topic="cpu")
        watch = Watch(own, None, None, CaughtUp(), Warnings(said.append))
        for at, kinds in enumerate(itertools.zip_longest(*looks, fillvalue="read")):
            for number, kind in enumerate(kinds):
                partition = partitions[number]
                ends[number] += kind != "idle"
                if kind in ("idle", "read"):
                    partition.offset = ends[number]
                partition.waits = kind != "not asked"
                stalled_for[number] = stalled_for[number] + 1 if kind == "stalled" else 0
            said.clear()
            watch.look(at * SECONDS, partitions, ends, ends)
            warned = [line for line in said if line.startswith("warning: ")]
            named = [int(it) for line in warned for it in numbers_in(line)]
            assert sorted(named) == [it for it, looked in stalled_for.items() if looked == 3]

    holds()


def numbers_in(line: str) -> list[str]:
    found = re.match(r"warning: partitions? ([\d, ]+) of the topic 'cpu' returns? no records", line)
    assert found, line
    return found[1].split(", ")


# What cannot work is said before the first record is read

Change = Callable[[str], dict[str, str]]
"""The settings, by the name of the input topic."""

FAULTS: dict[str, tuple[Change, str]] = {
    "no input topic": (lambda _: {"TOPIC": "no-such"}, "ANOMALY_TOPIC"),
    "no output topic": (lambda _: {"ANOMALIES_TOPIC": "no-such"}, "ANOMALY_ANOMALIES_TOPIC"),
    "no rejected topic": (lambda _: {"REJECTED_TOPIC": "no-such"}, "ANOMALY_REJECTED_TOPIC"),
    "no incidents topic": (
        lambda _: {"INCIDENTS": "true", "INCIDENTS_TOPIC": "no-such"},
        "ANOMALY_INCIDENTS_TOPIC",
    ),
    "no partition": (lambda _: {"PARTITIONS": "0,9"}, "ANOMALY_PARTITIONS"),
    "one topic twice": (lambda topic: {"ANOMALIES_TOPIC": topic}, "ANOMALY_ANOMALIES_TOPIC"),
    "unsafe": (lambda _: {"KAFKA__ACKS": "1"}, "ANOMALY_KAFKA__ACKS"),
    "unknown to librdkafka": (lambda _: {"KAFKA__NO_SUCH": "1"}, "ANOMALY_KAFKA__"),
    "no codec": (lambda _: {"KAFKA__COMPRESSION_TYPE": "none at all"}, "ANOMALY_KAFKA__"),
    "a file that holds something": (lambda _: {"OUTPUT": "kafka,there.jsonl"}, "there.jsonl"),
    "no folder": (lambda _: {"OUTPUT": "kafka,no-such/found.jsonl"}, "no-such/found.jsonl"),
}


@pytest.mark.kafka
def test_what_cannot_work_is_said_before_the_first_record_is_read(
    brokers: str, topic: str, tmp_path: Path, long: bool
) -> None:
    """Settings are refused in one line that names one of them, or the run reads all records."""
    (tmp_path / "there.jsonl").write_text("precious\n")
    fill_topic(brokers, f"{topic}.out", [], 1)

    @examples(long, 12, 400)
    @given(st.sets(st.sampled_from(sorted(FAULTS)), max_size=2))
    def holds(faults: set[str]) -> None:
        name = f"{topic}-{next(COUNT)}"
        fill_topic(brokers, name, [("a", reading_of(number)) for number in range(5)], 2)
        fill_topic(brokers, name, [("a", b"{"), ("b", None)])
        there = {"BROKERS": brokers, "TOPIC": name, "ANOMALIES_TOPIC": f"{topic}.out"}
        there |= {"DETECTOR": "tutorial", "OUTPUT": "kafka", "FOLLOW": "false"}
        for fault in faults:
            there |= FAULTS[fault][0](name)
        before = totals()
        said = None
        with pytest.MonkeyPatch.context() as patch:
            for setting, value in there.items():
                patch.setenv(PREFIX + setting, value)
            try:
                own = load()
                flow = build(own, score.detector(own), None)
            except UserError as error:
                said = str(error)
            else:
                run_main(flow)
        scored, rejected = (now - then for now, then in zip(totals(), before, strict=True))
        present = kafka.metadata(options(brokers)).topics
        if faults:
            assert said is not None
            assert "\n" not in said
            assert any(FAULTS[fault][1] in said for fault in faults), said
            assert (scored, rejected) == (0, 0)
            assert f"{name}.rejected" not in present
        else:
            assert said is None
            assert (scored, rejected) == (5, 2)
            assert sum(kafka.end_offsets(options(brokers), f"{name}.rejected").values()) >= 2
        assert (tmp_path / "there.jsonl").read_text() == "precious\n"
        topics.delete(options(brokers), [it for it in present if it.startswith(name)])

    holds()
