"""Values that only grow, and those that only seem to."""

from __future__ import annotations

import math
from pathlib import Path
from random import Random

import pytest
from conftest import Flow
from hypothesis import given
from hypothesis import strategies as st
from test_flow import made_rows, write_csv

from dataflow.steps.growth import MOST, OnlyGrows


def found_in(series: dict[str, list[float]], readings: int = 50) -> list[str]:
    """What is found in the values of some instances that send in turn."""
    found: list[str] = []
    grows = OnlyGrows(found.append, readings)
    for at in range(max(map(len, series.values()))):
        for name, values in series.items():
            if at < len(values):
                grows.add(name, values[at])
    return found


@given(st.lists(st.floats(0, 1e12), min_size=50, max_size=80), st.integers(0, 3))
def test_a_counter_is_found_and_nothing_that_falls(steps: list[float], stays: int) -> None:
    total, counter = 0.0, []
    for number, step in enumerate(steps):
        total += 0.0 if number % 4 < stays - 1 else step + 1.0
        counter.append(total)
    rises = sum(one < other for one, other in zip([-1.0, *counter[:49]], counter[:50], strict=True))
    assert found_in({"counter": counter}) == (["counter"] if rises > 25 else [])
    assert found_in({"falls": [*counter[:48], counter[47] - 1, *counter[48:]]}) == []


def test_ordinary_metrics_are_none() -> None:
    random = Random(7)
    assert (
        found_in(
            {
                "noise": [random.random() for _ in range(500)],
                "constant": [5.0] * 500,
                "sine": [math.sin(number / 10) for number in range(500)],
                "sawtooth": [float(number % 40) for number in range(500)],
                "falling": [float(-number) for number in range(500)],
            }
        )
        == []
    )


def test_a_counter_among_many_instances_is_found_and_once() -> None:
    series = {f"host-{number}": [3.0, 2.0, 4.0] * 30 for number in range(200)}
    series["eth0"] = [1e9 + 1e6 * number for number in range(200)]
    series["eth1"] = [2e9 + 1e6 * number for number in range(200)]
    assert found_in(series) == ["eth0"]


def test_looking_ends() -> None:
    """Nothing is looked at for ever, and no name is kept of a fleet without end."""
    grows = OnlyGrows(lambda _: None, 50)
    for number in range(MOST + 100):
        for value in (2.0, 1.0):
            grows.add(f"host-{number}", value)
    assert grows.done


@pytest.mark.parametrize("step", [1.0, 1500.0, 1e9])
def test_a_flow_of_counters_warns_once(run_flow: Flow, tmp_path: Path, step: float) -> None:
    rows = made_rows(instances=3, count=120)
    for number, row in enumerate(rows):
        row["value"] = str(1e6 + step * number)
    path = write_csv(tmp_path / "bytes.csv", rows)
    done = run_flow(input=path, detector="calibrated", scale="none", output="found.jsonl")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: the values of 'value' of the instance 'host-")
    assert "looks like a counter; send its rate instead" in line
