"""The masses of the leaves, in two bytes and in four, against a list of numbers."""

from __future__ import annotations

import math
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.detectors.calibrated.detector import Calibrated
from dataflow.detectors.calibrated.masses import CODES, code_for, none_yet, read, table

MOST = {"h": 2**16 - 1, "i": 300_000}
LEAVES = 12
STEPS = st.lists(
    st.tuples(st.lists(st.integers(0, LEAVES - 1), unique=True), st.booleans(), st.booleans()),
    max_size=30,
)


def bits(mass: int) -> float:
    """Another number for each mass, whose sums are exact."""
    return float(mass)


TABLES = {code: table(code, MOST[code], bits) for code in CODES}


@given(st.sampled_from(sorted(CODES)), STEPS)
def test_they_count_as_a_list_of_numbers_does(
    code: str, steps: list[tuple[list[int], bool, bool]]
) -> None:
    masses, truth = none_yet(code, LEAVES), [0] * LEAVES
    for leaves, halve, again in steps:
        assert masses.visit(tuple(leaves), TABLES[code]) == sum(truth[leaf] for leaf in leaves)
        for leaf in leaves:
            truth[leaf] += 1
        if halve:
            masses.halve()
            truth = [mass // 2 for mass in truth]
        if again:
            masses = read(code, masses.view().tobytes())
    for leaf, mass in enumerate(truth):
        assert masses.copy().visit((leaf,), TABLES[code]) == mass


@pytest.mark.parametrize("code", sorted(CODES))
def test_each_mass_up_to_the_most_has_its_bits(code: str) -> None:
    masses, leaf = none_yet(code, LEAVES), (7,)
    # The last visit finds the most that a leaf may hold before it counts: there is none beyond.
    for mass in range(MOST[code]):
        assert masses.visit(leaf, TABLES[code]) == mass
    top = masses.copy()
    masses.halve()
    assert masses.visit(leaf, TABLES[code]) == MOST[code] // 2
    assert top.copy().view() == top.view() != masses.view()


@pytest.mark.parametrize("interval", [1e-6, 1.0, 10.0, 36.0, 37.0, 60.0, 300.0, 1e6])
def test_no_leaf_of_a_detector_can_hold_more_than_its_type(interval: float) -> None:
    detector = Calibrated(interval=interval)
    code = detector.update(None, 0.5, None)[0].signature[1]
    # Half is forgotten each fortnight.
    most = 2 * round(4032 * max(1.0, min(300 / interval, 30.0)))
    assert code == code_for(most)
    full = read(code, array(code, [most - 32_768 if code == "h" else most]).tobytes())
    assert full.visit((0,), detector._leaf_bits) == math.log2(32 * most + 1) / 8


def test_two_bytes_hold_as_much_as_they_can() -> None:
    assert [code_for(most) for most in (0, 32_768, 65_535, 65_536)] == ["h", "h", "h", "i"]
