"""The flow, batched and perhaps compiled, against a loop that processes one record at a time.

The loop reads the same topic and shares only the detectors with the flow, in their plain form. All
fields of an anomaly must be equal to the bit: with `calibrated`, its expected value and bounds
depend on all earlier readings of its instance.
"""

from __future__ import annotations

import csv
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import forms
import pytest
from conftest import Flow, fill_topic, read_json_lines
from judging import alerts

from dataflow import kafka
from dataflow.detectors import make
from dataflow.records import anomaly_id
from dataflow.settings import Settings

START = datetime(2024, 3, 1, tzinfo=UTC)
Row = dict[str, str]


def one_by_one(
    brokers: str, topic: str, name: str, threshold: float | None
) -> list[dict[str, Any]]:
    """The anomalies that the flow must write for a topic, computed record by record.

    But for their episodes, which test_news.py has.
    """
    scores: defaultdict[str, list[float]] = defaultdict(list)
    near: defaultdict[str, set[int]] = defaultdict(set)
    found = list(above(brokers, topic, name, threshold, scores, near))
    least = found[0]["threshold"] if found else 0.0
    news = {key: alerts(of_key, least, near[key]) for key, of_key in scores.items()}
    return [{"alert": one.pop("place") in news[one["instance"]], **one} for one in found]


def above(
    brokers: str,
    topic: str,
    name: str,
    threshold: float | None,
    scores: defaultdict[str, list[float]],
    near: defaultdict[str, set[int]],
) -> Iterator[dict[str, Any]]:
    settings = Settings(_env_file=None, brokers=brokers)
    with forms.plain():
        detector: Any = make(name, threshold=threshold)
        states: dict[str, Any] = {}
        for message in kafka.read_from(settings, topic, {}):
            row = json.loads(message.value() or b"null")
            value = float(row["value"]) / 100
            at = datetime.fromisoformat(row["timestamp"]).replace(tzinfo=UTC).timestamp()
            key = row["instance"]
            states[key], verdict = detector.update(states.get(key), value, at)
            if verdict.near:
                near[key].add(len(scores[key]))
            scores[key].append(verdict.score)
            least = detector.threshold if threshold is None else threshold
            if verdict.score > least:
                bounds = (verdict.expected, verdict.lower, verdict.upper)
                expected, lower, upper = (it if it is None else min(max(it, 0), 1) for it in bounds)
                yield {
                    "instance": key,
                    "timestamp": row["timestamp"],
                    "index": int(row["index"]),
                    "value": value,
                    "score": verdict.score,
                    "threshold": least,
                    "expected": expected,
                    "lower": lower,
                    "upper": upper,
                    "detector": name,
                    "id": anomaly_id(key, int(row["index"]), row["timestamp"]),
                    "place": len(scores[key]) - 1,
                    "source": {
                        "topic": topic,
                        "partition": message.partition(),
                        "offset": message.offset(),
                    },
                }


def ordered(anomalies: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(anomalies, key=lambda one: (one["source"]["partition"], one["source"]["offset"]))


def rows(count: int, instances: int) -> Iterator[Row]:
    """Readings of many instances at steady levels, with rare spikes and constant stretches."""
    rng = random.Random(5)
    levels = [rng.uniform(5, 60) for _ in range(instances)]
    for number in range(count):
        index, instance = divmod(number, instances)
        value = levels[instance] + rng.gauss(0, 2)
        if rng.random() < 0.002:
            value = rng.uniform(0, 100)
        if (index + 37 * instance) % 900 > 800:
            value = levels[instance]
        yield {
            "index": str(index),
            "timestamp": f"{START + timedelta(minutes=5 * index):%Y-%m-%d %H:%M:%S}",
            "value": repr(min(max(value, 0.0), 100.0)),
            "instance": f"i-{instance:05}",
        }


def same_from_a_topic(
    run_flow: Flow,
    brokers: str,
    topic: str,
    made: Iterable[Row],
    detector: str,
    workers: int = 1,
    threshold: float | None = None,
) -> int:
    fill_topic(
        brokers, topic, ((row["instance"], json.dumps(row).encode()) for row in made), partitions=3
    )
    done = run_flow(
        *("-w", str(workers)),
        brokers=brokers,
        topic=topic,
        detector=detector,
        follow="false",
        output="found.jsonl",
        timeout=600,
        **({} if threshold is None else {"threshold": threshold}),
    )
    assert done.returncode == 0, done.stderr
    expected = ordered(one_by_one(brokers, topic, detector, threshold))
    found = ordered(read_json_lines(run_flow.folder / "found.jsonl"))
    for one in found:
        # The others have tests of their own.
        assert one.pop("episode")
        assert (one.pop("metric"), one.pop("labels"), one.pop("group")) == ("cpu", {}, None)
        assert (one.pop("together"), one.pop("metrics")) == (False, None)
        assert one.pop("why").startswith(f"CPU {one.pop('raw'):.1f}%")
        assert one.pop("unit") == "%"
        assert (one.pop("reasons") is None) == (detector == "tutorial")
        assert one.pop("ordinary") is None or one["alert"]
    assert found == expected
    return len(expected)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("detector", ["tutorial", "calibrated"])
def test_made_records(
    run_flow: Flow, brokers: str, topic: str, detector: str, workers: int
) -> None:
    made = rows(30_000, 25)
    assert same_from_a_topic(run_flow, brokers, topic, made, detector, workers) > 30


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a minute on an idle machine
@pytest.mark.parametrize("detector", ["tutorial", "calibrated"])
def test_a_million_made_records(run_flow: Flow, brokers: str, topic: str, detector: str) -> None:
    made = rows(1_000_000, 200)
    assert same_from_a_topic(run_flow, brokers, topic, made, detector) > 500


# Above 1e-9: every score that is not 0 is compared.
@pytest.mark.parametrize(("threshold", "least"), [(None, 20), (1e-9, 500)])
@pytest.mark.parametrize("detector", ["tutorial", "calibrated"])
def test_the_real_stream(
    run_flow: Flow,
    brokers: str,
    topic: str,
    shared: Path,
    detector: str,
    threshold: float | None,
    least: int,
) -> None:
    with (shared / "data" / "ec2_metrics.csv").open(newline="") as file:
        made = list(csv.DictReader(file))
    found = same_from_a_topic(run_flow, brokers, topic, made, detector, 1, threshold)
    assert found > least
