from __future__ import annotations

import base64
import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataflow.records import Anomaly, Raw, Reading, Rejected, anomaly_id, encode, seconds
from dataflow.settings import Settings
from dataflow.steps.decode import decoder

SETTINGS = Settings(_env_file=None)
decode = decoder(SETTINGS)
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
    (changed(value=-0.001), "out-of-range", "-0.001, outside 0 to 100"),
    (changed(value=100.001), "out-of-range", "100.001, outside 0 to 100"),
    (changed(instance=None), "bad-instance", "null"),
    (changed(instance=5), "bad-instance", "number"),
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
    (changed(index=None), "bad-index", "null"),
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
        assert 0 <= float(value) <= 100
        assert isinstance(instance, str)
        assert 0 < len(instance) <= 256
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
    reading = decoder(settings)(raw(record))
    assert isinstance(reading, Reading)
    assert (reading.instance, reading.value, reading.time) == ("a", 5e8, 0)
    rejected = decoder(settings)(raw(changed()))
    assert isinstance(rejected, Rejected)
    assert "'host'" in rejected.error


def test_no_scale_means_no_bounds_but_still_finite() -> None:
    free = decoder(Settings(_env_file=None, scale=None, detector="zscore"))
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
    assert decoder(SINE)(raw(record)) == Reading("raw-data", None, 37, -5.5, None, 2, 11)


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
    rejected = decoder(SINE)(raw(record))
    assert isinstance(rejected, Rejected)
    assert rejected.reason == reason
    assert said in rejected.error


def test_readings_counted_by_their_time() -> None:
    settings = Settings(_env_file=None, time_field="at", index_field="at")
    reading = decoder(settings)(raw(b'{"instance": "a", "value": 1, "at": "2024-03-01"}'))
    assert reading == Reading("a", "2024-03-01", "2024-03-01", 1.0, 1709251200.0, 2, 11)
    rejected = decoder(settings)(raw(b'{"instance": "a", "value": 1, "at": "soon"}'))
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
    assert Anomaly.__struct_fields__ == (
        *("instance", "timestamp", "index", "value", "score", "threshold"),
        *("expected", "lower", "upper", "detector", "id", "source"),
    )
