"""A topic as input: each of its records is read, or the flow says why not."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from conftest import (
    Flow,
    PausableBroker,
    await_ready,
    environment,
    fill_topic,
    free_port,
    read_json_lines,
)
from faults import wait_for
from hypothesis import given
from hypothesis import strategies as st
from kafka_server import ApacheKafka

from dataflow import kafka
from dataflow.kafka import caught_up, topics
from dataflow.settings import Settings
from dataflow.sources.kafka import KafkaSource
from dataflow.sources.place import Place, place
from dataflow.sources.stalls import Seen, Stalls
from dataflow.sources.watch import Watch
from dataflow.warnings import Warnings


def options(brokers: str, **more: Any) -> Settings:
    return Settings(_env_file=None, brokers=brokers, **more)


def reading_of(number: int) -> bytes:
    at = {"timestamp": 1_700_000_000 + 300 * number, "index": number}
    return json.dumps({"instance": "i-1", "value": number % 90, **at}).encode()


def readings(count: int) -> list[tuple[str | None, bytes | None]]:
    return [("i-1", reading_of(number)) for number in range(count)]


def with_store(folder: Path) -> list[str]:
    return ["-r", str(folder), "-s", "1", "-b", "0"]


def open_transaction(brokers: str, topic: str, number: int = 0) -> Producer:
    """A producer with one record in a transaction that the broker keeps open for five minutes."""
    slow = kafka.producer(
        options(brokers), **{"transactional.id": topic, "transaction.timeout.ms": 300_000}
    )
    slow.init_transactions(60)
    slow.begin_transaction()
    slow.produce(topic, reading_of(number), "i-1")
    slow.flush()
    return slow


def records_read(port: int) -> dict[str, float]:
    """Records read and lag, by metric, summed up, and the number of partitions with a lag."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    values = {}
    for name in ("anomaly_records_read_total", "anomaly_consumer_lag_records"):
        found = [float(one.rpartition(" ")[2]) for one in lines if one.startswith(f"{name}{{")]
        values[name] = sum(found)
        values[f"partitions {name}"] = len(found)
    return values


# Where to read on


@given(st.integers(-2, 50), st.integers(0, 50), st.integers(0, 50))
def test_no_unread_offset_is_skipped_without_a_problem(saved: int, first: int, more: int) -> None:
    found = place(saved, (first, first + more))
    assert first <= found.offset <= first + more
    unread = set(range(max(saved, 0), first)) if saved >= 0 else set()
    assert found.lost == len(unread)
    assert (found.problem is None) == (saved < 0 or first <= saved <= first + more)
    if found.problem is None:
        assert found.offset == (first if saved < 0 else saved)


def test_a_partition_emptied_after_it_was_read_lost_nothing() -> None:
    assert place(547, (547, 547)) == Place(547)
    assert place(546, (547, 547)).lost == 1


# What does not return its records


def test_a_partition_that_returns_nothing_is_named_once_and_when_it_goes_on() -> None:
    stalls = Stalls()
    found = []
    for now in range(0, 60, 3):
        position = 10 if now < 30 else 20
        found.append(stalls.update(float(now), {0: Seen(position, 20, True)}))
    assert [it for it in found if it != ([], [])] == [([0], []), ([], [0])]
    assert found[2] == ([0], []), "within 15 s"


@pytest.mark.parametrize(
    "seen",
    [
        [Seen(10, 10, True)] * 9,
        [Seen(10, 20, False)] * 9,
        [Seen(position, 20, True) for position in range(10, 19)],
    ],
    ids=["at its end", "the flow does not ask", "it returns some"],
)
def test_a_partition_that_is_not_stalled_is_not_named(seen: list[Seen]) -> None:
    stalls = Stalls()
    assert {str(stalls.update(3.0 * at, {0: one})) for at, one in enumerate(seen)} == {"([], [])"}


def test_a_process_that_was_stopped_names_no_partition() -> None:
    stalls = Stalls()
    blocked = {0: Seen(10, 20, True)}
    assert [stalls.update(now, blocked) for now in (0.0, 3.0, 3600.0)] == [([], [])] * 3


class FakePartition:
    """A partition as the watch sees it."""

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.waits = True
        self.last_error: str | None = None
        self.end = 0

    def tell_end(self, end: int) -> None:
        self.end = end


def looked_at(
    follow: bool, partitions: dict[int, FakePartition], until: int, stable: int = 20
) -> tuple[list[str], list[str]]:
    said: list[str] = []
    settings = Settings(_env_file=None, topic="cpu", follow=follow)
    watching = Watch(settings, None, None, caught_up.CaughtUp(), Warnings(said.append))
    ended: list[str] = []
    for now in range(0, until, 3):
        ends = dict.fromkeys(partitions, 20)
        committed = dict.fromkeys(partitions, stable)
        watching.look(float(now), partitions, ends, committed, stop=ended.append)
    return said, ended


def test_an_open_transaction_is_named_and_ends_only_an_input_that_ends() -> None:
    for follow in (True, False):
        said, ended = looked_at(follow, {0: FakePartition(3)}, 15, stable=3)
        assert len(said) == 1
        assert "partition 0 of the topic 'cpu' returns no records, although it holds" in said[0]
        assert "offsets 3 to 19 (an open transaction blocks them): the flow waits" in said[0]
        assert not ended
        said, ended = looked_at(follow, {0: FakePartition(3)}, 120, stable=3)
        assert bool(ended) != follow
        if not follow:
            assert "blocks partition 0 of the topic 'cpu' at offset 3 of 20" in ended[0]


def test_many_partitions_are_one_line_and_know_their_ends() -> None:
    partitions = {number: FakePartition(3) for number in range(200)}
    for one in partitions.values():
        one.last_error = "Too many open files"
    said, ended = looked_at(True, partitions, 30)
    assert len(said) == 1
    assert said[0].startswith("warning: partitions 0, 1, 2, 3, 4 and 195 more of the topic 'cpu'")
    assert "Too many open files" in said[0]
    assert {one.end for one in partitions.values()} == {20}
    assert not ended


def test_the_watch_says_whether_all_was_read(
    brokers: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine is no broker that was away.
    monkeypatch.setattr(caught_up, "SLOW", 60.0)
    settings = Settings(_env_file=None, brokers=brokers, topic=topic)
    fill_topic(brokers, topic, readings(5), 1)
    read = caught_up.CaughtUp()
    watching = Watch(settings, None, None, read)
    partition = FakePartition(3)
    watching.add(0, partition)
    client = kafka.admin(settings)
    cluster = client.list_topics(topic, timeout=10)
    begun = time.monotonic()

    def at_end() -> bool | None:
        return read.at_end(0, begun)

    assert watching.ask(client, cluster) is None
    assert at_end() is None  # nothing had asked before
    assert watching.ask(client, cluster) is None
    assert at_end() is None
    partition.offset = 5
    assert watching.ask(client, cluster) is None
    assert at_end() is True
    assert watching.ask(client, None) is None
    assert at_end() is False
    assert read.away(0) > begun
    # Read to its end, or by another process of the cluster.
    watching.remove(0)
    assert watching.ask(client, cluster) is None
    assert at_end() is True
    assert partition.end == 5


# An input that ends


@pytest.mark.kafka
def test_the_end_is_waited_for_behind_an_open_transaction(
    run_flow: Flow, brokers: str, topic: str
) -> None:
    topics.create(options(brokers), [topic], 1)
    slow = open_transaction(brokers, topic)
    fill_topic(brokers, topic, readings(1500), 1)
    port = free_port()
    flow = run_flow.start(
        *("-w", "1"),
        **{"brokers": brokers, "topic": topic, "follow": False, "metrics_port": port},
        **{"detector": "tutorial", "threshold": 0, "output": "found.jsonl"},
    )
    assert flow.stderr is not None
    lines = [flow.stderr.readline() for _ in range(2)]
    assert "an open transaction blocks them" in lines[1], lines
    assert flow.poll() is None
    assert records_read(port)["anomaly_records_read_total"] == 0
    slow.abort_transaction(60)
    flow.communicate(timeout=120)
    assert flow.returncode == 0
    assert read_json_lines(run_flow.folder / "found.jsonl")[-1]["index"] == 1499


@pytest.mark.kafka
def test_a_flow_that_waits_for_a_transaction_ends_on_sigterm(
    run_flow: Flow, brokers: str, topic: str
) -> None:
    topics.create(options(brokers), [topic], 1)
    slow = open_transaction(brokers, topic)
    port = free_port()
    flow = run_flow.start(brokers=brokers, topic=topic, follow=False, metrics_port=port)
    await_ready(flow, port)
    flow.send_signal(signal.SIGTERM)
    flow.communicate(timeout=120)
    assert flow.returncode == 0
    slow.abort_transaction(60)


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.parametrize("follow", [True, False])
def test_a_broker_that_goes_away_is_named_and_waited_for(
    run_flow: Flow, own_broker: PausableBroker | ApacheKafka, topic: str, follow: bool
) -> None:
    brokers = own_broker.address
    topics.create(options(brokers), [topic, f"{topic}.rejected"], 1)
    fill_topic(brokers, topic, readings(10), 1)
    slow = open_transaction(brokers, topic, 10)
    port = free_port()
    run = {"brokers": brokers, "topic": topic, "detector": "tutorial", "metrics_port": port}
    flow = run_flow.start(**run, follow=follow)
    await_ready(flow, port)
    assert flow.stderr is not None
    own_broker.pause()
    assert "no answer from the broker" in flow.stderr.readline()
    assert flow.poll() is None
    own_broker.resume()
    while "answers again" not in flow.stderr.readline():
        assert flow.poll() is None
    slow.abort_transaction(60)
    if follow:
        flow.terminate()
    flow.communicate(timeout=120)
    assert flow.returncode == 0


# Another topic of the same name


@pytest.mark.kafka
@pytest.mark.parametrize("again", [1500, 1000], ids=["longer", "of the same length"])
def test_a_store_of_a_topic_that_was_created_again_is_refused(
    run_flow: Flow, brokers: str, topic: str, store: Path, again: int
) -> None:
    settings: dict[str, Any] = {
        **{"brokers": brokers, "topic": topic, "follow": False},
        **{"detector": "tutorial", "output": "found.jsonl"},
    }
    fill_topic(brokers, topic, readings(1000), 1)
    assert run_flow(*with_store(store), **settings).returncode == 0
    assert run_flow(*with_store(store), **settings).returncode == 0, "the same topic"
    topics.delete(options(brokers), [topic])
    while topic in kafka.metadata(options(brokers)).topics:
        time.sleep(0.1)
    fill_topic(brokers, topic, readings(again), 1)
    done = run_flow(*with_store(store), **settings)
    assert done.returncode == 1
    assert "was deleted and created again" in done.stderr
    assert done.stderr.count("\n") == 1


# Retention


def delete_before(settings: Settings, topic: str, offset: int) -> None:
    client = kafka.admin(settings)
    for deleted in client.delete_records([TopicPartition(topic, 0, offset)]).values():
        deleted.result()


def test_retention_and_a_topic_of_transactions(
    run_flow: Flow, apache_kafka: Any, topic: str, store: Path
) -> None:
    """Nothing is missing after a topic was read to its end; a real loss is refused, or counted."""
    brokers = apache_kafka.address
    settings = options(brokers)
    topics.create(settings, [topic], 1)
    producer = kafka.transactional_producer(settings, topic)

    def write(numbers: range) -> None:
        producer.begin_transaction()
        for number in numbers:
            producer.produce(topic, reading_of(number), "i-1")
        producer.commit_transaction()

    run: dict[str, Any] = {
        **{"brokers": brokers, "topic": topic, "follow": False},
        **{"detector": "tutorial", "output": "found.jsonl"},
    }
    write(range(546))
    assert run_flow(*with_store(store), **run).returncode == 0
    delete_before(settings, topic, -1)
    done = run_flow(*with_store(store), **run)
    assert (done.returncode, done.stderr) == (0, "")
    write(range(546, 600))
    delete_before(settings, topic, 570)
    done = run_flow(*with_store(store), **run)
    assert done.returncode == 1
    assert done.stderr == (
        f"error: partition 0 of the topic '{topic}' holds the offsets 570 to 601, but the recovery "
        "store resumes at 547 (retention deleted unread records, the offsets 547 to 569): set "
        "ANOMALY_LOST_INPUT=continue to continue at 570, or start with a new store.\n"
    )
    done = run_flow(*with_store(store), **run, lost_input="continue")
    assert done.returncode == 0
    assert done.stderr.startswith("warning: partition 0")
    assert done.stderr.count("\n") == 1
    assert run_flow(*with_store(store), **run).returncode == 0, "the loss is behind it"


# Many partitions


@pytest.mark.kafka
def test_200_partitions_take_the_threads_of_one(run_flow: Flow, brokers: str, topic: str) -> None:
    partitions, each = 200, 5
    settings = options(brokers)
    topics.create(settings, [topic], partitions)
    producer = kafka.producer(settings)
    for number in range(partitions * each):
        producer.produce(topic, reading_of(number), partition=number % (partitions // 2))
    assert producer.flush(60) == 0
    port = free_port()
    flow = run_flow.start(
        brokers=brokers, topic=topic, detector="tutorial", output="found.jsonl", metrics_port=port
    )
    await_ready(flow, port)
    deadline = time.monotonic() + 120
    while (found := records_read(port))["anomaly_records_read_total"] < partitions * each:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    assert found["partitions anomaly_consumer_lag_records"] == partitions
    status = Path(f"/proc/{flow.pid}/status").read_text()
    assert int(status.split("Threads:")[1].split()[0]) < 40
    assert len([*Path(f"/proc/{flow.pid}/fd").iterdir()]) < 80
    flow.terminate()
    flow.communicate(timeout=120)
    assert flow.returncode == 0


@pytest.mark.kafka
def test_a_partition_behind_the_backlog_of_another_does_not_wait_for_the_broker(
    brokers: str, topic: str
) -> None:
    settings = options(brokers, topic=topic)
    topics.create(settings, [topic], 2)
    producer = kafka.producer(settings)
    for number in range(20_000):
        producer.produce(topic, reading_of(number), partition=0)
    assert producer.flush(60) == 0
    source = KafkaSource(settings)
    long, empty = (source.build_part("read", part, None) for part in ("0", "1"))
    try:
        others: set[bool] = set()
        while long.offset < 20_000:
            if not empty.next_batch():
                others.add(empty.waits)
            long.next_batch()
        assert False in others
        wait_for(lambda: not empty.next_batch() and not long.next_batch() and empty.waits)
    finally:
        long.close()
        empty.close()


@pytest.mark.slow
@pytest.mark.kafka
def test_1000_partitions_are_read_with_1024_open_files(
    brokers: str, topic: str, tmp_path: Path
) -> None:
    partitions = 1000
    settings = options(brokers)
    topics.create(settings, [topic], partitions)
    producer = kafka.producer(settings)
    # A flow that could use no record at all would end with status 1.
    good = b'{"instance": "i-1", "timestamp": 1741964400, "index": 0, "value": 5}'
    for number in range(partitions):
        producer.produce(topic, b"{" if number else good, partition=number)
    assert producer.flush(120) == 0
    done = subprocess.run(
        [sys.executable, "-m", "bytewax.run", "dataflow.flow"],
        cwd=tmp_path,
        env=environment(brokers=brokers, topic=topic, follow=False),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sum(kafka.end_offsets(settings, f"{topic}.rejected").values()) >= partitions - 1
