"""Readings that lie on several partitions, through the whole flow, against River by hand."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Flow, await_handlers, fill_topic, read_json_lines
from test_flow import Key, Row, found_scores, made_rows, rivers_anomalies

from dataflow import kafka
from dataflow.recovery.files import initialize
from dataflow.settings import Settings

pytestmark = pytest.mark.kafka

PARTITIONS = 3


def scatter(brokers: str, topic: str, rows: list[Row], partition: int | None = None) -> None:
    """Write rows as a producer without keys does, in turn to each partition, or to one of them."""
    fill_topic(brokers, topic, [], PARTITIONS)
    producer = kafka.producer(Settings(_env_file=None, brokers=brokers))
    for number, row in enumerate(rows):
        producer.produce(
            topic,
            json.dumps(row),
            partition=number % PARTITIONS if partition is None else partition,
        )
    assert producer.flush(60) == 0


def expected_scores(rows: list[Row]) -> dict[Key, float]:
    scores = rivers_anomalies(rows)
    assert scores
    return scores


@pytest.fixture
def settings(brokers: str, topic: str) -> dict[str, Any]:
    return {
        **{"brokers": brokers, "topic": topic, "detector": "tutorial"},
        **{"reorder": "true", "output": "found.jsonl", "follow": "false"},
    }


@pytest.fixture
def store(tmp_path: Path) -> tuple[str, ...]:
    initialize(tmp_path / "store", 3)
    return ("-r", str(tmp_path / "store"), "-s", "1", "-b", "0")


def await_readings(path: Path, number: int, flow: subprocess.Popen[str]) -> None:
    """Wait until so many anomalies lie in the file."""
    deadline = time.monotonic() + 120
    while not path.exists() or path.read_bytes().count(b"\n") < number:
        assert flow.poll() is None, flow.communicate()
        assert time.monotonic() < deadline, "the flow does not get on"
        time.sleep(0.05)


def stop(flow: subprocess.Popen[str]) -> None:
    await_handlers(flow)
    flow.send_signal(signal.SIGTERM)
    _, said = flow.communicate(timeout=120)
    assert flow.returncode == 0, said


def whole_turns(rows: list[Row], turn: int) -> list[Row]:
    """The rows that `scatter` writes to one partition."""
    return rows[turn::PARTITIONS]


@pytest.mark.parametrize("workers", ["1", "3"])
def test_unkeyed_input_scores_as_keyed_input_does(
    run_flow: Flow, brokers: str, topic: str, settings: dict[str, Any], tmp_path: Path, workers: str
) -> None:
    rows = made_rows(instances=7)
    scatter(brokers, topic, rows)
    done = run_flow("-w", workers, **settings)
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"created the topic {topic}.rejected for rejected records\n"
    assert found_scores(read_json_lines(tmp_path / "found.jsonl")) == expected_scores(rows)


@pytest.mark.parametrize("workers", ["1", "3"])
def test_partitions_are_read_abreast_however_long_they_are(
    run_flow: Flow, brokers: str, topic: str, settings: dict[str, Any], tmp_path: Path, workers: str
) -> None:
    rows = made_rows(instances=1, count=8000)
    scatter(brokers, topic, rows)
    done = run_flow("-w", workers, **settings, reorder_size=600)
    assert done.returncode == 0, done.stderr
    assert found_scores(read_json_lines(tmp_path / "found.jsonl")) == expected_scores(rows)


def test_one_instance_on_every_partition_and_one_partition_written_after_the_other(
    run_flow: Flow, brokers: str, topic: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    rows = made_rows(instances=1, count=1400)
    for turn in (2, 0, 1):
        scatter(brokers, topic, whole_turns(rows, turn), turn)
    done = run_flow("-w3", **settings)
    assert done.returncode == 0, done.stderr
    assert found_scores(read_json_lines(tmp_path / "found.jsonl")) == expected_scores(rows)


def test_a_flow_that_is_stopped_goes_on_holding(
    run_flow: Flow,
    brokers: str,
    topic: str,
    settings: dict[str, Any],
    store: tuple[str, ...],
    tmp_path: Path,
) -> None:
    rows = made_rows(instances=7)
    half = len(rows) // 2
    scatter(brokers, topic, rows[:half])
    # One partition gets no more for now: almost all of the rest must wait for it.
    for turn in (0, 1):
        scatter(brokers, topic, whole_turns(rows[half:], turn), turn)
    sure = len(expected_scores(rows[: half - 7]))
    for _ in range(2):
        flow = run_flow.start("-w3", *store, **{**settings, "follow": "true"})
        await_readings(tmp_path / "found.jsonl", sure, flow)
        time.sleep(1)
        stop(flow)
    before = found_scores(read_json_lines(tmp_path / "found.jsonl"))
    expected = expected_scores(rows)
    assert before.items() < expected.items()
    scatter(brokers, topic, whole_turns(rows[half:], 2), 2)
    done = run_flow("-w2", *store, **settings)
    assert done.returncode == 0, done.stderr
    assert found_scores(read_json_lines(tmp_path / "found.jsonl")) == expected


def test_at_the_end_of_the_input_what_is_held_goes_on_and_is_not_repeated(
    run_flow: Flow,
    brokers: str,
    topic: str,
    settings: dict[str, Any],
    store: tuple[str, ...],
    tmp_path: Path,
) -> None:
    rows = made_rows(instances=1, count=1500)
    early = [row for number, row in enumerate(rows) if number < 300 or number % PARTITIONS != 2]
    late = [row for row in rows if row not in early]
    scatter(brokers, topic, rows[:300])
    for turn in (0, 1):
        scatter(brokers, topic, whole_turns(rows[300:], turn), turn)
    for _ in range(2):
        done = run_flow("-w3", *store, **settings)
        assert done.returncode == 0, done.stderr
        found = found_scores(read_json_lines(tmp_path / "found.jsonl"))
        assert found == expected_scores(early)
    scatter(brokers, topic, late, 2)
    done = run_flow("-w3", *store, **settings)
    assert done.returncode == 0, done.stderr
    found = found_scores(read_json_lines(tmp_path / "found.jsonl"))
    assert found == expected_scores([*early, *late])
    assert len(found) > len(expected_scores(early))


def test_killed_with_readings_held_it_resumes_to_the_same(
    run_flow: Flow,
    brokers: str,
    topic: str,
    settings: dict[str, Any],
    store: tuple[str, ...],
    tmp_path: Path,
) -> None:
    rows = made_rows(instances=3, count=2000)
    scatter(brokers, topic, rows[:1500])
    scatter(brokers, topic, whole_turns(rows[1500:], 1), 1)
    flow = run_flow.start("-w3", *store, **{**settings, "follow": "true"})
    await_readings(tmp_path / "found.jsonl", len(expected_scores(rows[:1490])), flow)
    time.sleep(2.5)  # two snapshots
    flow.kill()
    flow.communicate()
    for turn in (2, 0):
        scatter(brokers, topic, whole_turns(rows[1500:], turn), turn)
    done = run_flow("-w1", *store, **settings)
    assert done.returncode == 0, done.stderr
    assert found_scores(read_json_lines(tmp_path / "found.jsonl")) == expected_scores(rows)


def test_a_gap_is_given_up_after_a_while(
    run_flow: Flow, brokers: str, topic: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    rows = made_rows(instances=2, count=300)
    kept = rows[:100] + rows[110:]
    scatter(brokers, topic, kept)
    flow = run_flow.start(**{**settings, "follow": "true", "reorder_seconds": 1})
    await_readings(tmp_path / "found.jsonl", len(expected_scores(kept)), flow)
    stop(flow)
    assert found_scores(read_json_lines(tmp_path / "found.jsonl")) == expected_scores(kept)


def test_a_store_with_readings_held_is_not_used_without_putting_into_order(
    run_flow: Flow, brokers: str, topic: str, settings: dict[str, Any], store: tuple[str, ...]
) -> None:
    scatter(brokers, topic, made_rows(instances=1, count=10))
    assert run_flow(*store, **settings).returncode == 0
    done = run_flow(*store, **{**settings, "reorder": "false"})
    assert done.returncode == 1
    assert "ANOMALY_REORDER=" in done.stderr
