"""Records as real producers write them: each feed gives its readings, and nothing else."""

from __future__ import annotations

import base64
import csv
import json
import random
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, Flow, fill_topic, read_json_lines
from feeds import FEEDS, Feed, Row, counted, field, pair, streams
from hypothesis import given
from hypothesis import strategies as st

from dataflow.dashboard.intake import Intake
from dataflow.formats.detect import choose
from dataflow.inspection.report import Report, inspect
from dataflow.inspection.sample import of_topic
from dataflow.metrics import counters
from dataflow.records import Anomaly, Raw, Reading, Rejected, seconds
from dataflow.settings import Settings
from dataflow.steps import decode

START = 1_741_449_600

ROWS = [
    Row(f"i-{host:04}", START + 60 * minute, round(7.25 * (host + 1) + minute, 3))
    for minute in range(4)
    for host in range(3)
]


def raws(feed: Feed, rows: list[Row]) -> list[Raw]:
    values = [value for row in rows for value in feed.write(row)]
    return [Raw(0, offset, value) for offset, value in enumerate(values)]


def read(settings: Settings, batch: list[Raw]) -> tuple[list[Reading], list[Rejected]]:
    records = decode.decoder(settings)(batch)
    return (
        [one for one in records if isinstance(one, Reading)],
        [one for one in records if isinstance(one, Rejected)],
    )


def said(readings: list[Reading]) -> list[Row]:
    return [Row(one.instance, round(one.time or 0), round(one.value, 6)) for one in readings]


@pytest.mark.parametrize("name", FEEDS)
def test_a_feed_gives_its_readings_and_nothing_else(name: str) -> None:
    feed = FEEDS[name]
    readings, rejected = read(Settings(_env_file=None), raws(feed, ROWS))
    assert said(readings) == ROWS
    assert rejected == []
    assert len({(one.offset, one.number) for one in readings}) == len(readings)
    named = Settings(_env_file=None, format=feed.format)
    if feed.format != "json":
        assert read(named, raws(feed, ROWS))[0] == readings


@pytest.mark.parametrize("name", FEEDS)
def test_what_inspect_proposes_reads_a_feed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = FEEDS[name]
    report = inspect(Settings(_env_file=None), raws(feed, ROWS))
    assert report.format == feed.format
    assert [(one.instance, one.time, round(one.value, 6)) for one in report.readings] == ROWS
    assert not report.refused
    for variable, value in report.settings.items():
        monkeypatch.setenv(variable, value)
    readings, rejected = read(Settings(_env_file=None), raws(feed, ROWS))
    assert (said(readings), rejected) == (ROWS, [])


@given(st.sampled_from(sorted(FEEDS)), st.integers(0, 10_000))
def test_a_value_is_read_exactly(name: str, hundredths: int) -> None:
    row = Row("i-1", START, hundredths / 100)
    readings, _ = read(Settings(_env_file=None), raws(FEEDS[name], [row]))
    (reading,) = readings
    assert reading.value == pytest.approx(row.value, abs=1e-9)
    assert 0 <= reading.value <= 100


@pytest.mark.parametrize("scale", [1.0, None])
def test_percentages_keep_their_scale_whatever_that_of_json_is(scale: float | None) -> None:
    settings = Settings(_env_file=None, format="telegraf", scale=scale, detector="calibrated")
    readings, _ = read(settings, raws(FEEDS["telegraf"], ROWS))
    assert said(readings) == [
        row._replace(value=round(row.value * (scale or 100) / 100, 6)) for row in ROWS
    ]


def test_the_samples_of_real_feeds(shared: Path, brokers: str, topic: str) -> None:
    """Through a broker: each sample in a topic of its own, read by what `inspect` proposes."""
    wrong = {}
    for path in sorted((shared / "feeds").glob("*.json")):
        sample = json.loads(path.read_text())
        values = [
            one.encode() if isinstance(one, str) else base64.b64decode(one["base64"])
            for one in sample["records"]
        ]
        name = f"{topic}-{path.stem}"
        fill_topic(brokers, name, [(None, value) for value in values], partitions=1)
        settings = Settings(_env_file=None, brokers=brokers, topic=name)
        report = inspect(settings, of_topic(settings, 100))
        found = [
            ["-" if one.instance == name else one.instance, one.time, one.value]
            for one in report.readings
        ]
        # Of these two, what was read before is read as it was; of the first, with a warning.
        if path.stem == "plain_fraction":
            assert report.warnings
        elif path.stem != "plain_over_100" and found != (sample["readings"] or []):
            wrong[path.stem] = found
    assert wrong == {}


# Broken records


def settings_of(name: str) -> Settings:
    return Settings(_env_file=None, format=FEEDS[name].format)


def test_one_broken_reading_does_not_take_the_others_along() -> None:
    good, bad = streams(ROWS[0]), streams(ROWS[1], value={"sum": 5})
    value = b"\n".join(json.dumps(one).encode() for one in [*good, *bad, "{", *good])
    settings = settings_of("cloudwatch")
    records = decode.decoder(settings)([Raw(2, 7, value)])
    readings = [one for one in records if isinstance(one, Reading)]
    rejected = [one for one in records if isinstance(one, Rejected)]
    assert said(readings) == [ROWS[0], ROWS[0]]
    assert [(one.reason, one.source.number) for one in rejected] == [
        ("missing-field", 7),
        ("not-an-object", 12),
    ]
    assert "'value.count'" in rejected[0].error
    assert rejected[0].instance == ROWS[1].instance
    # Its bytes are those of the one reading, so that a replay repeats no other.
    again = decode.decoder(settings)([Raw(0, 0, base64.b64decode(rejected[0].raw or ""))])
    assert [one.reason for one in again if isinstance(one, Rejected)] == ["missing-field"]


def test_a_record_of_many_broken_readings_gives_a_bounded_number_of_rejected_ones() -> None:
    value = b"[" + b",".join([b'{"instance":"a"}'] * 5000) + b"]"
    _, rejected = read(Settings(_env_file=None, format="json"), [Raw(0, 0, value)])
    assert len(rejected) == 100
    assert rejected[-1].error.endswith("4,900 more readings of the record are rejected")


@pytest.mark.parametrize(
    ("format", "value", "reason"),
    [
        ("json", b"[" + b"{}," * 1_000_000 + b"{}]", "too-many-readings"),
        ("telegraf", b"cpu a=1 1\n" * 1_000_000, "too-many-readings"),
        ("cloudwatch", b'{"namespace":"x","metric_name":"y"}\n' * 200_000, "too-many-readings"),
        ("json", b"[" * 200_000, "not-json"),
        ("telegraf", b'{"name":' + b"[" * 200_000, "not-json"),
        ("otlp", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "bad-record"),
        ("otlp", b"\x0a" * 200_000, "bad-record"),
    ],
)
def test_a_record_that_is_too_much_is_one_rejected_record(
    format: str, value: bytes, reason: str
) -> None:
    readings, rejected = read(Settings(_env_file=None, format=format), [Raw(0, 0, value)])
    assert readings == []
    assert [one.reason for one in rejected] == [reason]


@pytest.mark.parametrize("value", [b"", b"\n"])
@pytest.mark.parametrize("format", ["json", "telegraf", "cloudwatch", "prometheus"])
def test_an_empty_record_is_rejected(format: str, value: bytes) -> None:
    _, rejected = read(Settings(_env_file=None, format=format), [Raw(0, 0, value)])
    assert [one.reason for one in rejected] == ["no-value"]


@pytest.mark.parametrize("format", ["json", "telegraf", "cloudwatch", "otlp", "prometheus"])
def test_a_bomb_of_gzip_is_bounded(format: str) -> None:
    import gzip

    bomb = gzip.compress(b"{" + b" " * 200_000_000, 9)
    assert len(bomb) < 250_000
    _, rejected = read(Settings(_env_file=None, format=format), [Raw(0, 0, bomb)])
    assert [one.reason for one in rejected] == ["too-large"]


def mutated(value: bytes, rng: random.Random) -> bytes:
    """A record with some bytes changed, cut out, repeated or added."""
    data = bytearray(value)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        place = rng.randrange(len(data) or 1)
        kind = rng.randrange(6)
        if kind == 0 and data:
            data[place] = rng.randrange(256)
        elif kind == 1:
            del data[place : place + rng.randrange(1, 9)]
        elif kind == 2:
            data[place:place] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 5)))
        elif kind == 3:
            data[place:place] = data[place : place + rng.randrange(1, 40)]
        elif kind == 4:
            del data[place:]
        else:
            data[place:place] = rng.choice(
                (b"null", b"1e999", b"-", b'"', b"{", b"}", b"NaN", b"\\", b",", b"\n", b"[]")
            )
    return bytes(data)


def mutate(count: int, seed: int) -> None:
    """Read so many mutated records of all feeds; what comes out is a reading, or a reason."""
    rng = random.Random(seed)
    names = sorted(FEEDS)
    auto = {name: decode.decoder(settings_of(name)) for name in names}
    whole = {name: raws(FEEDS[name], ROWS[:2]) for name in names}
    read_by_auto = decode.decoder(Settings(_env_file=None))
    for number in range(count):
        name = names[number % len(names)]
        one = rng.choice(whole[name])
        raw = Raw(0, number, mutated(one.value or b"", rng))
        for found in (*auto[name]([raw]), *(read_by_auto([raw]) if number % 50 == 0 else ())):
            if isinstance(found, Reading):
                assert 0 <= found.value <= 100
                assert 0 < len(found.instance) <= 256
                assert found.time is not None
                assert -3.1e10 < found.time < 2.3e11
            else:
                assert found.reason
                assert found.error.isprintable() or len(found.error) < 2000
                assert found.source.offset == number


def test_mutated_records_are_read_or_rejected() -> None:
    mutate(6_000, seed=11)


QUICK = [name for name in sorted(FEEDS) if FEEDS[name].format in ("telegraf", "cloudwatch", "otlp")]


@pytest.mark.parametrize("name", QUICK)
def test_usual_records_are_read_as_with_care(name: str) -> None:
    """Also if they are changed: both ways give the same readings and reasons."""
    rng = random.Random(13)
    settings = settings_of(name)
    skipped: list[int] = []
    quickly = decode.format_decoder(settings, skipped.append)
    whole = raws(FEEDS[name], ROWS[:4])
    values = [one.value or b"" for one in whole]
    values += [b"\n".join(values), *(mutated(rng.choice(values), rng) for _ in range(600))]
    for number, value in enumerate(values):
        raw = Raw(1, number, value)
        found = quickly([raw])
        also: list[int] = []
        careful = decode.record_format(settings).readings(
            raw,
            lambda raw, reason, error: decode.reject(settings, raw, reason, error),
            also.append,
        )
        assert found == list(careful), value
        assert sum(skipped) == sum(also), value
        skipped.clear()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_200_000_mutated_records_are_read_or_rejected() -> None:
    mutate(200_000, seed=12)


# The choice of `auto`


def test_records_that_could_be_read_before_are_read_as_before() -> None:
    plain = b'{"instance": "a", "timestamp": 0, "value": 5, "index": 1}'
    fields = decode.fields(Settings(_env_file=None))
    telegraf = raws(FEEDS["telegraf"], ROWS)[0].value
    choice = choose([telegraf, b"{", plain.replace(b"index", b"n"), plain], fields)
    assert choice is not None
    assert (choice.format, dict(choice.settings)) == ("json", {})


def test_fields_that_are_named_are_the_only_ones_that_are_looked_for() -> None:
    settings = Settings(_env_file=None, value_field="usage")
    assert decode.choice(settings, [raws(FEEDS["telegraf"], ROWS)[0].value], sure=True) is None
    record = b'{"instance": "a", "timestamp": 0, "usage": 5}'
    choice = decode.choice(settings, [record], sure=True)
    assert choice is not None
    assert (choice.format, dict(choice.settings)) == ("json", {"index_field": None})
    counted = Settings(_env_file=None, value_field="usage", index_field="index")
    assert decode.choice(counted, [record], sure=True) is None


def test_a_guess_is_proposed_and_not_taken() -> None:
    record = b'{"host": "a", "ts": 1741449600, "cpu": 41.5}'
    fields = decode.fields(Settings(_env_file=None))
    assert choose([record], fields) is None
    report = inspect(Settings(_env_file=None), [Raw(0, 0, record)])
    assert report.settings == {
        "ANOMALY_FORMAT": "json",
        "ANOMALY_KEY_FIELD": "host",
        "ANOMALY_VALUE_FIELD": "cpu",
        "ANOMALY_TIME_FIELD": "ts",
        "ANOMALY_INDEX_FIELD": "none",
    }
    assert [one.value for one in report.readings] == [41.5]


# Paths


def shaped(**settings: Any) -> Callable[[Any], list[Any]]:
    read_batch = decode.decoder(Settings(_env_file=None, format="json", **settings))

    def of(record: Any) -> list[Any]:
        found = read_batch([Raw(0, 0, json.dumps(record).encode())])
        return [one.reason if isinstance(one, Rejected) else one for one in found]

    return of


NESTED = {
    "key_field": "/tags/host",
    "value_field": "/fields/usage_idle",
    "time_field": "/timestamp",
    "index_field": None,
}


def nested(idle: Any, cpu: Any = "cpu-total", **more: Any) -> dict[str, Any]:
    tags, fields = {"host": "a", "cpu": cpu}, {"usage_idle": idle}
    return {"name": "cpu", "tags": tags, "fields": fields, "timestamp": START, **more}


def test_paths_a_selector_and_inversion() -> None:
    where = (("/name", "cpu"), ("/tags/cpu", "cpu-total"))
    of = shaped(**NESTED, where=where, invert=True)
    (reading,) = of(nested(95.34))
    assert (reading.instance, reading.value, reading.index) == ("a", 4.66, None)
    assert of(nested("95.34"))[0].value == 4.66
    assert of(nested(104.0))[0].value == 0.0
    assert of(nested(-1e-9))[0].value == 100.0
    before = counters.SKIPPED._value.get()  # type: ignore[attr-defined]
    assert of(nested(95.34, "cpu0")) == of(nested(None, "cpu0")) == []
    assert of({"name": "mem"}) == of({"name": "mem", "tags": None}) == of({"name": 5}) == []
    assert counters.SKIPPED._value.get() == before + 5  # type: ignore[attr-defined]
    assert of(nested(200)) == ["out-of-range"]
    assert of(nested(None)) == ["not-a-number"]
    assert of(nested(5, tags={"cpu": "cpu-total"})) == ["missing-field"]
    assert of(nested(5, timestamp="soon")) == ["bad-timestamp"]


def test_a_selector_with_a_pattern_and_of_numbers() -> None:
    of = shaped(**NESTED, where=(("/name", "cpu*"), ("/core", "7")))
    assert len(of(nested(5, name="cpu_all", core=7))) == 1
    assert len(of(nested(5, name="cpu_all", core="7"))) == 1
    assert of(nested(5, name="cpu_all", core=8)) == of(nested(5, core=7, name="mem")) == []


def test_a_selector_of_a_field_that_is_called_as_something_that_is_read() -> None:
    of = shaped(where=(("key", "a"), ("time", "b")))
    record = {"instance": "i-1", "timestamp": START, "value": 5, "index": 0}
    (reading,) = of({**record, "key": "a", "time": "b"})
    assert (reading.instance, reading.time) == ("i-1", START)
    assert of({**record, "key": "a"}) == of({**record, "key": "i-1", "time": "b"}) == []


def test_each_element_of_a_list_is_a_reading_of_its_own() -> None:
    of = shaped(**NESTED, each="/batch/metrics", where=(("/name", "cpu"),))
    found = of({"batch": {"metrics": [nested(5), nested(None), {"name": "mem"}, nested(6)]}})
    assert [(one.value, one.number) for one in (found[0], found[2])] == [(5.0, 0), (6.0, 3)]
    assert found[1] == "not-a-number"
    assert of({"batch": {}}) == ["missing-field"]
    assert of({"batch": {"metrics": 5}}) == ["not-an-array"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 200) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "tags", "host", "fields", "0", "v"]), inner)
    ),
    max_leaves=8,
)


@given(JSON, st.booleans())
def test_types_read_what_a_walk_along_the_paths_reads(record: Any, wrapped: bool) -> None:
    """The fast way and the careful way agree on every document."""
    if wrapped:
        record = {"name": "x", "tags": {"host": record}, "fields": {"v": record}, "t": 5}
    fields = {"key_field": "/tags/host", "value_field": "/fields/v", "time_field": "/t"}
    settings = Settings(
        _env_file=None, format="json", **fields, index_field=None, where=(("/name", "x"),)
    )
    value = json.dumps(record).encode()
    fast = decode.format_decoder(settings, lambda count: None)([Raw(0, 0, value)])
    careful = decode.record_format(settings).readings(
        Raw(0, 0, value),
        lambda raw, reason, error: decode.reject(settings, raw, reason, error),
        lambda count: None,
    )
    assert fast == list(careful)


# Mistakes that would go unnoticed


def report_of(records: list[Any], **settings: Any) -> Report:
    batch = [Raw(0, at, json.dumps(one).encode()) for at, one in enumerate(records)]
    return inspect(Settings(_env_file=None, **settings), batch)


def flat(value: float, minute: int, **more: Any) -> dict[str, Any]:
    time = START + 300 * minute
    return {"instance": "a", "timestamp": time, "value": value, "index": minute, **more}


def test_several_metrics_in_one_field_are_told_apart() -> None:
    mixed = [
        flat(5.0 + at % 3, at // 2, metric=("CPUUtilization", "CPUCreditBalance")[at % 2])
        for at in range(20)
    ]
    report = report_of(mixed)
    assert any("several metrics are mixed" in line for line in report.warnings)
    assert report.settings["ANOMALY_WHERE"] == "/metric=CPUUtilization"
    assert len(report.readings) == report.skipped == 10


def test_single_cpus_under_one_name_are_noticed() -> None:
    report = report_of([flat(5.0 + at % 4, at // 4) for at in range(40)], format="json")
    assert any("such as those of single CPUs" in line for line in report.warnings)


@pytest.mark.parametrize(("step", "fits"), [(300, True), (60, False), (3600, False)])
def test_an_interval_that_does_not_fit_is_noticed(step: int, fits: bool) -> None:
    records = [flat(5, at) | {"timestamp": START + step * at} for at in range(12)]
    report = report_of(records)
    assert (report.settings.get("ANOMALY_INTERVAL") is None) == fits
    if not fits:
        assert report.settings["ANOMALY_INTERVAL"] == str(step)


def test_shares_of_1_at_the_scale_of_percentages_are_noticed() -> None:
    report = report_of([flat(0.05 * at, at) for at in range(12)])
    assert report.settings["ANOMALY_SCALE"] == "1"
    assert report.readings[-1].value == pytest.approx(55.0)


def test_idle_in_place_of_usage_and_a_sum_in_place_of_a_mean_are_noticed() -> None:
    records = [{"instance": "a", "timestamp": START, "usage_idle": 95.0}]
    report = report_of(records, value_field="usage_idle")
    assert report.settings["ANOMALY_INVERT"] == "true"
    assert [one.value for one in report.readings] == [5.0]
    report = report_of(
        [{"instance": "a", "timestamp": START, "value": {"sum": 95.0}}], value_field="/value/sum"
    )
    assert any("is the sum of a period" in line for line in report.warnings)


def test_names_that_change_daily_are_noticed() -> None:
    records = [
        flat(5, at) | {"instance": f"i-{at // 288}-{at % 4}", "timestamp": START + 300 * at}
        for at in range(0, 288 * 4, 7)
    ]
    assert any("replaced daily" in line for line in report_of(records).warnings)


def test_an_instance_on_two_partitions_is_noticed() -> None:
    batch = [Raw(at % 2, at, json.dumps(flat(5, at)).encode()) for at in range(6)]
    report = inspect(Settings(_env_file=None), batch)
    assert report.settings["ANOMALY_REORDER"] == "true"


def test_repeats_are_dropped_and_counted() -> None:
    feed = FEEDS["cloudwatch"]
    before = counters.REPEATS._value.get()  # type: ignore[attr-defined]
    intake = Intake(Settings(_env_file=None))
    batch = [*raws(feed, ROWS), *raws(feed, ROWS)]
    found = [reading for raw in batch for reading in intake.readings(raw)]
    assert len(found) == len(ROWS)
    assert counters.REPEATS._value.get() == before + len(ROWS)  # type: ignore[attr-defined]


def test_readings_of_a_record_are_taken_in_the_order_of_their_times() -> None:
    rows = [Row("i-1", START + 60 * minute, float(minute)) for minute in (3, 1, 2)]
    value = b"\n".join(one for row in rows for one in FEEDS["cloudwatch"].write(row))
    found = Intake(Settings(_env_file=None)).readings(Raw(0, 0, value))
    assert [round(100 * one.value) for one in found] == [1, 2, 3]


# Counters


def shares(records: list[dict[str, Any]]) -> list[tuple[float | None, float]]:
    intake = Intake(Settings(_env_file=None))
    found = [
        reading
        for offset, record in enumerate(records)
        for reading in intake.readings(Raw(0, offset, json.dumps(record).encode()))
    ]
    return [(reading.time, round(reading.value, 9)) for reading in found]


def test_seconds_that_grow_become_the_share_between_two_records() -> None:
    row = Row("a", START, 0.0)

    def at(minute: int, busy: float, total: float) -> dict[str, Any]:
        return counted(row._replace(time=START + 60 * minute), int(total), 1 - busy / total)

    # A repeat, one that comes late, and a host that starts again between the minutes 5 and 6.
    records = [at(0, 100, 1000), at(1, 130, 1060), at(1, 130, 1060), at(2, 145, 1120)]
    records += [at(4, 205, 1240), at(3, 175, 1180), at(5, 205, 1300), at(6, 6, 20), at(7, 51, 80)]
    assert shares(records) == [
        (START + 60, 0.5),
        (START + 120, 0.25),
        (START + 240, 0.5),
        (START + 300, 0.0),
        (START + 420, 0.75),
    ]


def test_a_utilization_that_is_sent_too_is_read_in_place_of_the_counter() -> None:
    row = ROWS[0]
    both = counted(row, 1000, 0.5)
    gauge = json.loads(FEEDS["otlp, JSON"].write(row)[0])["resourceMetrics"][0]["scopeMetrics"][0]
    both["resourceMetrics"][0]["scopeMetrics"].append(gauge)
    readings, _ = read(settings_of("otlp, JSON"), [Raw(0, 0, json.dumps(both).encode())])
    assert said(readings) == [row]
    assert readings[0].counter is None


@pytest.mark.parametrize("delta", [1, "AGGREGATION_TEMPORALITY_DELTA"])
def test_seconds_since_the_last_record_are_a_share_by_themselves(delta: Any) -> None:
    record = counted(ROWS[0], 60, 0.25)
    metric = record["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]
    metric["sum"]["aggregationTemporality"] = delta
    readings, _ = read(settings_of("otlp, JSON"), [Raw(0, 0, json.dumps(record).encode())])
    assert said(readings) == [ROWS[0]._replace(value=75.0)]


def test_counters_in_protobuf_are_those_in_json() -> None:
    record = counted(ROWS[0], 1000, 0.75)
    metric = record["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]
    points = b""
    for one in metric["sum"]["dataPoints"]:
        texts = [(each["key"], each["value"]["stringValue"]) for each in one["attributes"]]
        point = field(2, int(one["startTimeUnixNano"])) + field(3, int(one["timeUnixNano"]))
        point += field(4, one["asDouble"])
        points += field(1, point + b"".join(field(7, pair(*each)) for each in texts))
    total = points + field(2, 2, "varint") + field(3, 1, "varint")
    body = field(1, b"system.cpu.time") + field(3, b"s") + field(7, total)
    resource = field(1, pair("host.name", ROWS[0].instance))
    value = field(1, field(1, resource) + field(2, field(2, body)))
    settings = settings_of("otlp, JSON")
    binary, _ = read(settings, [Raw(0, 0, value)])
    text, _ = read(settings, [Raw(0, 0, json.dumps(record).encode())])
    assert binary == text
    assert text[0].counter == (1500.0, 2000.0)


def test_counters_outlive_a_restart(run_flow: Flow, brokers: str, topic: str, store: Path) -> None:
    """The last counter before the end of a flow is in its recovery store."""
    rows, busy, values = spiky()[1::2], 0.0, []
    for number, row in enumerate(rows):
        busy += 300 * row.value / 100
        total = 300 * (number + 1)
        values.append(json.dumps(counted(row, total, 1 - busy / total)).encode())
    settings = {"brokers": brokers, "topic": topic, "detector": "tutorial", "follow": "false"}
    fill_topic(brokers, topic, [(None, value) for value in values], partitions=1)
    done = run_flow(output="whole.jsonl", **settings)
    assert done.returncode == 0, done.stderr
    whole = read_json_lines(run_flow.folder / "whole.jsonl")
    assert {round(one["value"], 6) for one in whole} >= {0.975}
    cut = next(one["source"]["offset"] for one in whole if one["value"] > 0.97)
    half = {**settings, "topic": f"{topic}-half"}
    for part in (values[:cut], values[cut:]):
        fill_topic(brokers, half["topic"], [(None, value) for value in part], partitions=1)
        arguments = ("-r", str(store), "-s", "1", "-b", "0")
        done = run_flow(*arguments, output="half.jsonl", **half)
        assert done.returncode == 0, done.stderr
    found = read_json_lines(run_flow.folder / "half.jsonl")
    assert [one["id"] for one in found] == [one["id"] for one in whole]
    assert [one["value"] for one in found] == [one["value"] for one in whole]


# The flow


def spiky(minutes: int = 220) -> list[Row]:
    rng = random.Random(3)
    rows = [
        Row(f"i-{host:03}", START + 300 * minute, round(20 + 10 * host + rng.uniform(0, 3), 3))
        for minute in range(minutes)
        for host in range(2)
    ]
    return [
        row._replace(value=97.5) if number in (301, 380, 417) else row
        for number, row in enumerate(rows)
    ]


def anomalies(run_flow: Flow, brokers: str, topic: str, feed: Feed, **more: Any) -> list[Any]:
    values = [(None, value) for row in spiky() for value in feed.write(row)]
    fill_topic(brokers, topic, values, partitions=1)
    settings = {"brokers": brokers, "topic": topic, "detector": "tutorial", "follow": "false"}
    done = run_flow(*more.pop("arguments", ()), output="found.jsonl", **settings, **more)
    assert done.returncode == 0, done.stderr
    found = read_json_lines(run_flow.folder / "found.jsonl")
    (run_flow.folder / "found.jsonl").unlink()
    # Of a batch, the readings of an instance stay together: which come first differs.
    return sorted((one["instance"], round(one["value"], 9), one["score"]) for one in found)


def test_feeds_give_the_same_anomalies_as_the_form_of_the_tutorial(
    run_flow: Flow, brokers: str, topic: str
) -> None:
    """One of each way to be read; test_a_feed_gives_its_readings covers the others."""
    expected = anomalies(run_flow, brokers, topic, FEEDS["json"])
    assert len(expected) >= 3
    for number, name in enumerate(
        ("cloudwatch", "telegraf", "telegraf, lines", "otlp, protobuf", "prometheus")
    ):
        found = anomalies(run_flow, brokers, f"{topic}-{number}", FEEDS[name])
        assert [one[:2] for one in found] == [one[:2] for one in expected], name


SAME = (
    *("cloudwatch", "cloudwatch, OpenTelemetry", "telegraf", "telegraf, lines"),
    *("otlp, protobuf", "otlp, JSON", "prometheus", "metricbeat"),
)


@pytest.fixture(scope="module")
def sample() -> list[Row]:
    """The first five days of the sample's eight instances."""
    with (REPOSITORY / "data" / "ec2_metrics.csv").open(newline="") as file:
        return [
            Row(one["instance"], round(seconds(one["timestamp"])), float(one["value"]))
            for one in islice(csv.DictReader(file), 12_000)
        ]


def anomalies_of(batch: list[Raw]) -> dict[tuple[str, int], tuple[float, float]]:
    """Value and score of each anomaly, by instance and time, of the flow with its defaults."""
    from bytewax.testing import TestingSink, TestingSource, run_main

    from dataflow.flow import build
    from dataflow.steps import score

    options = Settings(_env_file=None)
    out: list[tuple[str, Anomaly]] = []
    rejected: list[Any] = []
    run_main(
        build(
            options,
            score.detector(options),
            None,
            source=TestingSource(batch, batch_size=300),
            outputs={"write_here": TestingSink(out), "write_rejected": TestingSink(rejected)},
        )
    )
    assert rejected == []
    return {
        (one.instance, round(seconds(one.timestamp or 0))): (one.value, one.score) for _, one in out
    }


@pytest.mark.parametrize("name", SAME)
def test_the_sample_as_a_feed_gives_the_anomalies_of_the_sample(
    name: str, sample: list[Row]
) -> None:
    expected = anomalies_of(raws(FEEDS["json"], sample))
    assert len(expected) > 10
    found = anomalies_of(raws(FEEDS[name], sample))
    assert found.keys() == expected.keys()
    for place, (value, score) in expected.items():
        assert found[place] == (pytest.approx(value, abs=1e-9), pytest.approx(score, abs=1e-6))


def test_records_of_many_readings_and_kill_9(
    run_flow: Flow, brokers: str, topic: str, store: Path
) -> None:
    """A record holds the readings of both instances, in both orders of time."""
    pairs = list(zip(spiky()[::2], spiky()[1::2], strict=True))
    values = [
        b"\n".join(json.dumps(one).encode() for row in rows for one in reversed(streams(row)))
        for first, second in zip(pairs[::2], pairs[1::2], strict=True)
        for rows in [(*second, *first)]
    ]
    fill_topic(brokers, topic, [(None, value) for value in values], partitions=1)
    settings = {"brokers": brokers, "topic": topic, "detector": "tutorial", "threshold": 0.4}
    done = run_flow(output="whole.jsonl", follow="false", **settings)
    assert done.returncode == 0, done.stderr
    assert "run backwards" not in done.stderr
    whole = read_json_lines(run_flow.folder / "whole.jsonl")
    assert len(whole) >= 3
    assert len({one["source"].get("number", 0) for one in whole}) > 1

    arguments = ("-r", str(store), "-s", "1", "-b", "0")
    path = run_flow.folder / "found.jsonl"
    for _ in range(3):
        flow = run_flow.start(*arguments, output="found.jsonl", **settings)
        deadline = time.monotonic() + 120
        while not path.exists() or len(path.read_bytes()) < len(whole[0]):
            assert flow.poll() is None, flow.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        flow.kill()
        flow.communicate()
    done = run_flow(*arguments, output="found.jsonl", follow="false", **settings)
    assert done.returncode == 0, done.stderr
    found = read_json_lines(path)
    assert sorted(one["id"] for one in found) == sorted(one["id"] for one in whole)
    assert {json.dumps(one) for one in found} == {json.dumps(one) for one in whole}


def test_a_feed_of_which_nothing_can_be_used_is_said_loudly(
    run_flow: Flow, brokers: str, topic: str
) -> None:
    values = [(None, value) for row in spiky(60) for value in FEEDS["telegraf"].write(row)]
    fill_topic(brokers, topic, values, partitions=1)
    done = run_flow(brokers=brokers, topic=topic, format="json", follow="false")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert any("of the first" in line and "set ANOMALY_FORMAT=telegraf" in line for line in lines)
    assert lines[-1].startswith(f"error: none of the 480 records of {topic} could be used: they ")


def test_of_a_feed_that_auto_takes_the_reason_is_said(
    run_flow: Flow, brokers: str, topic: str
) -> None:
    """The Collector's receiver names no host: the line says what has to."""
    record = counted(ROWS[0], 60, 0.5)
    record["resourceMetrics"][0]["resource"] = {}
    fill_topic(brokers, topic, [(None, json.dumps(record).encode())] * 3, partitions=1)
    done = run_flow(brokers=brokers, topic=topic, follow="false")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        f"error: none of the 3 records of {topic} could be used: they look like otlp, but the "
        "resource has no attribute host.id or host.name: let the Collector's processor"
    )


def test_the_choice_is_said_and_kept_in_the_store(
    run_flow: Flow, brokers: str, topic: str, store: Path
) -> None:
    feed = FEEDS["telegraf"]
    rows = spiky()
    arguments = ("-r", str(store), "-s", "1", "-b", "0")
    settings = {"brokers": brokers, "topic": topic, "detector": "tutorial", "follow": "false"}
    fill_topic(
        brokers, topic, [(None, value) for row in rows[:220] for value in feed.write(row)], 1
    )
    done = run_flow(*arguments, output="found.jsonl", **settings)
    assert done.returncode == 0, done.stderr
    assert "the records have the format telegraf" in done.stderr
    # By what follows alone, another format would be chosen.
    odd = [b'{"instance": "a", "timestamp": 0, "value": 5, "index": 1}']
    more = [*odd, *(value for row in rows[200:] for value in feed.write(row))]
    fill_topic(brokers, topic, [(None, value) for value in more], 1)
    done = run_flow(*arguments, output="found.jsonl", **settings)
    assert done.returncode == 0, done.stderr
    assert "missing-field: 1" in done.stderr
    found = [
        (one["instance"], one["timestamp"])
        for one in read_json_lines(run_flow.folder / "found.jsonl")
    ]
    assert len(found) == len(set(found)) >= 3
    done = run_flow(*arguments, output="found.jsonl", format="prometheus", **settings)
    assert "was made with ANOMALY_FORMAT=auto, and now it is prometheus" in done.stderr
    done = run_flow(*arguments, output="found.jsonl", format="telegraf", **settings)
    assert done.returncode == 0, done.stderr
