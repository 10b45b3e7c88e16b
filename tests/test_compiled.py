"""The compiled form of the detectors and the Python files it is made from: the same bits."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import forms
import pytest
from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow import detectors
from dataflow.detectors.calibrated import detector as installed
from dataflow.evaluation.datasets import load_nab, load_sample
from dataflow.steps import score

pytestmark = pytest.mark.skipif(
    not detectors.compiled(), reason="nothing was compiled here: there is one form"
)

Readings = Iterable[tuple[int, float, float | None]]


def digest(form: ModuleType, readings: Readings, **options: Any) -> tuple[str, int]:
    """A hash of every verdict, of states on the way and at the end; and how many scored."""
    detector = form.Calibrated(**options)
    states: dict[int, Any] = {}
    seen = hashlib.blake2b()
    scored = 0
    for number, (key, value, time) in enumerate(readings):
        states[key], verdict = detector.update(states.get(key), value, time)
        assert type(verdict) is detectors.Verdict
        seen.update(struct.pack("<4d?", *verdict))
        scored += verdict.score > 0
        if number % 5_000 == 4_999:
            # Goes on from bytes as the state itself would have.
            states[key] = detector.load(detector.dump(states[key]))
    for key in states:
        seen.update(detector.dump(states[key]))
    return seen.hexdigest(), scored


def made(count: int, seed: int, keys: int = 20) -> Readings:
    """Readings of many habits: noise, flat stretches, steps, spikes, extremes, times astray."""
    rng = random.Random(seed)
    levels = [10.0 ** rng.randint(-8, 8) for _ in range(keys)]
    for number in range(count):
        key = rng.randrange(keys)
        value = levels[key] * (1 if number % 7_000 > 6_000 else rng.gauss(1, 0.1))
        if rng.random() < 0.003:
            value = rng.choice((0.0, -0.0, 1e300, -1e300, 5e-324, 3 * levels[key], -levels[key]))
        if rng.random() < 0.0005:
            levels[key] *= rng.choice((0.3, 3.0))
        time = 300.0 * number / keys + rng.choice((0, 0, 0, 0, -7_000, 1e6))
        yield key, value, time if key else None


def both(readings: list[tuple[int, float, float | None]], **options: Any) -> int:
    """Assert that both forms say the same; how many readings scored above 0."""
    found, scored = digest(installed, readings, **options)
    with forms.plain() as plain:
        assert digest(plain, readings, **options) == (found, scored)
    return scored


def test_the_forms_are_two() -> None:
    assert not installed.__file__.endswith(".py")
    with forms.plain() as plain:
        assert plain.__file__.endswith(".py")
        assert not detectors.compiled()
        assert plain.Calibrated is not installed.Calibrated
    assert detectors.compiled()


@pytest.mark.parametrize("options", [{}, {"interval": 60.0, "threshold": 0.6}])
def test_made_readings_give_the_same_bits(options: dict[str, Any]) -> None:
    assert both(list(made(60_000, 1)), **options) > 10_000


@pytest.mark.slow
def test_a_million_made_readings_give_the_same_bits() -> None:
    assert both(list(made(1_000_000, 2, keys=100))) > 100_000


@settings(max_examples=30)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=400))
def test_any_numbers_give_the_same_bits(values: list[float]) -> None:
    both([(0, value, 300.0 * i) for i, value in enumerate(values)])


def tutorials(values: list[float], window: int) -> list[tuple[str, bytes]]:
    """Each verdict of the tutorial's detector, its numbers with their types, and state."""
    detector = detectors.make("tutorial")
    detector = type(detector)(window_size=window)  # type: ignore[call-arg]
    state, found = None, []
    for value in values:
        state, verdict = detector.update(state, value, None)
        found.append((repr(verdict), detector.dump(state)))
    return found


@settings(max_examples=50)
@given(
    st.lists(st.floats(0, 1) | st.floats(allow_nan=False, allow_infinity=False), max_size=100),
    st.integers(1, 10),
)
def test_the_tutorials_trees_give_the_same_bits(values: list[float], window: int) -> None:
    found = tutorials(values, window)
    with forms.plain():
        assert tutorials(values, window) == found


def test_the_real_stream_gives_the_same_bits(shared: Path) -> None:
    for series in load_sample(shared / "data" / "ec2_metrics.csv", None)[:4]:
        assert both([(0, float(v), None) for v in series.values]) > 100


@pytest.mark.slow
def test_the_benchmark_gives_the_same_bits(shared: Path) -> None:
    for series in load_nab(shared / "nab", "**/*.csv"):
        both([(0, float(v), None) for v in series.values])


def test_a_store_is_the_same_for_both_forms() -> None:
    readings = [(0, value, time) for _, value, time in made(2_000, 3, keys=1)]
    detector, state = installed.Calibrated(), None
    for _, value, time in readings:
        state, _ = detector.update(state, value, time)
    mark = score.form_of_states(detector)
    stored = detector.dump(state)
    with forms.plain() as plain:
        assert score.form_of_states(plain.Calibrated()) == mark
        other = plain.Calibrated()
        read = other.load(stored)
        assert type(read).__module__ == "dataflow.detectors.calibrated.memory"
        assert type(read) is not type(state)
        assert other.dump(read) == stored
        went_on = other.update(read, 0.5, 0.0)
        assert went_on[1] == detector.update(state, 0.5, 0.0)[1]
        back = other.dump(went_on[0])
    assert back == detector.dump(state)
    assert detector.dump(detector.load(back)) == back


def test_another_constant_is_seen(tmp_path: Path) -> None:
    """What was edited and not compiled again does not pass for the same."""
    for name in forms.NAMES:
        copy = forms.path_of(name, tmp_path)
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(forms.path_of(name), copy)
    path = forms.path_of("calibrated.view", tmp_path)
    constant = "SPREAD: Final = 0.3\n"
    assert constant in path.read_text()
    path.write_text(path.read_text().replace(constant, "SPREAD: Final = 0.30000001\n"))
    readings = list(made(5_000, 1, keys=2))
    with forms.plain(tmp_path) as edited:
        assert digest(edited, readings) != digest(installed, readings)


@pytest.mark.slow
@pytest.mark.parametrize("tools", ["a compiler", "none", "a broken one"])
def test_a_wheel_is_built_with_a_compiler_and_without(tmp_path: Path, tools: str) -> None:
    if not importlib.util.find_spec("hatchling"):
        pytest.skip("needs hatchling: make .venv/dev")
    for name in ("pyproject.toml", "README.md", "LICENSE", "hatch_build.py"):
        shutil.copy(REPOSITORY / name, tmp_path)
    shutil.copytree(
        REPOSITORY / "dataflow",
        tmp_path / "dataflow",
        ignore=shutil.ignore_patterns("*.so", "__pycache__"),
    )
    compilers = {"a compiler": {}, "none": {"CC": "/no/compiler"}, "a broken one": {"CC": "false"}}
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel"],
        cwd=tmp_path,
        env={**os.environ, **compilers[tools]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    if tools == "a compiler":
        assert not wheel.name.endswith("-py3-none-any.whl")
    else:
        assert wheel.name.endswith("-py3-none-any.whl")
        assert "left as Python" in done.stdout + done.stderr
