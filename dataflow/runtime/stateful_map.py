"""Bytewax's `stateful_map`, which stores each state as bytes that the detector writes.

Bytewax's own copies the whole state at the end of an epoch and pickles the copy. Bytes need
neither, take less memory until they are stored, and carry a format version.
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
        mapper: Callable[[S | None, V], tuple[S | None, W]],
        dump: Callable[[S], bytes],
        state: S | None,
    ) -> None:
        self._mapper = mapper
        self._dump = dump
        self._state: Any = state

    def on_batch(self, values: list[V]) -> tuple[list[W], bool]:
        results = []
        for value in values:
            self._state, result = self._mapper(self._state, value)
            results.append(result)
        return results, self._state is None

    def snapshot(self) -> bytes:
        return self._dump(self._state)


def stateful_map(
    step_id: str,
    up: KeyedStream[V],
    mapper: Callable[[S | None, V], tuple[S | None, W]],
    dump: Callable[[S], bytes],
    load: Callable[[bytes], S],
) -> KeyedStream[W]:
    """Map each value to one result, with a state per key.

    `mapper` takes the state of a key, None at first, and the next value of the key. It returns the
    new state and the result, and may change the given state in place. The new state None discards
    the state, also in the recovery store. `dump` turns a state into bytes, and `load` turns them
    back; if `load` raises `ValueError`, the process ends and prints its message.
    """

    def build(saved: bytes | None) -> _Logic[V, W]:
        if saved is None:
            return _Logic(mapper, dump, None)
        try:
            return _Logic(mapper, dump, load(saved))
        except ValueError as error:
            stop_process(f"the recovery store holds a state that cannot be read. {error}")

    return op.stateful_batch(step_id, up, build)
