"""The random cut forest against trees that are written out, cut and counted point by point."""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import pairwise
from typing import Any

import forms
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from librt.vecs import vec

from dataflow import detectors
from dataflow.detectors.rcf.draws import draw, key
from dataflow.detectors.rcf.tree import Tree

WINDOW = 50.0


def tree(size: int) -> Tree:
    none = [0.0] * size
    return Tree(0, vec[float](none), vec[float](none), vec[float](none))


def grown(values: list[float], size: int, seed: int = 1) -> Tree:
    made = tree(size)
    for number, value in enumerate(values):
        made.learn(value, number / WINDOW, key(seed, number), 0)
    return made


def points_of(made: Tree) -> list[float]:
    return [made.points[i] for i in range(made.count)]


def times_of(made: Tree) -> list[float]:
    return [made.times[i] for i in range(made.count - 1)]


def shape(points: list[float], times: list[float]) -> tuple[Any, ...]:
    """The tree as nested pairs: points, then cut after cut, the earliest first."""
    if points[0] == points[-1]:
        return ("leaf", points)
    at = min(range(len(times)), key=times.__getitem__)
    return ("cut", shape(points[: at + 1], times[:at]), shape(points[at + 1 :], times[at + 1 :]))


def all_points(node: tuple[Any, ...]) -> list[float]:
    return node[1] if node[0] == "leaf" else all_points(node[1]) + all_points(node[2])


def depths(node: tuple[Any, ...] | None, depth: int = 0) -> list[int]:
    """The depth of each point, from left to right."""
    if node is None:
        return []
    if node[0] == "leaf":
        return [depth] * len(node[1])
    return depths(node[1], depth + 1) + depths(node[2], depth + 1)


def without(node: tuple[Any, ...], gone: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The tree after a node of it was deleted: what lay beside it moves up."""
    if node is gone:
        return None
    if node[0] == "leaf":
        return node
    sides = [side for side in (without(node[1], gone), without(node[2], gone)) if side]
    return ("cut", *sides) if len(sides) == 2 else sides[0]


def way_to(node: tuple[Any, ...], leaf: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """The nodes from a leaf up to the tree's root."""
    if node is leaf:
        return [node]
    if node[0] == "leaf":
        return []
    way = way_to(node[1], leaf) or way_to(node[2], leaf)
    return [*way, node] if way else []


def collusive(root: tuple[Any, ...], leaf: tuple[Any, ...]) -> float:
    """How much the depths of other points fall if a leaf goes, for each point that goes.

    Of the leaf and all sets of points that share a node with it, the one that does most.
    """
    found = 0.0
    for gone in way_to(root, leaf)[:-1]:
        rest = without(root, gone)
        before, after = sum(depths(root)) - sum(depths_of(root, gone)), sum(depths(rest))
        found = max(found, (before - after) / len(all_points(gone)))
    return found


def depths_of(root: tuple[Any, ...], part: tuple[Any, ...]) -> list[int]:
    return depths(part, len(way_to(root, part)) - 1)


def insertions(node: tuple[Any, ...], new: float) -> list[tuple[float, Any, Any]]:
    """Each tree that inserting a value can make of a node: its probability, itself, the leaf."""
    inside = all_points(node)
    low, high = inside[0], inside[-1]
    if low == high == new:
        leaf = ("leaf", [*inside, new])
        return [(1.0, leaf, leaf)]
    found = []
    reach = max(high, new) - min(low, new)
    apart = (low - new if new < low else new - high if new > high else 0.0) / reach
    if apart:
        leaf = ("leaf", [new])
        pair = (leaf, node) if new < low else (node, leaf)
        found.append((apart, ("cut", *pair), leaf))
    if apart < 1.0:
        left, right = node[1], node[2]
        end, start = all_points(left)[-1], all_points(right)[0]
        # The share of the places of the cut that lie below the value.
        below = min(max((new - end) / (start - end), 0.0), 1.0)
        for chance, part, leaf in insertions(left, new) if below < 1.0 else []:
            found.append(((1 - apart) * (1 - below) * chance, ("cut", part, right), leaf))
        for chance, part, leaf in insertions(right, new) if below > 0.0 else []:
            found.append(((1 - apart) * below * chance, ("cut", left, part), leaf))
    return found


values = st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0, 3.0, 100.0]) | st.floats(-1e3, 1e3)


@settings(max_examples=50)
@given(st.lists(values, min_size=1, max_size=60), values, st.integers(2, 12))
def test_displacement_is_that_of_deleting_the_value_from_each_tree_it_can_make(stream, new, size):
    made = grown(stream, size)
    points = points_of(made)
    written = shape(points, times_of(made))
    between = [(low + high) / 2 for low, high in pairwise(points)]
    for value in {new, points[0] - 0.5, points[-1] + 0.5, *points, *between}:
        found = insertions(written, value)
        assert sum(chance for chance, _, _ in found) == pytest.approx(1.0)
        expected = sum(chance * collusive(root, leaf) for chance, root, leaf in found)
        assert made.displacement(value) == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert 0.0 <= made.displacement(value) <= size


@given(st.lists(values, min_size=1, max_size=120), st.integers(2, 12), st.integers(0, 99))
def test_the_sample_is_the_readings_of_the_least_decayed_weights(stream, size, seed):
    weights = [
        math.log(-math.log(draw(key(seed, number), 0))) - number / WINDOW
        for number in range(len(stream))
    ]
    kept = sorted(range(len(stream)), key=weights.__getitem__)[:size]
    made = grown(stream, size, seed)
    assert points_of(made) == sorted(stream[number] for number in kept)
    stored = sorted(made.weights[i] for i in range(made.count))
    assert stored == pytest.approx(sorted(weights[number] for number in kept))


def test_recent_readings_are_in_the_sample_more_often_by_their_age():
    """Of 400 trees that saw 200 readings: as often as a draw without replacement would take them.

    The readings of the last window against those of the window before.
    """
    recent = before = 0
    for seed in range(400):
        points = points_of(grown([float(i) for i in range(200)], 4, seed))
        recent += sum(point >= 150 for point in points)
        before += sum(100 <= point < 150 for point in points)
    assert recent / before == pytest.approx(math.e, rel=0.15)


@pytest.mark.parametrize("learned", ["in this order", "from below", "after others"])
def test_the_first_cut_falls_into_a_gap_as_often_as_it_is_long(learned):
    """However a tree came about, it is a random cut tree over the sample that it holds."""
    stream = {
        "in this order": [3.0, 0.0, 10.0, 6.0],
        "from below": [0.0, 3.0, 6.0, 10.0],
        "after others": [5.0, 1.0, 40.0, -7.0, 3.0, 10.0, 0.0, 6.0],
    }[learned]
    first, pairs = Counter(), Counter()
    trees = 3_000
    for seed in range(trees):
        made = tree(4)
        for number, value in enumerate(stream):
            # So fast an aging that the newest readings always stay.
            made.learn(value, 100.0 * number, key(seed, number), 0)
        assert points_of(made) == [0.0, 3.0, 6.0, 10.0]
        order = sorted(range(3), key=times_of(made).__getitem__)
        first[order[0]] += 1
        pairs[tuple(order[:2])] += 1
    for gap, share in enumerate((0.3, 0.3, 0.4)):
        assert first[gap] / trees == pytest.approx(share, abs=0.03)
    # And the cut after it, in what the first has left of the range.
    assert pairs[2, 0] / first[2] == pytest.approx(0.5, abs=0.05)
    assert pairs[0, 2] / first[0] == pytest.approx(4 / 7, abs=0.05)


def test_draws_are_uniform_and_do_not_depend_on_each_other():
    numbers = [draw(key(7, number), place) for number in range(3_000) for place in range(4)]
    assert sum(numbers) / len(numbers) == pytest.approx(0.5, abs=0.01)
    tens = Counter(int(10 * number) for number in numbers)
    assert max(tens.values()) - min(tens.values()) < 250
    for step in (1, 2, 4):
        together = [a * b for a, b in zip(numbers, numbers[step:], strict=False)]
        assert sum(together) / len(together) == pytest.approx(0.25, abs=0.01)
    assert len({key(7, number) for number in range(20_000)}) == 20_000


def test_each_tree_draws_numbers_of_its_own():
    state = None
    for value in habit(300):
        state, _ = detectors.make("rcf").update(state, value, None)
    for number, made in enumerate(state.trees):
        drawn = [draw(key(42, i), 4 * number) for i in range(300)]
        weights = [math.log(-math.log(u)) - i / 4032 for i, u in enumerate(drawn)]
        assert sorted(made.weights) == sorted(weights)[:64]


def bits(detector: Any, values: list[float]) -> list[Any]:
    state, found = None, []
    for value in values:
        state, verdict = detector.update(state, value, None)
        found.append(verdict.score.hex())
    return [*found, detector.dump(state)]


def habit(count: int, seed: int = 1) -> list[float]:
    rng = random.Random(seed)
    return [
        rng.choice((0.3, 1e9))
        if rng.random() < 0.01
        else 0.3 + 0.1 * math.sin(i / 50) * rng.random()
        for i in range(count)
    ]


@pytest.mark.skipif(not detectors.compiled(), reason="nothing was compiled here: there is one form")
@settings(max_examples=8)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=150))
def test_both_forms_give_the_same_bits(numbers):
    stream = [*habit(230), *numbers, *habit(50, 2)]
    found = bits(detectors.make("rcf"), stream)
    assert len(set(found)) > 5
    with forms.plain():
        assert bits(detectors.make("rcf"), stream) == found


def test_the_score_is_the_displacement_in_deviations_of_what_is_usual():
    """Written down straight, from the trees of a state that learned the readings before."""
    detector = detectors.make("rcf")
    state, usual, lately, mean, variance = None, [], 0.0, 0.0, 0.0
    for number, value in enumerate(habit(700)):
        displaced = sum(t.displacement(value) for t in state.trees) / 4 if state else 0.0
        lately += (displaced - lately) / 6
        expected = 0.0
        if number >= 200:
            deviations = (lately - mean) / math.sqrt(variance + 1.5**2)
            expected = max(deviations, 0.0) / (max(deviations, 0.0) + 3.0)
            assert detector.score(state, value, None).score == pytest.approx(expected)
        state, verdict = detector.update(state, value, None)
        assert verdict.score == pytest.approx(expected)
        assert verdict[1:] == (None, None, None, False)
        if number >= 100:
            usual.append(lately)
            mean = sum(usual) / len(usual)
            variance = sum((one - mean) ** 2 for one in usual) / len(usual)
    assert max(usual) > 3 * mean


def test_shorter_intervals_make_more_readings_of_a_time():
    short = detectors.make("rcf", interval=60.0)
    state = None
    for i, value in enumerate(habit(1_010)):
        state, verdict = short.update(state, value, None)
        assert i >= 1_000 or verdict.score == 0.0
    assert short.score(state, 5.0, None).score > 0.0
    with pytest.raises(ValueError, match="interval must be"):
        detectors.make("rcf", interval=0.0)


def test_a_state_of_another_interval_is_refused_with_what_to_do():
    state, _ = detectors.make("rcf").update(None, 0.5, None)
    with pytest.raises(ValueError, match=r"interval 300 s; this .* 60 s\. Set ANOMALY_SEED"):
        detectors.make("rcf", interval=60.0).load(detectors.make("rcf").dump(state))
