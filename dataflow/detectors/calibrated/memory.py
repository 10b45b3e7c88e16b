"""What `calibrated` remembers of one instance, and its form as bytes."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from typing import Final

from dataflow.detectors.calibrated.masses import CODES, Masses, none_yet
from dataflow.detectors.calibrated.masses import read as read_masses
from dataflow.detectors.calibrated.places import CLOSEST, PLACES, Places
from dataflow.detectors.calibrated.places import none_yet as no_places
from dataflow.detectors.calibrated.places import read as read_places
from dataflow.detectors.sealing import LITTLE_CRC32, damaged, seal, unseal

__all__ = ["BEYOND", "LEAVES", "TREES", "Memory", "Signature", "begin", "read"]

MARK: Final = b"calibrated/4 "
TREES: Final = 8
LEAVES: Final = 32  # of each tree, of height 5
HOURS: Final = 24 + 168
MASSES: Final = 2 * TREES * LEAVES
BEYOND: Final = 1e300
"""Larger than any value: bounds the range before the first reading of a fortnight."""


COUNTS: Final = 6
NUMBERS: Final = 35

SIGNATURE: Final = struct.Struct("<dc")
FIXED: Final = struct.Struct(f"<{COUNTS}q{NUMBERS}d")
UNKNOWN: Final = array("f", [float("nan")]) * HOURS

LEAST: Final = SIGNATURE.size + FIXED.size + 4 * HOURS

RUNS: Final = 6
"""How many of the numbers, the last ones, only runs of three readings need."""

KEPT: Final = NUMBERS - RUNS
CLOSE: Final = struct.Struct(f"<{COUNTS}q{KEPT + 2}d")
"""With places: without the numbers of runs, and with the two of the places."""

LEAST_CLOSE: Final = SIGNATURE.size + CLOSE.size + PLACES + 4 * HOURS
STANDING_OUT: Final = 1.25
"""How many usual peaks a reading had to stand out by before there were places."""

Signature = tuple[float, str]
"""Interval in seconds, the masses' type code: a state can be loaded only by a detector with the
same."""


class Memory:
    """What is known of one instance, in 2 kB. Values count from its first reading, `origin`.

    `seen` counts its readings, `since` those since the detector last started over, and `trouble`
    those of a trouble that may be a new habit, whose values lie from `trouble_low` to
    `trouble_high`, and before which the usual miss was `trouble_miss`. Of the last readings,
    `previous`, `previous_2` and `previous_3` are the values, `residual_1` and `residual_2` the
    residuals, `bits_1` and `bits_2` how rare these were. `peak` is how far readings stood out most
    in this day or, with `places`, in this hour; these replace `usual_peak`.

    A state loaded from the bytes of `dump` continues as the dumped one would have, to the bit. It
    is stored as those bytes only: compiled, it cannot be pickled or deep-copied.
    """

    # `hours` holds 24 levels by the hour of the day, then 168 by the hour of the week, NaN where
    # no reading has fallen yet. `masses` holds those of the residual's forest, then the step's.
    # Both are blocks of numbers, not lists, so that a copy or a dump is one block move. They are
    # little-endian, as are all machines that Bytewax is built for.
    __slots__ = (
        "before",
        "beside",
        "beside_size",
        "bits_1",
        "bits_2",
        "high",
        "hours",
        "last_high",
        "last_low",
        "level",
        "longest",
        "low",
        "masses",
        "most",
        "off_hour",
        "off_level",
        "off_week",
        "origin",
        "peak",
        "places",
        "previous",
        "previous_2",
        "previous_3",
        "residual_1",
        "residual_2",
        "residual_bits",
        "residual_mean",
        "residual_scale",
        "residual_size",
        "residual_variance",
        "same",
        "seen",
        "signature",
        "since",
        "step_bits",
        "step_mean",
        "step_scale",
        "step_size",
        "step_variance",
        "total",
        "trouble",
        "trouble_high",
        "trouble_low",
        "trouble_miss",
        "usual_most",
        "usual_peak",
    )

    seen: int
    total: int
    same: int
    longest: int
    since: int
    trouble: int

    def __init__(
        self,
        signature: Signature,
        counts: Sequence[int],
        numbers: Sequence[float],
        hours: array[float],
        masses: Masses,
        places: Places | None = None,
    ) -> None:
        self.signature = signature
        (
            self.seen,
            self.total,
            self.same,
            self.longest,
            self.since,
            self.trouble,
        ) = counts
        (
            self.origin,
            self.previous,
            self.level,
            self.off_level,
            self.off_hour,
            self.off_week,
            self.residual_size,
            self.residual_scale,
            self.step_size,
            self.step_scale,
            self.residual_bits,
            self.residual_mean,
            self.residual_variance,
            self.step_bits,
            self.step_mean,
            self.step_variance,
            self.high,
            self.low,
            self.last_high,
            self.last_low,
            self.beside,
            self.beside_size,
            self.peak,
            self.usual_peak,
            self.most,
            self.usual_most,
            self.trouble_high,
            self.trouble_low,
            self.trouble_miss,
            self.previous_2,
            self.previous_3,
            self.residual_1,
            self.residual_2,
            self.bits_1,
            self.bits_2,
        ) = numbers
        self.hours = hours
        self.masses = masses
        self.places = places
        # What was known before the last reading, if that was an anomaly.
        self.before: Memory | None = None

    def _counts(self) -> tuple[int, ...]:
        return self.seen, self.total, self.same, self.longest, self.since, self.trouble

    def _numbers(self) -> tuple[float, ...]:
        return (
            self.origin,
            self.previous,
            self.level,
            self.off_level,
            self.off_hour,
            self.off_week,
            self.residual_size,
            self.residual_scale,
            self.step_size,
            self.step_scale,
            self.residual_bits,
            self.residual_mean,
            self.residual_variance,
            self.step_bits,
            self.step_mean,
            self.step_variance,
            self.high,
            self.low,
            self.last_high,
            self.last_low,
            self.beside,
            self.beside_size,
            self.peak,
            self.usual_peak,
            self.most,
            self.usual_most,
            self.trouble_high,
            self.trouble_low,
            self.trouble_miss,
            self.previous_2,
            self.previous_3,
            self.residual_1,
            self.residual_2,
            self.bits_1,
            self.bits_2,
        )

    def copy(self) -> Memory:
        """Return a copy that can change on its own."""
        return Memory(
            self.signature,
            self._counts(),
            self._numbers(),
            self.hours[:],
            self.masses.copy(),
            self.places.copy() if self.places is not None else None,
        )

    def dump(self) -> bytes:
        """Return the state as bytes: mark, checksum, signature, numbers, places, hours, masses."""
        interval, code = self.signature
        places = self.places
        levels: bytes | memoryview = b""
        if places is None:
            fixed = FIXED.pack(*self._counts(), *self._numbers())
        else:
            fixed = CLOSE.pack(*self._counts(), *self._numbers()[:KEPT], places.mean, places.spread)
            levels = places.view()
        body = b"".join(
            (
                SIGNATURE.pack(interval, code.encode()),
                fixed,
                levels,
                self.hours,
                self.masses.view(),
            )
        )
        data: bytes = seal(MARK, body, LITTLE_CRC32)
        return data


def begin(signature: Signature, value: float) -> Memory:
    """Return the state before the first reading, whose value is `value`."""
    numbers = [0.0] * NUMBERS
    numbers[0] = value
    numbers[16:20] = -BEYOND, BEYOND, -BEYOND, BEYOND
    masses = none_yet(signature[1], MASSES)
    places = no_places() if signature[0] <= CLOSEST else None
    return Memory(signature, (0,) * COUNTS, numbers, UNKNOWN[:], masses, places)


def read(data: bytes) -> Memory:
    """Read the bytes of `Memory.dump`; raises ValueError if they are anything else."""
    memory = parse(unseal(MARK, data, "calibrated", LITTLE_CRC32))
    if memory is None:
        raise damaged(data, "calibrated")
    return memory


def parse(body: bytes) -> Memory | None:
    """Read what follows mark and checksum; return None if `Memory.dump` cannot have written it."""
    if len(body) < SIGNATURE.size:
        return None
    interval, mark = SIGNATURE.unpack_from(body)
    code = mark.decode("latin-1")
    size = CODES.get(code)
    if size is None:
        return None
    length = len(body) - size * MASSES
    if interval <= CLOSEST and length == LEAST_CLOSE:
        return parse_close(body, (interval, code), length)
    if length != LEAST:
        return None
    fixed = FIXED.unpack_from(body, SIGNATURE.size)
    hours = array("f", body[SIGNATURE.size + FIXED.size : LEAST])
    masses = read_masses(code, body[LEAST:])
    memory = Memory((interval, code), fixed[:COUNTS], fixed[COUNTS:], hours, masses)
    if interval <= CLOSEST:
        # Written before there were places: the bar is as it was until they are learned.
        memory.places = no_places(STANDING_OUT * memory.usual_peak)
        memory.usual_peak = memory.peak = 0.0
    return memory


def parse_close(body: bytes, signature: Signature, length: int) -> Memory:
    """Read the state of an instance with places, in which the masses begin at `length`."""
    fixed = CLOSE.unpack_from(body, SIGNATURE.size)
    first = SIGNATURE.size + CLOSE.size
    places = read_places(body[first : first + PLACES], fixed[-2], fixed[-1])
    hours = array("f", body[first + PLACES : length])
    numbers = (*fixed[COUNTS:-2], *[0.0] * RUNS)
    masses = read_masses(signature[1], body[length:])
    return Memory(signature, fixed[:COUNTS], numbers, hours, masses, places)
