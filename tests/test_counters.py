from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from dataflow.metrics import counters
from dataflow.records import Anomaly, Incident, Rejected, Source

SCORES = st.lists(st.floats(0, 1) | st.sampled_from(counters.SCORE_BOUNDS), max_size=50)


def value(name: str, **labels: str) -> float:
    """A sample of this process's registry, 0 if there is none yet."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


def change(name: str, **labels: str) -> Callable[[], float]:
    """Return a function that says by how much a sample has grown since now."""
    before = value(name, **labels)
    return lambda: value(name, **labels) - before


def anomaly(timestamp: str | float | None) -> Anomaly:
    return Anomaly(
        *("host-0", timestamp, 1, 0.9, 0.8, 0.5, None, None, None, "tutorial", "id"),
        Source("topic", 0, 1),
    )


@given(st.lists(SCORES, max_size=5))
def test_scores_are_counted_up_to_each_bound(batches: list[list[float]]) -> None:
    histogram = counters.ScoreHistogram("scores", "Scores.")
    for batch in batches:
        histogram.observe(batch)
    scores = [score for batch in batches for score in batch]
    (family,) = histogram.collect()
    samples = {(one.name, one.labels.get("le")): one.value for one in family.samples}
    assert samples == {
        **{
            ("scores_bucket", str(bound)): sum(score <= bound for score in scores)
            for bound in counters.SCORE_BOUNDS
        },
        ("scores_bucket", "+Inf"): len(scores),
        ("scores_count", None): len(scores),
        ("scores_sum", None): pytest.approx(sum(scores)),
    }


@given(
    st.lists(
        st.tuples(
            # Whole seconds, which add up without rounding.
            st.integers(0, 700) | st.sampled_from([300, 600]),
            st.lists(st.sampled_from("abcde"), min_size=1),
        )
    ),
    st.integers(0, 700),
)
def test_instances_are_anomalous_for_ten_minutes(
    found: list[tuple[int, list[str]]], pause_after: int
) -> None:
    anomalous = counters.AnomalousInstances()
    now = 0
    last: dict[str, float] = {}
    for pause, instances in found:
        now += pause
        anomalous.add(instances, now)
        last.update(dict.fromkeys(instances, now))
        assert anomalous.count(now) == sum(now - at <= counters.RECENT for at in last.values())
    now += pause_after
    assert anomalous.count(now) == sum(now - at <= counters.RECENT for at in last.values())


def at_once(run: Callable[[int], None]) -> None:
    """Run a function in four threads, which get their number and switch as often as they can."""
    start = threading.Barrier(4)

    def begin(number: int) -> None:
        start.wait()
        run(number)

    often = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=begin, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(often)


def test_threads_lose_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers count in the same metrics."""
    histogram = counters.ScoreHistogram("scores", "Scores.")
    anomalous = counters.AnomalousInstances()
    scored = change("anomaly_readings_scored_total")
    refused = change("anomaly_records_refused_total", reason="threads")

    def count(thread: int) -> None:
        for at in range(5000):
            histogram.observe([0.1, 0.5])
            anomalous.add([f"{thread}-{at}", "shared"], 1.0)
            counters.READINGS_SCORED.inc(2)
            counters.RECORDS_REFUSED.labels("threads").inc()

    at_once(count)
    (family,) = histogram.collect()
    assert [one.value for one in family.samples if one.name == "scores_count"] == [40_000]
    assert anomalous.count(1.0) == 20_001
    assert scored() == 40_000
    assert refused() == 20_000


def test_delays_are_from_the_time_in_the_reading() -> None:
    buckets = {
        bound: change("anomaly_delay_seconds_bucket", output="delays", le=bound)
        for bound in [*map(str, counters.DELAYS), "+Inf"]
    }
    output = counters.Output("delays", "anomaly")
    now = time.time()
    output.wrote([anomaly(now - 40), anomaly(str(now - 7200)), anomaly("2014-02-14 14:30:00")])
    output.wrote([anomaly(now + 3600), anomaly(None)])
    assert value("anomaly_records_written_total", output="delays", kind="anomaly") == 5
    # One from the future, one of 40 s, one of two hours, one of years; the last has no time.
    assert [count() for count in buckets.values()] == [1, 1, 1, 2, 2, 2, 2, 3, 3, 4]


def test_what_is_written_is_confirmed_once() -> None:
    def confirmed(name: str) -> float:
        return value("anomaly_records_confirmed_total", output=name, kind="rejected")

    rejected = Rejected("not-json", "it is not", Source("topic", 0, 2), None)
    file = counters.output("a-file", "ec2_anomalies.write_rejected")
    file.wrote([rejected, rejected])
    assert confirmed("a-file") == 0
    file.confirm()
    file.confirm()
    file.wrote([rejected])
    assert confirmed("a-file") == 2
    broker = counters.output("a-broker", "ec2_anomalies.write_rejected")
    # A delivery may be confirmed before its batch is counted as written.
    broker.confirm(1)
    broker.wrote([rejected, rejected])
    assert confirmed("a-broker") == 1
    assert value("anomaly_records_written_total", output="a-broker", kind="rejected") == 2
    labels = {"output": "a-broker", "kind": "rejected"}
    assert REGISTRY.get_sample_value("anomaly_records_repeated_total", labels) == 0
    assert REGISTRY.get_sample_value("anomaly_delay_seconds_count", {"output": "a-broker"}) is None


def incident(kind: Literal["anomaly", "silence"], state: Literal["opened", "resolved"]) -> Incident:
    times = (None, None, None, None)
    return Incident(
        *("host-0", kind, state, "id", 0, *times, None, 0.8, None, 0.9, None, 1),
        Source("topic", 0, 1),
    )


def test_incidents_are_counted_by_kind_and_state() -> None:
    output = counters.output("incidents", "ec2_anomalies.write_incidents_kafka")
    output.wrote([incident("silence", "opened"), incident("anomaly", "opened")])
    output.wrote([incident("silence", "opened"), incident("silence", "resolved")])
    assert value("anomaly_records_written_total", output="incidents", kind="incident") == 4
    (family,) = counters.INCIDENTS_WRITTEN.collect()
    assert {
        (one.labels["incident"], one.labels["state"]): one.value
        for one in family.samples
        if one.labels["output"] == "incidents"
    } == {
        ("anomaly", "opened"): 1,
        ("silence", "opened"): 2,
        ("silence", "resolved"): 1,
    }


def test_a_state_is_measured_after_each_scrape() -> None:
    states = counters.StateSizes()
    assert states.wanted
    assert math.isnan(states.mean())
    states.add(100)
    assert not states.wanted
    assert states.mean() == 100
    assert states.wanted
    states.add(300)
    assert states.mean() == 200
    for _ in range(64):
        states.add(500)
    assert states.mean() == 500
