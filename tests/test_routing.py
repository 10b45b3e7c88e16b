"""Which worker Bytewax gives a key to, against CPython's own hash and Bytewax itself."""

from __future__ import annotations

import threading
from _imp import source_hash  # type: ignore[attr-defined]
from collections import defaultdict
from typing import Any

import pytest
from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.operators import StatefulBatchLogic
from bytewax.testing import TestingSink, TestingSource, cluster_main
from hypothesis import example, given
from hypothesis import strategies as st

from dataflow.runtime.routing import Routes, worker_of


@given(st.text(), st.integers(1, 2**63))
@example("", 3)
@example("12345678", 5)
@example("i-0123456789abcdef0", 2**63)
@example("ä" * 300, 7)
def test_keys_are_hashed_as_by_cpython(key: str, workers: int) -> None:
    """CPython hashes with SipHash-1-3 too: here with the key 0, as Rust does by default."""
    hashed = int.from_bytes(source_hash(0, key.encode() + b"\xff"), "little")
    assert worker_of(key, workers) == hashed % workers
    assert Routes(workers)[key] == worker_of(key, workers)


class _Here(DynamicSource[Any]):
    """Knows the numbers of the workers by their threads, of which Python may forget all else."""

    def __init__(self) -> None:
        self.workers: dict[int, int] = {}

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Nothing:
        self.workers[threading.get_ident()] = worker_index
        return _Nothing()


class _Nothing(StatelessSourcePartition[Any]):
    def next_batch(self) -> list[Any]:
        raise StopIteration


KEYS = [f"i-{number}" for number in range(200)] + ["", "ä", "24ae8d", "a key of some length"]


def workers_of_keys(workers: int) -> dict[str, set[int]]:
    """Run a flow, and return which workers each of KEYS came to."""
    here = _Here()
    found: defaultdict[str, set[int]] = defaultdict(set)

    class Logic(StatefulBatchLogic[str, str, None]):
        def on_batch(self, values: list[str]) -> tuple[list[str], bool]:
            for key in values:
                found[key].add(here.workers[threading.get_ident()])
            return [], self.RETAIN

        def snapshot(self) -> None:
            return None

    flow = Dataflow("keys")
    op.input("here", flow, here)
    keyed = op.input("keys", flow, TestingSource([(key, key) for key in KEYS]))
    op.output("out", op.stateful_batch("where", keyed, lambda _: Logic()), TestingSink([]))
    cluster_main(flow, [], 0, worker_count_per_proc=workers)
    return dict(found)


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 5, 8])
def test_bytewax_routes_keys_to_the_predicted_workers(workers: int) -> None:
    """If this fails, results stay right, but clusters are slow: `exchange` predicts wrong."""
    assert workers_of_keys(workers) == {key: {worker_of(key, workers)} for key in KEYS}
