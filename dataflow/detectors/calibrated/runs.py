"""Readings that stand out from those just before them: one alone, or three in a row."""

from __future__ import annotations

from typing import Final

from dataflow.detectors.calibrated.memory import Memory

__all__ = ["NEAR", "NEARER", "RAREST", "RUN", "farther", "sharp", "weight"]

RUN: Final = 3
NEAR: Final = 0.2
NEARER: Final = 0.4
"""Readings stand out from the mean of about 5 before them: a single one, or three in a row. Up to
two minutes apart, of about the last 3, since their noise remembers more."""

RARE: Final = 2.0
USUAL_RARE: Final = 3.0
RARER: Final = 0.1
RAREST: Final = 1.5
"""Readings that are less than 2 bits rare do not stand out. Each bit above 3 counts as standing out
by a tenth more, up to half as much again, and each below as a tenth less."""


def sharp(memory: Memory, residual: float, offset: float, least: float, run: int) -> float:
    """Return by how many usual sizes the last `run` readings stand out from those before them.

    Each from the mean of the readings before, and from the last one of these, to the same side: the
    smallest of these distances. So neither the way back from a spike stands out, nor a slow change.
    """
    size = memory.beside_size if memory.beside_size > least else least
    step_size = memory.step_size if memory.step_size > least else least
    usual = memory.beside
    start = memory.previous if run == 1 else memory.previous_3
    by_mean = (residual - usual) / size
    by_last = (offset - start) / step_size
    sign = 1.0
    if by_mean < 0.0:
        sign = -1.0
    found = sign * by_mean
    found = nearer(found, sign * by_last)
    if run > 1:
        found = nearer(found, sign * (memory.residual_1 - usual) / size)
        found = nearer(found, sign * (memory.previous - start) / step_size)
        found = nearer(found, sign * (memory.residual_2 - usual) / size)
        found = nearer(found, sign * (memory.previous_2 - start) / step_size)
    return found if found > 0.0 else 0.0


def weight(memory: Memory, bits: float) -> float:
    """Return how much it counts that three readings stand out: nothing where readings often lie.

    `bits` says how rare the last one's residual is.
    """
    bits = nearer(nearer(bits, memory.bits_1), memory.bits_2)
    if bits < RARE:
        return 0.0
    times = 1.0 + RARER * (bits - USUAL_RARE)
    return times if times < RAREST else RAREST


def farther(
    usual: float, size: float, start: float, step_size: float, sizes: float, sign: int
) -> float:
    """Return the value that is so many sizes away from both the usual one and the start."""
    by_mean = usual + sign * sizes * size
    by_last = start + sign * sizes * step_size
    return by_last if (by_last - by_mean) * sign > 0.0 else by_mean


def nearer(found: float, other: float) -> float:
    """Return the smaller number."""
    return other if other < found else found
