"""Our `stateful_map` against Bytewax's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, run_main

from dataflow.runtime import stateful_map

ITEMS = [(f"key-{number % 3}", number) for number in range(60)]


def total(state: list[int] | None, value: int) -> tuple[list[int], int]:
    """Keep a state that is changed in place, as a detector may."""
    state = state or [0]
    state[0] += value
    return state, state[0]


def dump(state: list[int]) -> bytes:
    return b"sum " + str(state[0]).encode()


def load(data: bytes) -> list[int]:
    if not data.startswith(b"sum "):
        raise ValueError(f"These bytes are no sum: {data!r}.")
    return [int(data[4:])]


def flow(found: list[Any], items: list[Any], load: Any = load) -> Dataflow:
    built = Dataflow("sums")
    stream: Any = op.input("in", built, TestingSource(items, batch_size=10))
    scored = stateful_map.stateful_map("score", stream, total, dump, load)
    op.output("out", scored, TestingSink(found))
    return built


def bytewaxs(found: list[Any]) -> Dataflow:
    built = Dataflow("sums")
    stream: Any = op.input("in", built, TestingSource(ITEMS, batch_size=10))
    op.output("out", op.stateful_map("score", stream, total), TestingSink(found))
    return built


def test_it_returns_the_same_and_resumes_from_stored_states(tmp_path: Path) -> None:
    whole: list[Any] = []
    run_main(bytewaxs(whole))
    init_db_dir(tmp_path, 1)
    config = RecoveryConfig(str(tmp_path))
    results: list[Any] = []
    parts: list[Any] = [*ITEMS[:30], TestingSource.EOF(), *ITEMS[30:]]
    run_main(flow(results, parts), recovery_config=config)
    assert len(results) == 30
    run_main(flow(results, parts), recovery_config=config)
    assert sorted(results) == sorted(whole)


def test_a_state_that_cannot_be_read_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init_db_dir(tmp_path, 1)
    config = RecoveryConfig(str(tmp_path))
    parts: list[Any] = [*ITEMS[:30], TestingSource.EOF(), *ITEMS[30:]]
    run_main(flow([], parts), recovery_config=config)

    class Ended(BaseException):
        pass

    said: list[str] = []

    def end(reason: str) -> None:
        said.append(reason)
        raise Ended

    def refuse(data: bytes) -> list[int]:
        raise ValueError("These bytes are of another version.")

    monkeypatch.setattr(stateful_map, "stop_process", end)
    with pytest.raises(BaseException):  # noqa: B017, PT011  as Bytewax makes of it
        run_main(flow([], parts, refuse), recovery_config=config)
    assert said[0] == (
        "the recovery store holds a state that cannot be read. These bytes are of another version."
    )
