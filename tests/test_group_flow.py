"""Incidents of groups from the whole flow, with any number of workers and through kill -9."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import faults
import pytest
from conftest import Flow, fill_topic, read_json_lines, read_topic
from faults import Tally, live, skip_if_embedded, topic_to

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
        begun = lambda: anomalies.exists() and anomalies.stat().st_size > 0  # noqa: E731
        live(flow, generator.uniform(0.3, 2), begun)
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


class Fault(NamedTuple):
    """A fault of some members of a group: by their names, the readings from `begins` on."""

    group: int
    begins: int
    members: dict[str, int]


PLACES = 340
LEARNED = 220
"""Readings of an instance, and the first of them in which faults begin."""

LASTS = 18


def fleet(instances: int, groups: int) -> tuple[list[Fault], list[Fault]]:
    """Return 30 faults that members of a group share, and 100 that one instance has alone.

    A fault lasts two hours. A single one near that of its group begins half an hour after it.
    """
    generator = random.Random("fleet")
    size = instances // groups
    shared: list[Fault] = []
    for group in generator.sample(range(groups), 30):
        at = generator.randrange(LEARNED, PLACES - 3 * LASTS)
        members = generator.sample(range(size), generator.randint(6, size))
        # The readings of a group come within an interval: some see it one later.
        names = {f"g{group:02}-{it:02}": at + generator.randrange(2) * (it < 5) for it in members}
        shared.append(Fault(group, at, names))
    single: list[Fault] = []
    of_group = {it.group: it for it in shared}
    taken = {name for it in shared for name in it.members}
    while len(single) < 100:
        group, at = generator.randrange(groups), generator.randrange(LEARNED, PLACES - 3 * LASTS)
        name = f"g{group:02}-{generator.randrange(size):02}"
        other = of_group.get(group)
        if other is not None and abs(at - other.begins) < 15:
            at = other.begins + 6
        # Two of a group come far apart, or they would be shared.
        alone = all(abs(at - it.begins) > 5 for it in single if it.group == group)
        if alone and name not in taken:
            taken.add(name)
            single.append(Fault(group, at, {name: at}))
    return shared, single


def fleet_readings(
    instances: int, groups: int, found: list[Fault]
) -> Iterator[list[tuple[bytes, bytes]]]:
    """Yield the records of each interval: the readings of all instances, in the order of time."""
    generator = random.Random("readings")
    size = instances // groups
    names = [f"g{group:02}-{it:02}" for it in range(size) for group in range(groups)]
    begins = {name: at for fault in found for name, at in fault.members.items()}
    for at in range(PLACES):
        records = []
        for number, name in enumerate(names):
            value = 20 + generator.random()
            if 0 <= at - begins.get(name, PLACES) < LASTS:
                value += 60
            time = START + 300 * at + 300 * number // len(names)
            record = f'{{"instance":"{name}","timestamp":{time},"index":{at},"value":{value:.2f}}}'
            records.append((name.encode(), record.encode()))
        yield records


@pytest.mark.kafka
@pytest.mark.short
@pytest.mark.parametrize("output", ["kafka", "found.jsonl"])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_large_fleet_has_the_same_incidents_through_kill_9(
    request: pytest.FixtureRequest,
    run_flow: Flow,
    brokers: str,
    topic: str,
    store: Path,
    tmp_path: Path,
    tally: Tally,
    workers: int,
    output: str,
) -> None:
    """2,000 instances in 50 groups, twenty lives, which end in the midst of faults."""
    skip_if_embedded(request, output)
    instances, groups, lives = 2000, 50, 20
    shared, single = fleet(instances, groups)
    readings = fleet_readings(instances, groups, shared + single)
    settings = topic_to(output, brokers, topic, silence=0, interval=300)
    settings |= {"detector": "calibrated", "group_pattern": "^(g..)-"}
    settings["rejected_topic"] = f"{topic}.rejected"
    fill_topic(brokers, f"{topic}.rejected", [])
    generator = random.Random(f"fleet{workers}{output}")
    arguments = ("-r", str(store), "-b", "0", "-w", str(workers))
    # Most of what is learned comes before; each life then reads a part of the time with faults.
    ends = [LEARNED + (PLACES - LEARNED) * life // lives for life in range(lives)]
    sent = 0

    def send(until: int) -> None:
        nonlocal sent
        fill_topic(
            brokers, topic, [it for _ in range(until - sent) for it in next(readings)], partitions=3
        )
        sent = until

    def written() -> list[dict[str, Any]]:
        if output == "kafka":
            return [record for _, record in read_topic(brokers, f"{topic}.incidents")]
        path = tmp_path / "found.incidents.jsonl"
        return read_json_lines(path) if path.exists() else []

    def progress() -> int:
        return faults.progress(output, brokers, topic, tmp_path)

    send(ends[0] - 1)
    for life, end in enumerate(ends):
        # Groups decide from epoch to epoch, of which a life has several while readings come. While
        # faults begin, each life brings anomalies.
        least = progress() + 1 if LEARNED + LASTS < end < PLACES - 3 * LASTS else 0
        flow = run_flow.start(*arguments, "-s", ("0", "1", "2")[life % 3], **settings)

        def has_come(end: int = end, least: int = least) -> bool:
            if sent < end:
                send(sent + 1)
            return sent >= end and progress() >= least

        live(flow, generator.uniform(0, 1), has_come)
        tally.counts["kills"] += 1
    tally.counts["records before the last life"] = len(written())
    send(PLACES)
    done = run_flow(*arguments, "-s", "1", timeout=1200, follow="false", **settings)
    assert done.returncode == 0, done.stderr
    undisturbed = {"output": "whole.jsonl", "follow": "false"}
    done = run_flow("-w", str(workers), timeout=1200, **settings | undisturbed)
    assert done.returncode == 0, done.stderr
    whole = read_json_lines(tmp_path / "whole.incidents.jsonl")
    tally.count(
        "anomalies",
        faults.written(output, brokers, topic, tmp_path),
        read_json_lines(tmp_path / "whole.jsonl"),
    )
    found = written()
    tally.count("incidents", found, whole)
    tally.count("pages", pages(found), pages(whole))
    tally.counts |= of_faults(shared, single, whole)
    tally.close()
    assert not tally.wrong(), dict(tally.counts)
    assert tally.counts["shared of one page"] >= 0.9 * len(shared)
    assert tally.counts["single of their own page"] == len(single)


def pages(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the first record of each incident that is sent to people."""
    first: dict[str, dict[str, Any]] = {}
    for record in sorted(records, key=lambda it: it["sequence"]):
        if not record["folded"]:
            first.setdefault(record["id"], record)
    return list(first.values())


def of_faults(
    shared: list[Fault], single: list[Fault], records: list[dict[str, Any]]
) -> dict[str, int]:
    """Count the shared faults that make exactly one page, and the single ones that make none."""
    paged = {it["id"] for it in pages(records)}
    opened: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        if record["state"] == "opened":
            opened[record["instance"]].append(record)

    def own(fault: Fault) -> list[set[str]]:
        """For each incident of a member in the fault, the ids of its pages."""
        return [
            {record["id"], record["part_of"]} & paged
            for name, begins in fault.members.items()
            for record in opened[name]
            if 0
            <= datetime.fromisoformat(record["opened_at"]).timestamp() - START - 300 * begins
            < 300 * (LASTS + 15)
        ]

    return {
        "shared": len(shared),
        "shared of one page": sum(len(set().union(*own(it))) == 1 for it in shared),
        "single": len(single),
        "single of their own page": sum(
            any(not record["folded"] for record in opened[name])
            for it in single
            for name in it.members
        ),
    }
