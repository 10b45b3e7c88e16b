"""What cannot be done is one line on standard error, and a status that is not 0."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conftest import Flow, fill_topic
from test_flow import made_rows, write_csv

pytestmark = pytest.mark.kafka


def refused(done: subprocess.CompletedProcess[str], *said: str) -> None:
    assert done.returncode != 0
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    for part in said:
        assert part in lines[0]
    assert done.stdout == ""


def test_an_unreachable_broker(run_flow: Flow) -> None:
    done = run_flow(brokers="127.0.0.1:1")
    refused(done, "no answer from the broker 127.0.0.1:1", "ANOMALY_BROKERS", "refused")


def test_a_broker_that_does_not_resolve(run_flow: Flow) -> None:
    refused(run_flow(brokers="no-such-host.invalid:9092"), "no-such-host.invalid", "resolve")


def test_a_missing_topic_is_not_made(run_flow: Flow, brokers: str, topic: str) -> None:
    for _ in range(2):
        refused(run_flow(brokers=brokers, topic=topic), f"topic '{topic}'", "ANOMALY_TOPIC")


def test_a_missing_output_topic(run_flow: Flow, brokers: str, topic: str) -> None:
    fill_topic(brokers, topic, [])
    done = run_flow(brokers=brokers, topic=topic, output="kafka", anomalies_topic=f"{topic}.x")
    refused(done, f"topic '{topic}.x'", "ANOMALY_ANOMALIES_TOPIC")


def test_a_missing_rejected_topic_of_ones_own_naming(
    run_flow: Flow, brokers: str, topic: str
) -> None:
    fill_topic(brokers, topic, [])
    done = run_flow(brokers=brokers, topic=topic, rejected_topic=f"{topic}.bad")
    refused(done, f"topic '{topic}.bad'", "ANOMALY_REJECTED_TOPIC")


def test_a_partition_that_is_not_there(run_flow: Flow, brokers: str, topic: str) -> None:
    fill_topic(brokers, topic, [])
    done = run_flow(brokers=brokers, topic=topic, partitions="1,7")
    refused(done, "ANOMALY_PARTITIONS", "7", "0 to 2")


def test_a_wrong_librdkafka_setting(run_flow: Flow, brokers: str) -> None:
    refused(run_flow(brokers=brokers, kafka__no_such="1"), "ANOMALY_KAFKA__", "no.such")


def test_a_missing_input_file(run_flow: Flow) -> None:
    refused(run_flow(input="missing.csv"), "cannot read missing.csv", "ANOMALY_INPUT")


def test_a_column_that_is_missing(run_flow: Flow, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("time,value\n1,2\n")
    refused(run_flow(input="other.csv"), "no column 'instance'", "ANOMALY_KEY_FIELD")


def test_an_output_that_holds_something_is_not_touched(run_flow: Flow, tmp_path: Path) -> None:
    write_csv(tmp_path / "metrics.csv", made_rows(1, 20))
    (tmp_path / "found.jsonl").write_text("precious\n")
    refused(run_flow(input="metrics.csv", output="found.jsonl"), "found.jsonl already holds")
    assert (tmp_path / "found.jsonl").read_text() == "precious\n"


@pytest.mark.parametrize("output", ["missing/found.jsonl", "folder.jsonl"])
def test_an_output_that_cannot_be_written(run_flow: Flow, tmp_path: Path, output: str) -> None:
    write_csv(tmp_path / "metrics.csv", made_rows(1, 20))
    (tmp_path / "folder.jsonl").mkdir()
    refused(run_flow(input="metrics.csv", output=output), output)
    assert not (tmp_path / "missing").exists()


def test_a_wrong_setting(run_flow: Flow) -> None:
    refused(run_flow(threshold="high"), "ANOMALY_THRESHOLD")
    refused(run_flow(treshold="0.5"), "ANOMALY_TRESHOLD", "did you mean ANOMALY_THRESHOLD?")


def test_a_closed_standard_output_ends_the_flow_quietly(run_flow: Flow, tmp_path: Path) -> None:
    write_csv(tmp_path / "metrics.csv", made_rows(count=4000))
    with run_flow.start(input="metrics.csv", detector="tutorial", threshold=0) as flow:
        assert flow.stdout is not None
        assert flow.stderr is not None
        assert flow.stdout.readline()
        flow.stdout.close()
        assert flow.wait(120) == 1
        assert flow.stderr.read() == ""
