"""What dies, and that nothing is lost or written twice by it.

Each test has a short form here and a long form in `make test-faults` (`--faults long`). All
randomness comes from seeds; what is random by nature is when the machine gets to a signal.
"""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from conftest import (
    Flow,
    PausableBroker,
    await_ready,
    fill_topic,
    free_port,
    read_json_lines,
    read_topic,
)
from faults import (
    INSTANCES,
    SAVES,
    Feed,
    Reader,
    Tally,
    anomalies,
    kill,
    live,
    skip_if_embedded,
    topic_to,
    wait_for,
    with_store,
    written,
)
from kafka_server import ApacheKafka
from test_flow import Row, keyed, made_rows, rivers_scores, write_csv

from dataflow import kafka
from dataflow.kafka import topics
from dataflow.recovery.files import initialize
from dataflow.settings import Settings

pytestmark = pytest.mark.kafka


@pytest.mark.short("embedded-1-found.jsonl", "apache-3-found.jsonl", "apache-1-kafka")
@pytest.mark.parametrize("output", ["kafka", "found.jsonl"])
@pytest.mark.parametrize("workers", [1, 3])
def test_kill_9_again_and_again(
    request: pytest.FixtureRequest,
    run_flow: Flow,
    brokers: str,
    topic: str,
    store: Path,
    tmp_path: Path,
    tally: Tally,
    long: bool,
    workers: int,
    output: str,
) -> None:
    """Each life is killed before it has computed all that the lives before it have written.

    A third of the readings are anomalies. What is written is held against a flow that nothing
    disturbed: the same bytes, each once.
    """
    skip_if_embedded(request, output)
    generator = random.Random(f"{workers}{output}")
    settings = topic_to(output, brokers, topic, interval=300)
    settings |= {"threshold": 0.13, "rejected_topic": f"{topic}.rejected"}
    rows = made_rows(INSTANCES, 20_000 if long else 6000)
    bad = 0
    records: list[tuple[str | None, bytes | None]] = []
    for row in rows:
        index = int(row["index"])
        # Now and then an instance is silent for an hour, and each sends a record that is no JSON.
        if index % 500 == 499:
            records.append((row["instance"], b"no JSON"))
            bad += 1
        elif index % 500 > 12 or row["instance"] == "host-0":
            records.append((row["instance"], json.dumps(row).encode()))
    fill_topic(brokers, topic, records)
    fill_topic(brokers, f"{topic}.rejected", [])
    fill_topic(brokers, f"{topic}.whole", [])
    undisturbed = {"output": "whole.jsonl", "rejected_topic": f"{topic}.whole", "follow": "false"}
    done = run_flow("-w", str(workers), **settings | undisturbed)
    assert done.returncode == 0, done.stderr

    def all_written(kind: str) -> list[dict[str, Any]]:
        if output == "kafka" or kind == "rejected":
            name = {"anomalies": "out"}.get(kind, kind)
            return [record for _, record in read_topic(brokers, f"{topic}.{name}")]
        suffix = {"anomalies": "jsonl", "incidents": "incidents.jsonl"}[kind]
        path = tmp_path / f"found.{suffix}"
        return read_json_lines(path) if path.exists() else []

    for life in range(30 if long else 6):
        interval = SAVES[life % 3]
        flow = run_flow.start(
            "-r", str(store), "-s", interval, "-b", "0", "-w", str(workers), **settings
        )
        live(flow, generator.uniform(0.2, 2.2))
        tally.counts["kills"] += 1
    done = run_flow(*with_store(store, "-w", str(workers)), follow="false", **settings)
    assert done.returncode == 0, done.stderr
    for kind, path in (("anomalies", "whole.jsonl"), ("incidents", "whole.incidents.jsonl")):
        tally.count(kind, all_written(kind), read_json_lines(tmp_path / path))
    rejected = [json.dumps(record) for record in all_written("rejected")]
    tally.counts["rejected, twice"] = len(rejected) - len(set(rejected))
    tally.counts["rejected, lost"] = bad - len(set(rejected))
    tally.close()
    assert tally.counts["anomalies"] > len(records) / 4
    assert tally.counts["incidents"] > 10
    wrong = tally.wrong()
    if "embedded" in request.node.name:
        wrong.pop("rejected, twice", None)  # HIDES_COMMITTED: a topic, whatever the output
    assert not wrong, dict(tally.counts)


@pytest.mark.short("embedded-found.jsonl", "apache-kafka")
@pytest.mark.parametrize("output", ["kafka", "found.jsonl"])
def test_kill_9_of_a_cluster_of_two_processes(
    request: pytest.FixtureRequest,
    run_flow: Flow,
    brokers: str,
    topic: str,
    store: Path,
    tmp_path: Path,
    tally: Tally,
    long: bool,
    output: str,
) -> None:
    """One of two processes is killed, the other ends or is ended, and both are started again."""
    skip_if_embedded(request, output)
    generator = random.Random(f"cluster{output}")
    rows = made_rows(INSTANCES, 25_000 if long else 4000)
    settings = topic_to(output, brokers, topic)

    def start(**more: object) -> list[subprocess.Popen[str]]:
        addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(2))
        return [
            run_flow.start(
                *with_store(store, "-i", str(process), "-a", addresses), **settings, **more
            )
            for process in range(2)
        ]

    with Feed(brokers, topic, rows, rate=2000) as feed:
        for _ in range(10 if long else 2):
            flows = start()
            time.sleep(generator.uniform(3, 7))
            victim = generator.randrange(2)
            kill(flows[victim])
            tally.counts["kills"] += 1
            # The other ends by itself, unless the two had not met yet.
            with contextlib.suppress(subprocess.TimeoutExpired):
                flows[1 - victim].wait(3)
            assert flows[1 - victim].returncode != 0
            kill(flows[1 - victim])
        sent = feed.finish()
    for flow in start(follow="false"):
        _, said = flow.communicate(timeout=120)
        assert flow.returncode == 0, said
    tally.compare(written(output, brokers, topic, tmp_path), sent)


def whole(line: str) -> dict[str, Any]:
    """Read a line, or show all of it."""
    try:
        record: dict[str, Any] = json.loads(line)
    except ValueError as wrong:
        raise AssertionError(f"{wrong}: {line!r}") from None
    return record


@pytest.mark.short("embedded-1-SIGTERM", "embedded-3-SIGINT", "apache-1-SIGINT", "apache-3-SIGTERM")
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_clean_stop(
    run_flow: Flow,
    brokers: str,
    topic: str,
    store: Path,
    tmp_path: Path,
    tally: Tally,
    long: bool,
    stop: signal.Signals,
    workers: int,
) -> None:
    """The flow ends by itself, quietly, and the next one reads no record again."""
    generator = random.Random(f"{stop}{workers}")
    rows = made_rows(INSTANCES, 10_000 if long else 2500)
    fill_topic(brokers, topic, [])
    # At a threshold of 0 on standard output, every reading that is scored is seen.
    settings = {"brokers": brokers, "topic": topic, "detector": "tutorial", "threshold": 0}
    arguments = with_store(store, "-w", str(workers))
    scored: list[str] = []
    with Feed(brokers, topic, rows, rate=2000) as feed:
        for _ in range(5 if long else 1):
            flow = run_flow.start(*arguments, **settings)
            reader = Reader(flow)
            reader.wait_for_lines(1)
            time.sleep(generator.uniform(0, 3))
            started = time.monotonic()
            flow.send_signal(stop)
            assert flow.wait(120) == 0
            took = time.monotonic() - started
            tally.counts["stops"] += 1
            tally.counts["slowest, ms"] = max(tally.counts["slowest, ms"], round(1000 * took))
            scored += reader.lines()
            assert flow.stderr is not None
            assert flow.stderr.read().splitlines()[1:] == []  # at most: the topic was created
        sent = feed.finish()
    done = run_flow(*arguments, follow="false", **settings)
    assert done.returncode == 0, done.stderr
    scored += done.stdout.splitlines()
    places = Counter(
        (it["source"]["partition"], it["source"]["offset"]) for it in map(whole, scored)
    )
    expected = sum(score > 0 for score in rivers_scores(sent).values())
    tally.counts["records"] = len(sent)
    tally.counts["replayed"] = sum(places.values()) - len(places)
    tally.counts["lost"] = expected - len(places)
    tally.close()
    assert tally.counts["replayed"] == 0
    assert tally.counts["lost"] == 0


def test_a_stop_while_it_waits_for_the_other_processes(
    run_flow: Flow, brokers: str, topic: str, store: Path
) -> None:
    fill_topic(brokers, topic, [])
    addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(2))
    flow = run_flow.start(
        *with_store(store, "-i", "0", "-a", addresses), brokers=brokers, topic=topic
    )
    assert flow.stderr is not None
    assert "created the topic" in flow.stderr.readline()
    time.sleep(1)
    flow.terminate()
    assert flow.wait(120) == 0


def test_workers_and_partitions_change(
    run_flow: Flow, brokers: str, topic: str, store: Path, tmp_path: Path, tally: Tally
) -> None:
    """1, 3, 2 and 1 workers, two processes between, and two more partitions at last."""
    rows = made_rows(INSTANCES, 3000)
    parts = [rows[start : start + 4000] for start in range(0, len(rows), 4000)]
    fill_topic(brokers, topic, [])
    settings = {
        "brokers": brokers,
        "topic": topic,
        "detector": "tutorial",
        "output": "found.jsonl",
        "follow": "false",
    }
    for part, workers in zip(parts, (1, 3, 2, 1, 2), strict=False):
        fill_topic(brokers, topic, keyed(part))
        done = run_flow(*with_store(store, "-w", str(workers)), **settings)
        assert done.returncode == 0, done.stderr
        tally.counts["changes"] += 1
    addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(2))
    part = parts[5]
    fill_topic(brokers, topic, keyed(part))
    flows = [
        run_flow.start(*with_store(store, "-i", str(process), "-a", addresses), **settings)
        for process in range(2)
    ]
    for flow in flows:
        _, said = flow.communicate(timeout=120)
        assert flow.returncode == 0, said
    tally.compare(read_json_lines(tmp_path / "found.jsonl"), rows)


def test_partitions_that_are_added_are_read_after_a_restart(
    run_flow: Flow, brokers: str, topic: str, store: Path, tmp_path: Path, tally: Tally
) -> None:
    """A running flow notices them and ends cleanly; started again, it reads them from the start.

    An instance that the new count of partitions moves keeps its order only if its producer waits
    until the flow has read what came before; so this one does.
    """
    rows = made_rows(INSTANCES, 2000)
    first, second = rows[:8000], rows[8000:]
    fill_topic(brokers, topic, keyed(first))
    settings = {
        "brokers": brokers,
        "topic": topic,
        "detector": "tutorial",
        "output": "found.jsonl",
    }
    arguments = with_store(store, "-w", "2")
    done = run_flow(*arguments, follow="false", **settings)
    assert done.returncode == 0, done.stderr
    port = free_port()
    flow = run_flow.start(*arguments, **settings, metrics_port=port)
    await_ready(flow, port)
    topics.add_partitions(Settings(_env_file=None, brokers=brokers), topic, 5)
    _, said = flow.communicate(timeout=120)
    assert flow.returncode == 0
    assert f"the topic '{topic}' has 5 partitions now and had 3" in said
    fill_topic(brokers, topic, keyed(second))
    done = run_flow(*arguments, follow="false", **settings)
    assert done.returncode == 0, done.stderr
    tally.compare(read_json_lines(tmp_path / "found.jsonl"), rows)


def fuzzed(generator: random.Random, row: Row) -> bytes | None:
    """A good record, damaged in one of the ways that records are."""
    record: dict[str, Any] = dict(row)
    field = generator.choice(list(record))
    wrong: Any = generator.choice([None, [], {}, True, "", "\x00", "nan", "1e999", "x" * 300])
    raw = bytearray(json.dumps(record).encode())
    match generator.randrange(6):
        case 0:
            del record[field]
        case 1:
            record[field] = wrong if field != "index" else [wrong]
            if field in ("timestamp", "instance") and wrong not in (None, "", "x" * 300):
                record[field] = [wrong]
        case 2:
            record["value"] = generator.choice([-1, 106, "-0.5", 1e300, "inf", 10**350])
        case 3:
            return bytes(raw[: generator.randrange(len(raw))])
        case 4:
            return None
        case 5:
            raw[generator.randrange(len(raw))] = generator.choice(b"\xff\xfe\x00\x01")
            return bytes(raw)
    return json.dumps(record).encode()


def test_fuzzed_records_among_good_ones(
    run_flow: Flow, brokers: str, topic: str, store: Path, tmp_path: Path, tally: Tally, long: bool
) -> None:
    generator = random.Random(3)
    rows = made_rows(INSTANCES, 2500 if long else 500)
    bad = 10_000 if long else 2000
    records = keyed(rows)
    for _ in range(bad):
        row = generator.choice(rows)
        place = generator.randrange(len(records))
        records.insert(place, (row["instance"], fuzzed(generator, row)))
    fill_topic(brokers, topic, records)
    done = run_flow(
        *with_store(store, "-w", "3"),
        brokers=brokers,
        topic=topic,
        detector="tutorial",
        output="found.jsonl",
        follow="false",
    )
    assert done.returncode == 0, done.stderr
    rejected = [record for _, record in read_topic(brokers, f"{topic}.rejected")]
    tally.counts["fuzzed"] = bad
    tally.counts["rejected"] = len(rejected)
    tally.counts["reasons"] = len({record["reason"] for record in rejected})
    tally.compare(read_json_lines(tmp_path / "found.jsonl"), rows)
    assert len(rejected) == bad
    places = {(it["source"]["partition"], it["source"]["offset"]) for it in rejected}
    assert len(places) == bad


def test_an_output_topic_that_goes_away(
    run_flow: Flow, brokers: str, topic: str, store: Path, tally: Tally
) -> None:
    """The flow ends in one line, and the resume writes what is missing."""
    rows = made_rows(INSTANCES, 1000)
    first, second, third = rows[:2000], rows[2000:4000], rows[4000:]
    out = f"{topic}.out"
    settings = {
        "brokers": brokers,
        "topic": topic,
        "detector": "tutorial",
        "output": "kafka",
        "anomalies_topic": out,
    }
    fill_topic(brokers, out, [])
    fill_topic(brokers, topic, keyed(first))
    done = run_flow(*with_store(store), follow="false", **settings)
    assert done.returncode == 0, done.stderr
    flow = run_flow.start(*with_store(store), **settings)
    fill_topic(brokers, topic, keyed(second))
    wait_for(lambda: len(read_topic(brokers, out)) >= anomalies(first + second)[-1])
    assert flow.poll() is None
    kept = [record for _, record in read_topic(brokers, out)]
    topics.delete(Settings(_env_file=None, brokers=brokers), [out])
    fill_topic(brokers, topic, keyed(third))
    started = time.monotonic()
    _, said = flow.communicate(timeout=120)
    tally.counts["ms to end"] = round(1000 * (time.monotonic() - started))
    assert flow.returncode == 1
    assert len(said.splitlines()) == 1, said
    assert f"cannot write to the topic '{out}'" in said
    fill_topic(brokers, out, [])
    store_again = run_flow(*with_store(store), follow="false", **settings)
    assert store_again.returncode == 0, store_again.stderr
    tally.compare(kept + [record for _, record in read_topic(brokers, out)], rows)


def test_a_record_that_the_output_topic_finds_too_large(
    run_flow: Flow, brokers: str, topic: str, store: Path, tally: Tally
) -> None:
    """The flow ends in one line; with room for the record, the resume writes all."""
    rows = made_rows(INSTANCES, 500)
    out = f"{topic}.out"
    settings = {
        "brokers": brokers,
        "topic": topic,
        "detector": "tutorial",
        "output": "kafka",
        "anomalies_topic": out,
        "follow": "false",
    }
    fill_topic(brokers, out, [])
    for row in rows:
        row["instance"] += "-" * 200
    bad: list[tuple[str | None, bytes | None]] = [("x", b"x" * 1500)]
    fill_topic(
        brokers,
        topic,
        keyed(rows) + bad,
    )
    done = run_flow(*with_store(store), kafka__message_max_bytes=1500, **settings)
    assert done.returncode == 1
    created, rejected, error = done.stderr.splitlines()
    assert "created the topic" in created
    assert rejected.startswith("warning: ")
    assert "cannot write to the topic" in error
    done = run_flow(*with_store(store), **settings)
    assert done.returncode == 0, done.stderr
    tally.compare([record for _, record in read_topic(brokers, out)], rows)
    assert len(read_topic(brokers, f"{topic}.rejected")) == 1


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_a_broker_that_goes_away_and_comes_back(
    run_flow: Flow,
    own_broker: PausableBroker | ApacheKafka,
    topic: str,
    store: Path,
    tally: Tally,
    long: bool,
    fault: str,
) -> None:
    """Killed or stopped while the flow reads and writes; the producer waits meanwhile.

    Every other time the next fault comes only when the flow has caught up: the time is taken from
    when the broker is back until what was written after it is found in the output.
    """
    generator = random.Random(fault)
    brokers, out = own_broker.address, f"{topic}.out"
    rows = made_rows(INSTANCES, 25_000 if long else 3000)
    wanted = anomalies(rows)
    settings = topic_to("kafka", brokers, topic)
    arguments = with_store(store, "-w", "2")
    slowest = 0.0
    flow = run_flow.start(*arguments, **settings)

    def supervise() -> None:
        """Start the flow again if it has ended, which it may do seconds after the fault."""
        nonlocal flow
        if flow.poll() is not None:
            _, said = flow.communicate()
            assert "error: " in said
            tally.counts["restarts of the flow"] += 1
            flow = run_flow.start(*arguments, **settings)

    def caught_up(rows: list[Row]) -> bool:
        supervise()
        return len(read_topic(brokers, out)) >= wanted[len(rows) - 1]

    def see_it_caught_up(feed: Feed, before: int) -> None:
        wait_for(lambda: len(feed.written()) > min(before, len(rows) - 1))  # all may be written
        written = feed.written()
        wait_for(lambda: caught_up(written))

    with Feed(brokers, topic, rows, rate=2000) as feed:
        wait_for(lambda: bool(read_topic(brokers, out)))
        for number in range(20 if long else 2):
            time.sleep(generator.uniform(1, 4))
            feed.pause()
            if fault == "kill":
                if isinstance(own_broker, PausableBroker):
                    # It may forget what it has just acknowledged: of the flow's as well.
                    wait_for(lambda: caught_up(feed.written()))
                    own_broker.wait_until_kept(topic, out)
                own_broker.kill()
                time.sleep(generator.uniform(0, 2))
                own_broker.start()
            else:
                own_broker.pause()
                time.sleep(generator.uniform(1, 5))
                own_broker.resume()
            back = time.monotonic()
            tally.counts[f"{fault}s"] += 1
            supervise()
            before = len(feed.written())
            feed.go_on()
            if number % 2:
                see_it_caught_up(feed, before)
                slowest = max(slowest, time.monotonic() - back)
        sent = feed.finish()
    wait_for(lambda: caught_up(sent))
    tally.counts["ms to catch up at most"] = round(1000 * slowest)
    flow.terminate()
    _, said = flow.communicate(timeout=120)
    tally.compare([record for _, record in read_topic(brokers, out)], sent)
    assert flow.returncode == 0, said


def test_an_output_broker_that_is_gone(
    run_flow: Flow,
    own_broker: PausableBroker | ApacheKafka,
    topic: str,
    store: Path,
    tmp_path: Path,
    tally: Tally,
) -> None:
    """The output broker hangs while the flow reads a file: one line, and the rest later."""
    rows = made_rows(INSTANCES, 15_000)  # seconds of work: the broker goes in the midst of it
    brokers, out = own_broker.address, f"{topic}.out"
    fill_topic(brokers, out, [])
    path = write_csv(tmp_path / "metrics.csv", rows)
    settings = {
        "brokers": brokers,
        "input": path,
        "detector": "tutorial",
        "output": "kafka",
        "anomalies_topic": out,
    }
    flow = run_flow.start(*with_store(store), **settings)
    wait_for(lambda: bool(read_topic(brokers, out)))
    own_broker.pause()
    started = time.monotonic()
    _, said = flow.communicate(timeout=120)
    took = time.monotonic() - started
    own_broker.resume()
    assert flow.returncode == 1
    assert len(said.splitlines()) == 1, said
    tally.counts["ms to end"] = round(1000 * took)
    done = run_flow(*with_store(store), **settings)
    assert done.returncode == 0, done.stderr
    tally.compare([record for _, record in read_topic(brokers, out)], rows)


def empty_by_retention(brokers: str, *names: str) -> None:
    """Delete all records of topics, as retention does; skip if the broker cannot."""
    options = Settings(_env_file=None, brokers=brokers)
    admin = AdminClient({"bootstrap.servers": brokers})
    ends = [
        TopicPartition(name, partition, end)
        for name in names
        for partition, end in kafka.end_offsets(options, name).items()
    ]
    for future in admin.delete_records(ends).values():
        try:
            future.result()
        except KafkaException as error:
            pytest.skip(f"this broker deletes no records: {error}")


def test_records_that_were_dropped_unread(
    run_flow: Flow, brokers: str, topic: str, store: Path, tmp_path: Path
) -> None:
    """Retention took what the flow had yet to read: it says so, and touches nothing."""
    rows = made_rows(INSTANCES, 300)
    fill_topic(brokers, topic, keyed(rows))
    settings = {
        "brokers": brokers,
        "topic": topic,
        "detector": "tutorial",
        "output": "found.jsonl",
        "follow": "false",
    }
    assert run_flow(*with_store(store), **settings).returncode == 0
    found = (tmp_path / "found.jsonl").read_bytes()
    fill_topic(brokers, topic, keyed(rows))
    empty_by_retention(brokers, topic)
    done = run_flow(*with_store(store), **settings)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "retention deleted unread records" in done.stderr
    assert (tmp_path / "found.jsonl").read_bytes() == found


@pytest.mark.parametrize("killed", [False, True])
def test_retention_empties_every_topic_between_two_lives(
    run_flow: Flow, brokers: str, topic: str, store: Path, tally: Tally, killed: bool
) -> None:
    """After a quiet week, or after a crash and a week: the flow starts, and goes on."""
    rows = made_rows(INSTANCES, 700)
    half = len(rows) // 2
    settings = topic_to("kafka", brokers, topic, interval=300)
    outputs = [f"{topic}.out", f"{topic}.incidents", f"{topic}.rejected"]
    written: list[dict[str, Any]] = []

    def live(rows: list[Row], *, kill_at: int | None = None) -> None:
        records = keyed(rows)
        fill_topic(brokers, topic, [*records, ("host-0", b"no JSON")])
        if kill_at is not None:
            flow = run_flow.start(*with_store(store), **settings)
            wait_for(lambda: len(read_topic(brokers, outputs[0])) >= kill_at)
            time.sleep(2.5)  # two snapshots
            kill(flow)
        else:
            done = run_flow(*with_store(store), follow="false", **settings)
            assert done.returncode == 0, done.stderr
            assert "retention" not in done.stderr
        written.extend(record for _, record in read_topic(brokers, outputs[0]))

    live(rows[:half], kill_at=anomalies(rows[:half])[-1] if killed else None)
    empty_by_retention(brokers, topic, *outputs)
    live([])
    empty_by_retention(brokers, topic, *outputs)
    live(rows[half:])
    tally.compare(written, rows)


@pytest.mark.short("embedded-1", "apache-3")
@pytest.mark.parametrize("workers", [1, 3])
def test_a_million_records(
    request: pytest.FixtureRequest,
    run_flow: Flow,
    brokers: str,
    topic: str,
    store: Path,
    tmp_path: Path,
    tally: Tally,
    long: bool,
    workers: int,
) -> None:
    """Every one is read, and the memory does not grow with them."""
    rows = made_rows(INSTANCES, 125_000 if long else 6000)
    fill_topic(brokers, topic, keyed(rows))
    peaks = []
    for number, (name, count) in enumerate([("few", 2000), ("all", len(rows))]):
        if name == "few":
            fill_topic(
                brokers,
                f"{topic}.few",
                keyed(rows[:count]),
            )
        folder = tmp_path / f"store-{number}"
        initialize(folder, 3)
        flow = run_flow.start(
            *with_store(folder, "-w", str(workers)),
            brokers=brokers,
            topic=f"{topic}.few" if name == "few" else topic,
            detector="tutorial",
            output=f"{name}.jsonl",
            follow="false",
        )
        peak = 0
        while flow.poll() is None:
            with contextlib.suppress(OSError, IndexError):
                status = Path(f"/proc/{flow.pid}/status").read_text()
                peak = int(status.split("VmHWM:")[1].split()[0])
            time.sleep(0.02)
        assert flow.returncode == 0, flow.communicate()
        peaks.append(peak // 1024)
    tally.counts["MB at 2,000 records"], tally.counts["MB at all"] = peaks
    tally.compare(read_json_lines(tmp_path / "all.jsonl"), rows)
    # librdkafka fetches ahead; that is bounded, and so is what Bytewax has in hand. The embedded
    # broker answers with all that a partition holds, whatever the client asks for.
    if "embedded" not in request.node.name:
        assert peaks[1] - peaks[0] < 250
