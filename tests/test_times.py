"""Times that run backwards: one warning, and the way to order."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from conftest import Flow, read_json_lines
from test_flow import made_rows, write_csv

from dataflow.alerts.episode import EpisodeRules
from dataflow.detectors import make
from dataflow.records import Reading
from dataflow.steps.score import scorer
from dataflow.steps.times import backwards
from dataflow.warnings import Warnings

RULES = EpisodeRules(0.5, 300.0, 3600.0)


def scored_with(times: list[float | None], size: int) -> tuple[list[str], int]:
    """Score readings of these times in batches of a size; return the warnings and their count."""
    lines: list[str] = []
    detector: Any = make("tutorial")
    warnings = Warnings(lines.append)
    step = scorer(detector, RULES, backwards(False, warnings))
    readings = [
        Reading("web-1", time, number, 0.5, time, 0, number) for number, time in enumerate(times)
    ]
    state = None
    for at in range(0, len(readings), size):
        state, _ = step.score(state, readings[at : at + size])
    return lines, warnings.counts["times-backwards"]


@pytest.mark.parametrize("size", [1, 2, 100])
def test_times_that_run_backwards_are_warned_of_once_and_counted(size: int) -> None:
    lines, count = scored_with([0.0, 300.0, 150.0, 600.0, 600.0, None, 10.0, 20.0], size)
    assert lines == [
        "warning: the times of the instance 'web-1' run backwards, first at 150.0 (partition 0, "
        "offset 2), and its scores depend on the order: write them in order, or set "
        "ANOMALY_REORDER=true."
    ]
    assert count == 2
    assert scored_with([0.0, 300.0, 300.0, None, 600.0], size) == ([], 0)


def test_forgotten_instances_begin_anew() -> None:
    detector: Any = make("tutorial")
    step = scorer(detector, RULES, backwards(False, Warnings([].append)))
    readings = [Reading("web-1", at, at, 0.5, float(at), 0, at) for at in range(9)]
    state, first = step.score(None, readings)
    assert step.score(state, []) == (None, [])
    again, second = step.score(None, readings)
    assert state is not None
    assert again is not None
    assert (first, step.dump(state)) == (second, step.dump(again))
    assert step.dump(state) == detector.dump(step.load(step.dump(state)).state)


@pytest.mark.parametrize("index", ["timestamp", "index", "none"])
def test_a_shuffled_series_is_warned_of_and_can_be_ordered(
    run_flow: Flow, tmp_path: Path, index: str
) -> None:
    """As CloudWatch's answers are: in no order, with ISO times, without a number."""
    rows = made_rows(instances=2, count=700)
    if index == "none":
        rows = [{**row, "index": f"{row['instance']}/{row['timestamp']}"} for row in rows]
    settings = {"detector": "tutorial", "output": "found.jsonl"}
    if index == "timestamp":
        settings["index_field"] = "timestamp"
    shuffled = Random(3).sample(rows, len(rows))
    (tmp_path / "ordered").mkdir()
    run_flow(input=write_csv(tmp_path / "ordered" / "series.csv", rows), **settings)
    expected = {(it["instance"], it["timestamp"]): it["score"] for it in read(tmp_path)}
    assert expected

    path = write_csv(tmp_path / "series.csv", shuffled)
    done = run_flow(input=path, **settings)
    (line,) = done.stderr.splitlines()
    assert "run backwards" in line
    assert "ANOMALY_REORDER=true" in line
    assert {(it["instance"], it["timestamp"]): it["score"] for it in read(tmp_path)} != expected

    done = run_flow(input=path, reorder="true", **settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert {(it["instance"], it["timestamp"]): it["score"] for it in read(tmp_path)} == expected


def read(folder: Path) -> list[dict[str, Any]]:
    path = folder / "found.jsonl"
    found = read_json_lines(path)
    path.unlink()
    return found


def test_a_producer_that_starts_again_is_ordered_again_by_the_flow(
    run_flow: Flow, tmp_path: Path
) -> None:
    rows = made_rows(instances=1, count=900)
    for number, row in enumerate(rows):
        row["index"] = str(number % 450)
    settings = {"detector": "tutorial", "output": "found.jsonl"}
    run_flow(input=write_csv(tmp_path / "a.csv", rows), **settings)
    expected = [json.dumps([it["timestamp"], it["score"]]) for it in read(tmp_path)]
    for at in range(2, 900, 5):
        if at % 450 > 2:
            rows[at - 1], rows[at] = rows[at], rows[at - 1]
    path = write_csv(tmp_path / "b.csv", rows)
    done = run_flow(input=path, reorder="true", **settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.dumps([it["timestamp"], it["score"]]) for it in read(tmp_path)] == expected
