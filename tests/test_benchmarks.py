"""The benchmarks work; what they measure is for people to judge, and for no test."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from dataflow import kafka
from dataflow.settings import Settings


def run(script: str, *arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "benchmarks" / script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_comparison_can_be_run_and_compared(brokers: str, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    only = ("confluent", "tutorial, a cluster", "four workers", "memory, two")
    chosen = [word for name in only for word in ("--only", name)]
    table = run("throughput.py", "--quick", "--json", figures, *chosen)
    assert "| ours, tutorial, a cluster of two processes |" in table
    found = json.loads(figures.read_text())
    assert found["rounds"] == 1
    assert found["machine"]["cores"] >= 1
    assert list(found["rows"]) == [
        "tutorial's flow",
        "confluent-kafka loop + River",
        "ours, tutorial, a cluster of two processes",
        "ours, tutorial, one process of four workers",
        "calibrated from memory, two processes",
    ]
    for row in found["rows"].values():
        assert row["records_s"] > 0
        assert row["rss_mb"] > 10
    beside = run(
        *("throughput.py", "--quick", "--compare", figures, "--only", "confluent"),
        *("--brokers", brokers),
    )
    settings = Settings(_env_file=None, brokers=brokers)
    assert not [name for name in kafka.metadata(settings).topics if name.startswith("bench-")]
    assert "CPU against the older run" in beside
    rows = [line for line in beside.splitlines() if line.startswith(("| tut", "| confluent"))]
    assert len(rows) == 2
    assert all(re.search(r"\| x [\d.]+ \|$", row) for row in rows)


def test_a_row_that_fails_says_so_and_leaves_no_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of two processes one fails, while the other would run for ever."""
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    from processes import Run, measure

    lasts = tmp_path / "pid"
    program = f"import os, time; open({str(lasts)!r}, 'w').write(str(os.getpid())); time.sleep(999)"
    fails = "import sys, time; time.sleep(1); sys.exit('it is broken')"
    runs = [Run((sys.executable, "-c", code), {}) for code in (fails, program)]
    with pytest.raises(SystemExit, match=r"error: the row failed.*\n.*it is broken"):
        measure("the row", runs, tmp_path, 60)
    with pytest.raises(ProcessLookupError):
        os.kill(int(lasts.read_text()), 0)


def test_the_start_can_be_measured(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    table = run("start.py", "--quick", "--json", figures)
    assert table.count("\n| ") == 5
    for row in json.loads(figures.read_text())["rows"].values():
        assert 0.05 < row["s"] < 120


def test_the_picture_can_be_drawn_and_drawn_again(tmp_path: Path) -> None:
    figures, first, again = (tmp_path / name for name in ("f.json", "a/first.png", "again.png"))
    small = ("--instances", "10", "--records", "4000", "--rounds", "1")
    table = run("picture.py", first, *small, "--json", figures)
    assert "| ours, calibrated, a cluster of two processes |" in table
    assert list(json.loads(figures.read_text())["sizes"]) == ["10"]
    assert run("picture.py", again, "--show", figures) == table
    assert again.read_bytes() == first.read_bytes()
    assert first.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("script", "lines"), [("snapshots.py", 6), ("detectors.py", 6)])
def test_a_glance_at_snapshots_and_detectors(script: str, lines: int) -> None:
    assert run(script, "--quick").count("\n") >= lines
