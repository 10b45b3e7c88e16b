"""A broker that does not answer is named on standard error: once, and once when it is back."""

from __future__ import annotations

import subprocess
import threading
import time

import pytest
from conftest import Flow, PausableBroker, await_ready, fill_topic, free_port
from kafka_server import ApacheKafka

OwnBroker = PausableBroker | ApacheKafka


class Lines:
    """The lines that a process writes to standard error."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.lines: list[str] = []
        self._process = process
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        self.lines.extend(iter(self._process.stderr.readline, ""))

    def wait_for(self, text: str) -> list[str]:
        deadline = time.monotonic() + 120
        while not any(text in line for line in self.lines):
            assert self._process.poll() is None, self.lines
            assert time.monotonic() < deadline, self.lines
            time.sleep(0.05)
        return [line for line in self.lines if "the broker" in line]


@pytest.mark.parametrize("away", ["paused", "killed"])
def test_a_broker_that_goes_away_and_comes_back(
    run_flow: Flow, own_broker: OwnBroker, topic: str, away: str
) -> None:
    fill_topic(own_broker.address, topic, [])
    if isinstance(own_broker, PausableBroker):
        own_broker.wait_until_kept(topic)
    port = free_port()
    settings = {"brokers": own_broker.address, "topic": topic, "metrics_port": port}
    flow = run_flow.start(**settings)
    await_ready(flow, port)
    said = Lines(flow)
    (own_broker.pause if away == "paused" else own_broker.kill)()
    (line,) = said.wait_for("no answer from the broker")
    assert line.startswith(f"warning: no answer from the broker {own_broker.address} for ")
    (own_broker.resume if away == "paused" else own_broker.start)()
    lines = said.wait_for("answers again")
    assert len(lines) == 2, lines
    flow.terminate()
    assert flow.wait(120) == 0
