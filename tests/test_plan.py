from __future__ import annotations

import re
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.commands.plan import BUSY, COSTS, EPOCH, IDLE, MOST_MEMORY, MOST_RESTART, estimate
from dataflow.detectors import NAMES
from dataflow.errors import UserError
from dataflow.settings import Settings

detectors = st.sampled_from(sorted(COSTS))
fleets = st.integers(1, 50_000_000)
intervals = st.floats(1, 3600)


@given(fleets, fleets, intervals, detectors)
def test_more_instances_never_take_less(
    one: int, other: int, interval: float, detector: str
) -> None:
    few, many = (estimate(n, interval, detector) for n in sorted((one, other)))
    assert few.processes <= many.processes
    assert few.partitions <= many.partitions
    assert few.every <= many.every
    # Of all processes together: one process of several has less to do than one alone.
    # What is rounded to whole instances, of each process.
    unit = COSTS[detector].memory + COSTS[detector].copied + COSTS[detector].stored
    assert few.processes * few.memory <= many.processes * (many.memory + unit)
    assert few.processes * few.disk <= many.processes * (many.disk + unit)
    if few.every == many.every:  # a longer epoch saves more
        assert few.cores <= many.cores + 1e-9


@given(fleets, intervals, intervals, detectors)
def test_more_readings_never_take_less(
    instances: int, one: float, other: float, detector: str
) -> None:
    seldom, often = (
        estimate(instances, each, detector) for each in sorted((one, other), reverse=True)
    )
    assert seldom.processes <= often.processes
    assert seldom.cores <= often.cores + 1e-9


@given(fleets, intervals, detectors)
def test_a_plan_keeps_its_bounds(instances: int, interval: float, detector: str) -> None:
    made = estimate(instances, interval, detector)
    assert made.partitions >= max(3, made.processes)
    assert made.processes * made.largest >= instances
    assert made.memory <= MOST_MEMORY + 1e4
    assert made.restart <= MOST_RESTART + 2
    assert 1 <= made.files <= 1024  # what `python -m dataflow recovery` makes
    own = made.cores / made.processes - IDLE - EPOCH / made.every / 1e6
    assert 0 < own <= BUSY + 1e-9
    assert made.behind >= made.restart


@pytest.mark.parametrize("detector", COSTS)
@pytest.mark.parametrize("instances", [1, 8, 1_000, 10_000])
def test_a_small_fleet_needs_one_process(instances: int, detector: str) -> None:
    made = estimate(instances, 300, detector)
    assert (made.processes, made.every) == (1, 10)
    assert made.cores < 0.1
    assert made.memory < 300e6


def test_there_are_figures_for_detectors_that_there_are() -> None:
    assert set(COSTS) <= set(NAMES)
    assert Settings.model_fields["detector"].default in COSTS
    with pytest.raises(UserError, match="isolation-forest"):
        estimate(8, 300, "isolation-forest")


def test_the_command(run_command: Callable[..., CompletedProcess[str]]) -> None:
    done = run_command("plan", "--instances", "1000000", "--interval", "300")
    assert (done.returncode, done.stderr) == (0, "")
    made = estimate(1_000_000, 300)
    assert re.search(rf"^  processes +{made.processes},", done.stdout, re.MULTILINE)
    assert re.search(rf"^  partitions of the topic +{made.partitions}$", done.stdout, re.MULTILINE)
    assert f"--partitions {made.files}\n" in done.stdout
    assert f"-s {made.every}\n" in done.stdout
    assert "ANOMALY_MAX_INSTANCES=1" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--instances", "5000000", "--cores", "0.5"], "cores, more than the 0.5 available: "),
        (
            ["--instances", "5", "--detector", "isolation-forest"],
            "'isolation-forest' were not measured",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(
    run_command: Callable[..., CompletedProcess[str]], arguments: list[str], line: str
) -> None:
    done = run_command("plan", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert line in done.stderr
    assert done.stderr.count("\n") == 1
