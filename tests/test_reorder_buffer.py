"""The order of an instance's readings, against sorting."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_counters import change

from dataflow.records import Reading
from dataflow.settings import Settings
from dataflow.steps.reorder import ReorderBuffer, reorderer

Index = int | float | str


class Counts:
    """By how much the metrics of reordering have grown."""

    def __init__(self) -> None:
        self._held = change("anomaly_reorder_readings_held_total")
        self._late = change("anomaly_reorder_readings_late_total")
        self._given_up = change("anomaly_reorder_gaps_given_up_total")

    @property
    def held(self) -> float:
        return self._held()

    @property
    def late(self) -> float:
        return self._late()

    @property
    def given_up(self) -> float:
        return self._given_up()


def reading(index: Index, offset: int = 0) -> Reading:
    return Reading("host-a", "2024-03-01", index, 0.5, 1709251200.0, 0, offset)


def indexes(readings: list[Reading]) -> list[Index]:
    return [it.index for it in readings]


@st.composite
def interleavings(draw: st.DrawFn) -> list[int]:
    """Indexes dealt out to partitions, each in order, and read in any turn."""
    length = draw(st.integers(0, 60))
    parts: list[list[int]] = [[] for _ in range(draw(st.integers(1, 4)))]
    for index in range(length):
        parts[draw(st.integers(0, len(parts) - 1))].append(index)
    out = []
    while any(parts):
        turn = draw(st.integers(0, len(parts) - 1))
        if parts[turn]:
            out.append(parts[turn].pop(0))
        else:
            parts.pop(turn)
    return out


def restored(order: ReorderBuffer, now: float, size: int, seconds: float) -> ReorderBuffer:
    other = ReorderBuffer(size, seconds)
    other.load(order.dump(), now)
    assert other.dump() == order.dump()
    return other


@given(interleavings(), st.data())
def test_with_room_enough_any_interleaving_comes_out_sorted(
    arrivals: list[int], data: st.DataObject
) -> None:
    counts = Counts()
    order = ReorderBuffer(len(arrivals) + 1, 100.0)
    out: list[Index] = []
    for now, index in enumerate(arrivals):
        out += indexes(order.add(reading(index), float(now)))
        assert out == list(range(len(out)))
        if data.draw(st.booleans()):
            order = restored(order, float(now), len(arrivals) + 1, 100.0)
    assert out == sorted(arrivals), "nothing waits for the end"
    assert order.finish() == []
    assert order.due() is None
    assert (counts.given_up, counts.late) == (0, 0)


some_indexes = st.one_of(
    st.integers(-3, 30), st.integers(0, 30).map(float), st.sampled_from([2.5, "a7", 2**62])
)


@given(
    st.lists(st.tuples(some_indexes, st.integers(0, 5)), max_size=60),
    st.integers(1, 5),
    st.data(),
)
def test_with_little_room_nothing_is_lost_or_repeated(
    arrivals: list[tuple[Index, int]], size: int, data: st.DataObject
) -> None:
    seconds = 10.0
    now = 0.0
    order = ReorderBuffer(size, seconds)
    arrived: dict[int, float] = {}
    out: list[Reading] = []
    for offset, (index, waited) in enumerate(arrivals):
        now += waited
        due = order.due()
        if due is not None and due <= now:
            out += order.expire(now)
        arrived[offset] = now
        out += order.add(reading(index, offset), now)
        waiting = set(arrived) - {it.offset for it in out}
        assert len(waiting) <= size
        assert all(arrived[held] > now - seconds for held in waiting)
        due = order.due()
        assert (due is None) == (not waiting)
        assert due is None or due <= min(arrived[held] for held in waiting) + seconds
        if data.draw(st.booleans()):
            twin = ReorderBuffer(size, seconds)
            twin.load(order.dump(), now)
            assert indexes(twin.finish()) == sorted(arrivals[held][0] for held in waiting)
    out += order.finish()
    assert sorted(it.offset for it in out) == list(range(len(arrivals)))
    assert order.due() is None


@given(st.lists(st.integers(0, 12), max_size=40), st.integers(1, 4), st.integers(0, 40))
def test_saved_and_loaded_anywhere_it_goes_on_the_same(
    arrivals: list[int], size: int, cut: int
) -> None:
    one, other = ReorderBuffer(size, 60.0), ReorderBuffer(size, 60.0)
    for offset, index in enumerate(arrivals):
        if offset == cut:
            other = restored(other, 5.0, size, 60.0)
        it = reading(index, offset)
        assert one.add(it, 1.0) == other.add(it, 1.0)
    assert one.finish() == other.finish()
    assert one.dump() == other.dump()


def test_equal_indexes_keep_the_order_of_their_arrival() -> None:
    order = ReorderBuffer(10, 30.0)
    offsets = count()
    out = [it for index in (2, 1, 2, 1, 0, 0) for it in order.add(reading(index, next(offsets)), 0)]
    assert [(it.index, it.offset) for it in out] == [(0, 4), (1, 1), (1, 3), (2, 0), (2, 2), (0, 5)]


def test_a_reading_waits_so_long_and_no_longer_whatever_gaps_lie_before_it() -> None:
    counts = Counts()
    order = ReorderBuffer(10, 30.0)
    for index, now in ((9, 100.0), (5, 101.0), (12, 102.0), (7, 129.0)):
        assert order.add(reading(index), now) == []
    assert order.due() == 130.0
    assert order.expire(129.9) == []
    assert indexes(order.expire(130.0)) == [5, 7, 9]
    assert order.due() == 132.0
    assert indexes(order.add(reading(8), 131.0)) == [8]
    assert indexes(order.add(reading(10), 131.0)) == [10]
    assert indexes(order.add(reading(11), 131.0)) == [11, 12]
    assert order.due() is None
    assert (counts.held, counts.given_up, counts.late) == (4, 3, 1)


def test_the_size_is_what_may_be_held() -> None:
    order = ReorderBuffer(2, 30.0)
    assert [indexes(order.add(reading(index), 0.0)) for index in (10, 12, 13, 11, 14)] == [
        *([], [], [10]),
        *([11, 12, 13], [14]),
    ]


def test_a_flow_that_stood_still_waits_again() -> None:
    order = ReorderBuffer(5, 30.0)
    order.add(reading(3), 0.0)
    later = ReorderBuffer(5, 30.0)
    later.load(order.dump(), 1000.0)
    assert later.due() == 1030.0
    assert later.expire(1029.0) == []
    assert indexes(later.add(reading(0), 1029.0)) == [0]
    assert indexes(later.expire(1030.0)) == [3]


def test_indexes_that_are_no_whole_numbers_pass() -> None:
    counts = Counts()
    order = ReorderBuffer(5, 30.0)
    for index in ("one", 0.5, -1):
        assert indexes(order.add(reading(index), 0.0)) == [index]
    assert order.add(reading(1.0), 0.0) == []
    assert indexes(order.add(reading(0), 0.0)) == [0, 1.0]
    assert (counts.held, counts.given_up, counts.late) == (1, 0, 0)


@pytest.mark.parametrize("data", [b"", b"\x93", b"\x93\x02\x00\x90", b"\x90"])
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="saved by another version"):
        ReorderBuffer(5, 30.0).load(data, 0.0)


def test_a_buffer_of_another_version_ends_the_flow_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(reason: str) -> None:
        raise SystemExit(reason)

    monkeypatch.setattr("dataflow.steps.reorder.stop_process", stop)
    build = reorderer(Settings(_env_file=None, reorder=True))
    with pytest.raises(SystemExit, match=r"saved by another version.*start with a new store"):
        build(b"\x93\x09\x00\x90")
