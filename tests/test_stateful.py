"""The stateful step, against Bytewax's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, run_main

from dataflow import stateful

ITEMS = [(f"key-{number % 3}", number) for number in range(60)]


def one(state: int | None, value: int) -> tuple[int, int]:
    state = (state or 0) + value
    return state, state


def many(state: int | None, values: list[int]) -> tuple[int, list[int]]:
    sums = []
    for value in values:
        state, total = one(state, value)
        sums.append(total)
    assert state is not None
    return state, sums


def flow(operator: Any, mapper: Any, found: list[Any], items: list[Any]) -> Dataflow:
    built = Dataflow("sums")
    stream: Any = op.input("in", built, TestingSource(items, batch_size=10))
    op.output("out", operator("score", stream, mapper), TestingSink(found))
    return built


def ids(steps: list[Any]) -> Iterator[str]:
    for step in steps:
        if type(step).__name__ == "stateful_batch":
            yield step.step_id
        yield from ids(getattr(step, "substeps", []))


def test_it_is_stored_where_bytewaxs_own_is_stored() -> None:
    theirs = list(ids(flow(op.stateful_map, one, [], ITEMS).substeps))
    assert len(theirs) == 1
    assert list(ids(flow(stateful.stateful_map, many, [], ITEMS).substeps)) == theirs


def test_it_finds_the_same_and_goes_on_from_what_bytewaxs_own_stored(tmp_path: Path) -> None:
    whole: list[Any] = []
    run_main(flow(op.stateful_map, one, whole, ITEMS))
    init_db_dir(tmp_path, 1)
    config = RecoveryConfig(str(tmp_path))
    found: list[Any] = []
    first: list[Any] = [*ITEMS[:30], TestingSource.EOF(), *ITEMS[30:]]
    run_main(flow(op.stateful_map, one, found, first), recovery_config=config)
    assert len(found) == 30
    run_main(flow(stateful.stateful_map, many, found, first), recovery_config=config)
    assert sorted(found) == sorted(whole)
