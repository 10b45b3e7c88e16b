"""The compact half-space trees against River's own, score by score: bits and types."""

import copy
import math
import pickle
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import compose, evaluate, metrics, preprocessing
from river.anomaly import HalfSpaceTrees as River

from dataflow.detectors.halfspace.forest import HalfSpaceTrees, grow
from dataflow.detectors.halfspace.long import LongWindows, WideWindows
from dataflow.detectors.halfspace.short import ShortWindows
from dataflow.detectors.halfspace.trees import draw
from dataflow.detectors.tutorial import Tutorial

NAN, INF = math.nan, math.inf


def same(ours, rivers):
    return type(ours) is type(rivers) and repr(ours) == repr(rivers)


def through_dump(detector):
    """The detector with its state dumped and loaded, where it has one."""
    if detector._forest is not None:
        detector._state = detector._forest.load(detector._forest.dump(detector._state))
    return detector


SAVES = {
    "not": lambda detector: detector,
    "copied": copy.deepcopy,
    "pickled": lambda detector: pickle.loads(pickle.dumps(detector)),
    "dumped": through_dump,
}

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
limits = st.tuples(
    st.floats(-1e6, 1e6, allow_subnormal=False), st.floats(1e-6, 1e6, allow_subnormal=False)
).map(lambda pair: (pair[0], pair[0] + pair[1]))
seeds = st.one_of(st.integers(-5, 2**70), st.text(max_size=3), st.floats(allow_nan=False))
windows = st.sampled_from([1, 2, 3, 5, 9, 10, 11, 12, 20, 35])


@st.composite
def parameters(pick, features):
    """Parameters of a forest, with the limits of some of the features or of none."""
    some = pick(st.dictionaries(st.sampled_from(features), limits))
    return {
        "n_trees": pick(st.integers(1, 6)),
        "height": pick(st.integers(0, 6)),
        "window_size": pick(windows),
        "limits": some or None,
        "seed": pick(seeds),
    }


def cuts_of(river):
    """Each feature's thresholds in a River detector that has its trees."""
    cuts = {}
    for tree in river.trees:
        for branch in tree.iter_branches():
            cuts.setdefault(branch.feature, []).append(branch.threshold)
    return cuts


def value(rng, cuts):
    """Anything that a feature may bring: often near a cut, sometimes not a number."""
    kind = rng.randrange(8)
    if kind < 3 and cuts:
        cut = rng.choice(cuts)
        return (cut, math.nextafter(cut, INF), math.nextafter(cut, -INF))[kind]
    if kind < 5:
        return rng.gauss(0.5, 0.05)
    if kind == 5:
        return rng.choice([NAN, INF, -INF, 0.0, -0.0, 0, 1, -1, 7, 1e300, -1e300, 10**400, True])
    low, high = (min(cuts), max(cuts)) if cuts else (0.0, 1.0)
    return rng.uniform(low - 0.2 * (high - low), high + 0.2 * (high - low))


@st.composite
def streams(pick, count):
    """Parameters, a feature list, and a seeded generator for the readings."""
    features = ["cpu", "disk", "net"][:count]
    return pick(parameters(features)), features, random.Random(pick(st.integers(0, 2**32)))


def compare(stream, missing):
    kwargs, features, rng = stream
    river, ours = River(**kwargs), HalfSpaceTrees(**kwargs)
    cuts, x = {}, dict.fromkeys(features, 0.5)
    assert same(ours.score_one(x), river.score_one(x))
    for _ in range(4 * kwargs["window_size"] + 3):
        if rng.random() < 0.8:
            x = {
                name: value(rng, cuts.get(name, []))
                for name in features
                if not cuts or rng.random() >= missing
            }
        if rng.random() < 0.3:
            assert same(ours.score_one(x), river.score_one(x))
        river.learn_one(x)
        ours.learn_one(x)
        ours = SAVES[rng.choice(list(SAVES))](ours)
        assert same(ours.score_one(x), river.score_one(x))
        cuts = cuts or cuts_of(river)
    return ours


def in_heap_order(root, height):
    nodes = [None, root]
    for i in range(1, 2**height):
        nodes.extend(nodes[i].children)
    return nodes[1 : 2**height]


@settings(max_examples=300, deadline=None)
@given(parameters(["cpu", "disk", "net", "queue"]), st.integers(1, 4))
def test_the_trees_are_those_that_river_draws(kwargs, count):
    features = ["cpu", "disk", "net", "queue"][:count]
    river = River(**kwargs)
    river.learn_one(dict.fromkeys(features, 0.5))
    bounds = tuple((name, river.limits[name]) for name in sorted(features))
    forest = draw(
        kwargs["n_trees"], kwargs["height"], kwargs["window_size"], bounds, kwargs["seed"]
    )
    for tree, named, cuts in zip(river.trees, forest.features, forest.thresholds, strict=True):
        branches = in_heap_order(tree, kwargs["height"])
        assert [branch.feature for branch in branches] == list(named[1:])
        assert [branch.threshold for branch in branches] == list(cuts[1:])


@settings(max_examples=300, deadline=None)
@given(streams(1))
def test_one_feature_scores_as_river_does(stream):
    ours = compare(stream, missing=0)
    assert isinstance(ours._forest, ShortWindows | LongWindows)


@settings(max_examples=200, deadline=None)
@given(streams(1))
def test_one_feature_that_is_missing_at_times_scores_as_river_does(stream):
    compare(stream, missing=0.2)


@settings(max_examples=200, deadline=None)
@given(streams(3), st.sampled_from([0, 0.3, 0.9]))
def test_several_features_score_as_river_does(stream, missing):
    ours = compare(stream, missing)
    assert isinstance(ours._forest, WideWindows)


@settings(max_examples=200, deadline=None)
@given(parameters(["value"]), st.lists(st.floats(-0.5, 1.5), max_size=80))
def test_the_tutorial_scores_as_river_does_after_learning(kwargs, values):
    del kwargs["limits"]
    river, tutorial, state = River(**kwargs), Tutorial(**kwargs), None
    for x in values:
        before = tutorial.score(state, x)
        assert same(before.score, river.score_one({"value": x}))
        river.learn_one({"value": x})
        state, verdict = tutorial.update(state, x)
        assert same(verdict.score, river.score_one({"value": x}))


BULK = {
    (5, 3, 5): 150_000,
    (3, 2, 10): 20_000,
    (1, 1, 1): 10_000,
    (5, 3, 11): 10_000,
    (4, 5, 40): 10_000,
    (10, 8, 250): 10_000,
}


def bulk(parameters, count):
    """Mismatches with River over `count` records of several keys, which share a forest."""
    rng = random.Random(repr(parameters))
    mismatches = scored = 0
    keys = 4
    rivers = [River(*parameters, seed=7) for _ in range(keys)]
    tutorial = Tutorial(*parameters, seed=7)
    states = [None] * keys
    cuts = []
    levels = [rng.random() for _ in range(keys)]
    for i in range(count):
        key = i % keys
        x = value(rng, cuts) if i % 3 == 0 else rng.gauss(levels[key], 0.03)
        if not abs(x) < 1e300:  # a detector is given finite floats
            x = rng.random()
        if rng.random() < 0.002:
            levels[key] = rng.random()
        river = rivers[key]
        river.learn_one({"value": x})
        expected = river.score_one({"value": x})
        if rng.random() < 0.05:
            states[key] = states[key] and tutorial.load(tutorial.dump(states[key]))
        states[key], verdict = tutorial.update(states[key], x)
        mismatches += verdict.score != expected or type(verdict.score) is not type(expected)
        scored += isinstance(expected, float)
        cuts = cuts or cuts_of(river)["value"]
    assert scored > 0.85 * count
    return mismatches


@pytest.mark.parametrize("parameters", BULK, ids=str)
def test_210_000_records_score_as_in_river(parameters):
    assert bulk(parameters, BULK[parameters]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("parameters", BULK, ids=str)
def test_2_100_000_records_score_as_in_river(parameters):
    assert bulk(parameters, 10 * BULK[parameters]) == 0


@pytest.mark.parametrize(
    ("parameters", "form"),
    [
        ((5, 3, 5), ShortWindows),
        ((5, 3, 10), ShortWindows),
        ((5, 3, 11), LongWindows),
        ((10, 8, 5), LongWindows),
    ],
)
def test_the_form_is_the_cheapest_that_holds(parameters, form):
    assert isinstance(grow(*parameters, (("value", (0.0, 1.0)),), 42), form)


def test_seeds_that_are_equal_but_draw_differently_are_told_apart():
    value = {"x": 0.5}
    for seed in (1e100, int(1e100)):
        river, ours = River(seed=seed), HalfSpaceTrees(seed=seed)
        river.learn_one(value)
        ours.learn_one(value)
        assert ours._forest.cuts == sorted(cuts_of(river)["x"])


def test_forests_of_the_same_parameters_are_one_object_even_after_copying():
    one, two = HalfSpaceTrees(seed=3), HalfSpaceTrees(seed=3)
    one.learn_one({"x": 0.5})
    two.learn_one({"x": 0.1})
    twin = copy.deepcopy(one)
    thawed = pickle.loads(pickle.dumps(one))
    assert one._forest is two._forest is twin._forest is thawed._forest


@pytest.mark.parametrize("window", [5, 20])
@pytest.mark.parametrize("features", [("x",), ("x", "y")])
@pytest.mark.parametrize("more", [1, 40])
def test_a_copy_learns_on_its_own(window, features, more):
    one = HalfSpaceTrees(5, 3, window, seed=3)
    for i in range(window + 3):
        one.learn_one(dict.fromkeys(features, i / 50))
    twin, before = copy.deepcopy(one), one._forest.dump(one._state)
    for _ in range(more):
        twin.learn_one(dict.fromkeys(features, 0.9))
    assert one._forest.dump(one._state) == before != twin._forest.dump(twin._state)


def test_without_a_seed_trees_are_drawn_anew_and_survive_saving():
    detectors = [HalfSpaceTrees(window_size=20) for _ in range(2)]
    for detector in detectors:
        for i in range(30):
            detector.learn_one({"x": i / 30})
    assert detectors[0]._forest.cuts != detectors[1]._forest.cuts
    thawed = pickle.loads(pickle.dumps(detectors[0]))
    assert thawed.score_one({"x": 0.2}) == detectors[0].score_one({"x": 0.2})


def test_a_clone_has_the_parameters_and_none_of_the_learning():
    ours = HalfSpaceTrees(5, 3, 5, limits={"x": (0, 2)}, seed=3)
    for _ in range(7):
        ours.learn_one({"x": 1.5})
    clone = ours.clone()
    assert clone.score_one({"x": 0.1}) == 0
    assert clone._get_params() == ours._get_params()
    assert ours.clone({"height": 4}).height == 4


def test_in_a_pipeline_and_in_progressive_validation_it_does_as_river_does():
    def rocauc(detector):
        return evaluate.progressive_val_score(
            dataset=readings(),
            model=compose.Pipeline(preprocessing.MinMaxScaler(), detector),
            metric=metrics.ROCAUC(),
        ).get()

    def readings():
        rng = random.Random(5)
        for i in range(1_000):
            odd = i % 50 == 49
            yield {"a": rng.gauss(8 * odd, 1), "b": rng.gauss(0, 3)}, odd

    ours = rocauc(HalfSpaceTrees(seed=42))
    assert ours == rocauc(River(seed=42))
    assert ours > 0.5


@pytest.mark.parametrize(
    ("kwargs", "x", "word"),
    [
        ({"n_trees": 0}, {"x": 1}, "n_trees"),
        ({"height": -1}, {"x": 1}, "height"),
        ({"window_size": 0}, {"x": 1}, "window_size"),
        ({"window_size": 2.5}, {"x": 1}, "window_size"),
        ({"window_size": 10**13}, {"x": 1}, "smaller window"),
        ({"limits": {"x": (1, 0)}}, {"x": 1}, "'x'"),
        ({"limits": {"x": (0, INF)}}, {"x": 1}, "'x'"),
        ({"limits": {"x": (1, 1)}}, {"x": 1}, "coincide"),
        ({}, {}, "features"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(kwargs, x, word):
    with pytest.raises(ValueError, match=word):
        HalfSpaceTrees(seed=1, **kwargs).learn_one(x)


def test_a_reading_that_cannot_be_compared_changes_nothing():
    ours = HalfSpaceTrees(5, 3, 5, seed=1)
    ours.learn_one({"x": 0.5})
    before = pickle.dumps(ours)
    with pytest.raises(TypeError):
        ours.learn_one({"x": "0.5"})
    assert pickle.dumps(ours) == before


def test_the_tutorials_state_is_stored_in_32_bytes():
    tutorial, state = Tutorial(), None
    for i in range(40):
        state, _ = tutorial.update(state, i / 40)
        assert len(tutorial.dump(state)) <= 16
        assert len(pickle.dumps(tutorial.dump(state))) <= 32


def test_a_start_does_not_bring_scikit_learn_or_rivers_trees():
    script = (
        "import sys, dataflow.detectors.tutorial, dataflow.detectors.calibrated.detector\n"
        "assert not {'sklearn', 'river.tree'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
