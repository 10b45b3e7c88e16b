"""The pictures of `docs/dashboard.md`: `make pictures` draws them again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browser import LAPTOP, PHONE, Served, chromium, opened
from conftest import Flow, PausableBroker, fill_topic
from playwright.sync_api import Page, ViewportSize
from test_dashboard import SAMPLE

from dataflow.demo.sample_fleet import Fleet

BROKERS = "127.0.0.1:19092"
"""What the pictures show as the broker's address."""

MOMENT = 2748
"""Readings of each instance at the time of the pictures: Wednesday noon of the second week."""

TALL = ViewportSize(width=1280, height=930)


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> Path:
    given = request.config.getoption("--pictures")
    if not given:
        pytest.skip("draws the pictures of the documentation: give a folder with --pictures")
    return (request.config.rootpath / given).resolve()


def test_pictures(folder: Path, run_flow: Flow, tmp_path: Path) -> None:
    broker = PausableBroker(tmp_path / "broker", port=int(BROKERS.rpartition(":")[2]))
    fleet = Fleet(40)

    def take(page: Page, name: str, wait: str | re.Pattern[str]) -> None:
        page.get_by_text(wait).first.wait_for()
        page.wait_for_timeout(2500)  # the last fonts and lines
        path = folder / f"dashboard-{name}.png"
        page.screenshot(path=path)
        assert path.stat().st_size < 200_000

    with broker, chromium() as browser, Served(tmp_path, "--port", "0", brokers=BROKERS) as served:
        with opened(browser, served.url, ViewportSize(width=1280, height=420)) as page:
            take(page, "empty", "No topic yet")
        fill_topic(BROKERS, "ec2_metrics", list(fleet.records(0, MOMENT)))
        fill_topic(BROKERS, "anomalies", [])
        own = {"brokers": BROKERS, "follow": "false", "output": "kafka"}
        done = run_flow("-w", "2", timeout=120, **own)
        assert done.returncode == 0, done.stderr
        instance = f"{served.url}instance?name=3fb07c"
        with opened(browser, served.url, ViewportSize(width=1280, height=1080)) as page:
            # The page finds the new topic of anomalies some seconds after the readings.
            take(page, "overview", re.compile("has written [1-9]"))
        with opened(browser, instance, TALL) as page:
            take(page, "instance", "Live")
        with opened(browser, instance, TALL, "dark") as page:
            take(page, "dark", "Live")
        with opened(browser, instance, PHONE, "dark") as page:
            take(page, "phone", "Live")
        with opened(browser, served.url, LAPTOP) as page:
            page.get_by_text("Live").first.wait_for()
            broker.kill()
            take(page, "gone", "Broker gone")
        broker.start()
    (tmp_path / "data").symlink_to(SAMPLE.parent)
    with (
        chromium() as browser,
        Served(tmp_path, "--port", "0", input=f"data/{SAMPLE.name}") as served,
        opened(browser, served.url, ViewportSize(width=1280, height=640)) as page,
    ):
        take(page, "quiet", "No anomaly in the last 24 hours")
