"""The live page holds each instance to its rules, as the flow does."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Served, chromium, opened
from bytewax.testing import TestingSink, TestingSource, run_main
from conftest import REPOSITORY
from playwright.sync_api import Browser, expect
from test_fleet import Scripted, reading

from dataflow.dashboard.feed import Feed, FileFeed
from dataflow.dashboard.fleet import Fleet, Silence
from dataflow.dashboard.history import REPORTED, SCORED
from dataflow.dashboard.rules import Ruling
from dataflow.dashboard.trouble import State
from dataflow.errors import UserError
from dataflow.flow import build
from dataflow.formats.files import read_records
from dataflow.incidents.maintenance import Window
from dataflow.records import Raw, encode
from dataflow.recovery.places import version_of
from dataflow.rules.watch import Watch
from dataflow.settings import Settings
from dataflow.steps import score

SAMPLE = REPOSITORY / "data" / "ec2_metrics.csv"

RULES = """
[higher]
instances = "7d12f9"
threshold = 0.6
maintenance = "2025-03-01T00:00/2025-03-30T00:00"
team = "shop"
[up]
instances = "3*"
direction = "high"
[lower]
instances = "b*"
threshold = 0.3
[all]
least = 5
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


def write_some(folder: Path) -> None:
    """Write 1,500 steps of four instances, of which each has another rule, and the rules."""
    names = ("7d12f9", "3fb07c", "b81d56", "946ac3")
    with SAMPLE.open() as lines:
        head = next(lines)
        some = [line for line in lines if line.rstrip().endswith(names)]
    (folder / "cpu.csv").write_text(head + "".join(islice(some, 4 * 1500)))
    (folder / "rules.toml").write_text(RULES)


def run_flow_of(options: Settings, output: Path) -> list[Any]:
    """Run the flow over the input file here, and write its anomalies."""
    found: list[Any] = []
    raw = list(read_records(Path(options.input)))
    source = TestingSource(raw, batch_size=300)
    sinks: dict[str, Any] = {"write_anomalies": TestingSink(found)}
    run_main(build(options, score.detector(options), None, source=source, outputs=sinks))
    output.write_text("".join(f"{encode(record).decode()}\n" for _, record in found))
    return [record for _, record in found]


def test_what_it_marks_is_what_the_flow_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watch, "start", lambda self: None)
    monkeypatch.chdir(tmp_path)
    write_some(tmp_path)
    own = {"input": "cpu.csv", "output": "found.jsonl", "rules": "rules.toml"}
    options = Settings(_env_file=None, **own)
    written = run_flow_of(options, tmp_path / "found.jsonl")
    feed = FileFeed(options, keep=2000)
    feed.run()
    assert feed.fleet.reported == len(written) > 0
    assert feed.rules_of_flow == feed.rules.version == version_of(RULES.encode())
    thresholds, of_one = {}, 0
    for instance in {one.instance for one in written}:
        marks = feed.fleet.rows(instance)["mark"]
        np.testing.assert_array_equal(marks[marks > 0], np.uint8(SCORED | REPORTED))
        thresholds[instance] = feed.fleet.ruling(instance).threshold
        of_one += int((marks > 0).sum())
    assert of_one == len(written)
    assert thresholds == {one.instance: one.threshold for one in written}
    assert set(thresholds.values()) == {0.3, 0.5, 0.6}


def test_a_change_applies_from_the_next_reading_on_and_a_bad_file_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    watches: list[Watch] = []
    monkeypatch.setattr(Watch, "start", lambda self: watches.append(self))
    path = tmp_path / "rules.toml"
    path.write_text("[all]\nthreshold = 0.99\n")
    options = Settings(_env_file=None, rules=str(path), detector="zscore", threshold=0.5)
    feed = Feed(options, keep=1000)
    (watch,) = watches

    def take(first: int, last: int) -> list[int]:
        """Let every hundredth reading stand out; return the offsets of all anomalies."""
        records = (
            {"instance": "a", "timestamp": 300 * at, "index": at, "value": value}
            for at in range(first, last)
            for value in [99.0 if at % 100 == 99 else at % 3]
        )
        raw = [Raw(0, at, json.dumps(one).encode()) for at, one in enumerate(records, start=first)]
        feed.take(raw)
        rows = feed.fleet.rows("a")
        return (rows["place"][rows["mark"] > 0] / 300).astype(int).tolist()

    def change(text: str) -> None:
        path.write_text(text)
        watch.look()
        watch.look()

    assert take(0, 200) == []
    change("[all]\nthreshold = 0.6\n")
    version = version_of(path.read_bytes())
    assert (feed.rules.version, feed.rules.wrong) == (version, "")
    assert feed.fleet.ruling("a").threshold == 0.99
    assert take(200, 400) == [299, 399]
    assert feed.fleet.ruling("a")[:1] + feed.fleet.ruling("a")[2:3] == (0.6, version)
    change("[all]\nthreshold = 6\n")
    assert "threshold must be" in feed.rules.wrong
    assert feed.rules.version == version
    assert take(400, 500) == [299, 399, 499]
    assert feed.fleet.ruling("a").threshold == 0.6
    change("[all]\nthreshold = 0.99\n")
    assert (feed.rules.version == version, feed.rules.wrong) == (False, "")
    # A topic that was created again has the same offsets, to which the last version applies.
    change("[all]\nthreshold = 0.5\n")
    with feed.lock:
        feed.begin(whole=True)
    assert take(0, 200) == [99, 199]
    assert capsys.readouterr().err.count("warning: ") == 1
    path.write_text("[all]\nthreshold = 6\n")
    with pytest.raises(UserError, match="threshold must be a number above 0 and below 1"):
        Feed(options, keep=100)


def test_trouble_within_maintenance_is_none_to_act_on() -> None:
    window = Window(600.0, 1500.0)
    ruling = lambda _: Ruling(0.5, windows=(window,))  # noqa: E731
    fleet = Fleet(Scripted(), keep=100, ruling=ruling, silence=Silence(3, 300.0))

    def after(number: int, score: float, present: float | None = None) -> tuple[State, Any]:
        fleet.add(reading("a", number, score, 300.0 * number))
        row = fleet.row("a", present)
        return row.state, row.maintained

    assert after(0, 0.1) == (State.ORDINARY, None)
    assert after(2, 0.9) == (State.MAINTAINED, 2100.0)
    assert after(6, 0.9) == (State.MAINTAINED, 2100.0)
    assert after(7, 0.9) == (State.TROUBLED, None)
    silent = Fleet(Scripted(), keep=100, ruling=ruling, silence=Silence(3, 300.0))
    silent.add(reading("a", 0, 0.1, 0.0))
    states = [silent.row("a", present).state for present in (800.0, 1000.0, 2000.0, 2200.0)]
    assert states == [State.ORDINARY, State.MAINTAINED, State.MAINTAINED, State.TROUBLED]
    before = Fleet(Scripted(), keep=100, ruling=ruling)
    for number in range(4):
        before.add(reading("a", number, 0.9, 300.0 * number))
    assert before.row("a").state is State.TROUBLED, "it began before the window"


LIMITS = (
    "() => Bokeh.documents.flatMap(d => [...d._all_models.values()])"
    ".filter(m => m.type === 'Span').map(m => m.location)"
)


def test_it_shows_the_rule_of_an_instance_and_the_version(browser: Browser, tmp_path: Path) -> None:
    write_some(tmp_path)
    shown = os.environ.get("PICTURES")
    rules = tmp_path / "rules.toml"
    version = version_of(rules.read_bytes())
    settings = {"input": "cpu.csv", "output": "none.jsonl", "rules": rules}
    with Served(tmp_path, "--port", "0", **settings) as served:
        served.expected = "the rules in "
        for name in ("", "instance?name=b81d56&range=All") if shown else ():
            with opened(browser, served.url + name) as page:
                page.wait_for_timeout(3000)
                page.screenshot(path=f"{shown}/ruled-{name[14:20] or 'all'}.png", full_page=True)
        with opened(browser, f"{served.url}instance?name=7d12f9&range=All", scheme="dark") as page:
            expect(page.locator(".facts")).to_contain_text(f"rules {version}")
            rule = page.locator(".ruled")
            expect(rule).to_contain_text(f"Rules {version}: threshold 0.6 (higher)")
            expect(rule).to_contain_text("at least 5 from what is expected (all)")
            expect(rule).to_contain_text("in maintenance until 03-30 00:00 (higher)")
            threshold = page.locator("dd small").filter(has_text="threshold")
            expect(threshold).to_have_text("threshold 0.6")
            page.wait_for_function(f"({LIMITS})()[0] === 0.6")
            if shown:
                page.wait_for_timeout(2000)
                page.screenshot(path=f"{shown}/ruled-dark.png", full_page=True)
            rules.write_text("[all]\nthreshold = 5\n")
            expect(page.locator(".notes")).to_contain_text("The file cannot be used now")
            rules.write_text("[all]\nthreshold = 0.6\n")
            later = version_of(rules.read_bytes())
            expect(page.locator(".facts")).to_contain_text(f"rules {later}")
            expect(page.locator(".notes")).not_to_contain_text("cannot be used")
