"""Flows in the calling thread: what gathering changes, and what it must not."""

from __future__ import annotations

from typing import Any

from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, TestingSource
from hypothesis import given
from hypothesis import strategies as st

from dataflow.runtime import serial

ITEM = st.tuples(st.sampled_from("abc"), st.integers(-1, 7))
"""A key, and how many elements its list has; one of -1 goes to the other stream."""


def ran(
    batches: list[list[tuple[str, int]]], gathered: serial.Gathered | None
) -> tuple[list[list[tuple[str, list[int]]]], list[Any]]:
    """The batches that come to the step behind the gathered one, and all in its order."""
    seen: list[list[tuple[str, list[int]]]] = []
    order: list[Any] = []
    numbers = iter(range(1_000_000))

    def lists(batch: list[tuple[str, int]]) -> list[tuple[str, list[int]]]:
        found: dict[str, list[int]] = {}
        for key, count in batch:
            if not count:
                return [(key, [])]
            found.setdefault(key, []).extend(next(numbers) for _ in range(count))
        return list(found.items())

    def see(batch: list[tuple[str, list[int]]]) -> list[Any]:
        seen.append(batch)
        order.extend(batch)
        return batch

    def note(batch: list[tuple[str, int]]) -> list[Any]:
        order.append(None)
        return batch

    made = Dataflow("made")
    read = op.input("read", made, TestingSource(batches, batch_size=1))
    items = op.flat_map_batch("items", read, lambda batch: [it for part in batch for it in part])
    parted = op.branch("parted", items, lambda item: item[1] >= 0)
    listed = op.flat_map_batch("lists", parted.trues, lists)
    out: list[Any] = []
    op.output("write", op.flat_map_batch("see", listed, see), TestingSink(out))
    op.output("other", op.flat_map_batch("note", parted.falses, note), TestingSink(out))
    serial.run([made], (), gathered)
    return seen, order


@given(st.lists(st.lists(ITEM, max_size=6), max_size=12), st.integers(1, 20), st.integers(1, 9))
def test_gathered_lists_are_larger_and_otherwise_the_same(
    batches: list[list[tuple[str, int]]], most: int, part: int
) -> None:
    gathered = serial.Gathered("lists", "parted.falses", most, part)
    alone, whole = ran(batches, None), ran(batches, gathered)

    def passed(order: list[Any]) -> list[Any]:
        """Each key's elements between the breaks: an empty list, or what comes elsewhere."""
        found: list[Any] = [{}]
        for one in order:
            if one is None or not one[1]:
                found += [one, {}]
            else:
                found[-1].setdefault(one[0], []).extend(one[1])
        return found

    assert passed(whole[1]) == passed(alone[1])
    for batch in whole[0]:
        keys = [key for key, _ in batch]
        assert len(keys) == len(set(keys)) or any(not elements for _, elements in batch)
        # The last list that is added makes it full.
        assert sum(len(elements) for _, elements in batch[:-1]) < part or not batch[0][1]
        assert len(batch[-1][1]) <= part


def test_lists_go_on_in_batches_that_stay_in_the_cache() -> None:
    batches = [[("a", 2), ("b", 1)] for _ in range(10)]
    seen, _ = ran(batches, serial.Gathered("lists", "parted.falses", most=24, part=9))
    sizes = [[(key, len(elements)) for key, elements in batch] for batch in seen]
    # Eight batches have 24 elements: 16 and 8.
    assert sizes == [[("a", 9)], [("a", 7), ("b", 8)], [("a", 4), ("b", 2)]]
