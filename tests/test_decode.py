from __future__ import annotations

import base64
import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from conftest import singly
from hypothesis import example, given
from hypothesis import strategies as st

from dataflow.records import Anomaly, Raw, Reading, Rejected, anomaly_id, encode, number, seconds
from dataflow.settings import Settings
from dataflow.steps.decode import decoder

SETTINGS = Settings(_env_file=None, format="json")
decode = singly(decoder(SETTINGS))
GOOD: dict[str, Any] = {
    "index": "7",
    "timestamp": "2014-02-14 15:05:00",
    "value": "51.846000000000004",
    "instance": "24ae8d",
}


def raw(value: bytes | None) -> Raw:
    return Raw(partition=2, offset=11, value=value)


def changed(**fields: Any) -> bytes:
    return json.dumps({**GOOD, **fields}).encode()


def without(field: str) -> bytes:
    return json.dumps({name: value for name, value in GOOD.items() if name != field}).encode()


def test_the_name_of_an_instance_may_be_a_whole_number() -> None:
    reading = decode(raw(changed(instance=1234)))
    assert isinstance(reading, Reading)
    assert reading.instance == "1234"


def test_a_record_as_the_tutorials_producer_writes_it() -> None:
    assert decode(raw(changed())) == Reading(
        instance="24ae8d",
        timestamp="2014-02-14 15:05:00",
        index=7,
        value=51.846000000000004,
        time=1392390300.0,
        partition=2,
        offset=11,
    )


@pytest.mark.parametrize(
    ("timestamp", "time"),
    [
        ("2014-02-14 15:05:00", 1392390300),
        ("2014-02-14T15:05:00Z", 1392390300),
        ("2014-02-14T15:05:00.5+00:00", 1392390300.5),
        ("2014-02-14T17:05:00+02:00", 1392390300),
        (1392390300, 1392390300),
        (1392390300.25, 1392390300.25),
        (1392390300000, 1392390300),
        ("1392390300", 1392390300),
        ("Fri, 14 Feb 2014 15:05:00 GMT", 1392390300),
        ("Fri, 14 Feb 2014 15:05:00 +0000", 1392390300),
        ("2014-02-14T15:05:00.123456789Z", 1392390300.123456),
        (1392390300000000, 1392390300),
        (1392390300000000000, 1392390300),
        ("1392390300000", 1392390300),
    ],
)
def test_timestamps(timestamp: str | float, time: float) -> None:
    reading = decode(raw(changed(timestamp=timestamp)))
    assert isinstance(reading, Reading)
    assert reading.time == time
    assert reading.timestamp == timestamp


@pytest.mark.parametrize(
    ("index", "read"), [(3, 3), ("3", 3), (2.5, 2.5), ("2.5", 2.5), ("a-3", "a-3"), ("", "")]
)
def test_an_index_is_a_number_where_it_is_one(index: Any, read: Any) -> None:
    reading = decode(raw(changed(index=index)))
    assert isinstance(reading, Reading)
    assert reading.index == read
    assert type(reading.index) is type(read)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (".5", 0.5),
        ("+5", 5.0),
        ("00012", 12.0),
        ("-0", 0.0),
        ("+.5e+1", 5.0),
        (100.4375, 100.0),
        (100.00000000000001, 100.0),
        ("101", 100.0),
        (105, 100.0),
        (-1e-14, 0.0),
        ("-0.00001", 0.0),
    ],
)
def test_a_number_in_text_and_a_value_that_is_outside_by_little(value: Any, number: float) -> None:
    reading = decode(raw(changed(value=value)))
    assert isinstance(reading, Reading)
    assert reading.value == number
    assert (reading.index, reading.time) == (7, 1392390300.0)


def test_the_tolerance_is_a_share_of_the_scale() -> None:
    read = singly(decoder(Settings(_env_file=None, scale=1)))
    assert read(raw(changed(value=1.01))).value == 1.0  # type: ignore[union-attr]
    rejected = read(raw(changed(value=1.06)))
    assert isinstance(rejected, Rejected)
    assert rejected.error == "'value' is 1.06, outside 0 to 1"


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(105.0)
def test_a_value_is_read_clamped_or_shown_exactly(value: float) -> None:
    result = decode(raw(changed(value=value)))
    if isinstance(result, Reading):
        assert -1e-4 <= value <= 105
        assert result.value == min(max(value, 0.0), 100.0)
    else:
        shown = result.error.removeprefix("'value' is ").removesuffix(", outside 0 to 100")
        assert float(shown) == value


WRITTEN = st.from_regex(
    r"[+-]?([0-9]{1,20}(\.[0-9]{1,20})?|\.[0-9]{1,9})([eE][+-]?[0-9]{1,3})?"
    r"|[ 0-9\uff11eE+._-]{1,12}",
    fullmatch=True,
)


@given(WRITTEN)
@example("5.")
@example("\u0661\u0662")
@example("12\n")
@example("10000000000000001")
def test_text_is_a_number_in_every_field_or_in_none(text: str) -> None:
    try:
        truth: int | float | None = number(text)
    except ValueError:
        truth = None
    plain = all(one in "0123456789eE+-." for one in text) and text[-1] != "."
    try:
        # Python reads more: blanks, underscores, other digits, `5.`.
        # A whole number stays exact, where a float has no more digits.
        assert truth is None or float(truth) == float(text)
        assert (truth is not None) == (plain and ".e" not in text.lower() and bool([float(text)]))
    except ValueError:
        assert truth is None
    free = singly(decoder(Settings(_env_file=None, scale=None, detector="zscore")))
    value = free(raw(changed(value=text)))
    if truth is None:
        assert isinstance(value, Rejected)
        assert value.reason == "not-a-number"
    elif abs(float(truth)) < 1e308:
        assert isinstance(value, Reading)
        assert value.value == float(truth)
    index = decode(raw(changed(index=text)))
    if truth is None:
        assert isinstance(index, Reading)
        assert index.index == text
    elif abs(truth) < 2**63:
        assert isinstance(index, Reading)
        assert index.index == truth
    else:
        assert isinstance(index, Rejected)
        assert index.reason == "bad-index"


@given(st.integers(-(10**20), 10**20) | st.integers(0, 2 * 10**12))
@example(1709120112345)
@example(1751010112000)
@example(20140214)
@example(201402141430)
def test_digits_are_a_number_whether_text_or_not(count: int) -> None:
    def read(timestamp: int | str) -> float | None:
        try:
            return seconds(timestamp)
        except ValueError:
            return None

    time = read(count)
    assert read(str(count)) == time
    if 0 <= count < 10**11:
        assert time == count
    elif 10**11 <= count < 10**13:
        assert time == count / 1000


@pytest.mark.parametrize(
    "timestamp",
    [
        *(1392388200, "1392388200", "+1392388200", "1392388200.0", "1.3923882e9"),
        *("1392388200000", "1392388200000000", 1392388200000000, "1392388200000000000"),
        *("20140214143000", 20140214143000, "2014-02-14 14:30", "20140214T1430"),
        *("2014-02-14T14:30:00.000000000Z", "2014-02-14T04:30:00-10:00"),
    ],
)
def test_the_same_time_in_many_forms(timestamp: Any) -> None:
    reading = decode(raw(changed(timestamp=timestamp)))
    assert isinstance(reading, Reading)
    assert reading.time == 1392388200


def test_14_digits_that_spell_no_date_are_milliseconds() -> None:
    assert seconds("20149914143000") == 20149914143
    assert seconds("22000101000000") == 22000101000


@pytest.mark.parametrize(
    ("timestamp", "year"),
    [(-1, 1969), ("-2208988800", 1900), ("1000-01-01", 1000), ("8999-12-31T23:59:59Z", 8999)],
)
def test_times_far_from_now(timestamp: Any, year: int) -> None:
    reading = decode(raw(changed(timestamp=timestamp)))
    assert isinstance(reading, Reading)
    assert reading.time is not None
    assert datetime.fromtimestamp(reading.time, UTC).year == year


@given(st.datetimes(timezones=st.timezones()) | st.floats() | st.integers() | st.text(max_size=30))
@example("0001-01-01T00:00:00+01:00")
@example("9999-12-31T23:59:59-14:00")
@example(-90000000000)
def test_what_is_computed_from_a_time_can_be_written(given: Any) -> None:
    try:
        time = seconds(given.isoformat() if isinstance(given, datetime) else given)
    except ValueError:
        return
    for days in (-365_000, 0, 365_000):
        assert datetime.fromtimestamp(time + 86_400 * days, UTC)


@pytest.mark.parametrize(
    ("record", "instance", "time"),
    [
        (changed(value=420), "24ae8d", 1392390300.0),
        (changed(value=None), "24ae8d", 1392390300.0),
        (without("value"), "24ae8d", 1392390300.0),
        (changed(index="9" * 39), "24ae8d", 1392390300.0),
        (changed(timestamp="soon"), "24ae8d", None),
        (changed(instance=5.5), None, None),
        (b"{", None, None),
    ],
)
def test_a_rejected_record_names_its_instance_where_that_is_known(
    record: bytes, instance: str | None, time: float | None
) -> None:
    rejected = decode(raw(record))
    assert isinstance(rejected, Rejected)
    assert (rejected.instance, rejected.time) == (instance, time)
    written = json.loads(encode(rejected))
    assert (written.get("instance"), written.get("time")) == (instance, time)


@pytest.mark.parametrize("value", [0, 100, "0", "100.0", 1e-300, "1e1"])
def test_the_whole_scale_is_allowed(value: Any) -> None:
    assert isinstance(decode(raw(changed(value=value))), Reading)


REFUSED = [
    (None, "no-value", "tombstone"),
    (b"", "no-value", "empty"),
    (b"  \n", "no-value", "empty"),
    (b"{", "not-json", "not JSON"),
    (b"\xff\xfe", "not-json", "not JSON"),
    (b'{"instance": "\xff"}', "not-json", "UTF-8"),
    (b'{"a":' * 100_000, "not-json", "deeply"),
    (b"[" * 100_000, "not-json", "deeply"),
    (changed() + b" x", "not-json", "not JSON"),
    (b"null", "not-an-object", "null"),
    (b"[1, 2]", "not-an-object", "array"),
    (b"5", "not-an-object", "number"),
    (b'"text"', "not-an-object", "text"),
    (without("instance"), "missing-field", "'instance'"),
    (without("timestamp"), "missing-field", "'timestamp'"),
    (without("index"), "missing-field", "'index'"),
    (without("value"), "missing-field", "'value'"),
    (changed(value=None), "not-a-number", "null"),
    (changed(value="abc"), "not-a-number", "'abc'"),
    (changed(value=""), "not-a-number", "''"),
    (changed(value=True), "not-a-number", "true or false"),
    (changed(value=[1]), "not-a-number", "array"),
    (changed(value={}), "not-a-number", "object"),
    (changed(value="NaN"), "not-a-number", "finite"),
    (changed(value="Infinity"), "not-a-number", "finite"),
    (changed(value="-inf"), "not-a-number", "finite"),
    (changed(value=math.nan), "not-json", "not JSON"),
    (changed(value=10**400), "not-a-number", "number"),
    (changed(value="9" * 400), "not-a-number", "finite"),
    (changed(value=105.00000000000001), "out-of-range", "is 105.00000000000001, outside 0 to 100"),
    (changed(value="106"), "out-of-range", "is 106, outside 0 to 100"),
    (changed(value=5e17), "out-of-range", "is 5e+17, outside 0 to 100"),
    (changed(value=-0.001), "out-of-range", "-0.001, outside 0 to 100"),
    (changed().replace(b'"51.846000000000004"', b"1e400"), "not-a-number", "finite"),
    (changed().replace(b'"51.846000000000004"', b"1e400 x"), "not-json", "not JSON"),
    (changed(value=" 12 "), "not-a-number", "' 12 '"),
    (changed(value="1_000"), "not-a-number", "'1_000'"),
    (changed(value="\uff11\uff12"), "not-a-number", "'\uff11\uff12'"),
    (changed(value="5."), "not-a-number", "'5.'"),
    (changed(value="0x10"), "not-a-number", "'0x10'"),
    (changed(value="12,5"), "not-a-number", "'12,5'"),
    (changed(instance=None), "bad-instance", "null"),
    (changed(instance=5.5), "bad-instance", "number"),
    (changed(instance=True), "bad-instance", "true or false"),
    (changed(instance=""), "bad-instance", "empty"),
    (changed(instance="x" * 257), "bad-instance", "256"),
    (changed(timestamp=None), "bad-timestamp", "null"),
    (changed(timestamp=True), "bad-timestamp", "true or false"),
    (changed(timestamp="yesterday"), "bad-timestamp", "'yesterday'"),
    (changed(timestamp=""), "bad-timestamp", "''"),
    (changed(timestamp="nan"), "bad-timestamp", "'nan'"),
    (changed(timestamp="2014-02-30 00:00:00"), "bad-timestamp", "2014-02-30"),
    (changed(timestamp=1e300), "bad-timestamp", "cannot be read"),
    (changed(timestamp="0" * 100_000 + "1"), "bad-timestamp", "cannot be read"),
    (changed(timestamp=" 12 "), "bad-timestamp", "' 12 '"),
    (changed(timestamp="1_000"), "bad-timestamp", "'1_000'"),
    (
        changed(timestamp="\uff11\uff17\uff10\uff19\uff11\uff12\uff10\uff11\uff11\uff12"),
        "bad-timestamp",
        "'\uff11\uff17\uff10\uff19\uff11\uff12\uff10\uff11\uff11\uff12'",
    ),
    (changed(timestamp="0001-01-01T00:00:00+01:00"), "bad-timestamp", "the years 1000 to 8999"),
    (changed(timestamp="9999-12-31T23:59:59-14:00"), "bad-timestamp", "the years 1000 to 8999"),
    (changed(timestamp="9000-01-01T00:00:00Z"), "bad-timestamp", "the years 1000 to 8999"),
    (changed(timestamp="0999-12-31T23:59:59Z"), "bad-timestamp", "the years 1000 to 8999"),
    (changed(timestamp=-90000000000), "bad-timestamp", "the years 1000 to 8999"),
    (changed(timestamp="-90000000000"), "bad-timestamp", "the years 1000 to 8999"),
    (changed(timestamp=10**400), "bad-timestamp", "the years 1000 to 8999"),
    (changed().replace(b'"2014-02-14 15:05:00"', b"1e400"), "bad-timestamp", "1000 to 8999"),
    (changed(index=None), "bad-index", "null"),
    (changed(index="9" * 39), "bad-index", "large"),
    (changed(index="1e300"), "bad-index", "large"),
    (changed(index="-1e19"), "bad-index", "large"),
    (changed(index=1e300), "bad-index", "large"),
    (changed(index="1e999"), "bad-index", "large"),
    (changed(index=2**63), "bad-index", "large"),
    (changed(index=str(2**63)), "bad-index", "large"),
    (changed(index=True), "bad-index", "true or false"),
    (changed(index=10**30), "bad-index", "large"),
    (changed(index="x" * 300), "bad-index", "large"),
]


@pytest.mark.parametrize(("value", "reason", "said"), REFUSED)
def test_what_is_refused_and_why(value: bytes | None, reason: str, said: str) -> None:
    rejected = decode(raw(value))
    assert isinstance(rejected, Rejected)
    assert rejected.reason == reason
    assert said in rejected.error
    assert len(rejected.error) < 200
    assert (rejected.source.topic, rejected.source.partition, rejected.source.offset) == (
        "ec2_metrics",
        2,
        11,
    )
    assert (None if rejected.raw is None else base64.b64decode(rejected.raw)) == value


def test_a_record_too_large_to_keep_is_still_refused_in_words() -> None:
    rejected = decode(raw(b"x" * 700_001))
    assert isinstance(rejected, Rejected)
    assert rejected.raw is None
    assert "its 700,001 bytes are too many to keep" in rejected.error
    kept = decode(raw(b"x" * 700_000))
    assert isinstance(kept, Rejected)
    assert len(encode(kept)) < 1_000_000


@given(st.binary(max_size=200))
@example(b"\x00")
def test_no_bytes_make_it_raise(value: bytes) -> None:
    assert isinstance(decode(raw(value)), Rejected)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(GOOD, json_values)))
def test_what_is_read_is_what_the_rules_allow(fields: dict[str, Any]) -> None:
    record = {**GOOD, **fields}
    result = decode(raw(json.dumps(record).encode()))
    value, instance = record["value"], record["instance"]
    try:
        seconds(record["timestamp"])
        time_is_read = isinstance(record["timestamp"], (str, int, float))
    except Exception:
        time_is_read = False
    if isinstance(result, Reading):
        assert -1e-4 <= float(value) <= 105
        # A whole number is a name too.
        assert isinstance(instance, (str, int))
        assert not isinstance(instance, bool)
        assert 0 < len(str(instance)) <= 256
        assert time_is_read
        assert not isinstance(value, bool)
    elif fields == {}:
        pytest.fail(f"a good record was refused: {result.error}")


def test_field_names_and_scale_are_settings() -> None:
    settings = Settings(
        _env_file=None,
        key_field="host",
        value_field="bytes",
        time_field="at",
        index_field="n",
        scale=1e9,
    )
    record = b'{"host": "a", "bytes": 5e8, "at": 0, "n": 1, "value": "not looked at"}'
    reading = singly(decoder(settings))(raw(record))
    assert isinstance(reading, Reading)
    assert (reading.instance, reading.value, reading.time) == ("a", 5e8, 0)
    rejected = singly(decoder(settings))(raw(changed()))
    assert isinstance(rejected, Rejected)
    assert "'host'" in rejected.error


def test_no_scale_means_no_bounds_but_still_finite() -> None:
    free = singly(decoder(Settings(_env_file=None, scale=None, detector="zscore")))
    assert isinstance(free(raw(changed(value=-1e12))), Reading)
    assert isinstance(free(raw(changed(value="inf"))), Rejected)


SINE = Settings(
    _env_file=None,
    topic="raw-data",
    key_field=None,
    time_field=None,
    index_field="time_step",
    scale=None,
    detector="zscore",
)


@pytest.mark.parametrize(
    "record",
    [
        b'{"value": -5.5, "time_step": 37}',
        b'{"value": "-5.5", "time_step": "37"}',
        b'{"value": -5.5, "time_step": 37, "instance": 9, "timestamp": [], "index": {}}',
    ],
)
def test_a_record_without_instance_and_time(record: bytes) -> None:
    assert singly(decoder(SINE))(raw(record)) == Reading("raw-data", None, 37, -5.5, None, 2, 11)


@pytest.mark.parametrize(
    ("record", "reason", "said"),
    [
        (b'{"value": 1}', "missing-field", "'time_step'"),
        (b'{"time_step": 1}', "missing-field", "'value'"),
        (b'{"value": "x", "time_step": 1}', "not-a-number", "'x'"),
        (b'{"value": 1, "time_step": null}', "bad-index", "null"),
    ],
)
def test_what_is_refused_without_instance_and_time(record: bytes, reason: str, said: str) -> None:
    rejected = singly(decoder(SINE))(raw(record))
    assert isinstance(rejected, Rejected)
    assert rejected.reason == reason
    assert said in rejected.error


def test_readings_counted_by_their_time() -> None:
    settings = Settings(_env_file=None, time_field="at", index_field="at")
    reading = singly(decoder(settings))(raw(b'{"instance": "a", "value": 1, "at": "2024-03-01"}'))
    assert reading == Reading("a", "2024-03-01", "2024-03-01", 1.0, 1709251200.0, 2, 11)
    rejected = singly(decoder(settings))(raw(b'{"instance": "a", "value": 1, "at": "soon"}'))
    assert isinstance(rejected, Rejected)
    assert rejected.reason == "bad-timestamp"


@given(
    st.tuples(st.text(), st.integers() | st.text(), st.none() | st.text()),
    st.tuples(st.text(), st.integers() | st.text(), st.none() | st.text()),
)
@example(("a", 1, "b"), ("a", "1", "b"))
def test_an_id_is_of_one_reading(one: Any, other: Any) -> None:
    assert (anomaly_id(*one) == anomaly_id(*other)) == (one == other)


def test_the_order_of_an_anomalys_fields_is_that_of_the_documentation() -> None:
    assert Anomaly.__struct_fields__[:12] == (
        *("instance", "timestamp", "index", "value", "score", "threshold"),
        *("expected", "lower", "upper", "detector", "id", "source"),
    )
