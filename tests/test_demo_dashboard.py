"""`python -m dataflow demo --dashboard`: broker, producer, flow and page by one command."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from browser import SECONDS, chromium, opened
from conftest import environment, free_port
from playwright.sync_api import expect

from dataflow.demo import sample
from dataflow.demo.sample_fleet import Fleet


@pytest.mark.usefixtures("needs_bytewax")
def test_it_plays_until_it_is_interrupted(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "dataflow", "demo", "--dashboard", "--port", str(port)]
    with (
        chromium() as browser,
        (tmp_path / "said").open("wb") as said,
        subprocess.Popen(
            [*command, "--instances", "3", "--workers", "1"],
            cwd=tmp_path,
            env=environment(),
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as demo,
    ):
        try:
            deadline = time.monotonic() + SECONDS / 1000
            while "dashboard http" not in (text := (tmp_path / "said").read_text()):
                assert demo.poll() is None, text
                assert time.monotonic() < deadline, text
                time.sleep(0.1)
            url = f"http://127.0.0.1:{port}/"
            assert url in text
            with opened(browser, url) as page:
                expect(page.locator(".tone")).to_contain_text("Old readings")
                facts = page.locator(".facts")
                before = facts.inner_text()
                expect(facts).not_to_have_text(before)
                written = page.locator(".notes")
                expect(written).to_contain_text(re.compile(r"has written [1-9]"))
            demo.send_signal(signal.SIGINT)
            assert demo.wait(120) == 0, (tmp_path / "said").read_text()
        finally:
            demo.kill()
    text = (tmp_path / "said").read_text()
    assert "Traceback" not in text
    broker = re.search(r"broker +127.0.0.1:(\d+)", text)
    assert broker
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", int(broker[1]))) != 0


def test_a_fleet_is_the_sample_and_more_like_it() -> None:
    truth = [
        (r.instance, r.index, f"{r.timestamp}", r.value) for r in sample.generate().readings[:80]
    ]
    fleet = [msgspec.json.decode(record) for _, record in Fleet(8).records(0, 10)]
    assert [
        tuple(r[k] for k in ("instance", "index", "timestamp", "value")) for r in fleet
    ] == truth
    many = Fleet(100)
    once, again = (list(it.records(0, 3)) for it in (many, Fleet(100)))
    assert once == again
    assert len({key for key, _ in once}) == 100
    # After fourteen days it goes on, at later times.
    (*_, late) = Fleet(1).records(sample.READINGS, sample.READINGS + 1)
    assert msgspec.json.decode(late[1]) == {
        "index": sample.READINGS,
        "timestamp": "2025-03-17 00:00:00",
        "value": truth[0][3],
        "instance": truth[0][0],
    }
