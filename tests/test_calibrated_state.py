"""The bytes that a state of `calibrated` is stored as: what they hold, their size, damage."""

import math
import random
import struct
import zlib
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.detectors.calibrated import Calibrated
from dataflow.detectors.calibrated_state import Memory, begin, read

MARK = b"calibrated/2 "
MASSES = 512
BEFORE = len(MARK) + 4 + 25 + 5 * 8 + 21 * 8 + 192 * 4
"""What stands before the masses: mark, check sum, signature, counts, numbers, hours."""
MOST = {"H": 2**16 - 1, "I": 2**19 - 1}


def sealed(body):
    return MARK + struct.pack("<I", zlib.crc32(body)) + body


def masses_of(data):
    """Read the masses as docs/detectors.md has their form, one after the other."""
    low, nibbles, more = data[BEFORE:][:512], data[BEFORE + 512 :][:256], data[BEFORE + 768 :]
    masses = []
    for leaf in range(512):
        nibble = nibbles[leaf] & 15 if leaf < 256 else nibbles[leaf - 256] >> 4
        masses.append(low[leaf] + 256 * nibble)
    for at in range(0, len(more), 2):
        entry = more[at] + 256 * more[at + 1]
        masses[entry % 512] += 4096 * (entry // 512)
    return masses


@st.composite
def memories(draw, codes=("H", "I")):
    """States of any content: what a detector would never learn, too."""
    code = draw(st.sampled_from(codes))
    edges = st.sampled_from((0, 1, 255, 256, 4095, 4096, 8191, 65535, MOST[code]))
    mass = edges | st.integers(0, MOST[code])
    masses = array(code, [draw(mass)]) * MASSES
    for leaf, other in draw(st.dictionaries(st.integers(0, MASSES - 1), mass)).items():
        masses[leaf] = other
    rng = random.Random(draw(st.integers(0, 10**6)))
    if draw(st.booleans()):
        masses = array(code, [rng.randrange(MOST[code] + 1) >> rng.randrange(20) for _ in masses])
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
    assert data.startswith(MARK)
    back = read(data)
    assert held(back) == held(memory)
    assert back.masses.typecode == memory.signature[3]
    assert back.dump() == data
    assert masses_of(data) == memory.masses.tolist()


@pytest.mark.parametrize("code", ["H", "I"])
@pytest.mark.parametrize("mass", [0, 4095, 4096, 65535, "most"])
def test_masses_that_are_all_the_same(code, mass):
    memory = begin((42, 300.0, b"8 bytes.", code), 0.5)
    mass = MOST[code] if mass == "most" else mass
    memory.masses = array(code, [mass]) * MASSES
    data = memory.dump()
    assert len(data) == BEFORE + 768 + (2 * MASSES if mass > 4095 else 0)
    assert read(data).masses == memory.masses


def test_no_mass_that_a_detector_can_count_is_too_large_for_its_form():
    for interval in (1e-6, 1.0, 10.0, 36.0, 37.0, 60.0, 300.0, 1e6):
        detector = Calibrated(interval=interval)
        code = detector.update(None, 0.5, None)[0].signature[3]
        # It knows the bits of each mass that can occur.
        assert len(detector._leaf_bits) - 1 <= MOST[code]


def cpu(kind, count, interval):
    rng = random.Random(1)
    for i in range(count):
        if kind == "constant":
            yield 0.2
        elif kind == "noise":
            yield rng.gauss(0.3, 0.03)
        else:
            yield 0.3 + 0.1 * math.sin(i * interval / 86_400 * math.tau) + rng.gauss(0, 0.01)


@pytest.mark.parametrize("kind", ["constant", "noise", "daily"])
@pytest.mark.parametrize(("interval", "most"), [(300.0, 1_818), (60.0, 1_830), (10.0, 1_830)])
def test_two_states_fit_on_a_page_of_the_recovery_store(kind, interval, most):
    detector, state = Calibrated(interval=interval), None
    for i, value in enumerate(cpu(kind, 10_000, interval)):
        state, _ = detector.update(state, value, 1.7e9 + interval * i)
    assert len(detector.dump(state)) <= most


def learned():
    detector, state = Calibrated(), None
    for i, value in enumerate(cpu("constant", 5_000, 300.0)):
        state, _ = detector.update(state, value, 300.0 * i)
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
        # Counted from the end, where the list of large masses is.
        upto = len(body) - data.draw(st.integers(0, 40) | st.integers(0, len(body)))
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


def entry(leaf, over):
    return struct.pack("<H", over * 512 + leaf)


@pytest.mark.parametrize(
    ("code", "more", "right"),
    [
        ("H", b"", True),
        ("H", entry(0, 1) + entry(511, 15), True),
        ("I", entry(0, 1) + entry(511, 127), True),
        ("H", entry(3, 1) + entry(3, 1), False),
        ("H", entry(3, 1) + entry(2, 1), False),
        ("H", entry(3, 0), False),
        ("H", entry(3, 16), False),
        ("I", entry(0, 1) + b"\0", False),
        ("B", b"", False),
        ("d", b"", False),
        ("\x00", b"", False),
    ],
)
def test_a_list_of_large_masses_that_dump_cannot_have_made_is_refused(code, more, right):
    body = bytearray(begin((42, 300.0, b"8 bytes.", "H"), 0.5).dump()[len(MARK) + 4 :])
    body[24:25] = code.encode()
    data = sealed(bytes(body) + more)
    if right:
        assert sum(mass > 0 for mass in read(data).masses) == len(more) // 2
    else:
        with pytest.raises(ValueError, match=f"damaged: its {len(data)} bytes are not those that"):
            read(data)


def test_a_type_of_masses_that_is_no_text_is_refused():
    body = bytearray(LEARNED[len(MARK) + 4 :])
    body[24] = 255
    with pytest.raises(ValueError, match="damaged"):
        read(sealed(bytes(body)))


def test_version_1_is_refused_by_its_name():
    old = b"calibrated/1 " + LEARNED[len(MARK) :]
    with pytest.raises(
        ValueError, match=r"version 2: it begins with b'calibrated/1 '.* start with"
    ):
        read(old)
