"""How many records are taken at a time from a backlog."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from dataflow.batch_size import FEW, MOST, SAMPLE, TOGETHER, BatchSize


@given(instances=st.integers(1, 2 * SAMPLE), take=st.integers(1, 700), seed=st.integers())
def test_instances_have_several_readings_in_a_batch(instances: int, take: int, seed: int) -> None:
    """As many as wished, where a batch can hold them; else batches stay small."""
    keys = [str(number % instances) for number in range(SAMPLE)]
    random.Random(seed).shuffle(keys)
    size = BatchSize()
    for start in range(0, SAMPLE, take):
        assert size.sampling
        assert size.records == FEW
        size.look(keys[start : start + take])
    assert not size.sampling
    wanted = TOGETHER * min(instances, SAMPLE)
    assert size.records == (FEW if wanted > MOST else max(FEW, wanted))


def test_records_without_keys_are_taken_as_usual() -> None:
    size = BatchSize()
    size.look([None] * SAMPLE)
    assert size.records == FEW
