"""Readings that go to another process of a cluster."""

from __future__ import annotations

import pickle
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from dataflow.readings import Readings
from dataflow.records import Reading

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


def exact(readings: list[Reading]) -> list[str]:
    """Every field as it would be typed in: 7 is not 7.0, nor 0.0 the same as -0.0."""
    return [repr(reading) for reading in readings]


@given(READINGS)
@example([Reading("i-1", "2024-01-01 00:00:00", 10**30, 0.5, 0.0, 0, 1)])
@example([Reading("i-1", None, 7.0, -0.0, None, 0, 1), Reading("i-1", 7, "7", 1e-300, 7.0, 0, 2)])
def test_they_arrive_as_they_were(readings: list[Reading]) -> None:
    sent = Readings(readings)
    for _ in range(2):  # as Bytewax does
        assert exact(pickle.loads(pickle.dumps(sent))) == exact(readings)


def test_their_bytes_are_made_once(monkeypatch: Any) -> None:
    """Bytewax pickles each item twice."""
    readings = Readings([Reading("i-1", None, 7, 0.25, None, 0, 12)])
    first = pickle.dumps(readings)
    monkeypatch.delattr("dataflow.readings._pack")
    assert pickle.dumps(readings) == first


def test_pickles_name_no_module() -> None:
    """One that does is several times as long to read."""
    assert b"dataflow" not in pickle.dumps(Readings([Reading("i-1", None, 7, 0.25, None, 0, 12)]))
