from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, Flow, fill_topic, free_port, read_json_lines
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from test_flow import Row, keyed, made_rows

from dataflow import kafka
from dataflow.detectors import make
from dataflow.metrics import counters
from dataflow.metrics.instances import FAMILIES
from dataflow.records import seconds
from dataflow.recovery import files
from dataflow.settings import Settings
from dataflow.warnings import REASONS

BAD: list[tuple[str, bytes, str]] = [
    ("host-0", b"nothing", "not-json"),
    ("host-1", b'{"index": 1}', "missing-field"),
    ("host-2", b"{", "not-json"),
    ("host-3", b"[]", "not-an-object"),
]

Labels = tuple[tuple[str, str], ...]


class Scrape:
    """The metrics of a process at one time, by name and labels."""

    def __init__(self, port: int) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            self.text = answer.read().decode()
        self.types = {it.name: it.type for it in text_string_to_metric_families(self.text)}
        self.samples: dict[str, dict[Labels, float]] = {}
        for family in text_string_to_metric_families(self.text):
            for sample in family.samples:
                there = self.samples.setdefault(sample.name, {})
                there[tuple(sorted(sample.labels.items()))] = sample.value

    def __getitem__(self, name: str) -> float:
        return sum(self.samples.get(name, {}).values())

    def by(self, name: str, label: str) -> dict[str, float]:
        return {dict(labels)[label]: value for labels, value in self.samples[name].items()}


def wait_for(
    flow: subprocess.Popen[str], port: int, enough: Callable[[Scrape], bool], timeout: float = 90
) -> Scrape:
    """Return the first scrape for which `enough` holds."""
    deadline = time.monotonic() + timeout
    scrape = None
    while time.monotonic() < deadline:
        assert flow.poll() is None, flow.communicate()
        try:
            scrape = Scrape(port)
        except OSError:  # it has not started yet
            scrape = None
        if scrape is not None and enough(scrape):
            return scrape
        time.sleep(0.1)
    raise AssertionError(scrape and scrape.text)


def write(brokers: str, topic: str, rows: list[Row]) -> int:
    """Write rows, and some that are none, keyed; return how many records that are."""
    records = keyed(rows)
    records += [(key, value) for key, value, _ in BAD]
    fill_topic(brokers, topic, list(records))
    return len(records)


def scores_of(rows: list[Row], name: str = "tutorial") -> list[float]:
    """What the detector says of each row, without the flow."""
    detector: Any = make(name)
    states: dict[str, Any] = {}
    scores = []
    for row in rows:
        value, moment = float(row["value"]) / 100, seconds(row["timestamp"])
        state, verdict = detector.update(states.get(row["instance"]), value, moment)
        states[row["instance"]] = state
        scores.append(verdict.score)
    return scores


def test_the_counts_of_three_workers_are_exact(
    run_flow: Flow, brokers: str, topic: str, tmp_path: Path
) -> None:
    rows = made_rows(9, 700)
    records = write(brokers, topic, rows)
    scores = scores_of(rows)
    found = sum(score > 0.7 for score in scores)
    files.initialize(tmp_path / "store", 3)
    port = free_port()
    began = time.time()
    flow = run_flow.start(
        *("-w", "3", "-r", "store", "-s", "1", "-b", "0"),
        **{"brokers": brokers, "topic": topic, "metrics_port": port},
        **{"detector": "tutorial", "output": "found.jsonl,stdout"},
    )
    scrape = wait_for(
        flow,
        port,
        lambda it: (
            it["anomaly_readings_scored_total"] + it["anomaly_records_refused_total"] == records
            and it["anomaly_records_confirmed_total"] == 2 * found + len(BAD)
        ),
    )

    ends = kafka.end_offsets(Settings(_env_file=None, brokers=brokers), topic)
    assert scrape.by("anomaly_records_read_total", "partition") == {
        str(partition): end for partition, end in ends.items()
    }
    assert scrape["anomaly_partitions"] == 3
    assert scrape["anomaly_readings_scored_total"] == len(rows)
    assert scrape.by("anomaly_records_refused_total", "reason") == Counter(r for *_, r in BAD)
    assert scrape["anomaly_anomalies_found_total"] == found
    assert scrape.by("anomaly_reading_score_bucket", "le") == {
        **{str(bound): sum(score <= bound for score in scores) for bound in counters.SCORE_BOUNDS},
        "+Inf": len(scores),
    }
    assert scrape["anomaly_reading_score_count"] == len(scores)
    assert scrape["anomaly_reading_score_sum"] == pytest.approx(sum(scores))
    assert scrape.samples["anomaly_records_written_total"] == {
        (("kind", "anomaly"), ("output", "jsonl")): found,
        (("kind", "anomaly"), ("output", "stdout")): found,
        (("kind", "rejected"), ("output", "kafka")): len(BAD),
    }
    assert len(read_json_lines(tmp_path / "found.jsonl")) == found
    assert scrape["anomaly_records_repeated_total"] == 0
    assert scrape.by("anomaly_delay_seconds_count", "output") == {"jsonl": found, "stdout": found}
    assert scrape["anomaly_instances"] == 9
    assert scrape["anomaly_instances_limit"] == 1_000_000
    assert 1 <= scrape["anomaly_instances_anomalous"] <= 9
    assert scrape["anomaly_readings_scattered_total"] == 0
    # That of an instance in an episode says which.
    assert 9 * 7 <= scrape["anomaly_state_bytes"] <= 9 * 200
    assert scrape["anomaly_recovery_store_bytes"] >= 3 * 4096
    # The lag is looked at once a second; so the sample may be a second old.
    scrape = wait_for(flow, port, lambda it: it["anomaly_consumer_lag_records"] == 0)
    assert set(scrape.by("anomaly_consumer_lag_records", "partition")) == {"0", "1", "2"}
    for name in (
        "last_record_timestamp",
        "last_record_broker_timestamp",
        "last_snapshot_timestamp",
    ):
        times = scrape.samples[f"anomaly_{name}_seconds"].values()
        # The records were written a moment before; clocks differ in how they round.
        assert all(began - 120 < moment < time.time() + 1 for moment in times), name

    saved = scrape["anomaly_last_snapshot_timestamp_seconds"]
    wait_for(flow, port, lambda it: it["anomaly_last_snapshot_timestamp_seconds"] > saved)
    flow.terminate()
    flow.communicate(timeout=120)
    assert flow.returncode == 0


def test_the_figures_of_a_flow_that_reorders(run_flow: Flow, brokers: str, topic: str) -> None:
    """Two readings the wrong way round, and one that never comes, in one partition."""
    rows = [row for row in made_rows(1, 8) if row["index"] != "5"]
    rows[1], rows[2] = rows[2], rows[1]
    fill_topic(brokers, topic, [("x", json.dumps(row).encode()) for row in rows], 1)
    port = free_port()
    flow = run_flow.start(
        *("-w", "1"),
        **{"brokers": brokers, "topic": topic, "metrics_port": port, "detector": "tutorial"},
        **{"reorder": "true", "reorder_seconds": 1},
    )
    scrape = wait_for(flow, port, lambda it: it["anomaly_readings_scored_total"] == 7)
    assert scrape["anomaly_reorder_readings_held_total"] == 3
    assert scrape["anomaly_reorder_gaps_given_up_total"] == 1
    assert scrape["anomaly_reorder_readings_late_total"] == 0


def test_scattered_readings_and_instances_above_the_limit(
    run_flow: Flow, brokers: str, topic: str
) -> None:
    rows = made_rows(3, 30)
    producer = kafka.producer(Settings(_env_file=None, brokers=brokers))
    fill_topic(brokers, topic, [], 2)
    for number, row in enumerate(rows):
        # The first instance changes its partition in the middle.
        other = row["instance"] == "host-0" and number >= 45
        producer.produce(topic, json.dumps(row), partition=int(other))
    assert producer.flush(60) == 0
    port = free_port()
    flow = run_flow.start(
        *("-w", "2"),
        **{"brokers": brokers, "topic": topic, "metrics_port": port, "detector": "tutorial"},
        **{"max_instances": 2},
    )
    scrape = wait_for(flow, port, lambda it: it["anomaly_records_read_total"] == 90)
    scrape = wait_for(flow, port, lambda it: it["anomaly_readings_scored_total"] >= 60)
    assert scrape["anomaly_instances"] == 2
    assert scrape["anomaly_instances_limit"] == 2
    assert scrape.by("anomaly_records_refused_total", "reason") == {"too-many-instances": 30}
    # Either partition may come first.
    assert scrape["anomaly_readings_scattered_total"] == 15


def test_what_a_resumed_flow_finds_written_is_counted(
    run_flow: Flow, brokers: str, topic: str, tmp_path: Path
) -> None:
    rows = made_rows(6, 300)
    found = sum(score > 0.7 for score in scores_of(rows))
    fill_topic(brokers, topic, keyed(rows))
    files.initialize(tmp_path / "store", 3)
    port = free_port()

    def start() -> subprocess.Popen[str]:
        return run_flow.start(
            *("-w", "3", "-r", "store", "-s", "3600", "-b", "0"),
            **{"brokers": brokers, "topic": topic, "metrics_port": port, "detector": "tutorial"},
            output="found.jsonl",
        )

    flow = start()
    scrape = wait_for(flow, port, lambda it: it["anomaly_records_written_total"] == found)
    assert scrape["anomaly_records_repeated_total"] == 0
    flow.kill()
    flow.communicate()
    scrape = wait_for(start(), port, lambda it: it["anomaly_records_repeated_total"] == found)
    assert scrape["anomaly_records_written_total"] == 0


def test_bytewaxs_figures_come_along_where_its_server_runs(
    run_flow: Flow, brokers: str, topic: str
) -> None:
    rows = made_rows(6, 100)
    fill_topic(brokers, topic, keyed(rows))
    port, bytewax_port = free_port(), free_port()
    flow = run_flow.start(
        **{"brokers": brokers, "topic": topic, "detector": "tutorial", "metrics_port": port},
        bytewax={
            "BYTEWAX_DATAFLOW_API_ENABLED": "1",
            "BYTEWAX_DATAFLOW_API_PORT": str(bytewax_port),
        },
    )
    read = "ec2_anomalies.read"
    scrape = wait_for(flow, port, lambda it: it["anomaly_readings_scored_total"] == 600)
    scrape = wait_for(flow, port, lambda it: "bytewax_item_out_count_total" in it.samples)
    assert scrape.by("bytewax_item_out_count_total", "step_id")[read] == 600
    assert scrape["anomaly_records_read_total"] == 600
    # And theirs has ours.
    assert Scrape(bytewax_port)["anomaly_records_read_total"] == 600


# The page


def documented() -> Iterator[tuple[str, str, set[str]]]:
    page = (REPOSITORY / "docs" / "metrics.md").read_text()
    for name, kind, labels in re.findall(
        r"^\| `(anomaly_\w+)` \| (\w+) \| (.*?) \|", page, re.MULTILINE
    ):
        yield name, kind, set(re.findall(r"`(\w+)`", labels))


NOTHING = """
from prometheus_client import generate_latest
from dataflow.metrics import counters
"""

EVERYTHING = """
import time
from pathlib import Path
from dataflow.metrics.instances import Figures
from dataflow.settings import Settings
counters.RECORDS_REFUSED.labels("not-json").inc()
partition = counters.partition("topic", 0)
partition.took(1, 0.0)
partition.lost(1)
partition.lag.set(1)
counters.output("kafka", "write_kafka")
counters.INCIDENTS_WRITTEN.labels("kafka", "silence", "opened").inc()
counters.INCIDENTS_OPEN.labels("silence").set(1)
counters.WORST.limit = 1
figures = Figures(0.9, 0.5, 0.2, 0.1, 0.3)
counters.WORST.take("i-1", ("i-1", "cpu"), figures, 0.9, now=time.time(), lasts=True)
counters.STATES.add(1)
counters.FORMAT.labels("json").set(1)
counters.RULES.labels("67f41a33e345").set(1)
counters.STORE.saved_at = 1.0
counters.describe(Settings(_env_file=None), Path())
"""


def exposed(*code: str) -> dict[str, Metric]:
    """Every metric of ours in a new process that has run this code, by name."""
    done = subprocess.run(
        [sys.executable, "-c", "".join([*code, "print(generate_latest().decode())"])],
        capture_output=True,
        text=True,
        check=True,
    )
    return {
        family.name + ("_total" if family.type == "counter" else ""): family
        for family in text_string_to_metric_families(done.stdout)
        if family.name.startswith("anomaly_")
    }


def test_the_page_lists_every_metric_as_it_is() -> None:
    table = list(documented())
    assert len({name for name, *_ in table}) == len(table)
    families = exposed(NOTHING, EVERYTHING)
    assert {name: (kind, labels) for name, kind, labels in table} == {
        name: (family.type, {label for sample in family.samples for label in sample.labels})
        for name, family in families.items()
    }
    assert all(family.samples for family in families.values())


def test_the_page_lists_every_reason_of_a_warning() -> None:
    page = (REPOSITORY / "docs" / "metrics.md").read_text()
    section = page.partition("## Warnings\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `([\w-]+)` \|", section, re.MULTILINE)[1:] == list(REASONS)
    (family,) = (it for it in exposed(NOTHING).values() if it.name == "anomaly_warnings")
    assert {one.labels["reason"]: one.value for one in family.samples} == dict.fromkeys(REASONS, 0)


def test_no_label_grows_with_the_instances_but_those_of_the_worst() -> None:
    families = exposed(NOTHING, EVERYTHING)
    bounded = {name for name, _ in FAMILIES}
    assert {
        name
        for name, family in families.items()
        if any("instance_name" in one.labels for one in family.samples)
    } == bounded
    families = {name: family for name, family in families.items() if name not in bounded}
    assert {
        label for family in families.values() for one in family.samples for label in one.labels
    } == {
        *("topic", "partition", "reason", "output", "kind", "le", "version", "detector"),
        *("incident", "state", "format"),
    }


def test_a_metric_of_which_nothing_is_known_has_no_samples() -> None:
    families = exposed(NOTHING)
    assert set(families) == {name for name, *_ in documented()}
    assert {name for name, family in families.items() if family.samples} == {
        "anomaly_partitions",
        "anomaly_rules_refused",
        "anomaly_verdicts",
        "anomaly_verdicts_refused",
        "anomaly_kept_quiet_total",
        "anomaly_readings_skipped_total",
        "anomaly_readings_repeated_total",
        "anomaly_readings_scored_total",
        "anomaly_reading_score",
        "anomaly_anomalies_found_total",
        "anomaly_alerts_found_total",
        "anomaly_instances",
        "anomaly_instances_anomalous",
        "anomaly_readings_scattered_total",
        "anomaly_reorder_readings_held_total",
        "anomaly_reorder_readings_late_total",
        "anomaly_reorder_gaps_given_up_total",
        "anomaly_reorder_restarts_total",
        "anomaly_warnings_total",
    }


def test_without_a_recovery_store_there_is_no_time_of_a_snapshot() -> None:
    """A time of 0 would raise AnomalyFlowNoSnapshot."""
    families = exposed(NOTHING, EVERYTHING, "counters.STORE.folder = None\n")
    assert families["anomaly_last_snapshot_timestamp_seconds"].samples == []
    assert families["anomaly_recovery_store_bytes"].samples == []
