"""What the fault tests share: rows that are fed, what is done to the flow, and what is counted."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message, Producer
from conftest import await_handlers, fill_topic, read_json_lines, read_topic
from test_flow import THRESHOLD, Row, rivers_anomalies, rivers_scores

from dataflow import kafka
from dataflow.settings import Settings

INSTANCES = 8

HIDES_COMMITTED = (
    "the embedded broker lists to a reader that starts in the middle of a topic transactions that "
    "were aborted before, so that it drops what the same producer committed since"
)


class Tally:
    """What a test did to the flow, and what came of it."""

    def __init__(self, record: Callable[[str, object], None]) -> None:
        self._record = record
        self.counts: Counter[str] = Counter()

    def compare(self, found: list[dict[str, Any]], rows: list[Row]) -> None:
        """Hold what was written against River run by hand over all readings."""
        expected = rivers_anomalies(rows)
        times = Counter((it["instance"], it["index"]) for it in found)
        scores = {(it["instance"], it["index"]): it["score"] for it in found}
        self.counts["records"] += len(rows)
        self.counts["anomalies"] += len(expected)
        self.counts["lost"] += sum(key not in times for key in expected)
        self.counts["twice"] += sum(times.values()) - len(times)
        self.counts["not anomalies"] += sum(key not in expected for key in times)
        self.counts["scores that differ"] += sum(
            scores[key] != expected[key] for key in expected if key in scores
        )
        self.close()
        assert expected
        for wrong in ("lost", "twice", "not anomalies", "scores that differ"):
            assert self.counts[wrong] == 0, dict(self.counts)

    def count(self, kind: str, found: list[Any], whole: list[Any]) -> None:
        """Hold records of a kind against those of a flow that nothing disturbed: each once."""
        counts, wanted = (Counter(map(json.dumps, records)) for records in (found, whole))
        self.counts[kind] = len(whole)
        self.counts[f"{kind}, lost"] = (wanted - counts).total()
        self.counts[f"{kind}, twice"] = len(found) - len(counts)
        self.counts[f"{kind}, other"] = len(counts.keys() - wanted.keys())

    def wrong(self) -> dict[str, int]:
        """Return what `count` has found that is not as in the flow that nothing disturbed."""
        return {name: count for name, count in self.counts.items() if ", " in name and count}

    def close(self) -> None:
        self._record("tally", dict(self.counts))


class Feed:
    """Writes rows to a topic at a steady pace, in the background.

    What it calls written is on the broker: a row that does not arrive fails the test.
    """

    def __init__(self, brokers: str, topic: str, rows: list[Row], rate: int) -> None:
        self._settings = Settings(_env_file=None, brokers=brokers)
        self._topic = topic
        self._rows = rows
        self._step = rate // 20
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._asked = threading.Event()
        self._paused = threading.Event()
        self._go_on = threading.Event()
        self._stop = threading.Event()
        self._sent = 0
        self._wrong: BaseException | None = None

    def __enter__(self) -> Feed:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._go_on.set()
        self._thread.join()

    def finish(self) -> list[Row]:
        """Stop where it is, and return the rows that were written."""
        self.__exit__()
        return self.written()

    def written(self) -> list[Row]:
        """Return what is on the broker; whole only while paused or at the end."""
        if self._wrong is not None:
            raise self._wrong
        return self._rows[: self._sent]

    def pause(self) -> None:
        """Wait until it has nothing in hand."""
        self._go_on.clear()
        self._paused.clear()
        self._asked.set()
        while not self._paused.wait(1):
            if not self._thread.is_alive():
                break

    def go_on(self) -> None:
        self._asked.clear()
        self._go_on.set()

    def _run(self) -> None:
        try:
            while not self._stop.is_set() and self._sent < len(self._rows):
                # A new one after each pause: a broker that went away may have forgotten the last.
                self._write_until_asked(
                    kafka.producer(self._settings, **{"message.timeout.ms": 120_000})
                )
                if self._asked.is_set():
                    self._paused.set()
                    self._go_on.wait()
                    self._paused.clear()
        except BaseException as wrong:
            self._wrong = wrong

    def _write_until_asked(self, producer: Producer) -> None:
        delivered = 0

        def count(error: KafkaError | None, _: Message) -> None:
            nonlocal delivered
            delivered += error is None

        while not self._asked.is_set() and not self._stop.is_set():
            chunk = self._rows[self._sent : self._sent + self._step]
            if not chunk:
                return
            delivered = 0
            for row in chunk:
                producer.produce(self._topic, json.dumps(row), row["instance"], on_delivery=count)
            producer.flush()
            assert delivered == len(chunk), "the broker did not take what the test wrote"
            self._sent += len(chunk)
            time.sleep(0.05)


def with_store(store: Path, *more: str) -> list[str]:
    return ["-r", str(store), "-s", "1", "-b", "0", *more]


def skip_if_embedded(request: pytest.FixtureRequest, output: str) -> None:
    """Leave out what the embedded broker cannot take part in."""
    if output == "kafka" and "embedded" in request.node.name:
        pytest.skip(HIDES_COMMITTED)


SAVES = ("3600", "0", "1")
"""Seconds between snapshots, life by life: never, as often as Bytewax takes them, each second.

So a life writes much that it does not save, and the next one saves when it has computed a part of
that again.
"""


def kill(flow: subprocess.Popen[str]) -> None:
    flow.kill()
    flow.communicate()


def live(
    flow: subprocess.Popen[str], seconds: float, ready: Callable[[], bool] = lambda: True
) -> None:
    """Let a flow that was started live for some seconds once it is ready, and kill it."""
    await_handlers(flow)
    wait_for(ready)
    time.sleep(seconds)
    assert flow.poll() is None, flow.communicate()
    kill(flow)


def written(kind: str, brokers: str, topic: str, folder: Path) -> list[dict[str, Any]]:
    if kind == "kafka":
        return [record for _, record in read_topic(brokers, f"{topic}.out")]
    return read_json_lines(folder / "found.jsonl")


def progress(output: str, brokers: str, topic: str, folder: Path) -> int:
    """Anything that grows with each anomaly that is written."""
    if output == "kafka":
        own = Settings(_env_file=None, brokers=brokers)
        return sum(kafka.end_offsets(own, f"{topic}.out").values())
    path = folder / "found.jsonl"
    return path.stat().st_size if path.exists() else 0


def topic_to(
    output: str, brokers: str, topic: str, partitions: int = 3, **incidents: object
) -> dict[str, Any]:
    """Make empty topics; return the settings of a flow from one to the other, or to a file.

    With settings of incidents, it also gathers these, into a topic or file of their own.
    """
    fill_topic(brokers, topic, [], partitions)
    fill_topic(brokers, f"{topic}.out", [])
    settings: dict[str, Any] = {
        "brokers": brokers,
        "topic": topic,
        "detector": "tutorial",
        "output": output,
        "anomalies_topic": f"{topic}.out",
    }
    if incidents:
        fill_topic(brokers, f"{topic}.incidents", [])
        settings |= {"incidents": "true", "incidents_topic": f"{topic}.incidents", **incidents}
    return settings


def anomalies(rows: list[Row]) -> list[int]:
    """Return how many anomalies there are in the first row, in the first two, and so on."""
    return list(accumulate(int(score > THRESHOLD) for score in rivers_scores(rows).values()))


def wait_for(holds: Callable[[], bool]) -> None:
    """Wait until it holds; four minutes are too long, however busy the machine."""
    deadline = time.monotonic() + 240
    while not holds():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.1)


class Reader:
    """Reads a process's standard output in the background."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._lines: list[str] = []
        self._process = process
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)

    def wait_for_lines(self, count: int) -> None:
        deadline = time.monotonic() + 240
        while len(self._lines) < count:
            assert self._process.poll() is None, "the flow ended"
            assert time.monotonic() < deadline, "the flow writes nothing"
            time.sleep(0.01)

    def lines(self) -> list[str]:
        """All of them, once the process has ended."""
        self._thread.join(10)
        return self._lines
