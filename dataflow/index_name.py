"""An anomaly's index, repeated under the name that the input has for it.

Whoever reads both topics then finds `time_step` in both.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec

from dataflow.records import Anomaly

__all__ = ["index_namer"]


def index_namer(field: str) -> Callable[[Anomaly], Anomaly]:
    """Return the step that gives an anomaly one more field, so called, with its index.

    The names that every anomaly has keep their meaning: one of those changes nothing.
    """
    if field in Anomaly.__struct_fields__:
        return lambda anomaly: anomaly
    make = _anomaly_with(field)
    return lambda anomaly: make(*msgspec.structs.astuple(anomaly), anomaly.index)


@cache
def _anomaly_with(field: str) -> Callable[..., Anomaly]:
    def reduce(self: Anomaly) -> Any:
        # To another process of a cluster, which makes the type anew.
        return _remake, (field, *msgspec.structs.astuple(self))

    kind: Any = msgspec.defstruct(
        "Anomaly",
        [("repeated_index", str | int | float)],
        bases=(Anomaly,),
        rename={"repeated_index": field},
        namespace={"__reduce__": reduce},
        frozen=True,
    )
    make: Callable[..., Anomaly] = kind
    return make


def _remake(field: str, *values: Any) -> Anomaly:
    return _anomaly_with(field)(*values)
