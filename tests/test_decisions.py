"""The log of what the clock decided: over several starts, and from stores of earlier versions."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig
from bytewax.testing import TestingSink, TestingSource, cluster_main

from dataflow.records import Reading
from dataflow.recovery import files
from dataflow.recovery.decisions import Decisions

LAST = Reading("a", None, 7, 0.5, None, 2, 70)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files.initialize(tmp_path / "store", 2)
    return tmp_path / "store"


def store(folder: Path, process: int = 0) -> Any:
    return SimpleNamespace(folder=folder, process=process)


def run_bytewax(folder: Path) -> None:
    """Let Bytewax open the store, as each start of a flow does."""
    flow = Dataflow("ec2_anomalies")
    numbers = op.input("read", flow, TestingSource([1, 2]))
    op.output("write", numbers, TestingSink([]))
    cluster_main(flow, [], 0, recovery_config=RecoveryConfig(str(folder)))


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as database:
        return {name for (name,) in database.execute("SELECT name FROM sqlite_master")}


def former(path: Path, rows: list[tuple[str, int, int, int, float]]) -> None:
    """Write a log as an earlier version did."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(
            "CREATE TABLE decisions"
            " (instance TEXT, partition INTEGER, offset INTEGER, told INTEGER, at REAL)"
        )
        database.executemany("INSERT INTO decisions VALUES (?, ?, ?, ?, ?)", rows)


def test_decisions_outlive_several_starts(folder: Path) -> None:
    for start in range(3):
        decisions = Decisions(store(folder))
        decided = {(2, 70 + before, 0): 1 for before in range(start)}
        assert decisions.of("a")[0] == decided
        run_bytewax(folder)
        last = Reading("a", None, 7, 0.5, None, 2, 70 + start)
        decisions.add(last, 1, {2: 70 + start})
    assert {it for path in folder.glob("decisions-*.log") for it in tables(path)} <= {
        "decisions",
        "reached",
        "sqlite_autoindex_reached_1",
    }
    files.check(folder, alone=True)


def test_decisions_of_an_earlier_version_are_taken_over(folder: Path) -> None:
    """Also those of a process that there is no longer, and where Bytewax has put its tables."""
    far = 1e12
    former(folder / "decisions-0.sqlite3", [("a", 2, 70, 1, far), ("b", 0, 5, 2, far)])
    former(folder / "decisions-3.sqlite3", [("a", 2, 70, 2, far)])
    run_bytewax(folder)
    assert "snaps" in tables(folder / "decisions-0.sqlite3")  # this was the fault
    (folder / "decisions-4.sqlite3").touch()  # its creator was killed
    for _ in range(2):
        decisions = Decisions(store(folder))
        assert decisions.of("a")[0] == {(2, 70, 0): 2}
        assert decisions.of("b")[0] == {(0, 5, 0): 2}
        run_bytewax(folder)
    assert not list(folder.glob("decisions-*.sqlite3*"))
    files.check(folder, alone=True)


def test_a_process_that_ends_late_is_heard(folder: Path) -> None:
    """What it decides after its successor has opened the log, and before that one resumes."""
    before = Decisions(store(folder, 1))
    after = Decisions(store(folder, 0))
    before.add(LAST, 1, {2: 70})
    assert after.of("a") == ({(2, 70, 0): 1}, {2: 70})
