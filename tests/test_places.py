"""The log from which place on each version applies, over any sequence of lives of a flow."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataflow.errors import UserError
from dataflow.recovery.log import KEPT
from dataflow.recovery.places import NONE, Places, are_kept, version_of

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where the files of the model are: it synchronizes them often."""

PROCESSES = 2
PARTITIONS = 3


def store(folder: Path, process: int = 0, *, resumed: bool = False) -> Any:
    def began(_name: str, position: Callable[[], Any]) -> Any:
        return position()

    return SimpleNamespace(folder=folder, process=process, resumed=resumed, began=began)


LIFE = st.tuples(
    # By partition, how many of the readings that were taken since the snapshot come again.
    st.lists(st.integers(0, 9), min_size=PARTITIONS, max_size=PARTITIONS),
    # Which process reads each partition.
    st.lists(st.integers(0, PROCESSES - 1), min_size=PARTITIONS, max_size=PARTITIONS),
    # What each process has when it starts, and what it does: the next readings of a partition, or
    # another version (then the number is that of the version).
    st.lists(
        st.tuples(st.integers(0, PARTITIONS - 1), st.booleans(), st.integers(0, 3)), max_size=12
    ),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(LIFE, min_size=1, max_size=4))
def test_a_reading_keeps_the_version_that_it_had_first(lives: list[Any]) -> None:
    folder = Path(tempfile.mkdtemp(dir=MEMORY))
    try:
        _live(folder, lives)
    finally:
        shutil.rmtree(folder)


def _live(folder: Path, lives: list[Any]) -> None:
    reached = [0] * PARTITIONS
    first: dict[tuple[int, int], str] = {}
    staged = [b""] * PROCESSES
    for again, reader, steps in lives:
        # The processes before were killed: nothing was closed.
        processes = [Places(store(folder, number)) for number in range(PROCESSES)]
        for places, content in zip(processes, staged, strict=True):
            places.stage("rules", content)
        read = [max(0, end - count) for end, count in zip(reached, again, strict=True)]
        for partition, changes, size in steps:
            number = reader[partition]
            if changes:
                staged[number] = b"v%d" % size if size else b""
                processes[number].stage("rules", staged[number])
                continue
            begin = read[partition]
            end = read[partition] = begin + size + 1
            processes[number].reach(partition, begin, end - 1)
            for places in processes:
                places.refresh()
            for offset in range(begin, end):
                versions = {places.at("rules", partition, offset) for places in processes}
                assert len(versions) == 1
                version = versions.pop()
                if offset < reached[partition]:
                    assert version == first[partition, offset]
                else:
                    # It applies at once to what no flow has read before.
                    assert version == version_of(staged[number])
                    first[partition, offset] = version
                assert processes[number].document(version) == processes[0].document(version)
            reached[partition] = max(reached[partition], end)


def test_nothing_applies_to_what_an_earlier_flow_may_have_read(tmp_path: Path) -> None:
    first = Places(store(tmp_path, resumed=True), ends={0: 50}.__getitem__)
    first.stage("rules", b"[web]")
    first.reach(0, 30, 39)
    # The end is that of the first start.
    places = Places(store(tmp_path, resumed=True), ends={0: 99, 1: 0}.__getitem__)
    version = places.stage("rules", b"[web]")
    places.reach(0, 30, 59)
    places.reach(1, 0, 9)
    assert [places.at("rules", 0, offset) for offset in (30, 49, 50)] == [NONE, NONE, version]
    assert places.at("rules", 1, 0) == version


def test_kinds_of_documents_are_apart(tmp_path: Path) -> None:
    places = Places(store(tmp_path))
    rules = places.stage("rules", b"[web]")
    places.reach(0, 0, 9)
    verdicts = places.stage("verdicts", b"{}")
    places.reach(0, 10, 19)
    again = Places(store(tmp_path))
    for each in (places, again):
        assert [each.at("rules", 0, 9), each.at("rules", 0, 10)] == [rules, rules]
        assert [each.at("verdicts", 0, 9), each.at("verdicts", 0, 10)] == [NONE, verdicts]
        assert (each.newest("rules"), each.newest("verdicts")) == (rules, verdicts)


def test_what_no_snapshot_needs_is_deleted(tmp_path: Path) -> None:
    assert not are_kept(store(tmp_path))
    places = Places(store(tmp_path))
    for number in range(4):
        places.stage("rules", b"v%d" % number)
        places.reach(0, 10 * number, 10 * number + 9)
    assert are_kept(store(tmp_path))

    def rows() -> list[int]:
        Places(store(tmp_path))
        with closing(sqlite3.connect(tmp_path / "places-0.log")) as database:
            return [offset for (offset,) in database.execute("SELECT offset FROM places")]

    def age(table: str, below: int, seconds: float) -> None:
        with closing(sqlite3.connect(tmp_path / "places-0.log")) as database:
            query = f"UPDATE {table} SET at = ? WHERE offset < ?"
            database.execute(query, (time.time() - seconds, below))
            database.commit()

    # A flow that did not run for a month has its last snapshot all the same.
    age("places", 99, 5 * KEPT)
    age("reached", 99, 5 * KEPT)
    assert rows() == [0, 10, 20, 30]
    # The second applied until the third did, long before the last reading.
    age("places", 25, 7 * KEPT)
    assert rows() == [20, 30]
    assert Places(store(tmp_path)).at("rules", 0, 39) == version_of(b"v3")


def test_a_damaged_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "places-1.log").write_bytes(b"no database" * 1000)
    with pytest.raises(UserError, match="damaged"):
        Places(store(tmp_path))
