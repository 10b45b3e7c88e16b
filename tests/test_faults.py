"""What dies, and that nothing is lost or written twice by it.

Each test has a short form here and a long form in `make test-faults` (`--faults long`). All
randomness comes from seeds; what is random by nature is when the machine gets to a signal.
"""

from __future__ import annotations

import itertools
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Flow, environment, fill_topic, read_json_lines, read_topic
from test_flow import THRESHOLD, Key, Row, made_rows, rivers_scores

from dataflow import kafka
from dataflow.recovery import initialise
from dataflow.settings import Settings

INSTANCES = 8


class Tally:
    """What a test did to the flow, and what came of it."""

    def __init__(self, record: Callable[[str, object], None]) -> None:
        self._record = record
        self.counts: Counter[str] = Counter()

    def compare(self, found: list[dict[str, Any]], rows: list[Row]) -> None:
        """Hold what was written against River run by hand over all readings."""
        expected = {key: score for key, score in rivers_scores(rows).items() if score > THRESHOLD}
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

    def close(self) -> None:
        self._record("tally", dict(self.counts))


@pytest.fixture
def tally(record_property: Callable[[str, object], None]) -> Tally:
    return Tally(record_property)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    initialise(folder, 3)
    return folder


class Feed:
    """Writes rows to a topic at a steady pace, in the background."""

    def __init__(self, brokers: str, topic: str, rows: list[Row], rate: int) -> None:
        self._brokers = brokers
        self._topic = topic
        self._rows = rows
        self._rate = rate
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._paused = threading.Event()
        self._stop = threading.Event()
        self.sent = 0

    def __enter__(self) -> Feed:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def finish(self) -> list[Row]:
        """Stop where it is, and return the rows that were written."""
        self._stop.set()
        self._thread.join()
        return self._rows[: self.sent]

    def pause(self) -> None:
        self._paused.set()

    def go_on(self) -> None:
        self._paused.clear()

    def _run(self) -> None:
        producer = kafka.producer(Settings(_env_file=None, brokers=self._brokers))
        step = self._rate // 20
        for start in range(0, len(self._rows), step):
            while self._paused.is_set() and not self._stop.is_set():
                time.sleep(0.02)
            if self._stop.is_set():
                break
            chunk = self._rows[start : start + step]
            for row in chunk:
                producer.produce(self._topic, json.dumps(row), row["instance"])
            producer.flush()
            self.sent += len(chunk)
            time.sleep(0.05)


def with_store(store: Path, *more: str) -> list[str]:
    return ["-r", str(store), "-s", "1", "-b", "0", *more]


def kill(flow: subprocess.Popen[str]) -> None:
    flow.kill()
    flow.communicate()


def written(kind: str, brokers: str, topic: str, folder: Path) -> list[dict[str, Any]]:
    if kind == "kafka":
        return [record for _, record in read_topic(brokers, f"{topic}.out")]
    return read_json_lines(folder / "found.jsonl")


@pytest.mark.parametrize("output", ["kafka", "found.jsonl"])
@pytest.mark.parametrize("workers", [1, 3])
def test_kill_9(
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
    generator = random.Random(f"{workers}{output}")
    rows = made_rows(INSTANCES, 25_000 if long else 4000)
    fill_topic(brokers, topic, [])
    fill_topic(brokers, f"{topic}.out", [])
    settings = {
        "brokers": brokers,
        "topic": topic,
        "detector": "tutorial",
        "output": output,
        "anomalies_topic": f"{topic}.out",
    }
    arguments = with_store(store, "-w", str(workers))
    with Feed(brokers, topic, rows, rate=2000) as feed:
        for _ in range(25 if long else 3):
            flow = run_flow.start(*arguments, **settings)
            time.sleep(generator.uniform(0.5, 6))
            assert flow.poll() is None, flow.communicate()
            kill(flow)
            tally.counts["kills"] += 1
        sent = feed.finish()
    done = run_flow(*arguments, follow="false", **settings)
    assert done.returncode == 0, done.stderr
    tally.compare(written(output, brokers, topic, tmp_path), sent)
