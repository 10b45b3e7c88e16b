"""The benchmarks work; what they measure is for people to judge, and for no test."""

from __future__ import annotations

import csv
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


@pytest.mark.usefixtures("needs_bytewax")
def test_the_comparison_can_be_run_and_compared(brokers: str, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    only = ("confluent", "tutorial, a cluster", "memory, one")
    chosen = [word for name in only for word in ("--only", name)]
    table = run("throughput.py", "--quick", "--json", figures, *chosen)
    assert "| ours, tutorial, a cluster of two processes | " in table
    # How fast the machine is decides whether a row has figures.
    assert (" | ? |" in table) == ("too few records for a figure" in table)
    found = json.loads(figures.read_text())
    assert found["rounds"] == 1
    assert found["machine"]["cores"] >= 1
    assert list(found["rows"]) == [
        "tutorial's flow",
        "confluent-kafka loop + River",
        "ours, tutorial, a cluster of two processes",
        "calibrated from memory, one process",
    ]
    for row in found["rows"].values():
        assert row["records_s"] > 0
        assert row["rss_mb"] > 10
    beside = run(
        *("throughput.py", "--quick", "--compare", figures, "--only", "tutorial's"),
        *("--brokers", brokers),
    )
    settings = Settings(_env_file=None, brokers=brokers)
    assert not [name for name in kafka.metadata(settings).topics if name.startswith("bench-")]
    assert "CPU against the older run" in beside
    (row,) = (line for line in beside.splitlines() if line.startswith("| tut"))
    beside_it = row.split("|")[-2].strip()
    # Too few records for a figure; on a slow machine they take long enough for one.
    assert not beside_it or beside_it.startswith("x "), row


@pytest.mark.usefixtures("needs_bytewax")
def test_formats_can_be_compared(brokers: str, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    only = ("--only", "lines", "--only", "only CPU", "--only", "protobuf, 1 CPU")
    table = run("formats.py", "--quick", "--json", figures, "--brokers", brokers, *only)
    rows = json.loads(figures.read_text())["rows"]
    assert list(rows) == [
        "JSON, flat",
        "Telegraf, influx lines",
        "CloudWatch stream, JSON, only CPU",
        "OTLP, protobuf, 1 CPU of 8 states",
    ]
    assert all(f"| {name} | " in table for name in rows)
    settings = Settings(_env_file=None, brokers=brokers)
    assert not [name for name in kafka.metadata(settings).topics if name.startswith("bench-")]


def test_figures_are_shown_where_there_are_enough_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row whose records took less than a fifth of its start has none, and it says so."""
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    from processes import Cost
    from throughput import caution, medians, table

    start = Cost(cpu=1.0, wall=2.0, memory=50_000_000)
    rounds = [
        {
            "tutorial's flow": (start, Cost(cpu=11.0 + more, wall=12.0, memory=90_000_000)),
            "quick": (start, Cost(cpu=2.0, wall=3.0, memory=60_000_000)),
            "lost": (start, Cost(cpu=1.1 + more, wall=3.0, memory=60_000_000)),
        }
        for more in (0.0, -0.05, 0.05)
    ]
    figures = medians(rounds, 1_000_000)
    shown = table(figures, {}).splitlines()[2:]
    assert shown == [
        "| tutorial's flow | 1.0 (100,000/s) | 10.00 | 1.0 | 90 |",
        "| quick | 10.0 (1,000,000/s) | 1.00 | 10.0 | 60 |",
        "| lost | ? | ? | ? | 60 |",
    ]
    assert "too few records for a figure" in caution(figures)
    assert table(figures, {"quick": {"cpu_x": 5.0}}).splitlines()[3].endswith("| x 0.50 |")
    del figures["lost"]
    assert not caution(figures)
    figures["tutorial's flow"]["share"] = 0.1
    assert "| quick | ? | ? | ? | 60 |" in table(figures, {})


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


@pytest.mark.usefixtures("needs_bytewax")
def test_the_start_can_be_measured(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    table = run("start.py", "--quick", "--json", figures)
    assert table.count("\n| ") == 5
    for row in json.loads(figures.read_text())["rows"].values():
        assert 0.05 < row["s"] < 120


@pytest.mark.usefixtures("needs_bytewax")
def test_many_partitions_can_be_measured_beside_another_version(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    table = run("partitions.py", "--quick", "--against", REPOSITORY, "--json", figures)
    assert table.count("| this version |") == table.count("| other version |") == 2
    assert table.count("| ratio |") == 2
    assert list(json.loads(figures.read_text())["rows"]) == ["4", "50"]


@pytest.mark.usefixtures("needs_bytewax")
def test_the_picture_can_be_drawn_and_drawn_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With two of its rows: the other kinds of rows run in the comparison."""
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    import picture

    two = [name for name in picture.LINES if name in (picture.ONE, picture.TUTORIAL)]
    monkeypatch.setattr(picture, "LINES", {name: picture.LINES[name] for name in two})
    monkeypatch.setattr(picture, "COLORS", picture.COLORS[:2])

    def draw(path: Path, *arguments: str | Path) -> str:
        monkeypatch.setattr(sys, "argv", ["picture.py", str(path), *map(str, arguments)])
        picture.main()
        return capsys.readouterr().out

    figures, first, again = (tmp_path / name for name in ("f.json", "a/first.png", "again.png"))
    small = ("--instances", "10", "--records", "4000", "--rounds", "1")
    table = draw(first, *small, "--json", figures)
    assert "| ours, calibrated, one process with recovery |" in table
    assert list(json.loads(figures.read_text())["sizes"]) == ["10"]
    assert draw(again, "--show", figures) == table
    assert again.read_bytes() == first.read_bytes()
    assert first.read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("needs_bytewax")
def test_a_glance_at_snapshots() -> None:
    assert run("snapshots.py", "--quick").count("\n") >= 6


def test_a_glance_at_detectors() -> None:
    assert run("detectors.py", "--quick").count("\n") >= 6


@pytest.mark.usefixtures("needs_bytewax")
def test_the_cost_of_a_preview_can_be_measured(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    only = ("--only", "file", "--only", "threshold")
    said = run("preview.py", "--quick", "--json", figures, *only)
    found = json.loads(figures.read_text())
    assert list(found["rows"]) == ["file | threshold"]
    assert "| file | threshold | " in said
    assert "file, threshold: " in said


@pytest.mark.usefixtures("needs_bytewax")
def test_faults_of_groups_can_be_counted_and_counted_again(tmp_path: Path) -> None:
    arguments = ("groups.py", "--instances", "40", "--seeds", "1", "--keep", tmp_path)
    table = run(*arguments)
    row = table.splitlines()[-1]
    assert re.fullmatch(r"\| 1 \| [01] of 1 \| [0-2] of [0-2] \| \d+ \| \d+ \|", row), table
    assert {path.name for path in tmp_path.iterdir()} == {"2.msgpack", "2-1.msgpack"}
    assert run(*arguments) == table


@pytest.mark.usefixtures("needs_bytewax")
def test_the_cost_of_groups_can_be_measured(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    table = run("groups_cpu.py", "--quick", "--json", figures)
    assert re.findall(r"^\| (\w+) \| .*\d", table, re.MULTILINE) == ["live", "behind", "process"]
    row = json.loads(figures.read_text())["rows"]["live"]
    assert row["with_us"] > 0
    assert row["ratio"] > 0


@pytest.mark.parametrize(("interval", "days"), [(60, 8), (300, 14), (3600, 60)])
def test_short_anomalies_stay_in_the_range_that_the_host_has_had(
    interval: int, days: int, tmp_path: Path
) -> None:
    run(
        *("made_up.py", "short", tmp_path, "--series", "7"),
        *("--interval", str(interval), "--days", str(days)),
    )
    habits = ["steady", "daily", "office", "cron", "wander", "tails", "nightly"]
    names = sorted(f"short-{name}-{number:02}.csv" for number, name in enumerate(habits))
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    found = 0
    for name in names:
        with (tmp_path / name).open() as file:
            rows = [(float(row["value"]), row["is_anomaly"] == "1") for row in csv.DictReader(file)]
        assert len(rows) == days * 86_400 // interval
        anomalies = [at for at, (_, labeled) in enumerate(rows) if labeled]
        assert all(at >= max(3 * 86_400 // interval, 336) for at in anomalies)
        begins = [at for at in anomalies if not rows[at - 1][1]]
        for begin in begins:
            end = next(at for at in range(begin, len(rows)) if not rows[at][1])
            assert 2 <= end - begin <= 7  # the reading after it is labeled too
            before = [value for value, _ in rows[:begin]]
            changed = [value for value, _ in rows[begin : end - 1]]
            assert min(before) <= min(changed)
            assert max(changed) <= max(before)
        found += len(begins)
    assert found > 2 * len(names)
