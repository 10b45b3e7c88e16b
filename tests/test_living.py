"""Instances that come and go, against the plain history of their readings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dataflow.steps.living import Living

PERIOD = 100.0


@given(
    st.lists(
        st.tuples(st.sampled_from("abcdef"), st.integers(0, 1), st.integers(0, 60)), max_size=150
    ),
    st.integers(1, 5),
    st.sampled_from([100.0, 250.0, 700.0]),
)
def test_who_sends_keeps_the_place_and_who_does_not_is_forgotten_once(
    readings: list[tuple[str, int, int]], limit: int, forget: float
) -> None:
    living = Living(limit, PERIOD, forget)
    now = 0.0
    last: dict[str, float] = {}
    known: set[str] = set()
    for name, partition, waited in readings:
        now += waited
        full = living.size >= limit
        first = living.admit(name, partition)
        assert living.size <= limit
        if first is None:
            assert full
            # Whoever sent in this period has kept the place.
            assert name not in last or now - last[name] >= PERIOD
            continue
        last[name] = now
        known.add(name)
        living.passed(partition, name, now)
        for each in (0, 1):
            for forgotten in living.forgotten(each):
                known.remove(forgotten)
                assert now - last[forgotten] >= forget
                assert forgotten not in living.recent


def test_a_wrong_clock_ends_no_period() -> None:
    living = Living(10, PERIOD, PERIOD)
    for minute in range(50):
        for name in ("a", "b", "c"):
            assert living.admit(name, 0) == 0
        living.passed(0, "a", minute)
        living.passed(0, "wrong", 4e9 + minute * PERIOD)
        living.passed(0, "b", minute)
    assert living.size == 3
    assert living.forgotten(0) == []


def test_a_partition_that_is_read_ahead_forgets_only_its_own() -> None:
    living = Living(10, PERIOD, PERIOD)
    living.admit("other", 1)
    living.passed(1, "other", 0.0)
    for time in range(0, 3000, 10):
        for name in ("a", "b"):
            living.admit(name, 0)
            living.passed(0, name, float(time))
    assert living.admit("other", 1) == 1
    assert living.size == 3
    assert living.forgotten(1) == []


def test_one_that_returns_is_forgotten_by_its_last_reading() -> None:
    living = Living(10, PERIOD, 5 * PERIOD)
    seen = {0, 350, 700}
    forgotten_at = None
    for time in range(0, 2500, 10):
        for name in ("a", "b", *(["x"] if time in seen else [])):
            living.admit(name, 0)
            living.passed(0, name, float(time))
        if living.forgotten(0):
            assert forgotten_at is None
            forgotten_at = time
    assert forgotten_at is not None
    assert 1200 <= forgotten_at <= 1400
