"""The steps `key_on` and `hand_over`: readings by instance, to the worker that has its state.

A stateful step of Bytewax sends each item to the worker of its key. Between processes that takes
longer than scoring the item. So all readings that one worker has for another travel as one item
first.
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

from dataflow.records import Reading, key_of, series_parts
from dataflow.runtime import PICKLE_CODE
from dataflow.runtime.routing import Routes, worker_of
from dataflow.steps.admit import Admission
from dataflow.steps.repeats import in_order

__all__ = ["Keyed", "Parcel", "hand_over", "keyed", "keyer", "unpack"]

Keyed = tuple[str, list[Reading]]
"""The key of an instance's metric, and its readings in a batch, together up to the filter.

No readings say that the instance is forgotten: each step discards what it knows of it."""

_pack = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Keyed]).decode


def keyed(readings: list[Reading], *, several: bool = False) -> list[Keyed]:
    """Group readings by instance and, of `several` metrics, by metric, each in their order.

    >>> batch = [Reading(name, None, at, 0.5, None, 0, at) for at, name in enumerate("abab")]
    >>> [(name, [reading.index for reading in readings]) for name, readings in keyed(batch)]
    [('a', [0, 2]), ('b', [1, 3])]
    """
    groups: defaultdict[str, list[Reading]] = defaultdict(list)
    if several:
        for reading in readings:
            groups[key_of(reading)].append(reading)
    else:
        for reading in readings:
            groups[reading.instance].append(reading)
    return list(groups.items())


def keyer(
    admission: Admission, *, several: bool = False, together: bool = False
) -> Callable[[list[Reading]], list[Keyed]]:
    """Return `keyed` of a batch, after the keys of its partition that are forgotten now.

    With `together`, the readings of all metrics of an instance have its name as their key, while
    keys that are forgotten are those of metrics.
    """

    def key(readings: list[Reading]) -> list[Keyed]:
        groups = keyed(readings, several=several and not together)
        if readings and readings[-1].index is None:
            groups = [one if len(one[1]) == 1 else (one[0], in_order(one[1])) for one in groups]
        if admission.looks:
            admission.look(keyed(readings, several=True) if together else groups)
        names = admission.forgotten(readings) if readings else []
        return [*((name, []) for name in names), *groups] if names else groups

    return key


class Parcel(list[Keyed]):
    """Readings by instance, for one worker. Do not change a parcel that has been pickled.

    Bytewax pickles each item for another process twice, the first time only to measure its length.
    So the bytes are kept.

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
            except OverflowError:  # an index may be larger than MessagePack's numbers
                return list, (list(self),)
        return unpack, (packed,)


def unpack(packed: bytes) -> list[Keyed]:
    """Return the content of a pickled parcel."""
    return _decode(packed)


# By a number: else each pickle names the module, which is looked up again for each that is read.
copyreg.add_extension(__name__, "unpack", PICKLE_CODE)


def hand_over(
    flow: Dataflow, keyed: KeyedStream[list[Reading]], *, together: bool = False
) -> KeyedStream[list[Reading]]:
    """Add the steps that bring readings to the workers that hold the states of their instances.

    With `together`, keys of all metrics of an instance go to its worker.
    """
    workers = _Workers(together)
    op.input("workers", flow, workers)
    parcels = op.flat_map_batch("address", keyed, workers.address)
    arrived = op.stateful_batch("hand_over", parcels, lambda _: _Arrival())
    return op.flat_map_batch("open", arrived, _open)


class _Workers(DynamicSource[Any]):
    """The workers of the flow. A source that reads nothing: Bytewax gives sources their number."""

    def __init__(self, together: bool) -> None:
        self._together = together
        self._names: list[str] = []
        self._routes = Routes(1)

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Empty:
        if not self._names:
            self._routes = Routes(worker_count)
            self._names = names(worker_count)
        return _Empty()

    def address(self, batch: list[Keyed]) -> list[tuple[str, list[Keyed]]]:
        """Split a batch into parcels, each keyed by a name of its worker."""
        if len(self._names) == 1:
            return [(self._names[0], batch)]
        routes = self._routes
        parcels: defaultdict[int, list[Keyed]] = defaultdict(Parcel)
        if self._together:
            for one in batch:
                parcels[routes[series_parts(one[0])[0]]].append(one)
        else:
            for one in batch:
                parcels[routes[one[0]]].append(one)
        return [(self._names[worker], parcel) for worker, parcel in parcels.items()]


class _Empty(StatelessSourcePartition[Any]):
    def next_batch(self) -> list[Any]:
        raise StopIteration


class _Arrival(StatefulBatchLogic[list[Keyed], list[Keyed], None]):
    """Passes parcels on in their worker, without a state."""

    def on_batch(self, values: list[list[Keyed]]) -> tuple[list[list[Keyed]], bool]:
        return values, self.RETAIN

    def snapshot(self) -> None:
        return None


def names(workers: int) -> list[str]:
    """Return for each worker, by its number, a key that Bytewax routes to it.

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
