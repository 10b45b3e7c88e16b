"""The order of an instance's readings, against sorting."""

from __future__ import annotations

import subprocess
import sys
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_counters import change

from dataflow.records import Reading
from dataflow.settings import Settings
from dataflow.steps.reorder import reorderer
from dataflow.steps.reorder_buffer import FIRST_STEPS, ReorderBuffer

Index = int | float | str


class Counts:
    """By how much the metrics of reordering have grown."""

    def __init__(self) -> None:
        self._held = change("anomaly_reorder_readings_held_total")
        self._late = change("anomaly_reorder_readings_late_total")
        self._given_up = change("anomaly_reorder_gaps_given_up_total")
        self._restarts = change("anomaly_reorder_restarts_total")

    @property
    def held(self) -> float:
        return self._held()

    @property
    def late(self) -> float:
        return self._late()

    @property
    def given_up(self) -> float:
        return self._given_up()

    @property
    def restarts(self) -> float:
        return self._restarts()


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


SECONDS = 10.0
"""How long a reading may be held."""


def arrive(
    order: ReorderBuffer, it: Reading, now: float, arrived: dict[int, float], out: list[Reading]
) -> set[int]:
    """Add a reading, and return the offsets of those that are held: none of them too long."""
    due = order.due()
    if due is not None and due <= now:
        out += order.expire(now)
    arrived[it.offset] = now
    out += order.add(it, now)
    waiting = set(arrived) - {one.offset for one in out}
    assert all(arrived[held] > now - SECONDS for held in waiting)
    due = order.due()
    assert (due is None) == (not waiting)
    assert due is None or due <= min(arrived[held] for held in waiting) + SECONDS
    return waiting


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
    now = 0.0
    order = ReorderBuffer(size, SECONDS)
    # From here on, the indexes are known as whole numbers.
    assert order.add(reading(0, -1), 0.0)
    arrived: dict[int, float] = {}
    out: list[Reading] = []
    for offset, (index, waited) in enumerate(arrivals):
        now += waited
        waiting = arrive(order, reading(index, offset), now, arrived, out)
        assert len(waiting) <= size
        if data.draw(st.booleans()):
            twin = ReorderBuffer(size, SECONDS)
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


def test_an_odd_index_among_whole_numbers_passes() -> None:
    counts = Counts()
    order = ReorderBuffer(5, 30.0)
    assert indexes(order.add(reading(0), 0.0)) == [0]
    assert order.add(reading(2.0), 0.0) == []
    for index in ("one", 0.5, -1):
        assert indexes(order.add(reading(index), 0.0)) == [index]
    assert indexes(order.add(reading(1), 0.0)) == [1, 2.0]
    assert (counts.held, counts.given_up, counts.late) == (1, 0, 0)


# Readings that are ordered by their times


def timed(index: Index, time: float | None, offset: int = 0) -> Reading:
    return Reading("host-a", None, index, 0.5, time, 0, offset)


def text_of(number: int) -> Index:
    return f"2024-03-01T{number // 60:02}:{number % 60:02}:00Z"


KINDS = [text_of, lambda number: number + 0.5, lambda number: -1 - number, lambda _: "x"]


@given(interleavings(), st.sampled_from(KINDS), st.floats(0.1, 90_000), st.data())
def test_without_whole_numbers_the_times_are_put_into_order(
    arrivals: list[int], index_of: Any, step: float, data: st.DataObject
) -> None:
    order = ReorderBuffer(len(arrivals) + 1, 100.0)
    out: list[Reading] = []
    # As a clock gives them: each up to a tenth of a step off.
    jitter = [data.draw(st.floats(0, 0.1)) for _ in arrivals]
    times = {number: (number + jitter[number]) * step for number in arrivals}
    for number in arrivals:
        out += order.add(timed(index_of(number), times[number]), 1.0)
        if data.draw(st.booleans()):
            order = restored(order, 1.0, len(arrivals) + 1, 100.0)
    out += order.finish()
    assert [it.time for it in out] == sorted(times.values())


@given(st.permutations(range(40)), st.sampled_from(KINDS), st.booleans())
def test_with_room_for_a_whole_series_any_order_comes_out_right(
    arrivals: list[int], index_of: Any, by_time: bool
) -> None:
    order = ReorderBuffer(40, 100.0, by_time=by_time)
    out = [it for number in arrivals for it in order.add(timed(index_of(number), number * 60), 0.0)]
    out += order.finish()
    assert [it.time for it in out] == [number * 60 for number in range(40)]


@given(interleavings(), st.data())
def test_once_the_step_is_known_a_gap_waits_and_nothing_else(
    arrivals: list[int], data: st.DataObject
) -> None:
    order = ReorderBuffer(len(arrivals) + FIRST_STEPS, 30.0)
    begin = [timed(text_of(number), 60.0 * number) for number in range(FIRST_STEPS + 2)]
    for each in begin:
        order.add(each, 0.0)
    order.expire(30.0)
    out = []
    for number in arrivals:
        at = FIRST_STEPS + 2 + number
        out += order.add(timed(text_of(at), 60.0 * at), 31.0)
        if data.draw(st.booleans()):
            order = restored(order, 31.0, len(arrivals) + FIRST_STEPS, 30.0)
    assert [it.time for it in out] == [60.0 * (FIRST_STEPS + 2 + it) for it in sorted(arrivals)]
    assert order.due() is None


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 5)), max_size=60),
    st.integers(1, 12),
    st.data(),
)
def test_by_time_nothing_is_lost_or_repeated_or_held_too_long(
    arrivals: list[tuple[int, int]], size: int, data: st.DataObject
) -> None:
    now = 0.0
    order = ReorderBuffer(size, SECONDS, by_time=True)
    arrived: dict[int, float] = {}
    out: list[Reading] = []
    for offset, (minute, waited) in enumerate(arrivals):
        now += waited
        waiting = arrive(order, timed(minute, minute * 60.0, offset), now, arrived, out)
        assert len(waiting) <= size
        if data.draw(st.booleans()):
            twin = restored(order, now, size, SECONDS)
            assert sorted(it.offset for it in twin.finish()) == sorted(waiting)
    out += order.finish()
    assert sorted(it.offset for it in out) == list(range(len(arrivals)))


def test_a_reading_on_time_does_not_wait_once_the_step_is_known() -> None:
    """A live topic: every reading would be scored half a minute late."""
    order = ReorderBuffer(1000, 30.0)
    now, passed = 0.0, []
    for number in range(30):
        now = number * 300.0
        out = order.add(timed(text_of(number), now), now)
        passed.append(len(out))
        order.expire(now + 30.0)
    assert passed[FIRST_STEPS + 1 :] == [1] * (29 - FIRST_STEPS)


def test_readings_without_time_and_number_pass() -> None:
    order = ReorderBuffer(5, 30.0)
    for number in (3, 1, 2):
        assert len(order.add(timed(f"a{number}", None), 0.0)) == 1
    assert order.due() is None


# Producers that start again


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.data())
def test_a_producer_that_starts_again_is_ordered_again(
    lengths: list[int], data: st.DataObject
) -> None:
    counts = Counts()
    order = ReorderBuffer(1000, 1000.0)
    out: list[Reading] = []
    expected: list[int] = []
    offset = 0
    for life, length in enumerate(lengths):
        # Each life shuffles neighbors; its first reading comes first.
        numbers = list(range(length))
        for at in range(1, length - 1, 2):
            if data.draw(st.booleans()):
                numbers[at], numbers[at + 1] = numbers[at + 1], numbers[at]
        for number in numbers:
            out += order.add(timed(number, 1e6 * life + 300.0 * number, offset), 0.0)
            offset += 1
            if data.draw(st.booleans()):
                order = restored(order, 0.0, 1000, 1000.0)
        expected += range(length)
    out += order.finish()
    assert indexes(out) == expected
    assert (counts.restarts, counts.late) == (len(lengths) - 1, 0)


def test_a_restart_is_known_whichever_of_its_readings_comes_first() -> None:
    counts = Counts()
    order = ReorderBuffer(100, 30.0)
    out: list[Reading] = []
    before = [(number, 300.0 * number) for number in (0, 1, 2, 3, 5)]
    after = [(2, 9600.0), (1, 9300.0), (0, 9000.0), (4, 1200.0), (3, 9900.0), (6, 1800.0)]
    for index, time in [*before, *after]:
        out += order.add(timed(index, time), 0.0)
    # 4 and 6 are from before the restart.
    assert indexes(out) == [0, 1, 2, 3, 5, 0, 1, 2, 4, 3, 6]
    assert (counts.restarts, counts.late) == (1, 2)


def test_readings_that_come_late_or_twice_are_no_restart() -> None:
    counts = Counts()
    order = ReorderBuffer(2, 30.0)
    for index in (0, 1, 5, 6, 7, 2, 3, 6, 0):
        order.add(timed(index, 300.0 * index), 0.0)
    assert (counts.restarts, counts.late) == (0, 4)


def test_a_buffer_of_before_is_carried_on_with() -> None:
    """Bytes as version 0.1.0 wrote them: 0 has passed, and 2 is held."""
    old = msgspec.msgpack.encode([1, 1, [[2, timed(2, 600.0)]]])
    order = ReorderBuffer(5, 30.0)
    order.load(old, 0.0)
    assert indexes(order.add(timed(1, 300.0), 0.0)) == [1, 2]


def test_it_works_without_bytewax() -> None:
    code = (
        "import sys; sys.modules['bytewax'] = None\n"
        "from dataflow.steps.reorder_buffer import ReorderBuffer\n"
        "import dataflow.dashboard.intake"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


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
