"""A verdict given by hand, in a browser."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from browser import PHONE, Served, chromium, opened
from conftest import read_json_lines
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from playwright.sync_api import Browser, expect
from test_verdict_flow import INTERVAL, Judged, day_of, readings

from dataflow.dashboard.instance import _box
from dataflow.dashboard.verdicts import Box
from dataflow.notify.base import link_to
from dataflow.notify.test import example
from dataflow.records import Anomaly, Source, encode
from dataflow.settings import Settings
from dataflow.verdicts.signature import is_valid, signed


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


def prepare(folder: Path) -> list[Anomaly]:
    """Write the readings of one instance, and the anomalies that the flow finds in them."""
    rows = [
        f"{one.index},{one.timestamp},{100 * one.value:.2f},{one.instance}" for one in readings()
    ]
    (folder / "cpu.csv").write_text("\n".join(["index,timestamp,value,instance", *rows, ""]))
    source = Source("cpu.csv", 0, 0)
    found = [
        replace(one, source=source, why=one.why.replace("CPU", "<b>CPU"))
        for one in Judged().run({}, verdicts=False)
    ]
    (folder / "found.jsonl").write_text("".join(f"{encode(one).decode()}\n" for one in found))
    return found


def test_a_verdict_is_given_and_undone_on_the_page(browser: Browser, tmp_path: Path) -> None:
    found = prepare(tmp_path)
    settings = {"input": "cpu.csv", "output": "found.jsonl", "interval": INTERVAL}
    said = tmp_path / "said.jsonl"
    shown = os.environ.get("PICTURES")
    with (
        Served(tmp_path, "--port", "0", "--verdicts", verdicts="said.jsonl", **settings) as served,
    ):
        with opened(browser, f"{served.url}instance?name=web-1") as page:
            asks = page.get_by_role("link", name="Fine?")
            expect(asks).to_have_count(12)
            # The newest anomalies are of day 21, which is the same as those of other days.
            asks.first.click()
            expect(page.locator("body")).to_contain_text("5 of 9 alerts")
            assert not said.exists(), "opening a page says nothing"
            expect(page.locator(".lost tbody tr")).to_have_count(5)
            page.get_by_label("Your name").fill("anna")
            page.get_by_label("Keep it quiet").select_option("for 30 days")
            if shown:
                page.screenshot(path=f"{shown}/asked.png", full_page=True)
            page.get_by_role("button", name="This was fine").click()
            expect(page.get_by_role("button", name="Undo")).to_be_visible()
            expect(page.get_by_role("button", name="This was fine")).not_to_be_visible()
            expect(page.locator("body")).to_contain_text("Kept quiet")
            if shown:
                page.screenshot(path=f"{shown}/given.png", full_page=True)
            (given,) = read_json_lines(said)
            assert (given["verdict"], given["by"]) == ("fine", "anna")
            assert given["id"] in {one.id for one in found if day_of(one) == 21}
            assert given["pattern"]["direction"] == "high"
            assert given["until"]
            page.get_by_role("button", name="Undo").click()
            expect(page.get_by_role("button", name="This was fine")).to_be_visible()
            assert [one["verdict"] for one in read_json_lines(said)] == ["fine", "undo"]
        address = f"{served.url}instance?name=web-1&fine={given['id']}"
        with opened(browser, address, PHONE, "dark") as page:
            expect(page.get_by_role("button", name="This was fine")).to_be_visible()
            if shown:
                page.screenshot(path=f"{shown}/phone.png", full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


@pytest.mark.filterwarnings("ignore:Widget.name:PendingDeprecationWarning")
def test_what_the_flow_has_not_written_cannot_be_called_fine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    options = Settings(_env_file=None, input="cpu.csv", output="found.jsonl", verdicts="said.jsonl")
    box = Box(SimpleNamespace(settings=options), "web-1", "unknown", None)  # type: ignore[arg-type]
    for thread in threading.enumerate():
        if thread.name == "verdict":
            thread.join(60)
    box.renew()
    assert "The flow has not written this anomaly" in box.view[0].object


def test_with_a_key_only_a_signed_link_can_ask(browser: Browser, tmp_path: Path) -> None:
    found = prepare(tmp_path)
    settings = {"input": "cpu.csv", "output": "found.jsonl", "interval": INTERVAL}
    key = "0123456789abcdef"
    incident = replace(example(), instance="web-1", id=found[-1].episode)
    template = "{page}instance?name={instance}&{verdict}"
    with (
        Served(
            *(tmp_path, "--port", "0", "--verdicts"),
            **{"verdicts": "said.jsonl", "verdicts_key": key, **settings},
        ) as served,
    ):
        link = link_to(template.replace("{page}", served.url), incident, key, time.time())
        with opened(browser, link) as page:
            expect(page.get_by_role("button", name="This was fine")).to_be_visible()
            expect(page.get_by_role("link", name="Fine?")).to_have_count(0)
        with opened(browser, link.replace("signature=", "signature=0")) as page:
            expect(page.locator("body")).to_contain_text("This link is not signed")
            expect(page.get_by_role("button", name="This was fine")).not_to_be_visible()
    assert not (tmp_path / "said.jsonl").exists()


@given(st.text(), st.text(), st.floats(0, 1e10), st.integers(0, 10 * 86_400))
def test_a_link_is_valid_for_three_to_four_days_and_for_nothing_else(
    instance: str, name: str, now: float, later: int
) -> None:
    asked = signed("a key", instance, name, now)
    valid = is_valid("a key", instance, **asked, now=now + later)
    assert valid or later > 3 * 86_400
    assert not valid or later < 4 * 86_400 + 1
    for other in (
        asked | {"fine": f"{name}x"},
        asked | {"until": f"{int(asked['until']) + 1}"},
        asked | {"signature": asked["signature"][:-1]},
    ):
        assert not is_valid("a key", instance, **other, now=now)
    assert not is_valid("a key", f"{instance}x", **asked, now=now)
    assert not is_valid("key", instance, **asked, now=now)


@pytest.mark.filterwarnings("ignore:Widget.name:PendingDeprecationWarning")
@pytest.mark.parametrize("asked", [{"fine": "5"}, {"fine_at": "300"}])
def test_without_being_asked_for_the_page_cannot_write(
    asked: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataflow.dashboard.instance.argument", lambda name: asked.get(name, ""))
    options = Settings(_env_file=None, input="cpu.csv", output="a.jsonl", verdicts="b.jsonl")
    feed: Any = SimpleNamespace(verdicts=False, settings=options)
    assert _box(feed, "web-1") is None
    feed.verdicts = True
    assert _box(feed, "web-1") is not None


def test_it_names_the_setting_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from dataflow.cli import main

    prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANOMALY_INPUT", "cpu.csv")
    monkeypatch.setattr("sys.argv", ["ec2-anomaly", "dashboard", "--verdicts"])
    with pytest.raises(SystemExit, match="no verdicts are kept: set ANOMALY_VERDICTS"):
        main()
