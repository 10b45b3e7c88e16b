"""`python -m dataflow demo --dashboard`: plays the sample stream on the live page."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from dataflow import settings
from dataflow.commands import progress
from dataflow.commands.dashboard import KEEP, feed_of, show
from dataflow.demo import producer
from dataflow.demo.broker import EmbeddedBroker
from dataflow.demo.sample import PER_DAY
from dataflow.demo.sample_fleet import Fleet
from dataflow.errors import UserError
from dataflow.kafka import topics

__all__ = ["play"]

HISTORY = 9 * PER_DAY
"""Readings of each instance before the page opens: detectors need days to learn."""

MAX_HISTORY = 500_000
"""Readings of all instances before the page opens: scored in about half a minute."""

SPEED = 600.0
"""Factor of real time: five minutes in half a second."""

MAX_RATE = 1000.0
"""Readings a second at most if no speed is given, to leave a laptop time for other work."""

STEP = 300.0
"""Seconds between two readings of an instance."""


def play(
    instances: int, speed: float | None, workers: int, partitions: int, host: str, port: int
) -> None:
    """Run broker, producer, flow and page until Ctrl-C."""
    out = Console(highlight=False, soft_wrap=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="anomaly-demo-") as folder, contextlib.ExitStack() as s:
        broker = s.enter_context(EmbeddedBroker(Path(folder) / "broker"))
        os.environ.update(
            {
                "ANOMALY_BROKERS": broker.address,
                "ANOMALY_INPUT": "kafka",
                "ANOMALY_TOPIC": "ec2_metrics",
                "ANOMALY_FOLLOW": "true",
                "ANOMALY_OUTPUT": "kafka",
                "ANOMALY_ANOMALIES_TOPIC": "anomalies",
            }
        )
        options = settings.load()
        names = [options.topic, options.anomalies_topic, options.rejected_topic]
        topics.create(options, names, partitions)
        # Fail before the long part if the dashboard is not installed.
        feed = feed_of(options, KEEP, None)
        out.print(f"broker    {broker.address} (embedded, for this demo)")
        fleet = Fleet(instances)
        history = min(HISTORY, max(MAX_HISTORY // instances, 1))
        with progress.bar("loading", history * instances) as advance:
            producer.send(options, fleet.records(0, history), None, advance)
        factor = min(SPEED, MAX_RATE * STEP / instances) if speed is None else speed
        out.print(
            f"loaded    {history * instances:,} readings of {instances:,} instances; the rest "
            f"arrives {factor:,.0f} times as fast as real time"
        )
        s.enter_context(_flow(workers))
        out.print(f"flow      python -m bytewax.run dataflow.flow -w {workers}")
        s.enter_context(_producer(options, fleet, history, factor))
        show(feed, host, port, [])


@contextlib.contextmanager
def _flow(workers: int) -> Iterator[None]:
    command = [sys.executable, "-m", "bytewax.run", "dataflow.flow", "-w", str(workers)]
    # Ctrl-C must reach the page only: the flow ends after it.
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True) as flow:
        try:
            yield
        finally:
            flow.terminate()
            try:
                flow.wait(10)
            except subprocess.TimeoutExpired:
                flow.kill()


@contextlib.contextmanager
def _producer(options: settings.Settings, fleet: Fleet, first: int, speed: float) -> Iterator[None]:
    stop = threading.Event()

    def run() -> None:
        with contextlib.suppress(UserError):  # the broker stops when the demo ends
            producer.send(
                options,
                _until(stop.is_set, fleet.records(first, sys.maxsize)),
                len(fleet) * speed / STEP,
                lambda _step: None,
            )

    thread = threading.Thread(target=run, name="producer", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)


def _until(
    stopped: Callable[[], bool], records: Iterator[tuple[str, bytes]]
) -> Iterator[tuple[str | None, bytes]]:
    for record in records:
        if stopped():
            return
        yield record
