"""The isolation forest against scikit-learn run by hand over the same windows, and in the flow."""

from __future__ import annotations

import csv
import json
import os
import pickle
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from conftest import (
    REPOSITORY,
    Flow,
    PausableBroker,
    environment,
    fill_topic,
    read_json_lines,
    read_topic,
)
from faults import Reader, with_store
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest as Forest

from dataflow.demo import sine
from dataflow.detectors import isolation_forest, make
from dataflow.detectors.isolation_forest import IsolationForest
from dataflow.evaluation.backtest import verdicts
from dataflow.evaluation.nab import Series
from dataflow.recovery.files import initialize

Command = Callable[..., subprocess.CompletedProcess[str]]

WINDOW = 1000


def labels_by_hand(values: list[float], window: int = WINDOW, **parameters: Any) -> list[int]:
    """What scikit-learn says of each value, -1 or 1, with no part of ours."""
    parameters = {"contamination": 0.01, "random_state": 42, **parameters}
    column = np.array(values)[:, None]
    full = len(column) - len(column) % window
    labels: list[int] = []
    forest = Forest(**parameters)
    for start in range(0, full, window):
        own = column[start : start + window]
        labels.extend(forest.fit(own).predict(own))
    if full == 0:
        forest.fit(column)
    if full < len(column):
        labels.extend(forest.predict(column[full:]))
    return labels


def found_by_hand(values: list[float]) -> dict[int, float]:
    """The anomalies that scikit-learn finds: time steps and values."""
    labels = labels_by_hand(values)
    return {step: values[step] for step, label in enumerate(labels) if label == -1}


def wave(count: int, seed: int = 42) -> list[float]:
    return [point.value for point in sine.points(count, seed)]


def judge(detector: IsolationForest, values: list[float]) -> list[float]:
    """The scores of all values, the late ones too."""
    series = Series("a", np.arange(len(values), dtype=float), np.array(values))
    return [verdict.score for verdict in verdicts(detector, series)]


@pytest.mark.parametrize("count", [1, 2, 700, 1000, 3500])
def test_it_finds_what_scikit_learn_finds(count: int) -> None:
    values = wave(count)
    labels = labels_by_hand(values)
    scores = judge(IsolationForest(), values)
    assert [-1 if score > 0.5 else 1 for score in scores] == labels
    assert count < 700 or -1 in labels


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.floats(-1e30, 1e30) | st.sampled_from([0.0, 0.5, 1e6]), min_size=1, max_size=90),
    st.integers(8, 40),
    st.sampled_from([0.01, 0.1, 0.5]),
    st.integers(0, 2**32 - 1),
)
def test_it_finds_what_scikit_learn_finds_in_anything(
    values: list[float], window: int, contamination: float, seed: int
) -> None:
    labels = labels_by_hand(values, window, contamination=contamination, random_state=seed)
    scores = judge(IsolationForest(window, contamination, seed), values)
    assert [-1 if score > 0.5 else 1 for score in scores] == labels


def test_the_score_is_scikit_learns_and_cuts_where_it_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    decisions = [-1.0, -0.25, -1e-300, 0.0, 1e-300, 0.25, 1.0]

    class Given(Forest):  # type: ignore[misc]
        def decision_function(self, X: Any) -> Any:  # noqa: N803
            return np.array(decisions)

    monkeypatch.setattr(isolation_forest, "Forest", Given)
    scores = judge(IsolationForest(window=7), [0.0] * 7)
    assert scores == sorted(scores, reverse=True)
    assert (scores[0], scores[1], scores[3], scores[5], scores[6]) == (1, 0.625, 0.5, 0.375, 0)
    assert [score > 0.5 for score in scores] == [decision < 0 for decision in decisions]


def test_verdicts_come_when_a_window_is_full_and_not_before() -> None:
    detector, state = IsolationForest(window=50), None
    for number, value in enumerate(wave(149), start=1):
        state, due = detector.update(state, value, None)
        assert len(due) == (50 if number % 50 == 0 else 0)
    assert state is not None
    state, due = detector.finish(state)
    assert len(due) == 49
    assert detector.finish(state)[1] == []


def test_an_input_that_ends_and_goes_on_is_judged_once_and_by_whole_windows() -> None:
    """Run again and again over a topic that grows: windows are still full windows."""
    values = wave(300)
    detector, state, scores = IsolationForest(window=100), None, []
    for number, value in enumerate(values, start=1):
        state, due = detector.update(state, value, None)
        scores += [verdict.score for verdict in due]
        if number in (30, 60, 130, 170):
            state, due = detector.finish(state)
            scores += [verdict.score for verdict in due]
            assert len(scores) == number
    assert len(scores) == 300

    def by(first: int, last: int, judged: list[float]) -> list[int]:
        forest = Forest(contamination=0.01, random_state=42).fit(
            np.array(values[first:last])[:, None]
        )
        return list(forest.predict(np.array(judged)[:, None]))

    expected = by(0, 30, values[:30]) + by(0, 60, values[30:60]) + by(0, 100, values[60:100])
    expected += by(0, 100, values[100:170]) + by(100, 200, values[170:200])
    expected += by(200, 300, values[200:])
    assert [-1 if score > 0.5 else 1 for score in scores] == expected


def test_readings_beyond_single_precision_are_taken_for_its_largest() -> None:
    values = [*wave(98), 1e300, -1e300]
    limit = float(np.finfo(np.float32).max)
    clipped = [min(max(value, -limit), limit) for value in values]
    detector = IsolationForest(window=100)
    assert judge(detector, values) == judge(detector, clipped)
    assert [-1 if s > 0.5 else 1 for s in judge(detector, values)] == labels_by_hand(clipped, 100)


@pytest.mark.parametrize("seed", [-1, 2**32, 2**40 + 7])
def test_any_seed_will_do(seed: int) -> None:
    values = wave(100)
    scores = judge(IsolationForest(window=100, seed=seed), values)
    labels = labels_by_hand(values, 100, random_state=seed % 2**32)
    assert [-1 if score > 0.5 else 1 for score in scores] == labels


def test_the_sine_wave_is_one_with_raised_points() -> None:
    points = list(sine.points(20_000))
    raised = [point for point in points if point.raised]
    assert 0.008 < len(raised) / len(points) < 0.012
    for point in points:
        rise = point.value - np.sin(point.time_step * 0.1)
        assert -1e-9 < rise < 5
        assert point.raised or abs(rise) < 1e-9
    assert max(point.value for point in raised) > 4
    assert list(sine.points(50, seed=1)) == list(sine.points(90, seed=1))[:50]
    assert list(sine.points(5000, seed=1)) != points[:5000]


# In the flow.

SINE = {
    "detector": "isolation-forest",
    "key_field": "none",
    "time_field": "none",
    "index_field": "time_step",
    "scale": "none",
}


def found_in(records: list[dict[str, Any]]) -> dict[int, float]:
    times = Counter(record["time_step"] for record in records)
    assert set(times.values()) <= {1}, "an anomaly was written twice"
    return {record["time_step"]: record["value"] for record in records}


def test_from_the_producer_to_the_anomalies_it_is_scikit_learn(
    run_flow: Flow, run_command: Command, brokers: str, topic: str
) -> None:
    own = {"brokers": brokers, "topic": topic, "anomalies_topic": f"{topic}.out"}
    done = run_command("produce", "sine", "--count", "3500", "--seed", "7", **own)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"wrote 3,500 records to {topic}" in done.stdout
    sent = read_topic(brokers, topic)
    assert {key for key, _ in sent} == {topic}
    assert [list(record) for _, record in sent] == [["value", "time_step"]] * 3500
    assert [record["time_step"] for _, record in sent] == list(range(3500))

    run_command("topics", **own)
    done = run_flow("-w", "2", follow="false", output="kafka", **own, **SINE)
    assert (done.returncode, done.stderr) == (0, "")
    anomalies = read_topic(brokers, f"{topic}.out")
    assert {key for key, _ in anomalies} == {topic}
    found = [record for _, record in anomalies]
    assert found_in(found) == found_by_hand([record["value"] for _, record in sent])
    ids = {record["id"] for record in found}
    assert len(ids) == len(found) > 30
    for record in found:
        assert list(record)[-1] == "time_step"
        assert record["index"] == record["time_step"] == record["source"]["offset"]
        assert (record["instance"], record["timestamp"]) == (topic, None)
        assert (record["detector"], record["threshold"]) == ("isolation-forest", 0.5)
        assert 0.5 < record["score"] <= 1


def test_many_instances_with_times_are_judged_each_by_its_own(
    run_flow: Flow, tmp_path: Path
) -> None:
    generator = random.Random(5)
    values = {
        name: [round(generator.gauss(mean, 3), 3) for _ in range(count)]
        for name, mean, count in (("a", 20, 1200), ("b", 50, 1000), ("c", 70, 300))
    }
    rows = [
        (index, 1709251200 + 300 * index, values[name][index], name)
        for index in range(1200)
        for name in values
        if index < len(values[name])
    ]
    with (tmp_path / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("index", "timestamp", "value", "instance"), *rows])
    done = run_flow("-w3", input="metrics.csv", detector="isolation-forest", output="found.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    found = read_json_lines(tmp_path / "found.jsonl")
    assert all("time_step" not in record for record in found)
    places = Counter((record["instance"], record["index"]) for record in found)
    expected = [
        (name, index)
        for name, own in values.items()
        for index in found_by_hand([value / 100 for value in own])
    ]
    assert places == Counter(expected)
    assert expected


def test_a_file_of_the_wave_is_called_after_the_file(run_flow: Flow, tmp_path: Path) -> None:
    (tmp_path / "raw-data.jsonl").write_bytes(b"\n".join(sine.records(1500)) + b"\n")
    done = run_flow(input="raw-data.jsonl", output="found.jsonl", **SINE)
    assert (done.returncode, done.stderr) == (0, "")
    found = read_json_lines(tmp_path / "found.jsonl")
    assert found_in(found) == found_by_hand(wave(1500))
    assert {record["instance"] for record in found} == {"raw-data"}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    initialize(folder, 2)
    return folder


def as_records(topic: str, start: int, end: int) -> list[tuple[str | None, bytes | None]]:
    return [(topic, record) for record in list(sine.records(end))[start:]]


def test_kill_9_in_the_middle_of_windows(
    run_flow: Flow, brokers: str, topic: str, store: Path
) -> None:
    """Killed again and again while points come, each anomaly is there once."""
    generator = random.Random(11)
    own = {"brokers": brokers, "topic": topic, **SINE, "output": "found.jsonl"}
    fill_topic(brokers, topic, [])
    producer = subprocess.Popen(
        [
            *(sys.executable, "-m", "dataflow", "produce", "sine"),
            *("--count", "6500", "--rate", "650"),
        ],
        env=environment(brokers=brokers, topic=topic),
        stdout=subprocess.DEVNULL,
    )
    try:
        kills = 0
        while producer.poll() is None:
            flow = run_flow.start(*with_store(store, "-w", str(1 + kills % 2)), **own)
            time.sleep(generator.uniform(2.5, 6))
            assert flow.poll() is None, flow.communicate()
            flow.kill()
            flow.communicate()
            kills += 1
    finally:
        producer.kill()
        producer.wait()
    assert kills >= 2
    done = run_flow(*with_store(store), follow="false", **own)
    assert done.returncode == 0, done.stderr
    found = found_in(read_json_lines(run_flow.folder / "found.jsonl"))
    assert found == found_by_hand(wave(6500))


def test_stopped_in_mid_window_and_resumed_it_finds_what_it_would_have_found(
    run_flow: Flow, brokers: str, topic: str, store: Path
) -> None:
    """A stop judges nothing before its time and loses nothing; an end does, and can go on."""
    own = {"brokers": brokers, "topic": topic, **SINE}
    expected = found_by_hand(wave(3500))
    lines: list[str] = []

    def found() -> dict[int, float]:
        return found_in([json.loads(line) for line in lines])

    fill_topic(brokers, topic, as_records(topic, 0, 2500))
    windows = {step: value for step, value in expected.items() if step < 2000}
    flow = run_flow.start(*with_store(store), **own)
    reader = Reader(flow)
    reader.wait_for_lines(len(windows))
    time.sleep(1.5)  # it waits in the middle of the third
    flow.terminate()
    assert flow.wait(120) == 0
    lines += reader.lines()
    assert found() == windows

    fill_topic(brokers, topic, as_records(topic, 2500, 3500)[:1000])
    for again in range(2):
        done = run_flow(*with_store(store), follow="false", **own)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "" or again == 0
        lines += done.stdout.splitlines()
        assert found() == expected

    fill_topic(brokers, topic, as_records(topic, 3500, 4000))
    done = run_flow(*with_store(store), follow="false", **own)
    assert done.returncode == 0, done.stderr
    lines += done.stdout.splitlines()
    rest = {step: value for step, value in found_by_hand(wave(4000)).items() if step >= 3500}
    assert found() == expected | rest
    assert rest


def test_a_stop_before_the_end_of_input_is_made_good_by_a_resume_without_input(
    run_flow: Flow, brokers: str, topic: str, store: Path
) -> None:
    own = {"brokers": brokers, "topic": topic, **SINE}
    fill_topic(brokers, topic, as_records(topic, 0, 700))
    flow = run_flow.start(*with_store(store), **own)
    assert flow.stderr is not None
    assert "created the topic" in flow.stderr.readline()
    time.sleep(3)
    flow.terminate()
    assert flow.communicate(timeout=240)[0] == ""
    assert flow.returncode == 0
    done = run_flow(*with_store(store), follow="false", **own)
    assert done.returncode == 0, done.stderr
    found = found_in([json.loads(line) for line in done.stdout.splitlines()])
    assert found == found_by_hand(wave(700))


@pytest.mark.usefixtures("needs_bytewax")
def test_the_commands_of_the_page_do_what_it_says(
    own_broker: PausableBroker, tmp_path: Path
) -> None:
    page = (REPOSITORY / "docs" / "sine-wave.md").read_text()
    (commands,) = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    python = Path(sys.executable).parent
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=tmp_path,
        env={
            **environment(brokers=own_broker.address),
            "PATH": f"{python}{os.pathsep}{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [record for _, record in read_topic(own_broker.address, "anomalies")]
    assert found_in(found) == found_by_hand(wave(10_000))
    shown = re.search(
        r"(\d+) anomalies; (\d+) of them are among the (\d+) raised points", " ".join(page.split())
    )
    assert shown is not None
    raised = {point.time_step for point in sine.points(10_000) if point.raised}
    hits = len(raised & found_in(found).keys())
    figures = [int(number) for number in shown.groups()]
    # Another scikit-learn may draw other trees.
    assert figures == pytest.approx([len(found), hits, len(raised)], abs=3)


def test_the_index_keeps_its_own_name_on_the_way_to_another_process() -> None:
    from dataflow.records import Anomaly, Source, encode
    from dataflow.steps.anomaly import index_namer

    anomaly = Anomaly(
        *("a", None, 7, 0.5, 0.9, 0.5, None, None, None, "d", "id"), source=Source("t", 0, 1)
    )
    for field in ("time step", "class", "repeated_index", "again"):
        named = index_namer(field)(anomaly)
        assert isinstance(named, Anomaly)
        expected = {**msgspec.json.decode(encode(anomaly)), field: 7}
        assert msgspec.json.decode(encode(named)) == expected
        assert encode(pickle.loads(pickle.dumps(named))) == encode(named)
    for field in ("index", "value", "id", "source"):
        assert index_namer(field)(anomaly) is anomaly


# What it needs.


def test_without_scikit_learn_it_is_one_line(
    run_flow: Flow, run_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "missing"
    missing.mkdir()
    (missing / "sklearn.py").write_text("raise ModuleNotFoundError('no', name='sklearn')\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(missing), str(REPOSITORY)]))
    (tmp_path / "raw-data.jsonl").write_bytes(b"\n".join(sine.records(10)))
    done = run_flow(input="raw-data.jsonl", **SINE)
    said = "error: The detector isolation-forest needs an extra: in a checkout of this project, "
    said += "run pip install '.[isolation-forest]'.\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)
    (tmp_path / "data.csv").write_text("timestamp,value,instance\n2024-03-01,5,a\n")
    arguments = ("--data", "data.csv", "--tune", "1", "--detector", "isolation-forest")
    done = run_command("evaluate", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)
    # No other detector needs it.
    assert run_flow(input="raw-data.jsonl", **{**SINE, "detector": "zscore"}).returncode == 0


def test_the_extra_names_what_is_imported() -> None:
    assert make("isolation-forest") == IsolationForest()
    assert make("isolation-forest", seed=3) == IsolationForest(seed=3)
