"""The live page as people use it: `python -m dataflow dashboard` and a browser."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from bokeh.util.token import generate_jwt_token, generate_session_id
from browser import CHART, PHONE, SECONDS, Served, chromium, opened
from conftest import (
    REPOSITORY,
    Flow,
    PausableBroker,
    fill_topic,
    free_port,
    read_json_lines,
)
from feeds import Row, streams
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page, expect

from dataflow.commands.dashboard import dashboard, feed_of
from dataflow.dashboard.feed import FileFeed
from dataflow.dashboard.history import REPORTED, SCORED
from dataflow.dashboard.intake import Intake
from dataflow.dashboard.kafka_feed import KafkaFeed
from dataflow.demo.sample_fleet import Fleet
from dataflow.errors import UserError
from dataflow.records import Raw, seconds
from dataflow.settings import Settings

SAMPLE = REPOSITORY / "data" / "ec2_metrics.csv"
FEW = list(Fleet(1).records(0, 12))
HOSTILE = '<img src=x onerror="document.title=1">&?name=b'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


def title(page: Page) -> Any:
    return page.locator(".status .tone")


def rows(page: Page) -> Any:
    return page.locator("tbody tr")


def cells(page: Page, field: str) -> list[str]:
    found: list[str] = page.locator(f'tbody [data-field="{field}"]').all_inner_texts()
    return found


def until(page: Page, condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + SECONDS / 1000
    while not condition():
        assert time.monotonic() < deadline, what
        page.wait_for_timeout(100)


def readings(page: Page) -> int:
    found = re.search(r"([\d,]+) readings?", page.locator(".facts").inner_text())
    return int(found[1].replace(",", "")) if found else 0


def no_wider_than_the_screen(page: Page) -> bool:
    return bool(
        page.evaluate(
            "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        )
    )


def is_still(page: Page) -> bool:
    before = page.evaluate(CHART)["range"]
    page.wait_for_timeout(1000)
    return bool(page.evaluate(CHART)["range"] == before)


def test_it_follows_what_comes_and_outlives_the_broker(
    browser: Browser, own_broker: PausableBroker, tmp_path: Path
) -> None:
    fleet = Fleet(3)

    def write(first: int, last: int) -> None:
        fill_topic(own_broker.address, "cpu", list(fleet.records(first, last)))

    with (
        Served(tmp_path, "--port", "0", brokers=own_broker.address, topic="cpu") as served,
        opened(browser, served.url) as page,
    ):
        page.evaluate("window.loaded = 'once'")
        expect(title(page)).to_contain_text("No topic yet")
        fill_topic(own_broker.address, "cpu", [])
        expect(title(page)).to_contain_text("No readings yet")
        expect(page.locator(".blank")).to_contain_text("The topic cpu on")
        write(0, 400)
        expect(title(page)).to_contain_text("Old readings")
        expect(rows(page)).to_have_count(3)
        until(page, lambda: readings(page) == 1200, "all readings are there")

        own_broker.wait_until_kept("cpu")
        own_broker.kill()
        expect(title(page)).to_contain_text("Broker gone")
        expect(page.locator(".say.trouble")).to_contain_text("The page shows earlier readings")
        expect(rows(page)).to_have_count(3)
        own_broker.start()
        write(400, 500)
        expect(title(page)).to_contain_text("Old readings")
        until(page, lambda: readings(page) >= 1500, "it goes on where it was")
        assert page.evaluate("window.loaded") == "once"

        page.get_by_role("link", name="3fb07c").click()
        expect(page.locator("h1")).to_have_text("3fb07c")
        page.wait_for_selector("#loading", state="detached")
        until(page, lambda: len(page.evaluate(CHART).get("times", [])) == 288, "a day is drawn")
        before = page.evaluate(CHART)
        write(500, 510)
        last = before["times"][-1] + 10 * 300_000
        until(page, lambda: page.evaluate(CHART)["times"][-1] == last, "it is drawn")
        # The axis follows in a message of its own, which may come after that of the data.
        until(page, lambda: page.evaluate(CHART)["range"][1] > before["range"][1], "it follows")

        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_role("button", name="Resume")).to_be_visible()
        paused = page.evaluate(CHART)
        write(510, 520)
        expect(page.get_by_role("button", name="Resume (10 new)")).to_be_visible(timeout=SECONDS)
        assert page.evaluate(CHART) == paused
        page.get_by_role("button", name="Resume").click()
        until(page, lambda: page.evaluate(CHART)["times"][-1] > paused["times"][-1], "resumed")

        page.get_by_role("button", name="6 h").click()
        until(page, lambda: len(page.evaluate(CHART)["times"]) == 72, "six hours are drawn")

        # Who zooms stays there, whatever comes, until a range is chosen again.
        until(page, lambda: is_still(page), "the axis has followed")
        shown = page.evaluate(CHART)
        box = page.locator(".bk-events").first.bounding_box()
        assert box
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 100)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 100, steps=5)
        page.mouse.up()
        until(page, lambda: page.evaluate(CHART)["range"] != shown["range"], "panned")
        until(page, lambda: is_still(page), "the last step of the mouse is drawn")
        moved = page.evaluate(CHART)
        write(520, 530)
        until(page, lambda: page.evaluate(CHART)["times"][-1] > moved["times"][-1], "it came")
        assert page.evaluate(CHART)["range"] == moved["range"]
        page.get_by_role("button", name="1 d").click()
        until(page, lambda: page.evaluate(CHART)["range"][1] > moved["range"][1], "it follows")


def test_two_thousand_instances(browser: Browser, brokers: str, topic: str, tmp_path: Path) -> None:
    fleet = Fleet(2000)
    fill_topic(brokers, topic, list(fleet.records(0, 20)))
    stop = threading.Event()

    def produce() -> None:
        for index in range(20, 10_000):
            if stop.is_set():
                return
            fill_topic(brokers, topic, list(fleet.records(index, index + 1)))
            stop.wait(1)

    producer = threading.Thread(target=produce)
    with (
        Served(tmp_path, "--port", "0", brokers=brokers, topic=topic) as served,
        opened(browser, served.url) as page,
    ):
        expect(title(page)).to_contain_text("Old readings")
        expect(page.locator(".facts")).to_contain_text("2,000 instances")
        producer.start()
        try:
            # Each of three times a second's two thousand readings: the update keeps arriving.
            for _ in range(3):
                seen = readings(page)
                until(page, lambda seen=seen: readings(page) >= seen + 2000, "it keeps up")
            assert rows(page).count() == 20
            assert page.evaluate("document.querySelectorAll('*').length") < 2000

            page.get_by_role("button", name="CPU %").click()
            until(page, lambda: _ordered(cells(page, "value")[::-1]), "sorted by CPU")
            high = cells(page, "value")
            page.get_by_role("button", name="CPU %").click()
            until(
                page,
                lambda: _ordered(cells(page, "value")) and cells(page, "value") != high,
                "sorted the other way",
            )
            page.get_by_role("button", name="Next").click()
            expect(page.get_by_text("Page 2 of 100, 2,000 instances")).to_be_visible()

            search = page.get_by_placeholder("Find an instance")
            search.press_sequentially("3FB07")
            until(page, lambda: cells(page, "instance") == ["3fb07c"], "found")
            search.fill("nothing like it")
            expect(page.locator(".nothing")).to_have_text("No instance matches nothing like it")
            search.fill("")
            expect(rows(page)).to_have_count(20)
        finally:
            stop.set()
            producer.join()


def ask(url: str, path: str = "/", host: str | None = None, **headers: str) -> tuple[int, str]:
    """Ask for a path as a client that sends these headers; return the status and the answer."""
    place = urlsplit(url).netloc
    with contextlib.closing(HTTPConnection(place, timeout=60)) as client:
        client.request("GET", path, headers={"Host": place if host is None else host, **headers})
        answer = client.getresponse()
        if answer.status == 101:
            return 101, ""
        return answer.status, answer.read().decode(errors="replace")


def upgrade(url: str, origin: str, host: str | None = None) -> tuple[int, str]:
    """Ask for a session's websocket, as a browser does for a page of this origin."""
    token = generate_jwt_token(generate_session_id(None, False))
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Origin": origin}
    headers |= {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
    return ask(url, "/ws", host, **headers, **{"Sec-WebSocket-Protocol": f"bokeh, {token}"})


def _ordered(texts: list[str]) -> bool:
    numbers = [float(text) for text in texts]
    return len(numbers) == 20 and numbers == sorted(numbers)


def test_light_dark_and_a_phone(browser: Browser, tmp_path: Path) -> None:
    small = tmp_path / "small.csv"
    with SAMPLE.open() as lines:
        small.write_text("".join(line for line, _ in zip(lines, range(8001), strict=False)))
    with small.open("a") as more:
        name = HOSTILE.replace('"', '""')
        more.writelines(f'{i},2025-03-06 1{i}:00:00,5,"{name}"\n' for i in range(3))
    ground = "getComputedStyle(document.body).backgroundColor"
    with Served(tmp_path, "--port", "0", input=small, output="none.jsonl") as served:
        with opened(browser, served.url, PHONE, "dark") as page:
            expect(title(page)).to_contain_text("Complete")
            expect(rows(page)).to_have_count(9)
            assert page.evaluate(ground) == "rgb(20, 24, 28)"
            assert no_wider_than_the_screen(page)
            assert HOSTILE in cells(page, "instance")
            page.get_by_role("link", name=HOSTILE).click()
            expect(page.locator("h1")).to_have_text(HOSTILE)
            page.wait_for_selector("#loading", state="detached")
            until(page, lambda: len(page.evaluate(CHART).get("times", [])) == 3, "drawn")
            assert page.title() == HOSTILE
            assert no_wider_than_the_screen(page)
            colors = (
                "() => Bokeh.documents.flatMap(d => [...d._all_models.values()])"
                ".filter(m => m.type === 'Figure').map(m => m.background_fill_color)"
            )
            assert set(page.evaluate(colors)) == {"#14181c"}
            with page.expect_navigation():
                page.get_by_role("button", name="Light or dark").click()
            page.wait_for_selector("#loading", state="detached")
            assert page.evaluate(ground) == "rgb(255, 255, 255)"
            until(page, lambda: set(page.evaluate(colors)) == {"#ffffff"}, "the chart too")
            page.get_by_role("link", name="All instances").click()
            expect(rows(page)).to_have_count(9)
            assert page.evaluate(ground) == "rgb(255, 255, 255)"
        with opened(browser, f"{served.url}instance?name=missing") as page:
            expect(page.locator(".blank")).to_contain_text("No reading of missing yet")


EVERYWHERE = [
    *("/", "/instance?name=3fb07c", "/ws", "/static/js/bokeh.min.js", "/favicon.ico"),
    *("/autoload.js?bokeh-autoload-element=1", "/metadata", "/nowhere"),
    "/static/extensions/panel/panel.min.js",
]


def test_it_answers_under_its_own_names_only(tmp_path: Path) -> None:
    small = write_small(tmp_path)
    origins = ["--origin", "https://metrics.example.org", "--origin", "other.example:8443"]
    with Served(tmp_path, "--port", "0", *origins, input=small) as served:
        served.expected = "warning: the page is not served under the name "
        port = urlsplit(served.url).port
        evil = [f"evil.example:{port}", "evil.example", f"localhost.evil.example:{port}"]
        for path in EVERYWHERE:
            for host in evil:
                # A page whose name leads here: to the browser, all of it is of one origin.
                for headers in ({}, {"Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}):
                    status, said = ask(served.url, path, host, **headers)
                    assert status == 403
                    assert len(said.splitlines()) == 1
                    assert "3fb07c" not in said
        status, said = ask(served.url, host=evil[0])
        assert said == (
            f"the page is not served under the name {evil[0]}: to serve it, restart the dashboard "
            f"with --origin {evil[0]}.\n"
        )
        for host in evil:
            assert upgrade(served.url, f"http://{host}", host)[0] == 403
            # A proxy that lets every name in, and asks us by our address.
            assert upgrade(served.url, f"http://{host}")[0] == 403
        mine = f"http://localhost:{port}"
        for host, origin in (
            *((f"127.0.0.1:{port}", mine), (f"localhost:{port}", mine), (f"[::1]:{port}", mine)),
            ("metrics.example.org", "https://metrics.example.org"),
            (f"127.0.0.1:{port}", "https://metrics.example.org"),
            ("other.example:8443", "https://other.example:8443"),
            ("other.example", "https://other.example:8443"),
        ):
            assert ask(served.url, host=host)[0] == 200
            assert upgrade(served.url, origin, host)[0] == 101
        # What nobody uses is not served: each of its answers would open a page.
        assert ask(served.url, EVERYWHERE[5])[0] == 404
        warnings = [line for line in served.said().splitlines() if line.startswith("warning: ")]
        assert len(warnings) == len(set(warnings))
        assert warnings[0].endswith(f"restart the dashboard with --origin {evil[0]}.")


def test_what_is_no_origin_is_refused_in_one_line(run_command: Any) -> None:
    done = run_command("dashboard", "--port", "0", "--origin", "https://", input=SAMPLE)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "--origin 'https://' is not a name under which browsers open a page" in done.stderr


def test_pages_are_bounded_and_their_memory_comes_back(browser: Browser, tmp_path: Path) -> None:
    fleet = tmp_path / "fleet.csv"
    rows = [f"{i},{1_700_000_000 + 300 * i},50,host-{n}\n" for i in range(2) for n in range(2000)]
    fleet.write_text("index,timestamp,value,instance\n" + "".join(rows))
    with Served(tmp_path, "--port", "0", input=fleet) as served:
        with opened(browser, served.url) as page:
            expect(title(page)).to_contain_text("Complete")
            before = served.memory()
            with ThreadPoolExecutor(150) as pool:
                answers = list(pool.map(lambda _: ask(served.url), range(150)))
            assert {status for status, _ in answers} == {200, 503}
            assert "32 pages are open, which is the limit" in dict(answers)[503]
            # Whoever has a page keeps it.
            expect(page.locator("#lost")).to_be_hidden()
        # Pages that no browser shows any more are forgotten, and others have room.
        deadline = time.monotonic() + 120
        while ask(served.url)[0] != 200:
            assert time.monotonic() < deadline, "no page is forgotten"
            time.sleep(0.5)
        while served.memory() > before + 60:
            assert time.monotonic() < deadline, f"{before} MB became {served.memory()} MB"
            time.sleep(0.5)


NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
{site}
}}
"""


def nginx_of_the_page() -> str:
    """What the documentation has nginx do."""
    text = (REPOSITORY / "docs" / "dashboard.md").read_text()
    (found,) = re.findall(r"```nginx\n(.*?)```", text, re.DOTALL)
    return str(found)


@pytest.mark.parametrize("below", ["/", "/anomalies/"])
def test_behind_a_proxy_with_https_and_another_name(
    browser: Browser, tmp_path: Path, below: str
) -> None:
    if not (nginx := shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")):
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    port = free_port()
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=metrics.example.org", "-keyout", "key.pem", "-out", "cert.pem"),
        ],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    outside = f"https://metrics.example.org:{port}{below}"
    with Served(
        tmp_path, "--port", "0", "--origin", outside, input=write_small(tmp_path)
    ) as served:
        site = nginx_of_the_page()
        for old, new in (
            ("listen 443", f"listen 127.0.0.1:{port}"),
            ("/etc/ssl/metrics.example.org", str(tmp_path)),
            ("http://127.0.0.1:5006", served.url.rstrip("/")),
            ("location / {", f"location {below} {{"),
        ):
            assert old in site
            site = site.replace(old, new)
        config = tmp_path / "nginx.conf"
        config.write_text(NGINX.format(folder=tmp_path, site=site))
        with subprocess.Popen([nginx, "-c", str(config)]) as proxy:
            try:
                deadline = time.monotonic() + 120
                with socket.socket() as client:
                    while client.connect_ex(("127.0.0.1", port)):
                        assert proxy.poll() is None
                        assert time.monotonic() < deadline, "nginx does not start"
                        time.sleep(0.1)
                context = browser.new_context(ignore_https_errors=True)
                page = context.new_page()
                page.goto(outside)
                expect(title(page)).to_contain_text("Complete")
                expect(rows(page)).to_have_count(8)
                page.get_by_role("link", name="3fb07c").click()
                expect(page).to_have_url(f"{outside}instance?name=3fb07c")
                until(page, lambda: len(page.evaluate(CHART).get("times", [])) > 10, "drawn")
                context.close()
            finally:
                proxy.terminate()


def write_small(folder: Path) -> Path:
    """The beginning of the sample."""
    small = folder / "small.csv"
    with SAMPLE.open() as lines:
        small.write_text("".join(line for line, _ in zip(lines, range(2001), strict=False)))
    return small


def test_the_process_that_serves_it_goes_and_comes(browser: Browser, tmp_path: Path) -> None:
    port = str(free_port())
    with Served(tmp_path, "--port", port, input=SAMPLE) as served:
        context = browser.new_context()
        page = context.new_page()
        page.goto(served.url)
        expect(rows(page)).to_have_count(8)
        served.process.kill()
        expect(page.locator("#lost")).to_contain_text("No connection")
    with Served(tmp_path, "--port", port, input=SAMPLE):
        expect(page.locator("#lost")).to_be_hidden(timeout=SECONDS)
        expect(rows(page)).to_have_count(8)
        context.close()


def assert_same_scores(run_flow: Flow, folder: Path, source: Path, detector: str) -> None:
    """The page computes what the flow writes of a file."""
    own = {"input": str(source), "output": "found.jsonl", "detector": detector}
    assert run_flow(**own).returncode == 0
    written = read_json_lines(folder / "found.jsonl")
    settings = Settings(_env_file=None, **own)
    alone = FileFeed(settings.model_copy(update={"output": "stdout"}), keep=5000)
    both = FileFeed(settings, keep=5000)
    for feed in (alone, both):
        feed.run()
    assert both.fleet.reported == len(written) > 0
    for instance in {line["instance"] for line in written}:
        marked, reported = (feed.fleet.rows(instance) for feed in (alone, both))
        # What is computed here and what the flow wrote are the same readings, and the same to the
        # last bit that is kept; nothing is found here that the flow did not find, nor the other
        # way round.
        np.testing.assert_array_equal((marked["mark"] == SCORED), (reported["mark"] > 0))
        np.testing.assert_array_equal(
            reported["mark"][reported["mark"] > 0], np.uint8(SCORED | REPORTED)
        )
        for name in ("place", "value", "score", "expected", "lower", "upper"):
            np.testing.assert_array_equal(marked[name], reported[name])


@pytest.mark.parametrize("detector", ["calibrated", "tutorial", "isolation-forest"])
def test_its_scores_are_the_flow_s(run_flow: Flow, tmp_path: Path, detector: str) -> None:
    lines = SAMPLE.read_text().splitlines(keepends=True)
    some = tmp_path / "some.csv"
    # Of a forest, one window and the beginning of another will do.
    some.write_text("".join(lines[:9001] if detector == "isolation-forest" else lines))
    assert_same_scores(run_flow, tmp_path, some, detector)


def test_its_scores_of_a_feed_are_the_flow_s(run_flow: Flow, tmp_path: Path) -> None:
    """A record holds the readings of two times, the newer ones first, as CloudWatch has them."""
    with SAMPLE.open(newline="") as file:
        rows = [
            Row(one["instance"], round(seconds(one["timestamp"])), float(one["value"]))
            for one in islice(csv.DictReader(file), 16 * 500)
        ]
    feed = tmp_path / "stream.out"
    with feed.open("w") as file:
        for begin in range(0, len(rows), 16):
            record = [one for row in rows[begin : begin + 16][::-1] for one in streams(row)]
            file.write("".join(map(json.dumps, record)) + "\n")
    assert_same_scores(run_flow, tmp_path, feed, "tutorial")


def test_from_the_middle_only_what_the_flow_wrote_is_an_anomaly(
    brokers: str, topic: str, tmp_path: Path
) -> None:
    fill_topic(brokers, topic, list(Fleet(2).records(0, 300)))
    time.sleep(0.05)
    since = time.time()
    time.sleep(0.05)
    fill_topic(brokers, topic, list(Fleet(2).records(300, 500)))
    settings = Settings(_env_file=None, brokers=brokers, topic=topic, anomalies_topic=f"{topic}.a")
    feed = KafkaFeed(settings, keep=1000, since=since)
    feed.start()
    try:
        deadline = time.monotonic() + 120
        while feed.fleet.readings < 400 or feed.condition.title != "Live":
            assert time.monotonic() < deadline, feed.condition
            time.sleep(0.05)
        assert feed.fleet.readings == 400
        assert not feed.fleet.whole
        assert feed.generation == 1
        rows = feed.fleet.rows("3fb07c")
        assert not rows["mark"].any()
        row = rows[150]
        anomaly = {
            **{"instance": "3fb07c", "timestamp": float(row["place"]), "index": 450},
            **{"value": float(row["value"]), "score": 0.9, "threshold": 0.5, "id": ""},
            **{"expected": None, "lower": None, "upper": None, "detector": "calibrated"},
            "source": {"topic": topic, "partition": 0, "offset": 0},
        }
        foreign = {**anomaly, "source": {"topic": "another", "partition": 0, "offset": 0}}
        # The topic of the anomalies is made while the feed runs.
        lines = [("3fb07c", json.dumps(it).encode()) for it in (anomaly, foreign)]
        fill_topic(brokers, f"{topic}.a", lines)
        while not feed.fleet.reported:
            assert time.monotonic() < deadline, feed.condition
            time.sleep(0.05)
        with feed.lock:
            marked = feed.fleet.rows("3fb07c")["mark"]
        assert marked.nonzero()[0].tolist() == [150]
        assert feed.fleet.reported == 1
        # They are all there: what pages have drawn is of before.
        while feed.generation < 2:
            assert time.monotonic() < deadline, feed.condition
            time.sleep(0.05)
        # What comes from now on changes nothing of that.
        fill_topic(brokers, f"{topic}.a", lines)
        fill_topic(brokers, topic, list(Fleet(2).records(500, 510)))
        while feed.fleet.reported < 2 or feed.fleet.readings < 420:
            assert time.monotonic() < deadline, feed.condition
            time.sleep(0.05)
        assert feed.generation == 2
    finally:
        feed.stop()


def test_it_refuses_an_address_of_another_machine_in_one_line(run_command: Any) -> None:
    done = run_command("dashboard", "--host", "203.0.113.1")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "choose another with --port or --host" in done.stderr


def test_it_refuses_a_time_that_is_none() -> None:
    with pytest.raises(UserError, match="--since yesterday is not a time"):
        dashboard(since="yesterday")


def test_it_names_the_extra_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "panel", None)
    with pytest.raises(UserError, match=r"pip install '\.\[dashboard\]'"):
        feed_of(Settings(_env_file=None), 10, None)


@given(st.permutations(range(12)))
def test_readings_of_several_partitions_are_put_into_order(order: list[int]) -> None:
    settings = Settings(_env_file=None, reorder=True, reorder_size=20)
    intake = Intake(settings)
    records = [record for _, record in FEW]
    out = [
        reading.index
        for offset in order
        for reading in intake.readings(Raw(offset % 3, offset, records[offset]))
    ]
    assert out == list(range(12))
    assert list(intake.rest()) == []


def test_it_refuses_a_file_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"cannot read missing\.csv"):
        FileFeed(Settings(_env_file=None, input="missing.csv"), 10)
