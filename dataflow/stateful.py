"""Bytewax's `stateful_map`, with a call for all the values of a key in a batch, not one for each.

Bytewax's own passes each value through three functions of Python, which take as long as a detector.
The steps in here are named as those are, so that either goes on from what the other stored.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeVar

from bytewax import operators as op
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream, StatefulBatchLogic

__all__ = ["stateful_map"]

S = TypeVar("S")
V = TypeVar("V")
W = TypeVar("W")


class _Logic(StatefulBatchLogic[V, W, S]):
    __slots__ = ("_mapper", "_state")

    def __init__(
        self, mapper: Callable[[S | None, list[V]], tuple[S, list[W]]], state: S | None
    ) -> None:
        self._mapper = mapper
        self._state = state

    def on_batch(self, values: list[V]) -> tuple[list[W], bool]:
        self._state, found = self._mapper(self._state, values)
        return found, False

    def snapshot(self) -> S:
        assert self._state is not None
        return copy.deepcopy(self._state)


@operator
def stateful_map(
    step_id: str,
    up: KeyedStream[V],
    mapper: Callable[[S | None, list[V]], tuple[S, list[W]]],
) -> KeyedStream[W]:
    """Map values one to one, with a state for each key.

    `mapper` takes a key's state, None at first, and the next values of the key in their order; it
    returns the state after them and as many results. The state it was given may be changed.
    """
    return _stateful_flat_map("stateful_flat_map", up, mapper)


@operator
def _stateful_flat_map(
    step_id: str,
    up: KeyedStream[V],
    mapper: Callable[[S | None, list[V]], tuple[S, list[W]]],
) -> KeyedStream[W]:
    return _stateful("stateful", up, mapper)


@operator
def _stateful(
    step_id: str,
    up: KeyedStream[V],
    mapper: Callable[[S | None, list[V]], tuple[S, list[W]]],
) -> KeyedStream[W]:
    def build(state: S | None) -> _Logic[V, W, S]:
        return _Logic(mapper, state)

    return op.stateful_batch("stateful_batch", up, build)
