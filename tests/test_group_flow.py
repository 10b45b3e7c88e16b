"""Incidents of groups from the whole flow, with any number of workers and through kill -9."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest
from conftest import Flow, fill_topic, read_json_lines
from faults import kill, wait_for

START = 1_741_478_400

FAULTS = {150: ("web", range(7)), 230: ("db", range(3)), 300: ("web", range(7, 14))}
"""By the place of their onset, the group and its members that a fault affects."""

ALONE = {190: "web-14", 260: "web-15", 330: "db-4"}


def feed(places: int = 400) -> list[tuple[bytes, bytes]]:
    """Readings of sixteen web servers and five databases, a few seconds apart."""
    generator = random.Random("groups")
    hosts = [f"web-{n}" for n in range(16)] + [f"db-{n}" for n in range(5)]
    raised = {
        (f"{group}-{number}", at + (group == "web") * (number % 2) + more)
        for at, (group, numbers) in FAULTS.items()
        for number in numbers
        for more in range(6)
    }
    raised |= {(host, at + more) for at, host in ALONE.items() for more in range(6)}
    return [
        (
            host.encode(),
            json.dumps(
                {
                    "instance": host,
                    "timestamp": START + 300 * at + 13 * number,
                    "index": at,
                    "value": round(95 * ((host, at) in raised) or 20 + generator.random(), 2),
                }
            ).encode(),
        )
        for at in range(places)
        for number, host in enumerate(hosts)
    ]


def settings_of(brokers: str, topic: str) -> dict[str, object]:
    return {
        **{"brokers": brokers, "topic": topic, "detector": "zscore", "incidents": "true"},
        **{"group_pattern": "^(web|db)-", "silence": 0, "threshold": 0.9},
    }


@pytest.mark.kafka
@pytest.mark.short("embedded")
def test_the_same_with_three_workers_and_through_kill_9(
    run_flow: Flow, brokers: str, topic: str, store: Path, long: bool
) -> None:
    fill_topic(brokers, topic, feed(), partitions=3)
    settings = settings_of(brokers, topic)
    done = run_flow(output="whole.jsonl", follow="false", **settings)
    assert done.returncode == 0, done.stderr
    whole = read_json_lines(run_flow.folder / "whole.incidents.jsonl")

    pages = [it for it in whole if it["state"] == "opened" and not it["folded"]]
    of_groups = {it["instance"]: [] for it in pages if it["spread"]}
    for it in pages:
        if it["spread"]:
            of_groups[it["instance"]].append(it["spread"])
    assert {group: len(found) for group, found in of_groups.items()} == {"web": 2, "db": 1}
    assert {(it["affected"], it["size"]) for it in of_groups["db"]} == {(3, 5)}
    assert {it["size"] for it in of_groups["web"]} == {16}
    assert sorted(it["instance"] for it in pages if not it["spread"]) == sorted(ALONE.values())
    last = [it["spread"] for it in whole if it["spread"] and it["state"] == "resolved"]
    assert sorted(it["affected"] for it in last) == [3, 7, 7]

    arguments = ("-r", str(store), "-s", "0", "-b", "0", "-w", "3")
    generator = random.Random("kills")
    path = run_flow.folder / "found.incidents.jsonl"
    anomalies = run_flow.folder / "found.jsonl"
    for _ in range(20 if long else 2):
        flow = run_flow.start(*arguments, output="found.jsonl", **settings)
        wait_for(lambda: anomalies.exists() and anomalies.stat().st_size > 0)
        time.sleep(generator.uniform(0.3, 2))
        assert flow.poll() is None, flow.communicate()
        kill(flow)
    done = run_flow(*arguments, output="found.jsonl", follow="false", **settings)
    assert done.returncode == 0, done.stderr
    found = read_json_lines(path)
    assert sorted(map(json.dumps, found)) == sorted(map(json.dumps, whole))


def test_a_store_can_start_to_have_groups_and_keeps_them(run_flow: Flow, store: Path) -> None:
    """The groups that incidents were made of cannot change; a store without any takes them."""
    lines = [value.decode() for _, value in feed(170)]
    (run_flow.folder / "in.jsonl").write_text("\n".join(lines))
    settings = settings_of("", "cpu") | {"input": "in.jsonl", "output": "found.jsonl"}
    del settings["brokers"]
    pattern = settings.pop("group_pattern")
    arguments = ("-r", str(store), "-s", "1", "-b", "0")
    for given, status in (("", 0), (pattern, 0), ("^(w)", 1)):
        done = run_flow(*arguments, group_pattern=given, **settings)
        assert done.returncode == status, done.stderr
        if status:
            assert "was made with ANOMALY_GROUP_PATTERN=^(web|db)-" in done.stderr
            assert done.stderr.count("\n") == 1
