"""What `calibrated` remembers of one instance, and its form as bytes."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from typing import Final

from dataflow.detectors.calibrated.masses import CODES, Masses, none_yet
from dataflow.detectors.calibrated.masses import read as read_masses
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
Signature = tuple[float, str]
"""Interval in seconds, the masses' type code: a state can be loaded only by a detector with the
same."""


class Memory:
    """What is known of one instance, in 2 kB. Values count from its first reading, `origin`.

    `seen` counts its readings, `since` those since the detector last started over, and `trouble`
    those of a trouble that may be a new habit, whose values lie from `trouble_low` to
    `trouble_high`, and before which the usual miss was `trouble_miss`. Of the last readings,
    `previous`, `previous_2` and `previous_3` are the values, `residual_1` and `residual_2` the
    residuals, `bits_1` and `bits_2` how rare these were.

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
        )

    def dump(self) -> bytes:
        """Return the state as bytes: mark, checksum, signature, numbers, hours, masses."""
        interval, code = self.signature
        body = b"".join(
            (
                SIGNATURE.pack(interval, code.encode()),
                FIXED.pack(*self._counts(), *self._numbers()),
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
    return Memory(signature, (0,) * COUNTS, numbers, UNKNOWN[:], masses)


def read(data: bytes) -> Memory:
    """Read the bytes of `Memory.dump`; raises ValueError if they are anything else."""
    memory = parse(unseal(MARK, data, "calibrated", LITTLE_CRC32))
    if memory is None:
        raise damaged(data, "calibrated")
    return memory


def parse(body: bytes) -> Memory | None:
    """Read what follows mark and checksum; return None if `Memory.dump` cannot have written it."""
    if len(body) < LEAST:
        return None
    interval, mark = SIGNATURE.unpack_from(body)
    code = mark.decode("latin-1")
    size = CODES.get(code)
    if size is None or len(body) != LEAST + size * MASSES:
        return None
    fixed = FIXED.unpack_from(body, SIGNATURE.size)
    hours = array("f", body[SIGNATURE.size + FIXED.size : LEAST])
    masses = read_masses(code, body[LEAST:])
    return Memory((interval, code), fixed[:COUNTS], fixed[COUNTS:], hours, masses)
