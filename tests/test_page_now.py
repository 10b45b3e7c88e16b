"""What the live page says of now, in a real browser: trouble, silence, and old readings."""

from __future__ import annotations

import asyncio
import json
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any
from urllib.request import urlopen

import pytest
from browser import SECONDS, Served, chromium, opened
from conftest import fill_topic
from playwright.sync_api import Browser, Page, expect

from dataflow.dashboard import overview, view
from dataflow.dashboard.feed import Feed, FileFeed
from dataflow.dashboard.kafka_feed import KafkaFeed
from dataflow.dashboard.server import serve
from dataflow.errors import UserError
from dataflow.records import Raw
from dataflow.settings import Settings

HISTORY = 300
"""Readings of each host: a little more than a day."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


class Hosts:
    """Hosts that send each `step` seconds, up to a time; `values` overrides what one sends."""

    def __init__(self, count: int, end: float, step: float = 300.0) -> None:
        self._step = step
        self.names = [f"host-{number:02}" for number in range(count)]
        self._end = end
        self._random = random.Random(7)

    def records(
        self, first: int, last: int, values: dict[str, float | None] | None = None
    ) -> list[tuple[str, bytes]]:
        """Return the readings of steps `first` to `last`, counted from `HISTORY` before the end."""
        out = []
        for step in range(first, last):
            for name in self.names:
                value = (values or {}).get(name, 20.0 + self._random.uniform(-1, 1))
                if value is None:
                    continue
                time_of = self._end - (HISTORY - 1 - step) * self._step
                record = {"instance": name, "timestamp": time_of, "index": step, "value": value}
                out.append((name, json.dumps(record).encode()))
        return out


def names(page: Page) -> list[str]:
    found: list[str] = page.locator("tbody tr:visible th").all_inner_texts()
    return found


def row(page: Page, name: str) -> Any:
    return page.locator("tbody tr").filter(has=page.locator("th", has_text=name))


CONTRAST = """() => {
  const channel = (x) => (x /= 255) <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (node) => {
    for (; node; node = node.parentElement || node.getRootNode().host) {
      const color = parse(getComputedStyle(node).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const found = {};
  const visit = (root) => {
    for (const node of root.querySelectorAll("*")) {
      if (node.shadowRoot) visit(node.shadowRoot);
      const own = [...node.childNodes].some((it) => it.nodeType === 3 && it.data.trim());
      if (!own || !node.offsetParent || node.closest("svg, style, script, :disabled")) continue;
      const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground(node))];
      const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
      const name = node.tagName + "." + node.className + " " + node.textContent.slice(0, 30);
      if (ratio < 4.5) found[name] = ratio.toFixed(2);
    }
  };
  visit(document);
  return found;
}"""
"""Texts whose WCAG 2 contrast is below 4.5, by element."""


def test_trouble_stands_on_top_and_rows_hold_still(
    browser: Browser, brokers: str, topic: str, tmp_path: Path
) -> None:
    hosts = Hosts(30, time.time())
    fill_topic(brokers, topic, hosts.records(0, HISTORY - 8))
    quiet: dict[str, float | None] = {"host-03": None}
    fill_topic(brokers, topic, hosts.records(HISTORY - 8, HISTORY - 3, quiet))
    bad = quiet | {"host-17": 99.5}
    fill_topic(brokers, topic, hosts.records(HISTORY - 3, HISTORY, bad))
    own: dict[str, object] = {"brokers": brokers, "topic": topic}
    with Served(tmp_path, "--port", "0", **own) as served:
        with opened(browser, served.url) as page:
            expect(page.locator(".tone")).to_contain_text("Live")
            expect(page.locator(".lead")).to_have_text("1 anomalous and 1 silent of 30 instances")
            # The newest trouble is on top: the silence began before.
            expect(page.locator("tbody tr").first).to_contain_text("host-17")
            expect(page.locator("tbody tr").nth(1)).to_contain_text("host-03")
            expect(row(page, "host-17")).to_contain_text("Anomalous for 10 min")
            expect(row(page, "host-17")).to_contain_text("CPU 99.5%, expected")
            expect(row(page, "host-17")).to_contain_text("peak")
            expect(row(page, "host-03")).to_contain_text(re.compile("No data for 4. min"))
            expect(row(page, "host-05")).to_contain_text("Ordinary")
            # The day of the hosts with anomalies, a lane each.
            expect(page.locator(".lanes li > a")).to_have_text(["host-17"])
            hot = page.locator(".lanes a rect.above").first
            expect(hot).to_be_visible()
            assert page.evaluate(CONTRAST) == {}
            with urlopen(f"{served.url}healthz") as answer:
                assert answer.read().decode().startswith("Live: ")

            # The hand is on the table: nothing moves, though another host is worse now.
            expect(page.locator("tbody tr")).to_have_count(20)
            before = names(page)
            row(page, before[4]).hover()
            page.wait_for_timeout(300)
            worse = bad | {"host-17": 20.0, before[5]: 99.0}
            fill_topic(brokers, topic, hosts.records(HISTORY, HISTORY + 1, worse))
            expect(row(page, before[5])).to_contain_text("Anomalous")
            page.wait_for_timeout(11_000)
            assert names(page) == before
            page.mouse.move(5, 5)
            expect(page.locator("tbody tr").first).to_contain_text(before[5])

            # Numbers come down at the first click, and up at the second.
            page.get_by_role("button", name="CPU %").click()
            heading = page.locator("thead th", has_text="CPU %")
            expect(heading).to_have_attribute("aria-sort", "descending")
            expect(page.locator("tbody tr").first).to_contain_text("99.0")
            page.get_by_role("button", name="CPU %").click()
            expect(heading).to_have_attribute("aria-sort", "ascending")
            page.get_by_label("Find an instance").press_sequentially("host-1")
            expect(page.locator("tbody tr")).to_have_count(10)
            page.wait_for_url("**/?sort=value&find=host-1")
            # Whoever types is not disturbed by what arrives.
            fill_topic(brokers, topic, hosts.records(HISTORY + 1, HISTORY + 2, bad))
            page.wait_for_timeout(2500)
            expect(page.get_by_label("Find an instance")).to_be_focused()
            shared, seen = page.url, names(page)
        with opened(browser, shared, scheme="dark") as page:
            expect(page.locator("tbody tr")).to_have_count(10)
            assert sorted(names(page)) == sorted(seen)
            assert page.get_by_label("Find an instance").input_value() == "host-1"
            assert page.evaluate(CONTRAST) == {}
        with opened(browser, served.url, scheme="dark") as page:
            expect(page.locator("tbody tr")).to_have_count(20)
            assert page.evaluate(CONTRAST) == {}
            # A click on what is wrong leads to where it was worst.
            row(page, "host-17").get_by_role("link", name="Anomalous").click()
            expect(page.locator("h1")).to_have_text("host-17")
            assert "&at=" in page.url


def test_a_fleet_that_is_dead_does_not_look_healthy(
    browser: Browser, brokers: str, topic: str, tmp_path: Path
) -> None:
    hosts = Hosts(5, time.time() - 7200, step=10.0)
    fill_topic(brokers, topic, hosts.records(0, HISTORY))
    own: dict[str, object] = {"brokers": brokers, "topic": topic}
    with (
        Served(tmp_path, "--port", "0", **own, silence=1, interval=10, silence_gone=3600) as served,
        opened(browser, served.url) as page,
    ):
        # The records were read a moment ago, but none has come for longer than readings take.
        expect(page.locator(".tone")).to_contain_text("No data for")
        expect(page.locator(".lead")).to_have_text("No data from all 5 instances")
        assert page.locator(".good").count() == 0
        expect(page.locator("tbody tr").first).to_contain_text("No data for 2 h")


@contextmanager
def served_here(feed: Feed) -> Iterator[str]:
    """Serve the pages of a feed from a thread of this process, and read."""
    listening: Queue[tuple[asyncio.AbstractEventLoop, int]] = Queue()

    def run() -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        server = serve(feed, "127.0.0.1", 0)
        listening.put((loop, server.port))
        loop.run_forever()
        server.stop()
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    loop, port = listening.get(timeout=120)
    feed.start()
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        feed.stop()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def never_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages draw lanes, lines and the order once, and again only for a reason."""
    for module, name in ((overview, "LANES"), (view, "LINES"), (view, "TICK")):
        assert getattr(module, name) >= 10
        monkeypatch.setattr(module, name, 1e9)


class HeldFile(FileFeed):
    """Waits for `go` once it has added so many readings."""

    def __init__(self, settings: Settings, upto: int) -> None:
        super().__init__(settings, keep=1000)
        self._upto = upto
        self.go = threading.Event()

    def _add(self, batch: list[Raw]) -> None:
        super()._add(batch)
        if self.fleet.readings >= self._upto:
            self.go.wait()


def test_once_all_is_read_the_page_is_of_one_moment(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never_by_themselves(monkeypatch)
    hosts = Hosts(30, time.time())
    first = hosts.records(0, HISTORY - 2, dict.fromkeys(hosts.names[25:]))
    rest = hosts.records(HISTORY - 2, HISTORY, {"host-09": 99.0, "host-27": 30.0})
    file = tmp_path / "hosts.jsonl"
    file.write_bytes(b"".join(record + b"\n" for _, record in first + rest))
    feed = HeldFile(Settings(_env_file=None, input=str(file)), upto=len(first) - 200)
    try:
        with served_here(feed) as url, opened(browser, f"{url}?sort=-value") as page:
            expect(page.locator(".tone")).to_contain_text("Loading")
            expect(page.locator(".lead")).to_contain_text("None of 25 instances is anomalous")
            expect(page.get_by_text("Page 1 of 2, 25 instances")).to_be_visible()
            assert page.locator(".lanes li").count() == 0
            feed.go.set()
            expect(page.locator(".tone")).to_contain_text("Complete")
            expect(page.locator(".lead")).to_contain_text("1 anomalous of 30 instances")
            expect(page.get_by_text("Page 1 of 2, 30 instances")).to_be_visible()
            expect(page.locator(".lanes li > a")).to_have_text(["host-09"])
            expect(page.locator("tbody tr").first).to_contain_text("host-09")
            expect(page.locator("tbody tr").nth(1)).to_contain_text("host-27")
            expect(row(page, "host-09").locator(".spark circle").first).to_be_visible()
    finally:
        feed.go.set()


class LateTopic(KafkaFeed):
    """Finds the topic of anomalies once there is `go`: then it is found with all that it holds."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, keep=1000)
        self.go = threading.Event()

    def _add_partitions(self) -> None:
        if self.go.is_set():
            super()._add_partitions()


def test_anomalies_that_come_after_their_readings_are_drawn(
    browser: Browser, brokers: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    never_by_themselves(monkeypatch)
    hosts = Hosts(3, time.time() - 86_400)
    records = hosts.records(0, HISTORY)
    fill_topic(brokers, topic, records)
    written = f"{topic}.anomalies"
    settings = Settings(_env_file=None, brokers=brokers, topic=topic, anomalies_topic=written)
    feed = LateTopic(settings)
    with served_here(feed) as url, opened(browser, url) as page:
        expect(page.locator(".tone")).to_contain_text("Old readings")
        expect(page.locator("tbody tr")).to_have_count(3)
        assert page.locator(".lanes li").count() == 0
        reading = json.loads(records[-1][1])
        anomaly = {
            **{key: reading[key] for key in ("instance", "timestamp", "index")},
            **{"value": reading["value"] / 100, "score": 0.9, "threshold": 0.5, "id": ""},
            **{"expected": None, "lower": None, "upper": None, "detector": "calibrated"},
            "source": {"topic": topic, "partition": 0, "offset": 0},
        }
        fill_topic(brokers, written, [("host-02", json.dumps(anomaly).encode())])
        feed.go.set()
        expect(page.locator(".notes")).to_contain_text("has written 1 of the anomalies")
        expect(page.locator(".lanes li > a")).to_have_text(["host-02"])
        expect(row(page, "host-02").locator(".spark circle")).to_have_count(1)


def test_no_live_stays_below_the_banner_when_the_process_is_gone(
    browser: Browser, brokers: str, topic: str, tmp_path: Path
) -> None:
    fill_topic(brokers, topic, Hosts(2, time.time()).records(HISTORY - 5, HISTORY))
    with Served(tmp_path, "--port", "0", brokers=brokers, topic=topic) as served:
        page = browser.new_page()
        page.goto(served.url)
        expect(page.locator(".tone")).to_contain_text("Live")
        served.process.kill()
        expect(page.locator("#lost")).to_contain_text("No connection", timeout=SECONDS)
        expect(page.locator(".tone")).to_be_hidden()
        page.close()


def test_a_feed_that_has_ended_is_not_alive() -> None:
    class Ending(Feed):
        def run(self) -> None:
            raise UserError("the topic cannot be read.")

    feed = Ending(Settings(_env_file=None), keep=10)
    assert (feed.problem(), feed.stopped()) == (None, None)
    feed.start()
    assert feed._thread is not None
    feed._thread.join(60)
    assert feed.stopped() == feed.problem() == "The feed has stopped. the topic cannot be read."
