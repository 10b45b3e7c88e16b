"""The bytes that a state of `calibrated` is stored as: what they hold, and damage."""

import random
import struct
import zlib
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.detectors.calibrated.detector import Calibrated
from dataflow.detectors.calibrated.masses import CODES
from dataflow.detectors.calibrated.masses import read as read_masses
from dataflow.detectors.calibrated.memory import Memory, read
from dataflow.detectors.calibrated.places import read as read_places

MARK = b"calibrated/4 "
MASSES = 512
BEFORE = len(MARK) + 4 + 9 + 6 * 8 + 35 * 8 + 192 * 4
"""What stands before the masses: mark, checksum, signature, counts, numbers, hours."""
BEFORE_CLOSE = BEFORE - 6 * 8 + 2 * 8 + 84
"""Up to two minutes apart: without the numbers of runs, with those and the levels of places."""


def sealed(body):
    return MARK + struct.pack("<I", zlib.crc32(body)) + body


@st.composite
def memories(draw):
    """States of any content: what a detector would never learn, too."""
    code = draw(st.sampled_from(sorted(CODES)))
    rng = random.Random(draw(st.integers(0, 10**6)))
    masses = read_masses(code, rng.randbytes(CODES[code] * MASSES))
    signature = (draw(st.floats(1e-3, 1e6) | st.sampled_from([60.0, 120.0])), code)
    numbers = draw(st.tuples(*[st.floats()] * 35))
    places = None
    if signature[0] <= 120:
        numbers = (*numbers[:29], *[0.0] * 6)
        places = read_places(rng.randbytes(84), draw(st.floats(0, 9)), draw(st.floats(0, 9)))
    return Memory(
        signature,
        draw(st.tuples(*[st.integers(-(2**63), 2**63 - 1)] * 6)),
        numbers,
        array("f", rng.randbytes(192 * 4)),
        masses,
        places,
    )


def held(memory):
    """All that a state holds, to the bit."""
    counts = memory._counts()
    numbers = struct.pack("<35d", *memory._numbers())
    places = memory.places
    levels = None if places is None else (places.mean, places.spread, bytes(places.view()))
    return memory.signature, counts, numbers, memory.hours.tobytes(), memory.masses.view(), levels


@settings(deadline=None)
@given(memories())
def test_what_is_read_is_what_was_dumped_to_the_bit(memory):
    data = memory.dump()
    before = BEFORE_CLOSE if memory.signature[0] <= 120 else BEFORE
    assert len(data) == before + CODES[memory.signature[1]] * MASSES
    back = read(data)
    assert held(back) == held(memory)
    assert type(back.masses) is type(memory.masses)
    assert back.dump() == data


def learned(interval):
    detector, state = Calibrated(interval), None
    for i in range(5_000):
        state, _ = detector.update(state, 0.2, interval * i)
    return detector.dump(state)


LEARNED = learned(300.0)
LEARNED_CLOSE = learned(60.0)


def read_or_error(data):
    """Assert that the bytes raise a sentence, or are read as what dumps them again."""
    try:
        memory = read(data)
    except ValueError as wrong:
        message = str(wrong)
    else:
        if memory.places is None or len(memory.dump()) == len(data):
            assert memory.dump() == data
        return
    assert message.endswith("empty recovery store.")


@settings(deadline=None)
@given(st.binary() | st.binary(min_size=BEFORE, max_size=BEFORE + 1_900))
def test_any_bytes_are_an_error_in_a_sentence(data):
    read_or_error(data)
    read_or_error(MARK + data)
    read_or_error(sealed(data))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_any_change_with_a_right_checksum_is_an_error_or_read(data):
    body = data.draw(st.sampled_from([LEARNED, LEARNED_CLOSE]))[len(MARK) + 4 :]
    for _ in range(data.draw(st.integers(1, 3))):
        upto = data.draw(st.integers(0, len(body)))
        at = upto - data.draw(st.integers(0, min(6, upto)) | st.integers(0, upto))
        body = body[:at] + data.draw(st.binary(max_size=6)) + body[upto:]
    read_or_error(sealed(body))


@pytest.mark.parametrize("learned", [LEARNED, LEARNED_CLOSE], ids=["300 s", "60 s"])
def test_damage_is_an_error(learned):
    for at in range(len(learned)):
        changed = bytearray(learned)
        changed[at] ^= 4
        for data in (bytes(changed), learned[:at]):
            with pytest.raises(ValueError, match=r"empty recovery store\.$"):
                read(data)


@pytest.mark.parametrize("code", [b"H", b"b", b"d", b"i", b"\0", b"\xff"])
def test_another_type_of_masses_than_theirs_is_an_error(code):
    body = bytearray(LEARNED[len(MARK) + 4 :])
    assert body[8:9] == b"h"
    body[8:9] = code
    with pytest.raises(ValueError, match="damaged"):
        read(sealed(bytes(body)))


def test_another_version_is_an_error_that_names_it():
    old = b"calibrated/9 " + LEARNED[len(MARK) :]
    with pytest.raises(
        ValueError, match=r"it begins with b'calibrated/9 ', not with b'calibrated/4 '.* start with"
    ):
        read(old)
