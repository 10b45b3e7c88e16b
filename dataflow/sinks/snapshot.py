"""The snapshot of an output that a resumed flow reads back: a file, or a topic."""

from __future__ import annotations

from typing import TypeAlias, TypeVar

from dataflow.errors import stop_process
from dataflow.sinks.identity import Identity
from dataflow.sinks.pending import Pending

__all__ = ["Snapshot", "resume"]

Place = TypeVar("Place")

Snapshot: TypeAlias = dict[str, tuple[Place, bytes]]
"""By the name of each output that the step has had: the place after its last record, and the bytes
of its pending records. A flow may write to another output for a while and then return."""


def resume(
    saved: Snapshot[Place] | tuple[str, Place] | None, output: str, identity: Identity
) -> tuple[Snapshot[Place], Place | None, Pending]:
    """Return the last snapshot, and of it what belongs to `output`: its place, what is pending.

    The place is None if no snapshot names this output. Ends the process if the snapshot cannot be
    read.
    """
    if saved is None:
        saved = {}
    elif isinstance(saved, tuple):  # a store of format 2: the output and its place only
        saved = {saved[0]: (saved[1], Pending(identity).dump())}
    if output not in saved:
        return saved, None, Pending(identity)
    place, pending = saved[output]
    try:
        return saved, place, Pending(identity, pending)
    except ValueError as error:
        stop_process(
            f"the recovery store holds a snapshot of the output {output} that cannot be read "
            f"({error}): run the version that wrote it, or start with a new store."
        )
