"""The bytes that a state of `calibrated` is stored as: what they hold, and damage."""

import random
import struct
import zlib
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.detectors.calibrated import Calibrated
from dataflow.detectors.calibrated_state import Memory, read

MARK = b"calibrated/1 "
MASSES = 512
BEFORE = len(MARK) + 4 + 25 + 5 * 8 + 21 * 8 + 192 * 4
"""What stands before the masses: mark, check sum, signature, counts, numbers, hours."""
MOST = {"H": 2**16 - 1, "I": 2**32 - 1}


def sealed(body):
    return MARK + struct.pack("<I", zlib.crc32(body)) + body


@st.composite
def memories(draw):
    """States of any content: what a detector would never learn, too."""
    code = draw(st.sampled_from(("H", "I")))
    rng = random.Random(draw(st.integers(0, 10**6)))
    mass = draw(st.integers(0, MOST[code]))
    masses = array(code, [rng.randrange(mass + 1) for _ in range(MASSES)])
    signature = (draw(st.integers(0, 2**64 - 1)), draw(st.floats(1e-3, 1e6)), b"8 bytes.", code)
    return Memory(
        signature,
        draw(st.tuples(*[st.integers(-(2**63), 2**63 - 1)] * 5)),
        draw(st.tuples(*[st.floats()] * 21)),
        array("f", rng.randbytes(192 * 4)),
        masses,
    )


def held(memory):
    """All that a state holds, to the bit."""
    counts = memory._counts()
    numbers = struct.pack("<21d", *memory._numbers())
    return memory.signature, counts, numbers, memory.hours.tobytes(), memory.masses


@settings(deadline=None)
@given(memories())
def test_what_is_read_is_what_was_dumped_to_the_bit(memory):
    data = memory.dump()
    assert len(data) == BEFORE + memory.masses.itemsize * MASSES
    back = read(data)
    assert held(back) == held(memory)
    assert back.masses.typecode == memory.signature[3]
    assert back.dump() == data


def test_no_mass_that_a_detector_can_count_is_too_large_for_its_type():
    for interval in (1e-6, 1.0, 10.0, 36.0, 37.0, 60.0, 300.0, 1e6):
        detector = Calibrated(interval=interval)
        code = detector.update(None, 0.5, None)[0].signature[3]
        # It knows the bits of each mass that can occur.
        assert len(detector._leaf_bits) - 1 <= MOST[code]


def learned():
    detector, state = Calibrated(), None
    for i in range(5_000):
        state, _ = detector.update(state, 0.2, 300.0 * i)
    return detector.dump(state)


LEARNED = learned()


def read_or_refused(data):
    """Assert that the bytes are refused in a sentence, or read as what dumps them again."""
    try:
        memory = read(data)
    except ValueError as wrong:
        refusal = str(wrong)
    else:
        assert memory.dump() == data
        return
    assert refusal.endswith("empty recovery store.")


@settings(deadline=None)
@given(st.binary() | st.binary(min_size=BEFORE, max_size=BEFORE + 1_900))
def test_any_bytes_are_refused_in_a_sentence(data):
    read_or_refused(data)
    read_or_refused(MARK + data)
    read_or_refused(sealed(data))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_any_change_with_a_right_check_sum_is_refused_or_read(data):
    body = LEARNED[len(MARK) + 4 :]
    for _ in range(data.draw(st.integers(1, 3))):
        upto = data.draw(st.integers(0, len(body)))
        at = upto - data.draw(st.integers(0, min(6, upto)) | st.integers(0, upto))
        body = body[:at] + data.draw(st.binary(max_size=6)) + body[upto:]
    read_or_refused(sealed(body))


def test_damage_is_refused():
    for at in range(len(LEARNED)):
        changed = bytearray(LEARNED)
        changed[at] ^= 4
        for data in (bytes(changed), LEARNED[:at]):
            with pytest.raises(ValueError, match=r"empty recovery store\.$"):
                read(data)


@pytest.mark.parametrize("code", [b"B", b"d", b"I", b"\0", b"\xff"])
def test_another_type_of_masses_than_theirs_is_refused(code):
    body = bytearray(LEARNED[len(MARK) + 4 :])
    assert body[24:25] == b"H"
    body[24:25] = code
    with pytest.raises(ValueError, match="damaged"):
        read(sealed(bytes(body)))


def test_another_version_is_refused_by_its_name():
    old = b"calibrated/9 " + LEARNED[len(MARK) :]
    with pytest.raises(
        ValueError, match=r"version 1: it begins with b'calibrated/9 '.* start with"
    ):
        read(old)
