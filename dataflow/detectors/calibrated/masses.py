"""How many readings fell into each leaf of `calibrated`'s trees of late: its masses.

They are looked up and counted 16 times for a reading. A `vec` holds them as an array does; compiled
code gets at its numbers without calling Python.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable
from typing import Final

from librt.vecs import vec
from mypy_extensions import i16, i32

__all__ = ["CODES", "Masses", "code_for", "none_yet", "read", "table"]

CODES: Final = {"h": 2, "i": 4}
"""Bytes of a mass, by the code of its type: as in the module `array`."""

ZERO: Final = -32_768
"""What stands for a mass of 0 in two bytes, so that they hold 65,535: the least that they can."""


class Masses(ABC):
    """The masses of all leaves, each of which has a place among them."""

    __slots__ = ()

    @abstractmethod
    def visit(self, leaves: tuple[int, ...], bits: list[float]) -> float:
        """Return the sum of some leaves' bits, of a `table`, and count a reading in each."""

    @abstractmethod
    def halve(self) -> None:
        """Forget half of each, rounding down."""

    @abstractmethod
    def copy(self) -> Masses:
        """Return a copy that shares nothing that changes."""

    @abstractmethod
    def view(self) -> memoryview:
        """Return what `read` makes them of again."""


class Narrow(Masses):
    """Masses in two bytes, less 32,768: a `table` is made for that."""

    __slots__ = ("_kept",)

    def __init__(self, kept: vec[i16]) -> None:
        self._kept = kept

    def visit(self, leaves: tuple[int, ...], bits: list[float]) -> float:
        kept = self._kept
        found = 0.0
        for leaf in leaves:
            mass = kept[leaf]
            found += bits[mass]
            kept[leaf] = mass + 1
        return found

    def halve(self) -> None:
        kept = self._kept
        for leaf in range(len(kept)):
            kept[leaf] = i16((int(kept[leaf]) - ZERO >> 1) + ZERO)

    def copy(self) -> Masses:
        return Narrow(self._kept[:])

    def view(self) -> memoryview:
        return memoryview(self._kept)


class Wide(Masses):
    """Masses in four bytes, for instances that send every 36 seconds or more often.

    `visit` is that of `Narrow` to the letter: it is compiled for one type.
    """

    __slots__ = ("_kept",)

    def __init__(self, kept: vec[i32]) -> None:
        self._kept = kept

    def visit(self, leaves: tuple[int, ...], bits: list[float]) -> float:
        kept = self._kept
        found = 0.0
        for leaf in leaves:
            mass = kept[leaf]
            found += bits[mass]
            kept[leaf] = mass + 1
        return found

    def halve(self) -> None:
        kept = self._kept
        for leaf in range(len(kept)):
            kept[leaf] = kept[leaf] >> 1

    def copy(self) -> Masses:
        return Wide(self._kept[:])

    def view(self) -> memoryview:
        return memoryview(self._kept)


def code_for(most: int) -> str:
    """Return the code of the type for masses that never exceed `most`."""
    return "h" if most < 1 << 16 else "i"


def none_yet(code: str, leaves: int) -> Masses:
    """Return the masses of so many leaves before the first reading."""
    if code == "h":
        return Narrow(vec[i16]([ZERO] * leaves))
    return Wide(vec[i32]([0] * leaves))


def read(code: str, data: bytes) -> Masses:
    """Return the masses that a `view` was of."""
    if code == "h":
        return Narrow(vec[i16](array(code, data)))
    return Wide(vec[i32](array(code, data)))


def table(code: str, most: int, bits: Callable[[int], float]) -> list[float]:
    """Return the bits of each mass up to `most`, for `visit`."""
    if code == "h":
        # Masses below 32,768 are kept as negative numbers, which index a list from its end.
        return [*map(bits, range(-ZERO, most + 1)), *map(bits, range(-ZERO))]
    return [*map(bits, range(most + 1))]
