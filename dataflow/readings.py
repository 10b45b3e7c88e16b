"""The readings of an instance in a batch, and how they go to another process of a cluster."""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from typing import Any

import msgspec

from dataflow.records import Reading

__all__ = ["Readings", "unpack"]

_pack = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Reading]).decode

UNPACK = 240
"""What stands for `unpack` in a pickle: the first of the numbers that are left to applications."""


class Readings(list[Reading]):
    """Readings of one instance, in their order. Do not change what has been pickled.

    Bytewax pickles what it hands to another process twice, the first time only to learn how long
    it is. So bytes are made once and kept.

    >>> import pickle
    >>> readings = Readings([Reading("i-1", None, 7, 0.25, None, 0, 12)])
    >>> pickle.loads(pickle.dumps(readings)) == readings
    True
    """

    __slots__ = ("_packed",)
    _packed: bytes

    def __reduce__(self) -> tuple[Callable[..., list[Reading]], tuple[Any]]:
        try:
            packed = self._packed
        except AttributeError:
            try:
                packed = self._packed = _pack(self)
            except OverflowError:  # an index may have more digits than MessagePack's numbers
                return list, (list(self),)
        return unpack, (packed,)


def unpack(packed: bytes) -> list[Reading]:
    """Return the readings that were pickled."""
    return _decode(packed)


# By a number: else each pickle names the module, which is looked up again for each that is read.
copyreg.add_extension(__name__, "unpack", UNPACK)
