"""Random numbers that are a function of seed, reading and place: a replay draws the same again."""

from __future__ import annotations

from typing import Final

from mypy_extensions import i64

__all__ = ["draw", "key"]

MASK: Final = 0xFFFFFFFF
STEP: Final = 0x1E3779B9
"""Odd, so that 2^32 counts have 2^32 keys, and so small that no product exceeds 63 bits."""


def mix(bits: i64) -> i64:
    """Return 32 other bits for 32 bits, one to one.

    The constants are those of "hash prospector" (Wellons, 2018) that fit into 63-bit products.
    """
    bits ^= bits >> 15
    bits = (bits * 0x2C1B3C6D) & MASK
    bits ^= bits >> 12
    bits = (bits * 0x297A2D39) & MASK
    return bits ^ (bits >> 15)


def key(seed: i64, number: i64) -> i64:
    """Return the key of a reading by its number; `seed` and key have 32 bits.

    >>> key(42, 0) != key(42, 1) != key(43, 1)
    True
    """
    return mix((mix(seed) + (number & MASK) * STEP) & MASK)


def draw(key: i64, place: i64) -> float:
    """Return a number between 0 and 1, neither of them, for a place of a reading.

    >>> 0 < draw(key(42, 7), 0) < 1
    True
    """
    return (float(mix((key + place * STEP) & MASK)) + 0.5) / 4294967296.0
