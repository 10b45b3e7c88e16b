"""Formats of one's own: what they return is checked, what they raise rejects the record."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from conftest import singly
from hypothesis import given
from hypothesis import strategies as st

from dataflow.errors import UserError
from dataflow.formats import Fields, Format, Point, RecordError
from dataflow.formats.base import DIGITS, rounded
from dataflow.records import Raw, Reading, Rejected
from dataflow.settings import Settings
from dataflow.steps.decode import decoder, key_reader

FIELDS = Fields("instance", "timestamp", "index", "value", None, 100.0)


class Given(Format):
    """Returns, or raises, what the test says."""

    outcome: Point | Exception = Point("i-1", 42.5, "2025-03-14T16:00:00", 7)

    def read(self, value: bytes) -> Point:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def decode(outcome: Point | Exception, value: bytes | None = b"raw") -> Reading | tuple[str, str]:
    given = Given(FIELDS)
    given.outcome = outcome
    reasons: list[tuple[str, str]] = []

    def reject(raw: Raw, reason: str, sentence: str) -> Rejected:
        reasons.append((reason, sentence))
        return Rejected(reason, sentence, None, None)  # type: ignore[arg-type]

    (record,) = given.decoder(reject)([Raw(2, 11, value)])
    return record if isinstance(record, Reading) else reasons[0]


def test_a_point_becomes_a_reading_of_its_place() -> None:
    reading = decode(Point("i-1", 42.5, "2025-03-14T16:00:00", 7))
    assert reading == Reading("i-1", "2025-03-14T16:00:00", 7, 42.5, 1741968000.0, 2, 11)


@pytest.mark.parametrize(
    ("outcome", "reason", "says"),
    [
        (Point("", 1, 0, 0), "bad-instance", "not text of 1 to 256 characters"),
        (Point("x" * 257, 1, 0, 0), "bad-instance", "not text of 1 to 256 characters"),
        (Point(7, 1, 0, 0), "bad-instance", "not text"),  # type: ignore[arg-type]
        (Point("i-1", float("nan"), 0, 0), "not-a-number", "not a finite number"),
        (Point("i-1", "5", 0, 0), "not-a-number", "not a finite"),  # type: ignore[arg-type]
        (Point("i-1", 105.5, 0, 0), "out-of-range", "105.5, outside 0 to 100"),
        (Point("i-1", 10**400, 0, 0), "not-a-number", "not a finite number"),
        (Point("i-1", 1, "soon", 0), "bad-timestamp", "cannot be read"),
        (Point("i-1", 1, "0001-01-01", 0), "bad-timestamp", "1000 to 8999"),
        (Point("i-1", 1, 0, "x" * 257), "bad-index", "too large"),
        (Point("i-1", 1, 0, 2**63), "bad-index", "too large"),
        (RecordError("it holds mem", "not-cpu"), "not-cpu", "it holds mem"),
        (KeyError("tags"), "bad-record", "KeyError: 'tags'"),
        (RecursionError("too deep"), "bad-record", "too deep"),
    ],
)
def test_what_is_wrong_is_rejected_with_a_reason(
    outcome: Point | Exception, reason: str, says: str
) -> None:
    found = decode(outcome)
    assert isinstance(found, tuple)
    assert found[0] == reason
    assert says in found[1]


def test_a_tombstone_is_rejected() -> None:
    assert decode(Point("i-1", 1, 0, 0), None) == (
        "no-value",
        "the record has no value (a tombstone)",
    )


@given(
    st.floats(allow_nan=False)
    | st.floats(-1, 101)
    | st.integers(0, 2 * 10**12).map(lambda halves: halves / 2e10)
)
def test_digits_are_rounded_as_python_does(value: float) -> None:
    assert repr(rounded(value)) == repr(round(value, DIGITS))


def test_json_reads_the_same_points_as_its_decoder() -> None:
    settings = Settings(_env_file=None)
    record = b'{"index": "7", "timestamp": 0, "value": "13.2", "instance": "i-1"}'
    assert singly(decoder(settings))(Raw(0, 0, record)) == Reading("i-1", 0, 7, 13.2, 0.0, 0, 0)
    assert key_reader(settings)(record) == "i-1"
    assert key_reader(settings)(b"{") is None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("jsn", "'jsn', which does not exist: use one of json, cloudwatch, otlp, telegraf"),
        ("collections:OrderedDict", "is not a format: use one of json"),
    ],
)
def test_a_wrong_name_is_one_line(name: str, says: str) -> None:
    with pytest.raises(UserError) as error:
        singly(decoder(Settings(_env_file=None, format=name)))
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_module_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "semicolons.py").write_text(
        "from dataflow.formats import Format, Point\n"
        "class Semicolons(Format):\n"
        "    def read(self, value):\n"
        "        host, cpu = value.decode().split(';')\n"
        "        return Point(host, float(cpu), None, 0)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "semicolons", raising=False)
    read = singly(decoder(Settings(_env_file=None, format="semicolons:Semicolons")))
    assert read(Raw(0, 1, b"i-1;50")) == Reading("i-1", None, 0, 50.0, None, 0, 1)
    rejected = read(Raw(0, 2, b"i-1"))
    assert isinstance(rejected, Rejected)
    assert rejected.reason == "bad-record"
