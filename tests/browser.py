"""The live page in a real browser, Debian's chromium, and what must never happen there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import environment
from playwright.sync_api import Browser, Page, ViewportSize, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or ""

NAMES = "--host-resolver-rules=MAP *.example.org 127.0.0.1"
"""Leads the names of the tests to this machine."""

LAPTOP = ViewportSize(width=1280, height=800)
PHONE = ViewportSize(width=390, height=844)

SECONDS = 60_000
"""How long a condition may take, in milliseconds: machines are busy."""

expect.set_options(timeout=SECONDS)


@contextmanager
def chromium() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", NAMES])
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Browser, url: str, viewport: ViewportSize = LAPTOP, scheme: str = "light"
) -> Iterator[Page]:
    """Open a page; whatever it asks of another host, and any error it reports, is a failure."""
    origin = re.match(r"http(://[^/]+)/", url)
    assert origin
    mine = ("http" + origin[1], "ws" + origin[1], "data:", "blob:")
    wrong: list[str] = []
    context = browser.new_context(viewport=viewport, color_scheme=scheme)  # type: ignore[arg-type]
    context.on(
        "request", lambda it: None if it.url.startswith(mine) else wrong.append(f"asks {it.url}")
    )
    context.on(
        "console", lambda it: wrong.append(f"says {it.text}") if it.type == "error" else None
    )
    page = context.new_page()
    page.set_default_timeout(SECONDS)
    page.on("websocket", lambda it: None if it.url.startswith(mine) else wrong.append(it.url))
    page.on("pageerror", lambda it: wrong.append(f"raises {it}"))
    page.goto(url)
    page.wait_for_selector("#loading", state="detached")
    yield page
    assert wrong == [], wrong
    context.close()


class Served:
    """`python -m dataflow dashboard` in a process of its own."""

    def __init__(self, folder: Path, *arguments: str, **settings: object) -> None:
        self.expected = "\0"
        """What may stand in a line of its standard error; all other lines are failures."""
        self._log = (folder / "dashboard.log").open("ab+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dataflow", "dashboard", *arguments],
            cwd=folder,
            env=environment(**settings),
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        assert self.process.stdout is not None
        # A start that hangs must not hang the test.
        timer = threading.Timer(240.0, self.process.kill)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        found = re.search(r"http://\S+/", line)
        assert found, self.said()
        self.url = found[0]

    def said(self) -> str:
        self._log.seek(0)
        return self._log.read().decode()

    def memory(self) -> int:
        """The memory that the process takes, in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) // 1024

    def __enter__(self) -> Served:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(120)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        said = self.said()
        if kind is None:
            assert self.process.returncode in (0, -signal.SIGKILL), said
            assert [line for line in said.splitlines() if self.expected not in line] == []
        else:
            os.write(2, said.encode())
        self._log.close()
        if self.process.stdout:
            self.process.stdout.close()


CHART = """() => {
  const chart = {};
  for (const document of Bokeh.documents)
    for (const model of document._all_models.values()) {
      if (model.type === "ColumnDataSource" && model.columns().includes("expected")) {
        chart.times = Array.from(model.data.time); chart.scores = Array.from(model.data.score);
      }
      if (model.type === "Range1d" && model.end > 1e9) chart.range = [model.start, model.end];
    }
  return chart;
}"""
"""What the points of the instance's chart are, and its axis of time, in milliseconds."""
