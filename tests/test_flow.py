"""The whole flow, as its users run it: against River run by hand, from files and from a topic."""

from __future__ import annotations

import csv
import itertools
import json
import random
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import Flow, fill_topic, read_json_lines, read_topic
from river.anomaly import HalfSpaceTrees

from dataflow.records import Anomaly, Incident, Raw, Rejected
from dataflow.settings import Settings

TUTORIAL: dict[str, Any] = {"n_trees": 5, "height": 3, "window_size": 5, "seed": 42}
THRESHOLD = 0.7
START = datetime(2024, 3, 1)
FIVE_MINUTES = timedelta(minutes=5)

Row = dict[str, str]
Key = tuple[str, int]


def rivers_scores(rows: list[Row]) -> dict[Key, float]:
    """What River itself makes of the readings, with no part of ours."""
    models: dict[str, HalfSpaceTrees] = {}
    scores = {}
    for row in rows:
        model = models.setdefault(row["instance"], HalfSpaceTrees(**TUTORIAL))
        features = {"value": float(row["value"]) / 100}
        model.learn_one(features)
        scores[row["instance"], int(row["index"])] = model.score_one(features)
    return scores


def rivers_anomalies(rows: list[Row]) -> dict[Key, float]:
    """The scores above the threshold."""
    return {key: score for key, score in rivers_scores(rows).items() if score > THRESHOLD}


def made_rows(instances: int = 8, count: int = 400, seed: int = 1) -> list[Row]:
    """Readings of a few hosts, with a spike now and then."""
    generator = random.Random(seed)
    return [
        {
            "index": str(index),
            "timestamp": str(START + index * FIVE_MINUTES),
            "value": str(
                round(generator.uniform(80, 100), 3)
                if generator.random() < 0.02
                else round(10 * host + generator.uniform(0, 5), 3)
            ),
            "instance": f"host-{host}",
        }
        for index in range(count)
        for host in range(instances)
    ]


def keyed(rows: list[Row]) -> list[tuple[str | None, bytes | None]]:
    """The rows as records of a topic."""
    return [(row["instance"], json.dumps(row).encode()) for row in rows]


def write_csv(path: Path, rows: list[Row]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["index", "timestamp", "value", "instance"])
        writer.writeheader()
        writer.writerows(rows)
    return path


def found_scores(anomalies: list[dict[str, Any]]) -> dict[Key, float]:
    scores = {(found["instance"], found["index"]): found["score"] for found in anomalies}
    assert len(scores) == len(anomalies), "an anomaly was written twice"
    return scores


@pytest.fixture
def metrics(tmp_path: Path) -> tuple[Path, dict[Key, float]]:
    """A file of readings and River's anomalies in it."""
    rows = made_rows()
    expected = rivers_anomalies(rows)
    assert len(expected) > 20
    return write_csv(tmp_path / "metrics.csv", rows), expected


def test_anomalies_and_scores_are_rivers_to_the_bit(
    run_flow: Flow, metrics: tuple[Path, dict[Key, float]], tmp_path: Path
) -> None:
    path, expected = metrics
    done = run_flow(input=path, detector="tutorial", output="found.jsonl")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert found_scores(read_json_lines(tmp_path / "found.jsonl")) == expected
    assert not (tmp_path / "found.rejected.jsonl").exists()


@pytest.mark.parametrize("workers", [1, 3])
def test_from_a_topic_and_with_three_workers_it_is_the_same_set(
    run_flow: Flow,
    run_command: Callable[..., Any],
    brokers: str,
    topic: str,
    metrics: tuple[Path, dict[Key, float]],
    tmp_path: Path,
    workers: int,
) -> None:
    path, expected = metrics
    sent = run_command("produce", str(path), brokers=brokers, topic=topic)
    assert sent.returncode == 0, sent.stderr
    done = run_flow(
        "-w",
        str(workers),
        brokers=brokers,
        topic=topic,
        detector="tutorial",
        follow="false",
        output="found.jsonl",
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"created the topic {topic}.rejected for rejected records\n"
    assert found_scores(read_json_lines(tmp_path / "found.jsonl")) == expected
    assert read_topic(brokers, f"{topic}.rejected") == []


def test_what_an_anomaly_says(run_flow: Flow, brokers: str, topic: str) -> None:
    rows = made_rows(instances=1, count=40)
    rows[30]["value"] = "99.5"
    records = keyed(rows)
    fill_topic(brokers, topic, records, partitions=1)
    fill_topic(brokers, f"{topic}.out", [], partitions=2)
    done = run_flow(
        brokers=brokers,
        topic=topic,
        detector="tutorial",
        follow="false",
        output="kafka,stdout",
        anomalies_topic=f"{topic}.out",
    )
    assert done.returncode == 0, done.stderr
    anomalies = read_topic(brokers, f"{topic}.out")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [it for _, it in anomalies]
    key, anomaly = next(it for it in anomalies if it[1]["index"] == 30)
    assert key == "host-0"
    assert anomaly == {
        "instance": "host-0",
        "timestamp": rows[30]["timestamp"],
        "index": 30,
        "value": 0.995,
        "score": rivers_scores(rows)["host-0", 30],
        "threshold": 0.7,
        "expected": None,
        "lower": None,
        "upper": None,
        "detector": "tutorial",
        "id": anomaly["id"],
        "source": {"topic": topic, "partition": 0, "offset": 30},
        "alert": True,
        "episode": anomaly["episode"],
        "raw": 99.5,
        "unit": "%",
        "reasons": None,
        "ordinary": None,
        "why": "CPU 99.5%",
        "metric": "cpu",
        "labels": {},
        "group": None,
        "together": False,
        "metrics": None,
    }


def test_no_anomalies_are_an_empty_file(run_flow: Flow, tmp_path: Path) -> None:
    write_csv(tmp_path / "metrics.csv", made_rows(1, 20))
    done = run_flow(input="metrics.csv", detector="tutorial", output="found.jsonl", threshold=1)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "found.jsonl").read_bytes() == b""


def test_the_threshold_is_exclusive(run_flow: Flow, tmp_path: Path) -> None:
    rows = made_rows(instances=2)
    path = write_csv(tmp_path / "metrics.csv", rows)
    scores = rivers_scores(rows)
    threshold = sorted(set(scores.values()))[-4]
    done = run_flow(input=path, detector="tutorial", output="found.jsonl", threshold=threshold)
    assert done.returncode == 0, done.stderr
    found = found_scores(read_json_lines(tmp_path / "found.jsonl"))
    assert found == {key: score for key, score in scores.items() if score > threshold}
    assert found
    assert threshold not in found.values()


BAD: list[bytes | None] = [
    None,
    b"",
    b"{",
    b"\xff",
    b"[]",
    b"[" * 5000,
    b'{"instance": "host-0"}',
    b'{"index": 1, "timestamp": "2024-03-01", "value": "nan", "instance": "host-0"}',
    b'{"index": 1, "timestamp": "2024-03-01", "value": 105.1, "instance": "host-0"}',
    b'{"index": 1, "timestamp": "2024-03-01", "value": 99, "instance": null}',
    b'{"index": 1, "timestamp": "soon", "value": 99, "instance": "host-0"}',
    b'{"index": 1, "timestamp": "2024-03-01", "value": 99' + b"9" * 400 + b', "instance": "a"}',
]


def test_bad_records_are_kept_with_a_reason_and_change_nothing(
    run_flow: Flow, brokers: str, topic: str, tmp_path: Path
) -> None:
    rows = made_rows(instances=4)
    records: list[tuple[str | None, bytes | None]] = []
    bad = itertools.cycle(BAD)
    for number, row in enumerate(rows):
        records.append((row["instance"], json.dumps(row).encode()))
        if number % 50 == 0:
            records.append((row["instance"], next(bad)))
    fill_topic(brokers, topic, records)
    done = run_flow(
        "-w2",
        brokers=brokers,
        topic=topic,
        detector="tutorial",
        follow="false",
        output="found.jsonl",
    )
    assert done.returncode == 0, done.stderr
    expected = rivers_anomalies(rows)
    assert found_scores(read_json_lines(tmp_path / "found.jsonl")) == expected
    rejected = [record for _, record in read_topic(brokers, f"{topic}.rejected")]
    assert len(rejected) == len(records) - len(rows)
    assert {record["reason"] for record in rejected} == {
        *("no-value", "not-json", "not-an-object", "missing-field"),
        *("not-a-number", "out-of-range", "bad-instance", "bad-timestamp"),
    }
    places = {(it["source"]["partition"], it["source"]["offset"]) for it in rejected}
    assert len(places) == len(rejected)


def test_bad_rows_of_a_file_lie_beside_the_output(run_flow: Flow, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "metrics.csv", made_rows(instances=1, count=20))
    with path.open("ab") as file:
        file.write(b"20,2024-03-02,-1,host-0\nnot enough\n")
        file.write(b"21,2024-03-02,5,h\xffst\n")
    done = run_flow(input=path, detector="tutorial", output="found.jsonl")
    assert done.returncode == 0, done.stderr
    rejected = read_json_lines(tmp_path / "found.rejected.jsonl")
    assert [it["reason"] for it in rejected] == ["out-of-range", "bad-record", "bad-record"]
    assert [it["source"]["offset"] for it in rejected] == [20, 21, 22]

    done = run_flow(input=path, detector="tutorial")
    assert [json.loads(line)["reason"] for line in done.stderr.splitlines()] == [
        it["reason"] for it in rejected
    ]


def test_a_file_of_json_lines_is_the_same_as_one_of_rows(run_flow: Flow, tmp_path: Path) -> None:
    rows = made_rows(instances=3)
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = run_flow("-w2", input=path, detector="tutorial", output="found.jsonl")
    assert done.returncode == 0, done.stderr
    expected = rivers_anomalies(rows)
    assert found_scores(read_json_lines(tmp_path / "found.jsonl")) == expected


def test_one_process_for_some_partitions_and_one_for_the_others(
    run_flow: Flow, brokers: str, topic: str, tmp_path: Path
) -> None:
    rows = made_rows()
    fill_topic(brokers, topic, keyed(rows))
    found: dict[Key, float] = {}
    for number, partitions in enumerate(("0,2", "1")):
        done = run_flow(
            brokers=brokers,
            topic=topic,
            detector="tutorial",
            follow="false",
            partitions=partitions,
            output=f"found-{number}.jsonl",
        )
        assert done.returncode == 0, done.stderr
        part = found_scores(read_json_lines(tmp_path / f"found-{number}.jsonl"))
        assert not set(part) & set(found)
        found |= part
    assert found == rivers_anomalies(rows)


def test_the_real_stream(shared: Path, run_flow: Flow, tmp_path: Path) -> None:
    path = shared / "data" / "ec2_metrics.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 32_256
    done = run_flow(input=path, detector="tutorial", output="found.jsonl")
    assert done.returncode == 0, done.stderr
    expected = rivers_anomalies(rows)
    assert found_scores(read_json_lines(tmp_path / "found.jsonl")) == expected
    assert len(expected) == 594


# Sources and sinks of one's own


def raw_records(rows: list[Row]) -> list[Raw]:
    return [Raw(0, offset, json.dumps(row).encode()) for offset, row in enumerate(rows)]


def test_a_source_and_outputs_of_ones_own(capfd: pytest.CaptureFixture[str]) -> None:
    # Here, because other files import this one where there is no Bytewax.
    from bytewax.testing import TestingSink, TestingSource, run_main

    from dataflow.flow import build
    from dataflow.steps import score

    rows = made_rows(instances=2)
    options = Settings(_env_file=None, detector="tutorial", incidents=True)
    found: list[tuple[str, Anomaly]] = []
    again: list[tuple[str, Anomaly]] = []
    incidents: list[tuple[str, Incident]] = []
    rejected: list[tuple[str, Rejected]] = []
    flow = build(
        options,
        score.detector(options),
        None,
        source=TestingSource([*raw_records(rows), Raw(0, 9999, b"{")], batch_size=100),
        outputs={
            "write_here": TestingSink(found),
            "write_again": TestingSink(again),
            "write_incidents_here": TestingSink(incidents),
            "write_rejected": TestingSink(rejected),
        },
    )
    run_main(flow)
    expected = rivers_anomalies(rows)
    assert {(one.instance, one.index): one.score for _, one in found} == expected
    assert again == found
    assert {one.kind for _, one in incidents} == {"anomaly"}
    assert [(one.reason, one.source.offset) for _, one in rejected] == [("not-json", 9999)]
    # The outputs of the settings are not used: standard output is the default.
    assert capfd.readouterr().out == ""


def test_outputs_of_ones_own_with_the_source_of_the_settings(tmp_path: Path) -> None:
    from bytewax.testing import TestingSink, run_main

    from dataflow.flow import build
    from dataflow.steps import score

    rows = made_rows(instances=2)
    path = write_csv(tmp_path / "metrics.csv", rows)
    options = Settings(_env_file=None, detector="tutorial", input=str(path), key_field="instance")
    found: list[tuple[str, Anomaly]] = []
    run_main(build(options, score.detector(options), None, outputs={"out": TestingSink(found)}))
    expected = rivers_anomalies(rows)
    assert {(one.instance, one.index): one.score for _, one in found} == expected


def test_an_output_of_incidents_that_are_off() -> None:
    from bytewax.testing import TestingSink, TestingSource

    from dataflow.flow import build
    from dataflow.steps import score

    options = Settings(_env_file=None, detector="tutorial")
    outputs = {"write_incidents_here": TestingSink[Incident]([])}
    with pytest.raises(ValueError, match="set options"):
        build(options, score.detector(options), None, source=TestingSource([]), outputs=outputs)
