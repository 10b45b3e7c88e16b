"""What `calibrated` remembers of one instance, and its form as bytes."""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from collections.abc import Sequence
from typing import Final

__all__ = ["BEYOND", "LEAVES", "TREES", "Memory", "Signature", "begin", "read"]

MARK: Final = b"calibrated/2 "
TREES: Final = 8
LEAVES: Final = 32  # of each tree, of height 5
HOURS: Final = 24 + 168
MASSES: Final = 2 * TREES * LEAVES
BEYOND: Final = 1e300
"""Farther than any value: the range before the first reading of a fortnight."""


COUNTS: Final = 5
NUMBERS: Final = 21

CHECK: Final = struct.Struct("<I")
SIGNATURE: Final = struct.Struct("<Qd8sc")
FIXED: Final = struct.Struct(f"<{COUNTS}q{NUMBERS}d")
BODY: Final = len(MARK) + CHECK.size
UNKNOWN: Final = array("f", [float("nan")]) * HOURS
SWAP: Final = sys.byteorder == "big"

# Masses are packed in a few operations on all of them: a loop would take many times as long.
NIBBLES: Final = int.from_bytes(b"\x0f" * MASSES, "little")
HALF: Final = 8 * (MASSES // 2) - 4
"""Shifts the second half of the masses' nibbles to where the first half's bytes are empty."""
LOW: Final = bytes(byte & 15 for byte in range(256))
HIGH: Final = bytes(byte >> 4 for byte in range(256))
NOT_NONE: Final = b"\0" + b"\1" * 255
PACKED: Final = MASSES + MASSES // 2
LEAST: Final = SIGNATURE.size + FIXED.size + 4 * HOURS + PACKED

Signature = tuple[int, float, bytes, str]
"""Seed, interval, the trees' fingerprints and the masses' type: what a state and its detector must
share."""


class Memory:
    """What is known of one instance. Values count from its first reading, `origin`.

    `dump` makes about 1.8 kB of it, so that two lie on a page of the recovery store, SQLite's of
    4 kB. What is loaded from those bytes goes on as what was dumped would have, to the bit.
    """

    # `hours` holds 24 levels by the hour of the day, then 168 by the hour of the week, NaN where
    # no reading has fallen yet. `masses` holds those of the residual's forest, then the step's.
    # Both are arrays, not lists, so that a copy or a dump is one block move.
    __slots__ = (
        "bar",
        "high",
        "hours",
        "last_high",
        "last_low",
        "level",
        "longest",
        "low",
        "masses",
        "off_hour",
        "off_level",
        "off_week",
        "origin",
        "previous",
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
    )

    seen: int
    since: int
    total: int
    same: int
    longest: int

    def __init__(
        self,
        signature: Signature,
        counts: Sequence[int],
        numbers: Sequence[float],
        hours: array[float],
        masses: array[int],
    ) -> None:
        self.signature = signature
        self.seen, self.since, self.total, self.same, self.longest = counts
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
            self.bar,
        ) = numbers
        self.hours = hours
        self.masses = masses

    def _counts(self) -> tuple[int, ...]:
        return self.seen, self.since, self.total, self.same, self.longest

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
            self.bar,
        )

    def copy(self) -> Memory:
        """Return a copy that shares nothing that changes."""
        return Memory(
            self.signature,
            self._counts(),
            self._numbers(),
            self.hours[:],
            self.masses[:],
        )

    def dump(self) -> bytes:
        """Return the state as bytes: mark, check sum, signature, numbers, hours, masses."""
        seed, interval, fingerprints, code = self.signature
        body = b"".join(
            (
                SIGNATURE.pack(seed, interval, fingerprints, code.encode()),
                FIXED.pack(*self._counts(), *self._numbers()),
                little(self.hours),
                pack(self.masses),
            )
        )
        return MARK + CHECK.pack(zlib.crc32(body)) + body


def begin(signature: Signature, value: float) -> Memory:
    """Return the state before the first reading, which is of this value."""
    numbers = [0.0] * NUMBERS
    numbers[0] = value
    numbers[-5:-1] = -BEYOND, BEYOND, -BEYOND, BEYOND
    return Memory(signature, (0,) * COUNTS, numbers, UNKNOWN[:], array(signature[3], [0]) * MASSES)


def read(data: bytes) -> Memory:
    """Read the bytes of `Memory.dump`; ValueError if they are anything else."""
    if not data.startswith(MARK):
        found = bytes(data[: len(MARK)])
        raise ValueError(
            f"This is not a state of detector 'calibrated', version 2: it begins with {found!r}, "
            f"not with {MARK!r}. Go on with the detector and the version that stored it, or start "
            "with an empty recovery store."
        )
    body = data[BODY:]
    memory = None
    if data[len(MARK) : BODY] == CHECK.pack(zlib.crc32(body)):
        memory = parse(body)
    if memory is None:
        raise ValueError(
            f"This state of detector 'calibrated' is damaged: its {len(data)} bytes are not those "
            "that were stored. Start with an empty recovery store."
        )
    return memory


def parse(body: bytes) -> Memory | None:
    """Read what follows the mark and the check sum; None if `Memory.dump` cannot have made it."""
    if len(body) < LEAST:
        return None
    seed, interval, fingerprints, mark = SIGNATURE.unpack_from(body)
    if mark not in (b"H", b"I"):
        return None
    code = mark.decode()
    masses = unpack(code, body[LEAST - PACKED :])
    if masses is None:
        return None
    fixed = FIXED.unpack_from(body, SIGNATURE.size)
    hours = array("f", body[SIGNATURE.size + FIXED.size : LEAST - PACKED])
    if SWAP:
        hours.byteswap()
    return Memory(
        (seed, interval, fingerprints, code), fixed[:COUNTS], fixed[COUNTS:], hours, masses
    )


def little(numbers: array[float] | array[int]) -> bytes:
    """Return an array's bytes, the low ones first."""
    if SWAP:
        numbers = numbers[:]
        numbers.byteswap()
    return numbers.tobytes()


def pack(masses: array[int]) -> bytes:
    """Return masses below 2**19 as bytes: 12 bits of each, and a list of what lies above those.

    An entry is 16 bits: the leaf, and 512 times what lies above. There are few: a leaf or two of
    each tree hold nearly all readings. No mass is larger than two fortnights at the shortest
    interval make it, 241,920.
    """
    data, size = little(masses), masses.itemsize
    second = int.from_bytes(data[1::size], "little")
    nibbles = second & NIBBLES
    over = second ^ nibbles
    if size > 2:
        over |= int.from_bytes(data[2::size], "little")
    has_more = over.to_bytes(MASSES, "little").translate(NOT_NONE)
    more: list[int] = []
    leaf = has_more.find(1)
    while leaf >= 0:
        more.append((masses[leaf] >> 12) * MASSES + leaf)
        leaf = has_more.find(1, leaf + 1)
    return b"".join(
        (
            data[::size],
            (nibbles | nibbles >> HALF).to_bytes(MASSES, "little")[: MASSES // 2],
            struct.pack(f"<{len(more)}H", *more),
        )
    )


def unpack(code: str, data: bytes) -> array[int] | None:
    """Read the bytes of `pack`, at least PACKED of them; None if they are anything else."""
    if len(data) % 2:
        return None
    masses = array(code)
    size = masses.itemsize
    nibbles = data[MASSES:PACKED]
    planes = bytearray(MASSES * size)
    planes[::size] = data[:MASSES]
    planes[1::size] = nibbles.translate(LOW) + nibbles.translate(HIGH)
    masses.frombytes(planes)
    if SWAP:
        masses.byteswap()
    last = -1
    for (more,) in struct.iter_unpack("<H", data[PACKED:]):
        leaf = more % MASSES
        over = more // MASSES
        if leaf <= last or over == 0 or (over > 15 and size == 2):
            return None
        masses[leaf] += over << 12
        last = leaf
    return masses
