"""Which instances are taken, and what is said of those on two partitions."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from conftest import Flow, fill_topic, read_topic
from hypothesis import given
from hypothesis import strategies as st
from test_counters import at_once, change
from test_flow import found_scores, made_rows, rivers_anomalies
from test_reorder import scatter

from dataflow.records import Raw, Reading, Rejected
from dataflow.settings import Settings
from dataflow.steps.admit import admitter
from dataflow.steps.decode import decoder


def raw(instance: str, partition: int = 0, offset: int = 0) -> Raw:
    record = {"index": 1, "timestamp": "2024-03-01", "value": 5, "instance": instance}
    return Raw(partition, offset, json.dumps(record).encode())


class Counts:
    """By how much the metrics of admission have grown."""

    def __init__(self) -> None:
        self._instances = change("anomaly_instances")
        self._refused = change("anomaly_records_refused_total", reason="too-many-instances")
        self._scattered = change("anomaly_readings_scattered_total")

    @property
    def instances(self) -> float:
        return self._instances()

    @property
    def refused(self) -> float:
        return self._refused()

    @property
    def scattered(self) -> float:
        return self._scattered()


def admitting(**given: Any) -> tuple[Any, Counts, list[str]]:
    settings = Settings(_env_file=None, **given)
    warnings: list[str] = []
    return admitter(settings, decoder(settings), warnings.append), Counts(), warnings


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 8))
def test_the_first_instances_pass_and_no_others(instances: list[int], most: int) -> None:
    admit, counts, warnings = admitting(max_instances=most)
    first = list(dict.fromkeys(instances))[:most]
    refused = 0
    records = [raw(f"host-{number}", 0, offset) for offset, number in enumerate(instances)]
    middle = len(records) // 2
    both = [*admit(records[:middle]), *admit(records[middle:])]
    for offset, (number, record, admitted) in enumerate(zip(instances, records, both, strict=True)):
        if number in first:
            assert [admitted] == decoder(Settings(_env_file=None))([record])
        else:
            refused += 1
            assert isinstance(admitted, Rejected)
            assert admitted.reason == "too-many-instances"
            assert "ANOMALY_MAX_INSTANCES" in admitted.error
            assert (admitted.source.partition, admitted.source.offset) == (0, offset)
            assert base64.b64decode(admitted.raw or "") == record.value
    assert (counts.instances, counts.refused, counts.scattered) == (len(first), refused, 0)
    assert len(warnings) == (refused > 0)


def days_of(
    settings: Settings, days: int, alive: int, warnings: list[str]
) -> tuple[list[Reading | Rejected], list[str]]:
    """Admit hosts with new names each day, a reading each hour; return all, and the forgotten."""
    admit = admitter(settings, decoder(settings), warnings.append)
    admitted, forgotten = [], []
    for hour in range(24 * days):
        batch = [
            Raw(
                0,
                hour,
                json.dumps(
                    {
                        "instance": f"day-{hour // 24}-{number}",
                        **{"timestamp": 1.7e9 + 3600 * hour, "index": hour, "value": 5},
                    }
                ).encode(),
            )
            for number in range(alive)
        ]
        admitted += admit(batch)
        forgotten += admit.forgotten([it for it in admitted[-alive:] if isinstance(it, Reading)])
    return admitted, forgotten


@pytest.mark.parametrize("detail", [{}, {"interval": 3600}, {"forget": 86_400}])
def test_the_limit_counts_those_that_live(detail: dict[str, Any]) -> None:
    """Machines that live for a day: none is above the limit, and all are forgotten in time."""
    warnings: list[str] = []
    instances = change("anomaly_instances")
    settings = Settings(_env_file=None, max_instances=40, **detail)
    admitted, forgotten = days_of(settings, 30, 10, warnings)
    assert all(isinstance(record, Reading) for record in admitted)
    assert warnings == []
    assert 10 <= instances() <= 40
    assert len(set(forgotten)) == len(forgotten)
    days = sorted({int(name.split("-")[1]) for name in forgotten})
    assert days == list(range(len(days)))
    kept = settings.forget / 86_400
    assert 30 - 1 - kept - 3 <= len(days) <= 30 - kept


def test_without_forgetting_every_instance_counts() -> None:
    warnings: list[str] = []
    settings = Settings(_env_file=None, max_instances=40, forget=0)
    admitted, forgotten = days_of(settings, 30, 10, warnings)
    assert sum(isinstance(record, Reading) for record in admitted) == 40 * 24
    assert forgotten == []
    assert len(warnings) == 1


def test_an_instance_on_two_partitions_is_warned_of_once() -> None:
    admit, counts, warnings = admitting()
    for instance, partition in (("a", 0), ("b", 1), ("a", 2), ("a", 0), ("b", 1), ("b", 0)):
        (taken,) = admit([raw(instance, partition)])
        assert isinstance(taken, Reading)
    assert counts.scattered == 2
    assert warnings == [
        "warning: readings of the instance 'a' come from partitions 0 and 2, so their order can "
        "differ between runs: key records by instance, or set ANOMALY_REORDER=true."
    ]


def test_where_readings_are_put_into_order_they_may_come_on_any_partition() -> None:
    admit, counts, warnings = admitting(reorder=True, max_instances=1)
    for partition in (0, 1, 2, 0):
        taken, refused = admit([raw("a", partition), raw("b", partition)])
        assert isinstance(taken, Reading)
        assert isinstance(refused, Rejected)
    assert (counts.scattered, counts.refused) == (0, 4)
    assert len(warnings) == 1


def test_of_a_record_of_many_instances_the_bytes_are_kept_once() -> None:
    admit, _, _ = admitting(max_instances=1, format="json", index_field=None)
    record = {"timestamp": "2024-03-01", "value": 5}
    many = json.dumps([{**record, "instance": f"host-{number}"} for number in range(4)]).encode()
    found = admit([Raw(0, 0, many), Raw(0, 1, many)])
    rejected = [one for one in found if isinstance(one, Rejected)]
    assert [(one.source.offset, one.source.number) for one in rejected] == [
        (offset, number) for offset in range(2) for number in (1, 2, 3)
    ]
    kept = [base64.b64decode(one.raw) if one.raw else None for one in rejected]
    assert kept == [many, None, None] * 2


def test_a_bad_record_is_no_instance() -> None:
    admit, counts, _ = admitting(max_instances=1)
    refused, taken = admit([Raw(0, 0, b"{"), raw("a")])
    assert refused.reason == "not-json"
    assert isinstance(taken, Reading)
    assert counts.instances == 1


def test_workers_that_meet_new_instances_at_once_accept_no_more_than_the_limit() -> None:
    admit, counts, warnings = admitting(max_instances=5000)
    accepted: list[str] = []

    def worker(_: int) -> None:
        for number in range(5100):
            (record,) = admit([raw(f"host-{number}")])
            if isinstance(record, Reading):
                accepted.append(record.instance)

    at_once(worker)
    assert len(set(accepted)) == counts.instances == 5000
    assert len(accepted) == 20_000
    assert counts.refused == 400
    assert len(warnings) == 1


def test_a_flood_of_instances_changes_nothing_for_the_known_ones(
    run_flow: Flow, brokers: str, topic: str
) -> None:
    rows = made_rows(instances=4)
    records: list[tuple[str | None, bytes | None]] = []
    strangers = 0
    for number, row in enumerate(rows):
        records.append((row["instance"], json.dumps(row).encode()))
        if number >= len(rows) // 2:
            stranger = {**row, "instance": f"stranger-{number}"}
            records.append((stranger["instance"], json.dumps(stranger).encode()))
            strangers += 1
    fill_topic(brokers, topic, records, partitions=1)
    done = run_flow(
        "-w2",
        brokers=brokers,
        topic=topic,
        detector="tutorial",
        follow="false",
        max_instances=4,
    )
    assert done.returncode == 0
    _, warning, summary = done.stderr.splitlines()
    assert warning.startswith("warning: more than 4 instances")
    assert summary == (
        f"warning: {strangers:,} of {len(records):,} records were rejected (too-many-instances: "
        f"{strangers:,}): see the topic '{topic}.rejected', or run `python -m dataflow replay`."
    )
    expected = rivers_anomalies(rows)
    assert found_scores([json.loads(line) for line in done.stdout.splitlines()]) == expected
    rejected = [record for _, record in read_topic(brokers, f"{topic}.rejected")]
    assert {record["reason"] for record in rejected} == {"too-many-instances"}
    assert len(rejected) == strangers


def test_unkeyed_input_is_warned_of(run_flow: Flow, brokers: str, topic: str) -> None:
    rows = made_rows(instances=2, count=30)
    scatter(brokers, topic, rows)
    done = run_flow(
        "-w3",
        brokers=brokers,
        topic=topic,
        detector="tutorial",
        follow="false",
        output="found.jsonl",
    )
    assert done.returncode == 0
    # A line about the new topic first; the times may run backwards too.
    (warning,) = (line for line in done.stderr.splitlines() if "come from partitions" in line)
    assert warning.startswith("warning: readings of the instance 'host-")
    assert "ANOMALY_REORDER=true" in warning
