"""Bytewax's `stateful_map`, with each state stored as the bytes that its detector makes of it.

Bytewax's copies all of a state at the end of an epoch and pickles the copy. Bytes need neither,
take less memory while they wait to be stored, and name their version.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from bytewax import operators as op
from bytewax.operators import KeyedStream, StatefulBatchLogic

from dataflow.errors import stop_process

__all__ = ["stateful_map"]

S = TypeVar("S")
V = TypeVar("V")
W = TypeVar("W")


class _Logic(StatefulBatchLogic[V, W, bytes]):
    __slots__ = ("_dump", "_mapper", "_state")

    def __init__(
        self,
        mapper: Callable[[S | None, V], tuple[S, W]],
        dump: Callable[[S], bytes],
        state: S | None,
    ) -> None:
        self._mapper = mapper
        self._dump = dump
        self._state: Any = state

    def on_batch(self, values: list[V]) -> tuple[list[W], bool]:
        found = []
        for value in values:
            self._state, result = self._mapper(self._state, value)
            found.append(result)
        return found, False

    def snapshot(self) -> bytes:
        return self._dump(self._state)


def stateful_map(
    step_id: str,
    up: KeyedStream[V],
    mapper: Callable[[S | None, V], tuple[S, W]],
    dump: Callable[[S], bytes],
    load: Callable[[bytes], S],
) -> KeyedStream[W]:
    """Map values one to one, with a state for each key.

    `mapper` takes a key's state, None at first, and the key's next value; it returns the state
    after it and the result. It may change the state that it was given. `dump` makes bytes of a
    state, and `load` a state of those; a ValueError of `load` ends the process with its sentence.
    """

    def build(saved: bytes | None) -> _Logic[V, W]:
        if saved is None:
            return _Logic(mapper, dump, None)
        try:
            return _Logic(mapper, dump, load(saved))
        except ValueError as wrong:
            stop_process(f"the recovery store holds what cannot be read. {wrong}")

    return op.stateful_batch(step_id, up, build)
