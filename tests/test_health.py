"""The check whether the broker answers: what it says, and how it ends."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from conftest import PausableBroker
from faults import wait_for
from test_counters import change

from dataflow.kafka import health, topics
from dataflow.settings import Settings


class Said:
    """What was printed on standard error."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.text = ""

    def holds(self, words: str) -> bool:
        self.text += self._capsys.readouterr().err
        return words in self.text


@pytest.mark.parametrize("away", ["paused", "killed"])
def test_a_broker_that_goes_away_is_said_once_and_counted(
    own_broker: PausableBroker,
    away: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(health, "SECONDS", 0.05)
    monkeypatch.setattr(health, "PATIENCE", 0.5)
    monkeypatch.setattr(health, "SILENT", 1.0)
    counted = change("anomaly_warnings_total", reason="no-answer")
    answers: list[bool] = []
    check = health.HealthCheck(
        Settings(_env_file=None, brokers=own_broker.address),
        "cpu",
        lambda _client, cluster: answers.append(cluster is not None),
        "the test waits for it",
    )
    said = Said(capsys)

    check.start()
    try:
        wait_for(lambda: True in answers)
        for _ in range(2):
            (own_broker.pause if away == "paused" else own_broker.kill)()
            wait_for(lambda: said.holds("no answer from"))
            answers.clear()
            wait_for(lambda: answers.count(False) > 3)
            (own_broker.resume if away == "paused" else own_broker.start)()
            wait_for(lambda: said.holds("answers again"))
            first, second = said.text.splitlines()
            said.text = ""
            assert first.startswith(f"warning: no answer from the broker {own_broker.address} for ")
            assert first.endswith("): the test waits for it.")
            assert away == "paused" or "refused" in first
            assert second == f"the broker {own_broker.address} answers again."
    finally:
        check.end()
    assert counted() == 2


def test_what_gets_no_answer_is_said(
    own_broker: PausableBroker,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(health, "SECONDS", 0.05)
    monkeypatch.setattr(health, "SILENT", 0.2)
    settings = Settings(_env_file=None, brokers=own_broker.address)
    check = health.HealthCheck(settings, "cpu", lambda *_: "it answers nothing else", "all waits")
    check.start()
    said = Said(capsys)

    try:
        wait_for(lambda: said.holds("\n"))
    finally:
        check.end()
    assert said.text.endswith("(it answers nothing else): all waits.\n")


ENDS = """
import ctypes, os, signal, sys, threading, time
from dataflow.kafka import health, reading
from dataflow.settings import Settings

asks = threading.Event()

def look(client, cluster):
    if cluster is None or not reading.latest_offsets(client, "cpu", [0], 5.0)[0]:
        return None
    os.kill(int(sys.argv[2]), signal.SIGSTOP)
    asks.set()
    return str(reading.latest_offsets(client, "cpu", [0], 1.0))

health.SECONDS = 0.01
health.HealthCheck(Settings(_env_file=None, brokers=sys.argv[1]), "cpu", look, "").start()
asks.wait()
time.sleep(0.2)
# Sleeps for as many seconds as the exit status says, after the interpreter has ended.
libc = ctypes.CDLL(None)
libc.on_exit(libc.sleep, None)
sys.exit(2)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs on_exit of the GNU C library")
def test_no_request_outlives_the_interpreter(own_broker: PausableBroker) -> None:
    """librdkafka would hand its answer to an interpreter that is gone: SIGSEGV."""
    topics.create(Settings(_env_file=None, brokers=own_broker.address), ["cpu"], 1)
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", ENDS, own_broker.address, str(own_broker.pid)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (2, "")
    assert time.monotonic() - begun > 2
