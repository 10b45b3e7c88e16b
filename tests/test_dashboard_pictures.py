"""The pictures of `docs/dashboard.md`: `make pictures` draws them again."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from browser import LAPTOP, PHONE, Served, chromium, opened
from confluent_kafka import Producer
from conftest import Flow, PausableBroker, fill_topic
from playwright.sync_api import Page, ViewportSize
from test_dashboard import SAMPLE

from dataflow.demo.sample_fleet import Fleet

BROKERS = "127.0.0.1:19092"
"""What the pictures show as the broker's address."""

MOMENT = 2748
"""Readings of each instance at the time of the pictures: Wednesday noon of the second week."""

START = datetime(2025, 3, 3, tzinfo=UTC).timestamp()
"""When the sample begins."""

TALL = ViewportSize(width=1280, height=980)

SILENT = "946ac3"
"""The host that stops to send forty minutes before the pictures."""


def moved(records: Iterable[tuple[str, bytes]], seconds: float) -> Iterator[tuple[str, bytes]]:
    """Return readings of the sample with times that are later by some seconds."""
    for key, record in records:
        reading = msgspec.json.decode(record)
        at = reading["timestamp"]
        if isinstance(at, str):
            at = datetime.fromisoformat(at).replace(tzinfo=UTC).timestamp()
        yield key, msgspec.json.encode({**reading, "timestamp": at + seconds})


def until_now(fleet: Fleet, moment: int) -> Iterator[tuple[str, bytes]]:
    """Return the readings of a fleet up to a moment of the sample, as if that were now."""
    later = time.time() - START - 300.0 * (moment - 1) - 240
    return moved(fleet.records(0, moment), later)


def fill_long_ago(brokers: str, topic: str, records: list[tuple[str, bytes]]) -> None:
    """Write records as if they were written when they were measured."""
    fill_topic(brokers, topic, [])
    producer = Producer({"bootstrap.servers": brokers})
    for key, record in records:
        at = msgspec.json.decode(record)["timestamp"]
        producer.produce(topic, record, key, timestamp=int(at * 1000))
        producer.poll(0)
    producer.flush()


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> Path:
    given = request.config.getoption("--pictures")
    if not given:
        pytest.skip("draws the pictures of the documentation: give a folder with --pictures")
    return (request.config.rootpath / given).resolve()


def test_pictures(folder: Path, run_flow: Flow, tmp_path: Path) -> None:
    broker = PausableBroker(tmp_path / "broker", port=int(BROKERS.rpartition(":")[2]))

    def take(page: Page, name: str, wait: str | re.Pattern[str], settle: int = 2500) -> None:
        page.get_by_text(wait).first.wait_for()
        page.wait_for_timeout(settle)  # the last fonts and lines
        path = folder / f"dashboard-{name}.png"
        page.screenshot(path=path)
        assert path.stat().st_size < 200_000

    with broker, chromium() as browser:
        with Served(tmp_path, "--port", "0", brokers=BROKERS) as served:
            with opened(browser, served.url, ViewportSize(width=1280, height=420)) as page:
                take(page, "empty", "No topic yet")
            fill_topic(BROKERS, "anomalies", [])
            readings = list(until_now(Fleet(40), MOMENT))
            fill_topic(BROKERS, "ec2_metrics", readings[: -40 * 8])
            late = [it for it in readings[-40 * 8 :] if it[0] != SILENT]
            fill_topic(BROKERS, "ec2_metrics", late)
            own = {"brokers": BROKERS, "follow": "false", "output": "kafka"}
            done = run_flow("-w", "2", timeout=300, **own)
            assert done.returncode == 0, done.stderr
            instance = f"{served.url}instance?name=3fb07c"
            with opened(browser, served.url, ViewportSize(width=1280, height=1009)) as page:
                # The page finds the new topic of anomalies some seconds after the readings.
                take(page, "overview", re.compile("has written [1-9]"))
                lanes = page.locator(".lanes").locator("xpath=..")
                lanes.screenshot(path=folder / "dashboard-lanes.png")
            with opened(browser, served.url, ViewportSize(width=1280, height=640), "dark") as page:
                take(page, "overview-dark", "Live")
            with opened(browser, served.url, PHONE) as page:
                take(page, "overview-phone", "Live")
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
        ended = moved(until_now(Fleet(8), 600), -2 * 86_400)
        fill_long_ago(BROKERS, "dead", list(ended))
        with (
            Served(tmp_path, "--port", "0", brokers=BROKERS, topic="dead") as served,
            opened(browser, served.url, ViewportSize(width=1280, height=640)) as page,
        ):
            take(page, "dead", "No data from all 8 instances")
        fill_topic(BROKERS, "many", list(until_now(Fleet(2000), 100)))
        with Served(tmp_path, "--port", "0", brokers=BROKERS, topic="many") as served:
            with opened(browser, served.url) as page:
                # Lines of two readings would show nothing.
                page.get_by_text(re.compile(r"Catching up, [1-9]\d%")).wait_for()
            with opened(browser, served.url, ViewportSize(width=1280, height=1130)) as page:
                page.locator("tbody tr").first.wait_for()
                take(page, "catching-up", "Catching up", settle=0)
                take(page, "many", "Live")
    (tmp_path / "data").symlink_to(SAMPLE.parent)
    with (
        chromium() as browser,
        Served(tmp_path, "--port", "0", input=f"data/{SAMPLE.name}") as served,
        opened(browser, served.url, ViewportSize(width=1280, height=640)) as page,
    ):
        take(page, "quiet", "None of 8 instances")
