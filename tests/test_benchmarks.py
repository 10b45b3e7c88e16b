"""The benchmarks work; what they measure is for people to judge, and for no test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from conftest import REPOSITORY


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


def test_the_comparison_can_be_run_and_compared(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    only = ("--only", "tutorial", "--only", "confluent")
    table = run("throughput.py", "--quick", "--json", figures, *only)
    assert "| ours, tutorial |" in table
    found = json.loads(figures.read_text())
    assert found["rounds"] == 1
    assert found["machine"]["cores"] >= 1
    assert list(found["rows"]) == [
        "tutorial's flow",
        "confluent-kafka loop + River",
        "ours, tutorial",
    ]
    for row in found["rows"].values():
        assert row["records_s"] > 0
        assert row["rss_mb"] > 10
    beside = run("throughput.py", "--quick", "--compare", figures, "--only", "tutorial's")
    assert "CPU against the older run" in beside


def test_the_cost_of_snapshots_can_be_told() -> None:
    table = run("snapshots.py", "--rounds", "1", "--keys", "20", "--epochs", "2")
    assert table.count("\n| ") == 5
