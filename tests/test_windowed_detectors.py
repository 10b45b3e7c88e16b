"""What every detector promises that judges many readings at once; see also test_detectors.py."""

import copy
import math
import pickle
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_detectors import ONE_BY_ONE, START, readings

from dataflow.detectors import NAMES, make
from dataflow.detectors.base import Verdict, WindowedDetector

WINDOWED = [name for name in NAMES if name not in ONE_BY_ONE]
WINDOW = 100

pytestmark = pytest.mark.parametrize("name", WINDOWED)


def small(name, seed=42):
    """A detector with a window that is soon full."""
    return replace(make(name, seed=seed), window=WINDOW)


def run(detector, readings, state=None):
    verdicts = []
    for value, time in readings:
        state, due = detector.update(state, value, time)
        verdicts += due
    return state, verdicts


def run_to_the_end(detector, readings, state=None):
    state, verdicts = run(detector, readings, state)
    return verdicts + list(detector.finish(state)[1])


def test_it_has_its_name_and_a_threshold_that_a_score_can_pass(name):
    detector = make(name)
    assert isinstance(detector, WindowedDetector)
    assert detector.name == name
    assert 0 < detector.threshold < 1


@pytest.mark.parametrize("count", [1, 70, 100, 101, 250])
def test_each_reading_has_one_verdict_in_the_end(name, count):
    verdicts = run_to_the_end(small(name), readings(count))
    assert len(verdicts) == count
    assert all(isinstance(v, Verdict) and 0 <= v.score <= 1 for v in verdicts)


def test_the_same_seed_gives_the_same_verdicts(name):
    one, two, other = (run_to_the_end(small(name, seed), readings(250)) for seed in (5, 5, 6))
    assert one == two
    assert one != other


def test_keys_do_not_touch_each_other(name):
    detector = small(name)
    streams = [list(readings(150, seed)) for seed in range(3)]
    alone = [run_to_the_end(small(name), stream) for stream in streams]
    states, together = [None] * 3, [[], [], []]
    for row in zip(*streams, strict=True):
        for key, (value, time) in enumerate(row):
            states[key], due = detector.update(states[key], value, time)
            together[key] += due
    for key, state in enumerate(states):
        together[key] += detector.finish(state)[1]
    assert together == alone


SAVES = {
    "dumped": lambda detector, state: detector.load(detector.dump(state)),
    "dumped for another process": lambda detector, state: pickle.loads(pickle.dumps(detector)).load(
        detector.dump(state)
    ),
    "pickled": lambda detector, state: pickle.loads(pickle.dumps(state)),
    "copied": lambda detector, state: copy.deepcopy(state),
}


@pytest.mark.parametrize("save", SAVES)
@settings(max_examples=3, deadline=None)
@given(at=st.integers(1, 230), end=st.booleans())
def test_a_state_saved_and_loaded_at_any_reading_changes_nothing_after_it(name, save, at, end):
    """Nor where the input ends at that reading and continues later."""
    detector = small(name)
    stream = list(readings(240))
    runs = []
    for keep in (lambda _, state: state, SAVES[save]):
        state, first = run(detector, stream[:at])
        if end:
            state, due = detector.finish(state)
            first += due
        runs.append(first + run_to_the_end(detector, stream[at:], keep(detector, state)))
    assert runs[0] == runs[1]
    assert len(runs[0]) == 240


@pytest.mark.parametrize("save", SAVES)
def test_a_state_saved_after_each_reading_changes_nothing(name, save):
    detector = small(name)
    state, verdicts = None, []
    for value, time in readings(220):
        state, due = detector.update(state, value, time)
        verdicts += due
        state = SAVES[save](detector, state)
    verdicts += detector.finish(state)[1]
    assert verdicts == run_to_the_end(detector, readings(220))


@pytest.mark.parametrize("save", ["pickled", "copied"])
def test_a_copy_is_not_changed_by_what_the_original_learns(name, save):
    detector = small(name)
    stream = list(readings(220))
    state, _ = run(detector, stream[:130])
    copied = SAVES[save](detector, state)
    before = detector.dump(copied)
    run_to_the_end(detector, stream[130:], state)
    assert detector.dump(copied) == before


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_an_error_and_changes_nothing(name, value):
    detector = small(name)
    for count in (0, 3, 150):
        state, _ = run(detector, readings(count))
        before = state and detector.dump(state)
        with pytest.raises(ValueError, match="finite"):
            detector.update(state, value, START)
        assert (state and detector.dump(state)) == before


def test_a_state_does_not_grow_with_the_stream(name):
    detector = small(name)
    sizes = []
    for count in (2 * WINDOW - 1, 9 * WINDOW - 1):
        state, _ = run(detector, readings(count))
        sizes.append(max(len(detector.dump(state)), len(pickle.dumps(state))))
    assert sizes[1] <= sizes[0] + 64


def test_bytes_of_another_detector_seed_or_version_or_damaged_ones_are_an_error(name):
    detector = small(name, seed=5)
    state, _ = run(detector, readings(130))
    data = detector.dump(state)
    foreign = [make(other).dump(make(other).update(None, 0.5, None)[0]) for other in ONE_BY_ONE]
    for other in (make(name, seed=5), small(name, seed=6)):
        foreign.append(other.dump(run(other, readings(30))[0]))
    damaged = [data[:-1], data + b"\0", b"", b"\0", pickle.dumps(state), b"not a state at all"]
    for i in range(0, len(data), max(1, len(data) // 97)):
        damaged.append(data[:i] + bytes((data[i] ^ 16,)) + data[i + 1 :])
    for wrong in foreign + damaged:
        with pytest.raises(ValueError, match=name):
            detector.load(wrong)
    assert detector.dump(detector.load(data)) == data


def test_times_may_be_missing(name):
    verdicts = run_to_the_end(small(name), ((value, None) for value, _ in readings(150)))
    assert len(verdicts) == 150
