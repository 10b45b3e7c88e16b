"""What goes from a worker to another."""

from __future__ import annotations

import pickle
from itertools import chain
from typing import Any

import pytest
from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource, cluster_main
from hypothesis import example, given
from hypothesis import strategies as st

from dataflow.records import Reading
from dataflow.runtime.routing import worker_of
from dataflow.steps import exchange
from dataflow.steps.exchange import Parcel, hand_over, names

NUMBERS = st.integers(-(10**30), 10**30) | st.floats(allow_nan=False)
TEXT = st.text()
READINGS = st.lists(
    st.builds(
        Reading,
        instance=TEXT,
        timestamp=st.none() | TEXT | NUMBERS,
        index=TEXT | NUMBERS,
        value=st.floats(allow_nan=False),
        time=st.none() | st.floats(allow_nan=False),
        partition=st.integers(0, 2**31 - 1),
        offset=st.integers(0, 2**63 - 1),
    ),
    max_size=5,
)
ONE = Reading("i-1", None, 7, 0.25, None, 0, 12)


@given(READINGS)
@example([Reading("i-1", "2024-01-01 00:00:00", 10**30, 0.5, 0.0, 0, 1)])
@example([Reading("i-1", None, 7.0, -0.0, None, 0, 1), Reading("i-1", 7, "7", 1e-300, 7.0, 0, 2)])
def test_readings_arrive_as_they_were(readings: list[Reading]) -> None:
    """As they would be typed in: 7 is not 7.0, nor 0.0 the same as -0.0."""
    sent = Parcel(exchange.keyed(readings))
    for _ in range(2):  # as Bytewax does
        assert repr(pickle.loads(pickle.dumps(sent))) == repr(list(sent))


def test_bytes_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytewax pickles each item twice."""
    parcel = Parcel([("i-1", [ONE])])
    first = pickle.dumps(parcel)
    monkeypatch.delattr("dataflow.steps.exchange._pack")
    assert pickle.dumps(parcel) == first


def test_pickles_name_no_module() -> None:
    """One that does is several times as long to read."""
    assert b"dataflow" not in pickle.dumps(Parcel([("i-1", [ONE])]))


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 16])
def test_names_are_of_their_workers(workers: int) -> None:
    found = names(workers)
    assert [worker_of(name, workers) for name in found] == list(range(workers))


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_each_worker_has_a_parcel_of_a_batch(workers: int, monkeypatch: Any) -> None:
    """All readings arrive, those of an instance in their order, and no parcel is for two."""
    sent: list[list[str]] = []
    address = exchange._Workers.address

    def noted(self: Any, batch: list[Any]) -> Any:
        addressed = address(self, batch)
        sent.extend([name for name, _ in parcel] for _, parcel in addressed)
        assert len(addressed) <= workers
        return addressed

    monkeypatch.setattr(exchange._Workers, "address", noted)
    batches = [
        exchange.keyed([Reading(f"i-{at % 30}", None, at, 0.5, None, 0, at) for at in chunk])
        for chunk in (range(500), range(500, 800))
    ]
    arrived: list[tuple[str, list[Reading]]] = []
    flow = Dataflow("handing")
    batch = op.input("in", flow, TestingSource(batches))
    keyed = op.flat_map("keyed", batch, lambda one: one)
    op.output("out", hand_over(flow, keyed), TestingSink(arrived))
    cluster_main(flow, [], 0, worker_count_per_proc=workers)
    indexes: dict[str, list[Any]] = {}
    for name, readings in arrived:
        indexes.setdefault(name, []).extend(reading.index for reading in readings)
    assert indexes == {f"i-{at}": list(range(at, 800, 30)) for at in range(30)}
    for one in sent:
        assert len({worker_of(name, workers) for name in one}) == 1
    assert sorted(chain.from_iterable(sent)) == sorted([f"i-{at}" for at in range(30)] * 2)
