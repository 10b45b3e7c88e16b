"""The written records that a resumed flow is still going to compute again."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import TypeVar

import msgspec

from dataflow.sinks.identity import Identity, Key

__all__ = ["Pending"]

Record = TypeVar("Record")


class Pending:
    """Records that earlier lives of the flow wrote, and that no life has computed again since.

    They belong into the snapshot of an output. A flow that is killed after its first snapshot may
    have computed only some of them again. The others lie before the place in the output from which
    the next life reads back, so that only the snapshot can say that they are written.

    >>> from dataflow.records import Rejected, Source
    >>> from dataflow.sinks.identity import BY_SOURCE
    >>> first, second = (Rejected("empty", "", Source("cpu", 0, at), None) for at in (7, 8))
    >>> pending = Pending(BY_SOURCE)
    >>> for line in map(msgspec.json.encode, (first, second)):
    ...     _ = pending.add(line + b"\\n")
    >>> list(pending.new([first]))
    []
    >>> resumed = Pending(BY_SOURCE, pending.dump())
    >>> [record.source.offset for record in resumed.new([first, second])]
    [7]
    """

    __slots__ = ("_dumped", "_identity", "_left")

    def __init__(self, identity: Identity, saved: bytes | None = None) -> None:
        """Start without any, or with those in the bytes of `dump`.

        Raises `ValueError` if the bytes cannot be read.
        """
        self._identity = identity
        self._left: set[Key] = set()
        self._dumped = saved
        if saved is not None:
            try:
                data = zlib.decompress(saved)
            except zlib.error as error:
                raise ValueError(f"pending records: {error}") from None
            self._left.update(msgspec.msgpack.decode(data, type=identity.keys))

    def __len__(self) -> int:
        return len(self._left)

    def add(self, line: bytes) -> bool:
        """Note a line that was read back from the output; return whether it is a whole record."""
        same = self._identity.of_line(line)
        if same is None:
            return False
        self._left.add(same)
        self._dumped = None
        return True

    def new(self, records: Iterable[Record]) -> Iterator[Record]:
        """Yield the records that are not written yet; those that are pend no longer."""
        left, of = self._left, self._identity.of
        for record in records:
            if left and (same := of(record)) in left:
                left.remove(same)
                self._dumped = None
            else:
                yield record

    def dump(self) -> bytes:
        """Return the records' identities as bytes: about 3 for an anomaly, 15 for an incident."""
        if self._dumped is None:
            self._dumped = zlib.compress(msgspec.msgpack.encode(sorted(self._left)), 1)
        return self._dumped
