"""The batch size while the flow catches up with a topic."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.sources.batch_size import FEW, FEW_OF_SEVERAL, MOST, SAMPLE, TOGETHER, BatchSize


@given(
    instances=st.integers(1, 2 * SAMPLE),
    take=st.integers(1, 700),
    seed=st.integers(),
    several=st.booleans(),
)
def test_instances_have_several_readings_in_a_batch(
    instances: int, take: int, seed: int, several: bool
) -> None:
    """Where a batch can hold them; otherwise it is small."""
    keys = [str(number % instances) for number in range(SAMPLE)]
    random.Random(seed).shuffle(keys)
    few = FEW_OF_SEVERAL if several else FEW
    size = BatchSize(several=several)
    for start in range(0, SAMPLE, take):
        assert size.sampling
        assert size.records == FEW
        size.look(keys[start : start + take])
    assert not size.sampling
    each = size.records / min(instances, SAMPLE)
    if instances * TOGETHER > MOST:
        assert size.records == FEW
    else:
        assert each >= TOGETHER
        assert size.records == few or each == TOGETHER


@pytest.mark.parametrize(("several", "records"), [(False, FEW), (True, FEW_OF_SEVERAL)])
def test_records_without_keys_have_the_usual_batch_size(several: bool, records: int) -> None:
    size = BatchSize(several=several)
    size.look([None] * SAMPLE)
    assert size.records == records
