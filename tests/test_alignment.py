"""Partitions of a process stay close to each other while they are read."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dataflow.sources.alignment import PartitionAlignment

SECONDS = 30.0


def joined(partitions: int) -> PartitionAlignment:
    alignment = PartitionAlignment(SECONDS)
    for partition in range(partitions):
        alignment.join(partition, 0.0)
    return alignment


@given(
    st.lists(st.lists(st.integers(0, 20), max_size=30).map(sorted), min_size=1, max_size=4),
    st.integers(1, 4),
    st.data(),
)
def test_partitions_stay_aligned_and_all_records_are_read(
    parts: list[list[int]], most: int, data: st.DataObject
) -> None:
    alignment = joined(len(parts))
    read = [0] * len(parts)
    now = 0.0
    while any(read[at] < len(part) for at, part in enumerate(parts)):
        now += 0.01
        may = [at for at in range(len(parts)) if alignment.may_read(at, now)]
        open_parts = [at for at, part in enumerate(parts) if read[at] < len(part)]
        if not set(may) & set(open_parts):
            for at in may:
                alignment.end(at)
            continue
        at = data.draw(st.sampled_from(may))
        taken = parts[at][read[at] : read[at] + most]
        if not taken:
            alignment.end(at)
            continue
        # Unread records of the others are no older than what this one read before.
        before = parts[at][read[at] - 1] if read[at] else 0
        for other in open_parts:
            if read[other]:
                assert parts[other][read[other] - 1] >= before
            else:
                assert not read[at]
        read[at] += len(taken)
        alignment.advance(at, taken[-1], len(taken), now)


def test_records_of_one_timestamp_are_counted() -> None:
    alignment = joined(2)
    alignment.advance(0, 7, 100, 0.0)
    alignment.advance(1, 7, 60, 0.0)
    assert (alignment.may_read(0, 0.0), alignment.may_read(1, 0.0)) == (False, True)
    alignment.advance(1, 7, 60, 0.0)
    assert (alignment.may_read(0, 0.0), alignment.may_read(1, 0.0)) == (True, False)
    alignment.advance(0, 8, 1, 0.0)
    assert (alignment.may_read(0, 0.0), alignment.may_read(1, 0.0)) == (False, True)


def test_a_partition_at_its_end_blocks_no_other_until_it_gets_records() -> None:
    alignment = joined(2)
    alignment.advance(0, 7, 1, 0.0)
    assert not alignment.may_read(0, 0.0)
    alignment.end(1)
    assert alignment.may_read(0, 0.0)
    alignment.advance(1, 5, 1, 0.0)
    assert not alignment.may_read(0, 0.0)


def test_a_partition_whose_broker_is_down_is_waited_for_30_seconds() -> None:
    alignment = joined(3)
    alignment.advance(0, 9, 1, 1.0)
    alignment.advance(1, 8, 1, 1.0)
    for now in (2.0, 29.0):
        assert not alignment.may_read(0, now)
        assert not alignment.may_read(1, now)
        assert alignment.may_read(2, now)
    assert alignment.may_read(1, 31.5), "partition 2 returned nothing for 30 s"
    assert not alignment.may_read(0, 31.5), "partition 1 was not allowed to read, so it counts"
    alignment.advance(1, 10, 1, 31.5)
    assert alignment.may_read(0, 31.5)
