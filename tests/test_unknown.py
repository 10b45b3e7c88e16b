"""Records that no format reads: `inspect` says what they seem to be."""

from __future__ import annotations

import json

import pytest
from feeds import FEEDS, Row

from dataflow.inspection.report import inspect
from dataflow.inspection.unknown import seems
from dataflow.records import Raw
from dataflow.settings import Settings

ROW = Row("i-1", 1_741_449_600, 41.5)
PLAIN = json.dumps({"instance": "i-1", "timestamp": ROW.time, "value": 41.5}).encode()

RECORDS = {
    "StatsD": (b"cpu.load:41.5|g", "those of StatsD"),
    "Avro": (b"\0\0\0\0*\x0e(2025-03-08T16:00:00Z\0\0\0\0\0\xc0D@", "Avro or Protobuf"),
    "Snappy, a block": (b"\x50\xf0[" + PLAIN, "packed, as by Snappy"),
    "Snappy, of Java": (b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01" + PLAIN, "packed, as by Snappy"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(30), "packed, as by Snappy"),
    "GetMetricData": (b'{"MetricDataResults": []}', "CloudWatch's API"),
}


@pytest.mark.parametrize(("value", "said"), RECORDS.values(), ids=RECORDS)
def test_what_records_seem_to_be(value: bytes, said: str) -> None:
    report = inspect(Settings(_env_file=None), [Raw(0, 0, value)])
    assert report.readings == []
    (sentence,) = report.warnings
    assert said in sentence


@pytest.mark.parametrize("name", FEEDS)
def test_of_feeds_nothing_is_said(name: str) -> None:
    assert seems(FEEDS[name].write(ROW)) is None


def test_feeds_without_cpu_are_said_to_have_none() -> None:
    memory = {"name": "mem", "tags": {"host": "a"}, "fields": {"free": 7}, "timestamp": ROW.time}
    report = inspect(Settings(_env_file=None), [Raw(0, 0, json.dumps(memory).encode())])
    assert report.format == "telegraf"
    assert any("no CPU that is read" in line for line in report.warnings)
