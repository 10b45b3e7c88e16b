"""How much verdicts keep quiet through a whole flow, and whether undoing and replaying are exact.

    python benchmarks/verdicts_flow.py [--instances 30] [--processes 2] [--brokers HOST:PORT]

The made-up fleet of `verdicts.py` goes through a topic to `python -m bytewax.run dataflow.flow`,
and the command `verdict` writes the verdicts while it runs: on the first alert of what comes again,
once its episode is over. Compared are the anomalies that this flow writes with those of a flow
without verdicts, of the four weeks after each.

Four days before the end, all verdicts are undone. At last the flow is killed with `kill -9`, and
another one reads all again with its log of places and no verdict in force: it must write the same.

Other settings come from the environment, such as ANOMALY_REORDER=true.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from verdicts import COUNTED_DAYS, DAY, DAYS, START, STEP, Made, Share, Span, made

from dataflow import kafka
from dataflow.commands.verdict import verdict
from dataflow.demo.broker import EmbeddedBroker
from dataflow.kafka import topics
from dataflow.recovery.files import initialize
from dataflow.settings import Settings

UNDONE = (DAYS - 4) * DAY
"""The reading of each instance from which on no verdict is in force."""

AFTER = 13
"""Readings after an anomaly that can still be its alert; and those after which it is over."""

PARTITIONS = 3
LIMIT = 900.0

Record = dict[str, Any]


class Flows:
    """The processes of a flow that follows a topic."""

    def __init__(self, folder: Path, processes: int, environment: dict[str, str]) -> None:
        """Start them."""
        store = folder / "store"
        initialize(store, processes)
        addresses = ";".join(f"127.0.0.1:{_free_port()}" for _ in range(processes))
        self._ports = [_free_port() for _ in range(processes)]
        self._running = []
        for number, port in enumerate(self._ports):
            cluster = ("-i", str(number), "-a", addresses) if processes > 1 else ()
            # No snapshot is written: whoever resumes has to read all again.
            arguments = (*cluster, "-r", str(store), "-s", "3600", "-b", "0")
            kept = {**environment, "ANOMALY_METRICS_PORT": str(port)}
            self._running.append(_flow(arguments, kept, folder / f"flow-{number}.log"))

    def total(self, name: str) -> float:
        """Return the sum of a figure over all processes."""
        found = 0.0
        for port in self._ports:
            with contextlib.suppress(OSError):
                address = f"http://127.0.0.1:{port}/metrics"
                with urllib.request.urlopen(address, timeout=5) as answer:
                    lines = answer.read().decode().splitlines()
                found += sum(float(it.rpartition(" ")[2]) for it in lines if it.startswith(name))
        return found

    def wait(self, true: Callable[[], bool]) -> None:
        """Wait until something is true. Ends the benchmark if a process has ended."""
        deadline = time.monotonic() + LIMIT
        while not true():
            if any(it.poll() is not None for it in self._running) or time.monotonic() > deadline:
                raise SystemExit("error: the flow has ended, or is too slow: see its log.")
            time.sleep(0.2)

    def kill(self) -> None:
        """End all processes at once."""
        for process in self._running:
            process.kill()
            process.wait()


def _flow(
    arguments: tuple[str, ...], environment: dict[str, str], log: Path
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "bytewax.run", "dataflow.flow", *arguments]
    with log.open("ab") as errors:
        return subprocess.Popen(command, env={**os.environ, **environment}, stderr=errors)


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


def records(fleet: dict[str, Made], first: int, last: int) -> Iterator[tuple[str, bytes]]:
    """Yield the readings from `first` to before `last` of all instances, in their order."""
    for at in range(first, last):
        timestamp = datetime.fromtimestamp(START + STEP * at, UTC).isoformat()
        for name, instance in fleet.items():
            value = round(100 * instance.values[at], 3)
            one = {"instance": name, "timestamp": timestamp, "index": at, "value": value}
            yield name, json.dumps(one).encode()


def read(output: Path) -> list[Record]:
    """Return the anomalies of a file, in an order that does not vary."""
    lines = output.read_text().splitlines() if output.exists() else []
    return sorted(map(json.loads, lines), key=lambda one: (one["instance"], one["index"]))


def alerts(found: list[Record]) -> dict[str, set[int]]:
    """Return the readings of each instance that are alerts."""
    places: dict[str, set[int]] = {}
    for one in found:
        if one["alert"]:
            places.setdefault(one["instance"], set()).add(one["index"])
    return places


def seen(span: Span, places: set[int]) -> bool:
    """Return whether an anomaly has an alert."""
    return any(at in places for at in range(span[0], span[1] + AFTER))


def to_give(fleet: dict[str, Made], found: list[Record]) -> dict[str, tuple[int, str]]:
    """Return of each instance when to give a verdict, and the id of its anomaly."""
    given = {}
    places = alerts(found)
    for name, instance in fleet.items():
        own = places.get(name, set())
        first = next((span for span in instance.again if seen(span, own)), None)
        if first is None:
            continue
        alert = min(at for at in own if at >= first[0])
        mine = [one for one in found if one["instance"] == name]
        one = next(one for one in mine if one["index"] == alert)
        episode = [other["index"] for other in mine if other["episode"] == one["episode"]]
        given[name] = (max(episode) + AFTER, one["id"])
    return given


def share(
    fleet: dict[str, Made],
    given: dict[str, tuple[int, str]],
    without: list[Record],
    with_them: list[Record],
) -> Share:
    """Return what the verdicts have kept quiet, and what was lost."""
    known, kept = alerts(without), alerts(with_them)
    found = Share()
    for name, (since, _) in given.items():
        last = min(since + COUNTED_DAYS * DAY, UNDONE)
        counts = []
        for spans in (fleet[name].again, fleet[name].others):
            own = [it for it in spans if since <= it[0] < last and seen(it, known[name])]
            quiet = sum(not seen(it, kept.get(name, set())) for it in own)
            counts += [len(own), quiet]
        found = Share(*map(sum, zip(found, counts, strict=True)))
    return found


def main() -> None:
    """Run all flows, and print the figures. The exit status is 1 if anything is not exact."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--first", type=int, default=1000, help="number of the first instance")
    parser.add_argument("--instances", type=int, default=30)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--brokers", help="Default: the embedded broker")
    given = parser.parse_args()
    numbers = range(given.first, given.first + given.instances)
    fleet = {f"host-{number}": made(number) for number in numbers}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        brokers = given.brokers
        if brokers is None:
            brokers = stack.enter_context(EmbeddedBroker(Path(folder) / "broker")).address
        if not measure(fleet, given.processes, brokers, Path(folder)):
            raise SystemExit(1)


def measure(fleet: dict[str, Made], processes: int, brokers: str, folder: Path) -> bool:
    """Run all flows, and print the figures; return whether all is exact."""
    topic = f"verdicts-{time.time_ns()}"
    said = f"{topic}-said"
    whole, found, again = (folder / f"{name}.jsonl" for name in ("whole", "found", "again"))
    environment = {
        **{"ANOMALY_BROKERS": brokers, "ANOMALY_TOPIC": topic, "ANOMALY_OUTPUT": str(found)},
        **{"ANOMALY_REJECTED_TOPIC": f"{topic}-rejected", "ANOMALY_VERDICTS": said},
    }
    settings = Settings(_env_file=None, brokers=brokers)
    topics.create(settings, [topic], PARTITIONS)
    topics.create(settings, [said, f"{topic}-rejected"], 1)

    # Without verdicts, of a file.
    path = folder / "readings.jsonl"
    with path.open("wb") as file:
        file.writelines(value + b"\n" for _, value in records(fleet, 0, DAYS * DAY))
    plain = {**environment, "ANOMALY_INPUT": str(path), "ANOMALY_OUTPUT": str(whole)}
    plain |= {"ANOMALY_VERDICTS": "", "ANOMALY_REORDER": "false"}
    _run((), plain, folder)
    without = read(whole)
    given = to_give(fleet, without)

    flows = Flows(folder, processes, environment)
    os.environ |= environment  # for the command
    producer = kafka.producer(settings)
    at = 0

    def produce(last: int) -> None:
        nonlocal at
        for number, (key, value) in enumerate(records(fleet, at, last), start=1):
            producer.produce(topic, value, key)
            if number % 50_000 == 0:
                producer.flush()
        producer.flush()
        at = last
        flows.wait(lambda: flows.total("anomaly_records_read_total") >= at * len(fleet))
        flows.wait(lambda: flows.total("anomaly_readings_scored_total") >= at * len(fleet))

    def say(name: str, what: str, many: int) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            verdict(name, what, None, None, True)
        flows.wait(lambda: flows.total("anomaly_verdicts ") == many * processes)

    try:
        for many, (since, name) in enumerate(sorted(given.values()), start=1):
            if since > at:
                produce(since)
            flows.wait(lambda name=name: any(one["id"] == name for one in read(found)))
            say(name, "fine", many)
        produce(UNDONE)
        for left, (_, name) in reversed(list(enumerate(sorted(given.values())))):
            say(name, "undo", left)
        produce(DAYS * DAY)
        flows.wait(lambda: len(read(found)) >= _least(without, found))
    finally:
        flows.kill()
    with_them = read(found)
    print(share(fleet, given, without, with_them))
    back = [_of(it) for it in with_them if it["index"] >= UNDONE]
    undone = back == [_of(it) for it in without if it["index"] >= UNDONE]
    print(f"undone: {len(back):,} anomalies, {'the same' if undone else 'NOT the same'}")

    store = folder / "again"
    initialize(store, 1)
    for log in (folder / "store").glob("places-*"):
        shutil.copy(log, store / log.name)
    kept = {**environment, "ANOMALY_OUTPUT": str(again), "ANOMALY_FOLLOW": "false"}
    _run(("-r", str(store), "-s", "10", "-b", "0"), kept, folder)
    equal = read(again) == with_them
    print(f"replayed: {len(with_them):,} anomalies, {'the same' if equal else 'NOT the same'}")
    return undone and equal


def _least(without: list[Record], found: Path) -> int:
    """Return how many anomalies a flow writes that has read all: after the undoing, all come."""
    before = sum(one["index"] < UNDONE for one in read(found))
    return before + sum(one["index"] >= UNDONE for one in without)


def _of(one: Record) -> tuple[Any, ...]:
    """Return what does not depend on the alerts before."""
    return one["instance"], one["index"], one["value"], one["score"], one["expected"]


def _run(arguments: tuple[str, ...], environment: dict[str, str], folder: Path) -> None:
    if _flow(arguments, environment, folder / "flow.log").wait():
        raise SystemExit(f"error: the flow failed:\n{(folder / 'flow.log').read_text()[-2000:]}")


if __name__ == "__main__":
    main()
