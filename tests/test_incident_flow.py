"""Incidents from the whole flow: from a file, from a topic, through kill -9, and of silence."""

from __future__ import annotations

import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import faults
import pytest
from conftest import Flow, fill_topic, read_json_lines, read_topic
from faults import (
    INSTANCES,
    SAVES,
    Feed,
    Tally,
    kill,
    live,
    skip_if_embedded,
    topic_to,
    wait_for,
    with_store,
)
from shapes import DAY, habit
from shapes import START as TUESDAY
from test_flow import (
    FIVE_MINUTES,
    START,
    THRESHOLD,
    Row,
    keyed,
    made_rows,
    rivers_anomalies,
    rivers_scores,
    write_csv,
)
from test_incidents import recount

from dataflow.incidents.rules import Rules
from dataflow.records import Reading

pytestmark = pytest.mark.kafka

QUIET = 900
RULES = Rules(silence=0)


def expected(rows: list[Row]) -> dict[str, list[tuple[str, int, int, int, int, str | None]]]:
    """For each instance, what a recount makes of River's own scores."""
    scores = rivers_scores(rows)
    histories = defaultdict(list)
    for row in rows:
        index = int(row["index"])
        seconds = datetime.fromisoformat(row["timestamp"]).timestamp()
        score = scores[row["instance"], index]
        reading = Reading(row["instance"], row["timestamp"], index, 0.0, seconds, 0, index)
        histories[row["instance"]].append((reading, score))
    return {
        instance: recount(RULES, QUIET, history, THRESHOLD)
        for instance, history in histories.items()
    }


def at(index: int) -> str:
    return f"{START + index * FIVE_MINUTES:%Y-%m-%dT%H:%M:%SZ}"


def compare(found: list[dict[str, Any]], rows: list[Row]) -> Counter[str]:
    counts: Counter[str] = Counter()
    reported = Counter(
        (
            it["instance"],
            it["state"],
            it["since"],
            it["sequence"],
            it["updated_at"],
            it["anomalies"],
            it["ended"],
        )
        for it in found
    )
    wanted = {
        (instance, state, at(first), sequence, at(index), anomalies, ended)
        for instance, records in expected(rows).items()
        for state, first, sequence, index, anomalies, ended in records
    }
    counts["records"] = len(wanted)
    counts["lost"] = sum(it not in reported for it in wanted)
    counts["twice"] = sum(reported.values()) - len(reported)
    counts["wrong"] = sum(it not in wanted for it in reported)
    ids = {(it["id"], it["sequence"]) for it in found}
    counts["ids twice"] = len(found) - len(ids)
    return counts


def test_incidents_of_a_file(run_flow: Flow, tmp_path: Path) -> None:
    rows = made_rows(INSTANCES, 600)
    path = write_csv(tmp_path / "metrics.csv", rows)
    done = run_flow(
        input=path,
        detector="tutorial",
        output="found.jsonl,stdout",
        incidents="true",
        incident_quiet=QUIET,
        silence=0,
    )
    assert (done.returncode, done.stderr) == (0, "")
    incidents = read_json_lines(tmp_path / "found.incidents.jsonl")
    counts = compare(incidents, rows)
    assert counts["records"] > 30
    assert counts["lost"] == counts["twice"] == counts["wrong"] == counts["ids twice"] == 0, counts
    # Anomalies are as they would be without; standard output has both.
    found = read_json_lines(tmp_path / "found.jsonl")
    scores = {(it["instance"], it["index"]): it["score"] for it in found}
    assert scores == rivers_anomalies(rows)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(it["id"] for it in lines if "state" in it) == sorted(it["id"] for it in incidents)
    assert len(lines) == len(found) + len(incidents)


@pytest.mark.short("embedded-found.jsonl", "apache-kafka")
@pytest.mark.parametrize("output", ["kafka", "found.jsonl"])
def test_kill_9(
    request: pytest.FixtureRequest,
    run_flow: Flow,
    brokers: str,
    topic: str,
    store: Path,
    tmp_path: Path,
    tally: Tally,
    long: bool,
    output: str,
) -> None:
    skip_if_embedded(request, output)
    generator = random.Random(f"incidents{output}")
    rows = made_rows(INSTANCES, 25_000 if long else 3000)
    settings = topic_to(output, brokers, topic, incident_quiet=QUIET, silence=0)
    arguments = with_store(store, "-w", "2")
    with Feed(brokers, topic, rows, rate=2000) as feed:
        for _ in range(25 if long else 3):
            flow = run_flow.start(*arguments, **settings)
            time.sleep(generator.uniform(0.5, 5))
            assert flow.poll() is None, flow.communicate()
            kill(flow)
            tally.counts["kills"] += 1
        wait_for(lambda: len(feed.written()) == len(rows))
        sent = feed.finish()
    done = run_flow(*arguments, follow="false", **settings)
    assert done.returncode == 0, done.stderr
    tally.counts += compare(written(output, brokers, topic, tmp_path), sent)
    tally.close()
    assert tally.counts["records"] > 20
    for wrong in ("lost", "twice", "wrong", "ids twice"):
        assert tally.counts[wrong] == 0, tally.counts


def written(output: str, brokers: str, topic: str, folder: Path) -> list[dict[str, Any]]:
    if output == "kafka":
        records = read_topic(brokers, f"{topic}.incidents")
        assert all(key == record["instance"] for key, record in records)
        return [record for _, record in records]
    path = folder / "found.incidents.jsonl"
    return read_json_lines(path) if path.exists() else []


ONSET = 28 * DAY
HALF = DAY // 2


def pinned_beside_others(hosts: int) -> list[list[Row]]:
    """The readings of hosts with a daily habit, by place; the first is pinned for twelve hours."""
    generators = [random.Random(host) for host in range(hosts)]
    return [
        [
            {
                "index": str(place),
                "timestamp": str(TUESDAY + place * 300),
                "value": str(
                    99.5
                    if host == 0 and ONSET <= place < ONSET + HALF
                    else round(max(habit(place, generator), 0.0), 3)
                ),
                "instance": f"host-{host}",
            }
            for host, generator in enumerate(generators)
        ]
        for place in range(ONSET + HALF + DAY)
    ]


@pytest.mark.short("embedded-1-found.jsonl", "apache-3-kafka")
@pytest.mark.parametrize("output", ["kafka", "found.jsonl"])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_pinned_host_is_one_incident_through_kill_9(
    request: pytest.FixtureRequest,
    run_flow: Flow,
    brokers: str,
    topic: str,
    store: Path,
    tmp_path: Path,
    tally: Tally,
    long: bool,
    workers: int,
    output: str,
) -> None:
    """Four weeks of habit, twelve hours at 99.5%, and a day of habit, as they come in.

    Lives end in the trouble, and while the way back decides how it ended. What is written is that
    of a flow that nothing disturbed, each record once.
    """
    skip_if_embedded(request, output)
    generator = random.Random(f"pinned{workers}{output}")
    settings = topic_to(output, brokers, topic, silence=0, interval=300)
    settings |= {"detector": "calibrated", "rejected_topic": f"{topic}.rejected"}
    fill_topic(brokers, f"{topic}.rejected", [])
    places = pinned_beside_others(6 if long else 3)
    lives = 24 if long else 3
    # From just after the onset to the end of the hour that decides: a life for each.
    ends = [ONSET + 2 + life * (HALF + 20) // (lives - 1) for life in range(lives)]
    arguments = ["-r", str(store), "-b", "0", "-w", str(workers)]
    sent = 0

    def send(until: int) -> None:
        nonlocal sent
        fill_topic(brokers, topic, keyed([row for rows in places[sent:until] for row in rows]))
        sent = until

    def progress() -> int:
        return faults.progress(output, brokers, topic, tmp_path)

    for life, end in enumerate(ends):
        send(end)
        # After the trouble, nothing is written that would show that the flow goes on.
        least = progress() + 1 if end <= ONSET + HALF else 0
        flow = run_flow.start(*arguments, "-s", SAVES[life % 3], **settings)
        live(flow, generator.uniform(0, 1.5), lambda least=least: progress() >= least)  # type: ignore[misc]
        tally.counts["kills"] += 1
    send(len(places))
    done = run_flow(*arguments, "-s", "1", follow="false", **settings)
    assert done.returncode == 0, done.stderr
    undisturbed = {"output": "whole.jsonl", "follow": "false"}
    done = run_flow("-w", str(workers), **settings | undisturbed)
    assert done.returncode == 0, done.stderr
    found = {
        "anomalies": faults.written(output, brokers, topic, tmp_path),
        "incidents": written(output, brokers, topic, tmp_path),
    }
    wanted = {
        "anomalies": read_json_lines(tmp_path / "whole.jsonl"),
        "incidents": read_json_lines(tmp_path / "whole.incidents.jsonl"),
    }
    for kind, records in found.items():
        tally.count(kind, records, wanted[kind])
    tally.close()
    assert not tally.wrong()
    onset = TUESDAY + ONSET * 300

    def hours(moment: str | None) -> float:
        assert moment is not None
        return (datetime.fromisoformat(moment).timestamp() - onset) / 3600

    trouble = [
        it
        for it in found["incidents"]
        if it["instance"] == "host-0" and hours(it["opened_at"]) >= 0
    ]
    assert len({it["id"] for it in trouble}) == 1
    (opened,) = [it for it in trouble if it["state"] == "opened"]
    (resolved,) = [it for it in trouble if it["state"] == "resolved"]
    assert hours(opened["opened_at"]) <= 0.25
    assert 12 <= hours(resolved["resolved_at"]) <= 14
    assert resolved["ended"] == "recovered"
    pinned = [
        it
        for it in found["anomalies"]
        if it["instance"] == "host-0" and ONSET <= it["index"] < ONSET + HALF
    ]
    assert len(pinned) >= 130
    assert {it["episode"] for it in pinned} == {opened["id"]}


@pytest.mark.short("embedded-found.jsonl", "apache-kafka")
@pytest.mark.parametrize("output", ["kafka", "found.jsonl"])
def test_silence_through_kill_9(
    request: pytest.FixtureRequest,
    run_flow: Flow,
    brokers: str,
    topic: str,
    store: Path,
    tmp_path: Path,
    output: str,
) -> None:
    """Opened by others' progress, or by the clock; killed at once; then the reading was only late.

    The reading that ends it came before anybody could say again that it was missing: what was
    written must be known all the same, and end.
    """
    skip_if_embedded(request, output)
    settings = topic_to(output, brokers, topic, partitions=1, interval=1, silence_seconds=30)

    def send(names: str, indexes: range) -> None:
        rows = [
            {
                "index": index,
                "timestamp": START.timestamp() + index,
                "value": 50,
                "instance": name,
            }
            for index in indexes
            for name in names
        ]
        fill_topic(brokers, topic, keyed(rows))

    def silences() -> list[tuple[str, str, int]]:
        return [
            (it["instance"], it["state"], it["sequence"])
            for it in written(output, brokers, topic, tmp_path)
            if it["kind"] == "silence"
        ]

    # No snapshot comes between: the second flow reads all from the beginning.
    arguments = ["-r", str(store), "-s", "600", "-b", "0"]
    send("abc", range(10))
    flow = run_flow.start(*arguments, **settings)
    send("bc", range(10, 20))
    wait_for(lambda: silences() == [("a", "opened", 0)])
    kill(flow)
    send("a", range(10, 12))  # it was late: there is no gap
    send("bc", range(20, 22))
    flow = run_flow.start(*arguments, **settings)
    wait_for(lambda: ("a", "resolved", 1) in silences())
    assert sorted(silences()) == [("a", "opened", 0), ("a", "resolved", 1)]
    flow.terminate()
    _, said = flow.communicate(timeout=120)
    assert flow.returncode == 0, said
    # On a dead topic the clock finds every silence. The state was saved; it is read again.
    flow = run_flow.start(*arguments, **{**settings, "silence_seconds": 1})
    wait_for(lambda: len(silences()) == 5)
    again = [(name, "opened", 0) for name in "abc"]
    assert sorted(silences()) == sorted([("a", "opened", 0), ("a", "resolved", 1), *again])
    kill(flow)
    reported = written(output, brokers, topic, tmp_path)
    assert len({(it["id"], it["sequence"]) for it in reported}) == len(reported)


def test_incidents_begin_on_an_old_store_and_their_settings_stay(
    run_flow: Flow, tmp_path: Path, store: Path
) -> None:
    path = write_csv(tmp_path / "metrics.csv", made_rows(2, 100))
    settings = {"input": path, "detector": "tutorial", "output": "found.jsonl"}
    assert run_flow(*with_store(store), **settings).returncode == 0
    # Windows of maintenance come and go.
    begun = run_flow(
        *with_store(store), incidents="true", maintenance="*: daily 01:00-02:00", **settings
    )
    assert begun.returncode == 0, begun.stderr
    changed = run_flow(*with_store(store), incidents="true", incident_quiet=60, **settings)
    assert changed.returncode == 1
    assert "was made with ANOMALY_INCIDENT_QUIET=3600.0, and now it is 60.0" in changed.stderr


def test_topics_makes_the_topic_of_incidents(
    run_command: Callable[..., Any], brokers: str, topic: str
) -> None:
    names = {"topic": topic, "anomalies_topic": f"{topic}.out", "incidents_topic": f"{topic}.inc"}
    without = run_command("topics", brokers=brokers, **names)
    assert f"{topic}.inc " not in without.stdout
    done = run_command("topics", brokers=brokers, incidents="true", **names)
    assert done.stdout == f"created {topic}.inc with 3 partitions on {brokers}\n"
