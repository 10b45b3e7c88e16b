"""The step `normalize`: values of any scale to 0..1."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataflow.steps.exchange import Keyed

__all__ = ["normalizer"]


def normalizer(scale: float | None) -> Callable[[list[Keyed]], list[Keyed]]:
    """Return the step from 0..scale to 0..1, in place, for a batch; None leaves values alone."""
    if scale is None:
        return lambda batch: batch

    def normalize(batch: list[Keyed]) -> list[Keyed]:
        for _, readings in batch:
            for reading in readings:
                reading.value /= scale
        return batch

    return normalize
