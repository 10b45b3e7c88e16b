"""Our half-space trees and the tutorial's detector against River's own: bits and types."""

import math
import pickle
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river.anomaly import HalfSpaceTrees as River

from dataflow.detectors.halfspace.trees import draw
from dataflow.detectors.tutorial import Tutorial

NAN, INF = math.nan, math.inf
FEATURES = ["cpu", "disk", "net", "queue"]


def same(ours, rivers):
    return type(ours) is type(rivers) and repr(ours) == repr(rivers)


limits = st.tuples(
    st.floats(-1e6, 1e6, allow_subnormal=False), st.floats(1e-6, 1e6, allow_subnormal=False)
).map(lambda pair: (pair[0], pair[0] + pair[1]))
seeds = st.one_of(st.integers(-5, 2**70), st.text(max_size=3), st.floats(allow_nan=False))


def in_heap_order(root, height):
    nodes = [None, root]
    for i in range(1, 2**height):
        nodes.extend(nodes[i].children)
    return nodes[1 : 2**height]


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(0, 6),
    st.integers(1, 4),
    st.dictionaries(st.sampled_from(FEATURES), limits),
    seeds,
)
def test_the_trees_are_those_that_river_draws(n_trees, height, count, some, seed):
    features = FEATURES[:count]
    river = River(n_trees, height, 5, limits=some or None, seed=seed)
    river.learn_one(dict.fromkeys(features, 0.5))
    bounds = tuple((name, river.limits[name]) for name in sorted(features))
    forest = draw(n_trees, height, 5, bounds, seed)
    for tree, named, cuts in zip(river.trees, forest.features, forest.thresholds, strict=True):
        branches = in_heap_order(tree, height)
        assert [branch.feature for branch in branches] == list(named[1:])
        assert [branch.threshold for branch in branches] == list(cuts[1:])


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"n_trees": 0}, "n_trees"),
        ({"height": -1}, "height"),
        ({"window_size": 0}, "window_size"),
        ({"window_size": 2.5}, "window_size"),
        ({"window_size": 10**13}, "smaller window"),
        ({"limits": (("x", (1, 0)),)}, "'x'"),
        ({"limits": (("x", (0, INF)),)}, "'x'"),
        ({"limits": (("x", (1, 1)),)}, "coincide"),
        ({"limits": ()}, "feature"),
    ],
)
def test_trees_that_cannot_be_drawn_are_an_error_that_names_the_parameter(changed, word):
    parameters = {"n_trees": 10, "height": 8, "window_size": 250, "limits": (("x", (0, 1)),)}
    with pytest.raises(ValueError, match=word):
        draw(**{**parameters, **changed}, seed=1)


small = st.fixed_dictionaries(
    {
        "n_trees": st.integers(1, 6),
        "height": st.integers(0, 4),
        "window_size": st.sampled_from([1, 2, 3, 5, 9, 10]),
        "seed": seeds,
    }
)


@settings(max_examples=200, deadline=None)
@given(small, st.lists(st.floats(-0.5, 1.5), max_size=80))
def test_the_tutorial_scores_as_river_does_after_learning(kwargs, values):
    river, tutorial, state = River(**kwargs), Tutorial(**kwargs), None
    for x in values:
        before = tutorial.score(state, x)
        assert same(before.score, river.score_one({"value": x}))
        river.learn_one({"value": x})
        state, verdict = tutorial.update(state, x)
        assert same(verdict.score, river.score_one({"value": x}))


def value(rng, cuts):
    """Any finite reading: often at a cut, or next to one."""
    kind = rng.randrange(8)
    if kind < 3 and cuts:
        cut = rng.choice(cuts)
        return (cut, math.nextafter(cut, INF), math.nextafter(cut, -INF))[kind]
    if kind < 5:
        return rng.gauss(0.5, 0.05)
    if kind == 5:
        return rng.choice([0.0, -0.0, 0, 1, -1, 7, 1e300, -1e300, True])
    return rng.uniform(-0.2, 1.2)


BULK = {
    (5, 3, 5): 150_000,
    (3, 2, 10): 20_000,
    (1, 1, 1): 10_000,
    (4, 5, 7): 10_000,
}


def bulk(parameters, count):
    """Mismatches with River over `count` readings of several instances."""
    rng = random.Random(repr(parameters))
    mismatches = scored = 0
    instances = 4
    rivers = [River(*parameters, seed=7) for _ in range(instances)]
    tutorial = Tutorial(*parameters, seed=7)
    states = [None] * instances
    cuts = []
    levels = [rng.random() for _ in range(instances)]
    for i in range(count):
        key = i % instances
        x = value(rng, cuts) if i % 3 == 0 else rng.gauss(levels[key], 0.03)
        if rng.random() < 0.002:
            levels[key] = rng.random()
        river = rivers[key]
        river.learn_one({"value": x})
        expected = river.score_one({"value": x})
        if rng.random() < 0.05:
            states[key] = states[key] and tutorial.load(tutorial.dump(states[key]))
        states[key], verdict = tutorial.update(states[key], x)
        mismatches += not same(verdict.score, expected)
        scored += isinstance(expected, float)
        cuts = cuts or [branch.threshold for tree in river.trees for branch in tree.iter_branches()]
    assert scored > 0.85 * count
    return mismatches


@pytest.mark.parametrize("parameters", BULK, ids=str)
def test_190_000_readings_score_as_in_river(parameters):
    assert bulk(parameters, BULK[parameters]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("parameters", BULK, ids=str)
def test_1_900_000_readings_score_as_in_river(parameters):
    assert bulk(parameters, 10 * BULK[parameters]) == 0


def test_seeds_that_are_equal_but_draw_differently_are_kept_apart():
    cuts = [draw(1, 3, 5, (("x", (0, 1)),), seed).thresholds for seed in (1e100, int(1e100))]
    assert cuts[0] != cuts[1]


@pytest.mark.parametrize("parameters", [(5, 3, 11), (10, 8, 5), (5, 3, 250)])
def test_what_the_compact_form_cannot_hold_is_an_error(parameters):
    with pytest.raises(ValueError, match="too large"):
        Tutorial(*parameters)


def test_the_tutorials_state_is_stored_in_32_bytes():
    tutorial, state = Tutorial(), None
    for i in range(40):
        state, _ = tutorial.update(state, i / 40)
        assert len(tutorial.dump(state)) <= 16
        assert len(pickle.dumps(tutorial.dump(state))) <= 32


def test_a_start_does_not_bring_scikit_learn_or_river():
    script = (
        "import sys, dataflow.detectors.tutorial, dataflow.detectors.calibrated.detector\n"
        "assert not {'sklearn', 'river'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
