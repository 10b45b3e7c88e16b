"""What every detector promises that judges readings one by one; `NAMES` is the list of all."""

import math
import pickle
import random
from itertools import pairwise

import forms
import pytest
from conftest import REPOSITORY
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.detectors import KIND, NAMES, compiled, find, make
from dataflow.detectors.base import Verdict, WindowedDetector
from dataflow.errors import UserError

INTERVAL = 300.0
START = 1_700_000_000.0

ONE_BY_ONE = [name for name in NAMES if not isinstance(make(name), WindowedDetector)]

pytestmark = pytest.mark.parametrize("name", ONE_BY_ONE)


@pytest.fixture(scope="module", autouse=True, params=["installed", "plain"])
def form(request):
    """Both forms of the detector that may be compiled."""
    if request.param == "installed":
        yield
    elif not compiled():
        pytest.skip("nothing was compiled here: there is one form")
    else:
        with forms.plain():
            yield


def readings(count, seed=0):
    """CPU from 0 to 1 by the hour of the day, with noise, flat stretches and spikes; and times."""
    rng = random.Random(seed)
    for i in range(count):
        hour = i * INTERVAL / 3600 % 24
        value = 0.3 + 0.2 * math.sin(hour / 24 * math.tau) + rng.gauss(0, 0.02)
        if i % 400 > 360:
            value = 0.3
        if rng.random() < 0.005:
            value = rng.random()
        yield min(max(value, 0.0), 1.0), START + i * INTERVAL


def run(detector, readings, state=None):
    verdicts = []
    for value, time in readings:
        state, verdict = detector.update(state, value, time)
        verdicts.append(verdict)
    return state, verdicts


def test_it_has_its_name_and_a_threshold_that_a_score_can_pass(name):
    detector = make(name)
    assert detector.name == name
    assert 0 < detector.threshold < 1


def test_verdicts_are_scores_from_0_to_1_with_bounds_in_order(name):
    _, verdicts = run(make(name), readings(3_000))
    assert any(verdict.score > 0 for verdict in verdicts)
    for verdict in verdicts:
        assert isinstance(verdict, Verdict)
        assert 0 <= verdict.score <= 1
        bounds = [b for b in (verdict.lower, verdict.expected, verdict.upper) if b is not None]
        assert all(low <= high for low, high in pairwise(bounds))


def test_the_same_seed_gives_the_same_verdicts(name):
    _, one = run(make(name, seed=5), readings(2_000))
    _, two = run(make(name, seed=5), readings(2_000))
    assert one == two


def test_keys_do_not_touch_each_other(name):
    detector = make(name)
    streams = [list(readings(800, seed)) for seed in range(3)]
    alone = [run(make(name), stream)[1] for stream in streams]
    states, together = [None] * 3, [[], [], []]
    for row in zip(*streams, strict=True):
        for key, (value, time) in enumerate(row):
            states[key], verdict = detector.update(states[key], value, time)
            together[key].append(verdict)
    assert together == alone


@pytest.mark.parametrize("count", [1, 4, 5, 7, 500, 2_000])
def test_scoring_does_not_change_the_state(name, count):
    detector = make(name)
    state, _ = run(detector, readings(count))
    before = detector.dump(state)
    one = [detector.score(state, value, START) for value in (0.0, 0.3, 1.0)]
    two = [detector.score(state, value, START) for value in (0.0, 0.3, 1.0)]
    assert one == two
    assert detector.dump(state) == before
    assert isinstance(detector.score(None, 0.5, None), Verdict)


LOADERS = {
    "this process": lambda detector: detector,
    "another process": lambda detector: pickle.loads(pickle.dumps(detector)),
}
"""Which detector loads what a detector has dumped."""


@pytest.mark.parametrize("loader", LOADERS)
@settings(max_examples=12, deadline=None)
@given(at=st.integers(1, 1_200), seed=st.integers(0, 99))
def test_a_state_saved_and_loaded_at_any_reading_changes_nothing_after_it(name, loader, at, seed):
    detector = make(name)
    stream = list(readings(at + 400, seed))
    _, whole = run(detector, stream)
    state, first = run(detector, stream[:at])
    _, second = run(detector, stream[at:], LOADERS[loader](detector).load(detector.dump(state)))
    assert first + second == whole


@pytest.mark.parametrize("loader", LOADERS)
def test_a_state_saved_after_each_reading_changes_nothing(name, loader):
    detector = make(name)
    other = LOADERS[loader](detector)
    state, verdicts = None, []
    for value, time in readings(700):
        state, verdict = detector.update(state, value, time)
        verdicts.append(verdict)
        state = other.load(detector.dump(state))
    assert verdicts == run(detector, readings(700))[1]


def test_a_saved_state_is_not_changed_by_what_the_original_learns(name):
    detector = make(name)
    stream = list(readings(1_000))
    state, _ = run(detector, stream[:600])
    saved = detector.load(detector.dump(state))
    before = detector.dump(saved)
    run(detector, stream[600:], state)
    assert detector.dump(saved) == before


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_an_error_and_changes_nothing(name, value):
    detector = make(name)
    for count in (0, 3, 500):
        state, _ = run(detector, readings(count))
        before = state and detector.dump(state)
        for method in (detector.update, detector.score):
            with pytest.raises(ValueError, match="finite"):
                method(state, value, START)
        assert (state and detector.dump(state)) == before


def test_a_state_does_not_grow_with_the_stream(name):
    detector = make(name)
    sizes = []
    for count in (500, 5_000):
        state, _ = run(detector, readings(count))
        sizes.append(len(detector.dump(state)))
    assert sizes[1] <= 1.5 * sizes[0] + 64


def test_bytes_of_another_detector_seed_or_version_or_damaged_ones_are_an_error(name):
    detector = make(name, seed=5)
    state, _ = run(detector, readings(300))
    data = detector.dump(state)
    others = [make(other, seed=5) for other in ONE_BY_ONE if other != name]
    reseeded = make(name, seed=6)
    # A detector that draws nothing at random is the same whatever the seed.
    others += [reseeded] if pickle.dumps(reseeded) != pickle.dumps(detector) else []
    foreign = [other.dump(run(other, readings(300))[0]) for other in others]
    damaged = [data[:-1], data + b"\0", b"", b"\0", pickle.dumps(data), b"not a state at all"]
    for i in range(0, len(data), max(1, len(data) // 97)):
        damaged.append(data[:i] + bytes((data[i] ^ 16,)) + data[i + 1 :])
    for wrong in foreign + damaged:
        with pytest.raises(ValueError, match=r"\w+ \w+"):
            detector.load(wrong)
    assert detector.dump(detector.load(data)) == data


def test_times_may_be_missing(name):
    _, verdicts = run(make(name), ((value, None) for value, _ in readings(600)))
    assert all(0 <= verdict.score <= 1 for verdict in verdicts)


def test_a_wrong_name_is_an_error_that_lists_this_one(name):
    with pytest.raises(UserError, match=name):
        make("no such detector")


def test_its_class_says_whether_it_is_compiled(name):
    compiled_files = (REPOSITORY / "hatch_build.py").read_text()
    file = KIND.built_in[name].removeprefix("dataflow.detectors.").partition(":")[0]
    assert find(name).compilable == (f'"{file.replace(".", "/")}",' in compiled_files)


def test_it_takes_any_range_unless_it_says_otherwise(name):
    scores = [v.score for v in run(make(name), ((1e6 * v, t) for v, t in readings(1_000)))[1]]
    assert (len(set(scores[300:])) == 1) == find(name).needs_range
