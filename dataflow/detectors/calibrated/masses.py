"""The masses of `calibrated`: how many recent readings fell into each leaf of its trees.

Each reading looks up and counts 16 of them. A `vec` holds numbers as an array does, and compiled
code reads them without calling Python.
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
"""Bytes of a mass, by its type code as in the module `array`."""

ZERO: Final = -32_768
"""The two-byte number that stands for a mass of 0, so that two bytes count to 65,535."""


class Masses(ABC):
    """The masses of all leaves, each leaf at a position of its own."""

    __slots__ = ()

    @abstractmethod
    def visit(self, leaves: tuple[int, ...], bits: list[float]) -> float:
        """Return the sum of the leaves' bits, from a `table`, and count a reading in each leaf."""

    @abstractmethod
    def look(self, leaves: tuple[int, ...], bits: list[float]) -> float:
        """Return the sum of the leaves' bits, as `visit` does, and count nothing."""

    @abstractmethod
    def take_back(self, leaves: tuple[int, ...]) -> None:
        """Undo a `visit`."""

    @abstractmethod
    def halve(self) -> None:
        """Halve each mass, rounding down."""

    @abstractmethod
    def copy(self) -> Masses:
        """Return a copy that can change on its own."""

    @abstractmethod
    def view(self) -> memoryview:
        """Return the bytes that `read` takes, without copying them."""


class Narrow(Masses):
    """Masses in two bytes each, minus 32,768; `table` orders its bits for that."""

    __slots__ = ("_counts",)

    def __init__(self, counts: vec[i16]) -> None:
        self._counts = counts

    def visit(self, leaves: tuple[int, ...], bits: list[float]) -> float:
        counts = self._counts
        found = 0.0
        for leaf in leaves:
            mass = counts[leaf]
            found += bits[mass]
            counts[leaf] = mass + 1
        return found

    def look(self, leaves: tuple[int, ...], bits: list[float]) -> float:
        counts = self._counts
        found = 0.0
        for leaf in leaves:
            found += bits[counts[leaf]]
        return found

    def take_back(self, leaves: tuple[int, ...]) -> None:
        counts = self._counts
        for leaf in leaves:
            counts[leaf] = counts[leaf] - 1

    def halve(self) -> None:
        counts = self._counts
        for leaf in range(len(counts)):
            counts[leaf] = i16((int(counts[leaf]) - ZERO >> 1) + ZERO)

    def copy(self) -> Masses:
        return Narrow(self._counts[:])

    def view(self) -> memoryview:
        return memoryview(self._counts)


class Wide(Masses):
    """Masses in four bytes each, for instances that send every 36 seconds or more often.

    `visit` repeats that of `Narrow`, so that each is compiled for one type.
    """

    __slots__ = ("_counts",)

    def __init__(self, counts: vec[i32]) -> None:
        self._counts = counts

    def visit(self, leaves: tuple[int, ...], bits: list[float]) -> float:
        counts = self._counts
        found = 0.0
        for leaf in leaves:
            mass = counts[leaf]
            found += bits[mass]
            counts[leaf] = mass + 1
        return found

    def look(self, leaves: tuple[int, ...], bits: list[float]) -> float:
        counts = self._counts
        found = 0.0
        for leaf in leaves:
            found += bits[counts[leaf]]
        return found

    def take_back(self, leaves: tuple[int, ...]) -> None:
        counts = self._counts
        for leaf in leaves:
            counts[leaf] = counts[leaf] - 1

    def halve(self) -> None:
        counts = self._counts
        for leaf in range(len(counts)):
            counts[leaf] = counts[leaf] >> 1

    def copy(self) -> Masses:
        return Wide(self._counts[:])

    def view(self) -> memoryview:
        return memoryview(self._counts)


def code_for(most: int) -> str:
    """Return the type code for masses of at most `most`."""
    return "h" if most < 1 << 16 else "i"


def none_yet(code: str, leaves: int) -> Masses:
    """Return the masses of this many leaves before the first reading."""
    if code == "h":
        return Narrow(vec[i16]([ZERO] * leaves))
    return Wide(vec[i32]([0] * leaves))


def read(code: str, data: bytes) -> Masses:
    """Return the masses from the bytes of a `view`."""
    if code == "h":
        return Narrow(vec[i16](array(code, data)))
    return Wide(vec[i32](array(code, data)))


def table(code: str, most: int, bits: Callable[[int], float]) -> list[float]:
    """Return the bits of each mass up to `most`, in the order that `visit` indexes."""
    if code == "h":
        # Masses below 32,768 are stored as negative numbers, which index a list from its end.
        return [*map(bits, range(-ZERO, most + 1)), *map(bits, range(-ZERO))]
    return [*map(bits, range(most + 1))]
