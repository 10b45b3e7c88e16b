"""The steps `key_on` and `hand_over`: readings by instance, to the worker that has the instance.

A step with states hands each item to the worker of its key, which between processes takes longer
than to score it. So all that one worker has for another goes in one item, before.
"""

from __future__ import annotations

import copyreg
from collections import defaultdict
from collections.abc import Callable
from itertools import count
from typing import Any

import msgspec
from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.operators import KeyedStream, StatefulBatchLogic

from dataflow.records import Reading
from dataflow.runtime import PICKLE_CODE
from dataflow.runtime.routing import Routes, worker_of

__all__ = ["Keyed", "Parcel", "hand_over", "keyed", "unpack"]

Keyed = tuple[str, list[Reading]]
"""An instance, and its readings in a batch: they stay together up to the filter."""

_pack = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Keyed]).decode


def keyed(readings: list[Reading]) -> list[Keyed]:
    """Key readings by their instances: those of each together, in their order.

    >>> batch = [Reading(name, None, at, 0.5, None, 0, at) for at, name in enumerate("abab")]
    >>> [(name, [reading.index for reading in readings]) for name, readings in keyed(batch)]
    [('a', [0, 2]), ('b', [1, 3])]
    """
    groups: defaultdict[str, list[Reading]] = defaultdict(list)
    for reading in readings:
        groups[reading.instance].append(reading)
    return list(groups.items())


class Parcel(list[Keyed]):
    """Readings by their instances, for one worker. Do not change what has been pickled.

    Bytewax pickles what it hands to another process twice, the first time only to learn how long
    it is. So bytes are made once and kept.

    >>> import pickle
    >>> parcel = Parcel([("i-1", [Reading("i-1", None, 7, 25.0, None, 0, 12)])])
    >>> pickle.loads(pickle.dumps(parcel)) == parcel
    True
    """

    __slots__ = ("_packed",)
    _packed: bytes

    def __reduce__(self) -> tuple[Callable[..., list[Keyed]], tuple[Any]]:
        try:
            packed = self._packed
        except AttributeError:
            try:
                packed = self._packed = _pack(self)
            except OverflowError:  # an index may have more digits than MessagePack's numbers
                return list, (list(self),)
        return unpack, (packed,)


def unpack(packed: bytes) -> list[Keyed]:
    """Return what was in a parcel that was pickled."""
    return _decode(packed)


# By a number: else each pickle names the module, which is looked up again for each that is read.
copyreg.add_extension(__name__, "unpack", PICKLE_CODE)


def hand_over(flow: Dataflow, keyed: KeyedStream[list[Reading]]) -> KeyedStream[list[Reading]]:
    """Bring readings to the workers where the states of their instances are."""
    workers = _Workers()
    op.input("workers", flow, workers)
    parcels = op.flat_map_batch("address", keyed, workers.address)
    arrived = op.stateful_batch("hand_over", parcels, lambda _: _Arrival())
    return op.flat_map_batch("open", arrived, _open)


class _Workers(DynamicSource[Any]):
    """The workers of the flow: a source that reads nothing, as Bytewax tells those how many."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._routes = Routes(1)

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Nothing:
        if not self._names:
            self._routes = Routes(worker_count)
            self._names = names(worker_count)
        return _Nothing()

    def address(self, batch: list[Keyed]) -> list[tuple[str, list[Keyed]]]:
        """Make parcels of a batch, each keyed by a name of its worker."""
        if len(self._names) == 1:
            return [(self._names[0], batch)]
        routes = self._routes
        parcels: defaultdict[int, list[Keyed]] = defaultdict(Parcel)
        for one in batch:
            parcels[routes[one[0]]].append(one)
        return [(self._names[worker], parcel) for worker, parcel in parcels.items()]


class _Nothing(StatelessSourcePartition[Any]):
    def next_batch(self) -> list[Any]:
        raise StopIteration


class _Arrival(StatefulBatchLogic[list[Keyed], list[Keyed], None]):
    """Parcels that have come to their worker. There is nothing to remember."""

    def on_batch(self, values: list[list[Keyed]]) -> tuple[list[list[Keyed]], bool]:
        return values, self.RETAIN

    def snapshot(self) -> None:
        return None


def names(workers: int) -> list[str]:
    """Return a key for each worker, by its number: one that Bytewax gives to it.

    >>> names(3)
    ['0', '1', '6']
    """
    found: dict[int, str] = {}
    numbers = count()
    while len(found) < workers:
        name = str(next(numbers))
        found.setdefault(worker_of(name, workers), name)
    return [found[worker] for worker in range(workers)]


def _open(batch: list[tuple[str, list[Keyed]]]) -> list[Keyed]:
    return [one for _, parcel in batch for one in parcel]
