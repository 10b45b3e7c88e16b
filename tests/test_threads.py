"""Python keeps the state of the threads in which Bytewax runs workers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSink, cluster_main
from conftest import Flow, await_handlers, fill_topic

from dataflow import sources
from dataflow.records import encode
from dataflow.settings import Settings

WORKERS = 3
STEPS = 3


def calls_remembered(settings: Settings) -> list[list[int]]:
    """Run a flow whose workers count their calls in thread-local storage; return their counts.

    In several steps, because a worker takes the interpreter lock again in each: so even a worker
    that gets all its readings in one batch makes several calls.
    """
    own = threading.local()
    seen: defaultdict[int, list[int]] = defaultdict(list)

    def count(batch: list[Any]) -> list[Any]:
        own.calls = getattr(own, "calls", 0) + 1
        seen[threading.get_ident()].append(own.calls)
        return batch

    flow = Dataflow("counts")
    raw = op.input("read", flow, sources.source(settings))
    counted = op.redistribute("spread", raw)
    for step in range(STEPS):
        counted = op.flat_map_batch(f"count_{step}", counted, count)
    op.output("out", counted, TestingSink([]))
    cluster_main(flow, [], 0, worker_count_per_proc=WORKERS)
    return list(seen.values())


@pytest.mark.parametrize("kind", ["kafka", "file"])
def test_python_remembers_each_worker(kind: str, brokers: str, topic: str, tmp_path: Path) -> None:
    """Also workers without a partition to read."""
    records = [{"instance": "i-1", "value": number, "index": number} for number in range(3_000)]
    if kind == "kafka":
        fill_topic(brokers, topic, [("i-1", encode(record)) for record in records])
        settings = Settings(_env_file=None, brokers=brokers, topic=topic, follow=False)
    else:
        path = tmp_path / "readings.jsonl"
        path.write_bytes(b"".join(encode(record) + b"\n" for record in records))
        settings = Settings(_env_file=None, input=str(path))
    seen = calls_remembered(settings)
    assert len(seen) == WORKERS
    for calls in seen:
        assert calls == list(range(1, len(calls) + 1))
        assert len(calls) >= STEPS


FLOW = """
from bytewax import operators as op
from bytewax.connectors.stdio import StdOutSink
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition

from dataflow.runtime import threads

class Part(StatelessSourcePartition):
    sent = False

    def next_batch(self):
        if self.sent:
            raise StopIteration
        self.sent = True
        # With its own line end: other workers may write between a line and a line end after it.
        return [f"{threads.alone()}\\n"]

class Source(DynamicSource):
    def build(self, step_id, worker_index, worker_count):
        return Part()

flow = Dataflow("alone")
op.output("out", op.input("in", flow, Source()), StdOutSink())
"""


@pytest.mark.parametrize(
    ("options", "alone"),
    [
        ([], ["True"]),
        (["-w", "2"], ["False", "False"]),
        (["-i", "0", "-a", "127.0.0.1:{port}"], ["False"]),
    ],
)
def test_a_worker_knows_whether_it_is_alone(
    options: list[str], alone: list[str], tmp_path: Path
) -> None:
    (tmp_path / "alone.py").write_text(FLOW)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "bytewax.run", "alone"]
    run = subprocess.run(
        [*command, *(option.format(port=port) for option in options)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert run.stdout.split() == alone


def test_a_crash_in_compiled_code_shows_what_each_thread_did(
    run_flow: Flow, brokers: str, topic: str
) -> None:
    fill_topic(brokers, topic, [])
    flow = run_flow.start(brokers=brokers, topic=topic)
    await_handlers(flow)
    flow.send_signal(signal.SIGSEGV)
    _, said = flow.communicate(timeout=120)
    assert flow.returncode == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in said
    assert said.count("most recent call first") > 1
