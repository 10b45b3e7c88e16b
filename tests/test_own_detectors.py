"""Detectors that are not of this package: a user's own, and River's models."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, Flow
from river import __version__ as river_version
from river import anomaly

from dataflow.detectors import Detector, Verdict, WindowedDetector, find, make
from dataflow.detectors.river import RiverDetector
from dataflow.errors import UserError
from dataflow.recovery.files import initialize
from dataflow.steps.score import form_of_states

SAMPLE = REPOSITORY / "data" / "ec2_metrics.csv"

JUMP = """
from dataflow.detectors import Detector, Verdict, WindowedDetector

class Jump(Detector[float]):
    threshold = 0.4
    needs_range = True

    def update(self, state, value, time):
        return value, Verdict(0.0 if state is None else abs(value - state))

class Late(WindowedDetector[list]):
    def update(self, state, value, time):
        state = [*(state or []), value]
        return (state, []) if len(state) < 3 else ([], [Verdict(v) for v in state])

    def finish(self, state):
        return [], [Verdict(v) for v in state]

class Nothing: ...
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory with a module of one's own."""
    (tmp_path / "own_parts.py").write_text(JUMP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_parts", raising=False)
    return tmp_path


def test_a_detector_of_ones_own_has_what_it_did_not_write(own: Path) -> None:
    jump = make("own_parts:Jump")
    assert isinstance(jump, Detector)
    assert not isinstance(jump, WindowedDetector)
    assert (jump.name, jump.threshold, find("own_parts:Jump").needs_range) == ("Jump", 0.4, True)
    state, _ = jump.update(None, 0.25, None)
    assert jump.score(state, 1.0, None) == Verdict(0.75)
    assert jump.load(jump.dump(state)) == 0.25


def test_a_windowed_detector_of_ones_own(own: Path) -> None:
    late = make("own_parts:Late")
    assert isinstance(late, WindowedDetector)
    state, _ = late.update(None, 0.25, None)
    assert late.load(late.dump(state)) == [0.25]
    assert late.finish(state)[1] == [Verdict(0.25)]
    with pytest.raises(ValueError, match=r"not a state of detector 'Jump'.*recovery store\.$"):
        make("own_parts:Jump").load(late.dump(state))


def test_what_is_not_a_detector_is_one_line(own: Path) -> None:
    with pytest.raises(UserError, match="'own_parts:Nothing', which is not a detector: subclass"):
        find("own_parts:Nothing")
    with pytest.raises(UserError, match=r"--detector names .* does not exist: use one of calib"):
        find("nothing", "--detector")


@pytest.mark.parametrize("name", ["own_parts:Jump", "own_parts:Late"])
def test_the_flow_runs_it(own: Path, run_flow: Flow, name: str) -> None:
    data = own / "data.csv"
    rows = [f"{i},{1_700_000_000 + 300 * i},{v},a\n" for i, v in enumerate([10, 20, 90, 80])]
    data.write_text("index,timestamp,value,instance\n" + "".join(rows))
    done = run_flow(input=data, detector=name, output="stdout")
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["value"] for one in found] == ([0.9] if "Jump" in name else [0.9, 0.8])
    assert {one["detector"] for one in found} == {name.removeprefix("own_parts:")}


TREES = "river.anomaly:HalfSpaceTrees"


def values(count: int = 1_200) -> list[float]:
    with SAMPLE.open() as file:
        rows = [row for row in csv.DictReader(file) if row["instance"]]
    first = rows[0]["instance"]
    return [float(row["value"]) / 100 for row in rows if row["instance"] == first][:count]


def test_rivers_trees_score_as_in_rivers_own_loop() -> None:
    detector, model, state = make(TREES, seed=7), anomaly.HalfSpaceTrees(seed=7), None
    positive = 0
    for i, value in enumerate(values()):
        expected = model.score_one({"value": value})
        model.learn_one({"value": value})
        state, verdict = detector.update(state, value, None)
        assert verdict == Verdict(expected)
        positive += expected > 0
        if i in (100, 700):
            state = detector.load(detector.dump(state))
    assert positive > 500
    assert find(TREES).needs_range
    assert detector.needs_range
    assert detector.name == TREES


def test_a_supervised_model_gets_the_value_as_its_target() -> None:
    detector, model, state = make("river.anomaly:GaussianScorer"), anomaly.GaussianScorer(), None
    assert not find("river.anomaly:GaussianScorer").needs_range
    for value in values(400):
        expected = model.score_one({}, value)
        model.learn_one({}, value)
        state, verdict = detector.update(state, value, None)
        assert verdict.score == expected
    assert detector.score(state, 50.0, None).score > 0.99


class Odd:
    """No model of River's: scores anything, and counts."""

    def __init__(self, scores: list[float]) -> None:
        self.scores = scores

    def score_one(self, x: dict[str, float]) -> float:
        return self.scores[0]

    def learn_one(self, x: dict[str, float]) -> None:
        del self.scores[0]


ODD = Odd([-3.0, 0.25, 1.0, 1.5, float("inf"), float("nan")])


def test_scores_outside_0_to_1_are_clipped_and_an_object_is_copied(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    detector = make("test_own_detectors:ODD")
    assert isinstance(detector, RiverDetector)
    for _ in range(2):
        state, scores = None, []
        for _ in range(6):
            state, verdict = detector.update(state, 0.5, None)
            scores.append(verdict.score)
        assert scores == [0.0, 0.25, 1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_an_error(value: float) -> None:
    detector = make(TREES)
    for method in (detector.update, detector.score):
        with pytest.raises(ValueError, match="finite"):
            method(None, value, None)


def test_a_state_of_another_version_of_river_or_seed_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    detector = make(TREES)
    data = detector.dump(detector.update(None, 0.5, None)[0])
    assert f" River {river_version}\n".encode() in data
    monkeypatch.setattr("dataflow.detectors.river.river_version", "0.99.0")
    for other in (detector, make(TREES, seed=1)):
        with pytest.raises(ValueError, match=r"begins with .*River 0\.26.*recovery store\.$"):
            other.load(data)


def test_the_mark_of_a_store_is_that_of_any_process() -> None:
    script = (
        "from dataflow.detectors import make; from dataflow.steps.score import form_of_states\n"
        f"print(form_of_states(make('{TREES}')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == form_of_states(make(TREES))
    assert form_of_states(make(TREES, seed=1)) != form_of_states(make(TREES))


def test_a_flow_that_stops_resumes_rivers_models_from_its_store(
    run_flow: Flow, tmp_path: Path
) -> None:
    with SAMPLE.open() as file:
        lines = [line for line in file if line.startswith("index") or int(line.split(",")[0]) < 700]
    data = tmp_path / "metrics.csv"
    initialize(tmp_path / "store", 1)

    def found(upto: int, *arguments: str) -> list[dict[str, object]]:
        data.write_text("".join(lines[:upto]))
        done = run_flow(*arguments, input=data, detector=TREES, output="stdout", threshold=0.8)
        assert done.returncode == 0, done.stderr
        records = [json.loads(line) for line in done.stdout.splitlines()]
        for record in records:
            assert record["detector"] == TREES
        return records

    whole = found(len(lines))
    store = ("-r", str(tmp_path / "store"), "-s", "1", "-b", "0")
    one = found(1 + 8 * 400, *store)
    two = found(len(lines), *store)
    assert one
    assert two
    assert sorted(map(str, one + two)) == sorted(map(str, whole))
