"""What `calibrated` remembers of one instance, and its form as bytes."""

from __future__ import annotations

import struct
import zlib
from array import array
from itertools import chain

from dataflow.detectors.stratified import LEAVES, TREES

__all__ = ["Memory", "read", "signature"]

MARK = b"calibrated/1 "
HOURS = 24 + 168
MASSES = TREES * LEAVES

CHECK = struct.Struct("<I")
SIGNATURE = struct.Struct("<Qd")
COUNTS = ("seen", "since")
NUMBERS = (
    "origin",
    "previous",
    "level",
    "off_level",
    "off_hour",
    "off_week",
    "residual_size",
    "residual_scale",
    "step_size",
    "step_scale",
    "total",
    "residual_bits",
    "residual_mean",
    "residual_variance",
    "step_bits",
    "step_mean",
    "step_variance",
    "high",
    "low",
    "last_high",
    "last_low",
    "bar",
)
FIXED = struct.Struct(f"<{len(COUNTS)}q{len(NUMBERS)}d")


class Memory:
    """What is known of one instance. Values are differences from its first reading, `origin`.

    Copied, pickled and dumped to less than 3 kB; what is loaded goes on as what was dumped would
    have, to the bit.
    """

    # `hours` holds 24 levels by the hour of the day, then 168 by the hour of the week, as floats
    # of 32 bits, NaN where no reading has fallen yet. `residual_masses` and `step_masses` hold
    # LEAVES * mass + 1 for each leaf of a forest: the form in which the score multiplies them.
    __slots__ = (*COUNTS, *NUMBERS, "hours", "residual_masses", "signature", "step_masses")

    seen: int
    since: int
    origin: float
    previous: float
    level: float
    off_level: float
    off_hour: float
    off_week: float
    residual_size: float
    residual_scale: float
    step_size: float
    step_scale: float
    total: float
    residual_bits: float
    residual_mean: float
    residual_variance: float
    step_bits: float
    step_mean: float
    step_variance: float
    high: float
    low: float
    last_high: float
    last_low: float
    bar: float
    hours: array[float]
    residual_masses: list[float]
    step_masses: list[float]
    signature: bytes

    def __deepcopy__(self, memo: object) -> Memory:
        return self.copy()

    def __reduce__(self) -> tuple[object, tuple[bytes]]:
        return read, (self.dump(),)

    def copy(self) -> Memory:
        """Return a copy that shares nothing that changes."""
        other = Memory.__new__(Memory)
        for name in Memory.__slots__:
            setattr(other, name, getattr(self, name))
        other.hours = self.hours[:]
        other.residual_masses = self.residual_masses[:]
        other.step_masses = self.step_masses[:]
        return other

    def dump(self) -> bytes:
        """Return the state as bytes: mark, seed and interval, counts, numbers, hours, masses."""
        masses = [int(mass) // LEAVES for mass in chain(self.residual_masses, self.step_masses)]
        code = "H" if max(masses) < 1 << 16 else "I"
        fixed = FIXED.pack(*(getattr(self, name) for name in (*COUNTS, *NUMBERS)))
        body = b"".join(
            (
                self.signature,
                fixed,
                struct.pack(f"<{HOURS}f", *self.hours),
                code.encode(),
                struct.pack(f"<{len(masses)}{code}", *masses),
            )
        )
        return MARK + CHECK.pack(zlib.crc32(body)) + body


def signature(seed: int, interval: float) -> bytes:
    """Return what a state must share with the detector that goes on with it."""
    return SIGNATURE.pack(seed & (1 << 64) - 1, interval)


def start(value: float, mark: bytes) -> Memory:
    """Return the state before the first reading, of this value."""
    memory = Memory.__new__(Memory)
    memory.seen = memory.since = 0
    for name in NUMBERS:
        setattr(memory, name, 0.0)
    memory.origin = value
    memory.high = memory.last_high = -1e300
    memory.low = memory.last_low = 1e300
    memory.hours = array("f", [float("nan")]) * HOURS
    memory.residual_masses = [1.0] * MASSES
    memory.step_masses = [1.0] * MASSES
    memory.signature = mark
    return memory


def read(data: bytes) -> Memory:
    """Read the bytes of `Memory.dump`; ValueError if they are anything else."""
    if not data.startswith(MARK):
        found = bytes(data[: len(MARK)])
        raise ValueError(
            f"This is not a state of detector 'calibrated', version 1: it begins with {found!r}, "
            f"not with {MARK!r}. Go on with the detector and the version that stored it, or start "
            "with an empty recovery store."
        )
    body = data[len(MARK) + CHECK.size :]
    if data[len(MARK) :] != CHECK.pack(zlib.crc32(body)) + body:
        raise ValueError(
            f"This state of detector 'calibrated' is damaged: its {len(data)} bytes are not those "
            "that were stored. Start with an empty recovery store."
        )
    at = SIGNATURE.size
    codes = at + FIXED.size + 4 * HOURS
    code = body[codes : codes + 1].decode()
    memory = Memory.__new__(Memory)
    memory.signature = body[:at]
    for name, value in zip((*COUNTS, *NUMBERS), FIXED.unpack_from(body, at), strict=True):
        setattr(memory, name, value)
    memory.hours = array("f", struct.unpack_from(f"<{HOURS}f", body, at + FIXED.size))
    weights = [
        float(LEAVES * mass + 1)
        for mass in struct.unpack_from(f"<{2 * MASSES}{code}", body, codes + 1)
    ]
    memory.residual_masses = weights[:MASSES]
    memory.step_masses = weights[MASSES:]
    return memory
