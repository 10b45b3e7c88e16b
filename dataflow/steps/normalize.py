"""The step `normalize`: values of any scale to 0..1; those without one stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dataflow.formats.metrics import BOUNDS

if TYPE_CHECKING:
    from dataflow.steps.exchange import Keyed

__all__ = ["normalizer", "scale_of"]


def scale_of(unit: str | None) -> float | None:
    """Return the scale of a metric that is not CPU, by its unit; None if it has no bounds."""
    return None if unit is None else BOUNDS.get(unit)


def normalizer(
    scale: float | None, *, several: bool = False
) -> Callable[[list[Keyed]], list[Keyed]]:
    """Return the step from 0..scale to 0..1, in place, for a batch; None leaves values alone.

    Of `several` metrics, each reading but those of CPU has the scale of its unit.
    """
    if several:
        return _by_unit(scale)
    if scale is None:
        return lambda batch: batch

    def normalize(batch: list[Keyed]) -> list[Keyed]:
        for _, readings in batch:
            for reading in readings:
                reading.value /= scale
        return batch

    return normalize


def _by_unit(scale: float | None) -> Callable[[list[Keyed]], list[Keyed]]:
    def normalize(batch: list[Keyed]) -> list[Keyed]:
        for _, readings in batch:
            for reading in readings:
                divisor = scale if reading.metric is None else scale_of(reading.unit)
                if divisor is not None:
                    reading.value /= divisor
        return batch

    return normalize
