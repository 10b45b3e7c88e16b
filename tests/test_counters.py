from __future__ import annotations

import sys
import threading
import time
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflow.metrics import counters
from dataflow.metrics.collector import Figures
from dataflow.records import Anomaly, Incident, Rejected, Source

SCORES = st.lists(st.floats(0, 1) | st.sampled_from(counters.SCORES), max_size=50)


def anomaly(timestamp: str | float | None) -> Anomaly:
    return Anomaly(
        *("host-0", timestamp, 1, 0.9, 0.8, 0.5, None, None, None, "tutorial", "id"),
        Source("topic", 0, 1),
    )


@given(st.lists(SCORES, max_size=5))
def test_scores_are_counted_up_to_each_bound(batches: list[list[float]]) -> None:
    worker = counters.Worker()
    for batch in batches:
        worker.score(batch)
    scores = [score for batch in batches for score in batch]
    counts, total = worker.scored
    below = [sum(score <= bound for score in scores) for bound in counters.SCORES]
    assert [sum(counts[: place + 1]) for place in range(len(counts))] == below
    assert total == pytest.approx(sum(scores))


@given(
    st.lists(
        st.tuples(
            # Whole seconds, which add up without rounding.
            st.integers(0, 700) | st.sampled_from([300, 600]),
            st.lists(st.sampled_from("abcde"), min_size=1),
        )
    ),
)
def test_instances_are_anomalous_for_ten_minutes(found: list[tuple[int, list[str]]]) -> None:
    worker = counters.Worker()
    now = 0
    last: dict[str, float] = {}
    for pause, instances in found:
        now += pause
        worker.find(instances, now)
        last.update(dict.fromkeys(instances, now))
        assert worker.anomalous == {
            instance: moment for instance, moment in last.items() if now - moment <= counters.RECENT
        }
    assert worker.found == sum(len(instances) for _, instances in found)


def test_threads_lose_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each counts in a cell of its own, though they take turns as often as they can."""
    monkeypatch.setattr(counters, "WORKERS", {})
    start = threading.Barrier(4)

    def count() -> None:
        start.wait()
        for _ in range(5000):
            counters.worker().score([0.1, 0.5])
            counters.worker().find(["a"], 1.0)
            counters.worker().refuse("not-json")

    often = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(often)
    cells = list(counters.WORKERS.values())
    assert sum(cells[0].scored[0]) == 10_000
    assert sum(sum(cell.scored[0]) for cell in cells) == 40_000
    assert sum(cell.found for cell in cells) == 20_000
    assert sum(cell.refused["not-json"] for cell in cells) == 20_000


def test_delays_are_from_the_time_in_the_reading() -> None:
    output = counters.Output("jsonl", "anomaly")
    now = time.time()
    output.wrote([anomaly(now - 40), anomaly(str(now - 7200)), anomaly("2014-02-14 14:30:00")])
    output.wrote([anomaly(now + 3600), anomaly(None)])
    output.wrote([Rejected("not-json", "it is not", Source("topic", 0, 2), None)])
    assert output.written == 6
    # One from the future, one of 40 s, one of two hours, one of years; the others have no time.
    counts = dict(zip(counters.DELAYS, output.delays, strict=True))
    assert counts == {
        **dict.fromkeys(counters.DELAYS, 0),
        **{1.0: 1, 60.0: 1, 21600.0: 1, float("inf"): 1},
    }


def incident(kind: Literal["anomaly", "silence"], state: Literal["opened", "resolved"]) -> Incident:
    times = (None, None, None, None)
    return Incident(
        *("host-0", kind, state, "id", 0, *times, None, 0.8, None, 0.9, None, 1),
        Source("topic", 0, 1),
    )


def test_incidents_are_counted_by_kind_and_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "OUTPUTS", [])
    output = counters.output("kafka", "ec2_anomalies.write_incidents_kafka")
    output.wrote([incident("silence", "opened"), incident("anomaly", "opened")])
    output.wrote([incident("silence", "opened"), incident("silence", "resolved")])
    assert (output.kind, output.written) == ("incident", 4)
    figures = {it.name: it for it in Figures().collect()}
    told = figures["anomaly_incidents_written"].samples
    assert {(it.labels["incident"], it.labels["state"]): it.value for it in told} == {
        ("anomaly", "opened"): 1,
        ("silence", "opened"): 2,
        ("silence", "resolved"): 1,
    }
    assert {it.labels["output"] for it in told} == {"kafka"}


def test_a_state_is_measured_after_each_look() -> None:
    states = counters.States()
    assert states.wanted
    assert states.mean() is None
    states.take(100)
    assert not states.wanted
    assert states.mean() == 100
    assert states.wanted
    states.take(300)
    assert states.mean() == 200
    for _ in range(64):
        states.take(500)
    assert states.mean() == 500
