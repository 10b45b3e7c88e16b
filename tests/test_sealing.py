"""States keep the bytes that version 0.1.0 stored, and it reads them."""

import hashlib
import struct
from dataclasses import replace

import pytest

from dataflow.detectors import make
from dataflow.detectors.sealing import seal, unseal

VALUES = [0.2, 0.25, 0.3, 0.9, 0.1, 0.4, 0.45]

DETECTORS = {
    "tutorial": make("tutorial"),
    "zscore": replace(make("zscore"), window=4, start=2),
    "isolation-forest": replace(make("isolation-forest"), window=4),
    "calibrated": make("calibrated"),
    "rcf": make("rcf"),
}
STORED = {
    "tutorial": "116ca006325fff080a0c22051011",
    "zscore": "7a73636f726501530433350400000003000000989999999999dd3fec51b81e85ebd43f"
    "9a9999999999b93f9a9999999999d93fcdccccccccccdc3fcdccccccccccec3f",
    "isolation-forest": "69736f6c6174696f6e2d666f7265737401f94b4069040000000400000000000000"
    "7b14ae47e17a843f2a0000009a9999999999c93f000000000000d03f333333333333d33fcdccccccccccec3f"
    "9a9999999999b93f9a9999999999d93fcdccccccccccdc3f",
}
CALIBRATED = "96a4c3386798aba5b1a6bf9a5379a874fb90dff1f10e957d2409098e4a89d4e2"
"""SHA-256 of its 2,098 bytes."""


def learned(detector):
    state = None
    for i, value in enumerate(VALUES):
        state, _ = detector.update(state, value, 300.0 * i)
    return state


@pytest.mark.parametrize("name", STORED)
def test_the_bytes_of_a_state_are_those_of_before(name):
    detector, stored = DETECTORS[name], bytes.fromhex(STORED[name])
    assert detector.dump(learned(detector)) == stored
    assert detector.dump(detector.load(stored)) == stored


def test_the_bytes_of_calibrated_are_those_of_before():
    data = DETECTORS["calibrated"].dump(learned(DETECTORS["calibrated"]))
    assert data.startswith(bytes.fromhex("63616c696272617465642f34200bae83e2"))
    assert hashlib.sha256(data).hexdigest() == CALIBRATED


def test_the_bytes_of_rcf_are_those_of_before():
    """Its logarithms are the platform's, so of them only the place is fixed."""
    data = DETECTORS["rcf"].dump(learned(DETECTORS["rcf"]))
    assert (data[:6], len(data)) == (b"rcf/1 ", 6_234)
    assert struct.unpack_from("<Qdq", data, 10) == (42, 300.0, 7)
    for start in range(58, len(data), 8 + 3 * 8 * 64):
        count, *points = struct.unpack_from("<q7d", data, start)
        assert (count, points) == (7, sorted(VALUES))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is not a state of detector 'jump'"),
        (b"jump/2 ....", "begins with b'jump/2 ', not with b'jump/1 '"),
        (b"jump/1 ...", "is not a state"),
        (seal(b"jump/1 ", b"state") + b"!", "is damaged: its 17 bytes"),
    ],
)
def test_other_bytes_are_an_error_that_says_what_to_do(data, says):
    with pytest.raises(ValueError, match=r"empty recovery store\.$") as error:
        unseal(b"jump/1 ", data, "jump")
    assert says in str(error.value)
    assert "\n" not in str(error.value)
