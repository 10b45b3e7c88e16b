"""The recovery store: which stores a flow does not start on, each with one line."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import sqlite3
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Flow, await_handlers, fill_topic, read_json_lines
from test_errors import refused
from test_flow import Row, keyed, made_rows, rivers_anomalies, write_csv

from dataflow.errors import UserError
from dataflow.kafka import topics
from dataflow.recovery import files
from dataflow.recovery.files import initialize
from dataflow.settings import Settings


def with_store(store: Path) -> list[str]:
    return ["-r", str(store), "-s", "1", "-b", "0"]


@pytest.fixture
def used(tmp_path: Path, run_flow: Flow) -> tuple[Path, dict[str, object]]:
    """A store after a finished run, and the settings of that run."""
    write_csv(tmp_path / "metrics.csv", made_rows(2, 200))
    store = tmp_path / "store"
    initialize(store, 2)
    settings: dict[str, object] = {
        "input": "metrics.csv",
        "detector": "tutorial",
        "output": "found.jsonl",
    }
    done = run_flow(*with_store(store), **settings)
    assert (done.returncode, done.stderr) == (0, "")
    return store, settings


def contents(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir()}


def fails_untouched(run_flow: Flow, store: Path, settings: dict[str, object], *said: str) -> None:
    before = contents(store)
    refused(run_flow(*with_store(store), **settings), str(store), *said)
    assert contents(store) == before


def test_missing_and_empty_stores(run_flow: Flow, tmp_path: Path) -> None:
    write_csv(tmp_path / "metrics.csv", made_rows(1, 20))
    store = tmp_path / "store"
    said = ("no recovery store", f"python -m dataflow recovery {store}")
    refused(run_flow(*with_store(store), input="metrics.csv"), *said)
    assert not store.exists()
    store.mkdir()
    refused(run_flow(*with_store(store), input="metrics.csv"), *said)
    assert list(store.iterdir()) == []


def test_a_store_has_large_pages_and_a_log(run_flow: Flow, tmp_path: Path) -> None:
    """Also after Bytewax has used it."""
    write_csv(tmp_path / "metrics.csv", made_rows(2, 20))
    store = tmp_path / "store"
    initialize(store, 2)
    for _ in range(2):
        for path in store.glob("part-*.sqlite3"):
            with contextlib.closing(sqlite3.connect(path)) as part:
                assert part.execute("PRAGMA page_size").fetchall() == [(16_384,)]
                assert part.execute("PRAGMA journal_mode").fetchall() == [("wal",)]
        done = run_flow(*with_store(store), input="metrics.csv", output="found.jsonl")
        assert (done.returncode, done.stderr) == (0, "")


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


@pytest.mark.parametrize("there", [False, True])
def test_only_its_user_reads_and_writes_a_store(
    run_flow: Flow, tmp_path: Path, there: bool
) -> None:
    folder = tmp_path / "store"
    if there:
        folder.mkdir(mode=0o755)
    umask = os.umask(0)
    try:
        initialize(folder, 2)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert modes(folder) == {0o600}
        path = write_csv(tmp_path / "in.csv", made_rows(2, 50))
        own = {"input": path, "output": "out.jsonl", "detector": "tutorial", "incidents": "true"}
        done = run_flow("-r", "store", "-s", "1", "-b", "0", **own)
        assert (done.returncode, done.stderr) == (0, "")
        assert {path.name for path in folder.iterdir()} > {"dataflow.json", "lock", "lock-0"}
        assert modes(folder) == {0o600}
    finally:
        os.umask(umask)


@pytest.mark.parametrize(
    ("name", "mode", "found"),
    [
        *((".", 0o770, True), (".", 0o702, True), (".", 0o755, False)),
        *(("part-0.sqlite3", 0o660, True), ("part-2.sqlite3", 0o606, True)),
        ("part-0.sqlite3", 0o644, False),
    ],
)
def test_others_who_can_write_to_a_store_are_found(
    store: Path, name: str, mode: int, found: bool
) -> None:
    (store / name).chmod(mode)
    assert files.writable_by_others(store) == (store / name if found else None)


def test_a_store_that_others_can_write_to_is_warned_about(
    run_flow: Flow, tmp_path: Path, store: Path
) -> None:
    store.chmod(0o777)
    path = write_csv(tmp_path / "in.csv", made_rows(2, 50))
    own = {"input": path, "output": "out.jsonl", "detector": "tutorial"}
    done = run_flow("-r", "store", "-s", "1", "-b", "0", **own)
    assert (done.returncode, done.stderr) == (
        0,
        "warning: other users can write to store, and anyone who can write to the recovery store "
        "can run code in the flow: run `chmod -R go-w store`.\n",
    )


def test_the_volume_of_a_pod_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes gives a volume to root and to the group of the pod, which may write to it."""
    initialize(tmp_path / "store", 1)
    folder = tmp_path / "store"
    folder.chmod(0o2770)
    if os.geteuid():
        pytest.skip("needs root, to give a folder away")
    os.chown(folder, 0, 10_001)
    monkeypatch.setattr(os, "geteuid", lambda: 10_001)
    assert files.writable_by_others(folder) == folder
    monkeypatch.setattr(os, "getegid", lambda: 10_001)
    assert files.writable_by_others(folder) is None
    folder.chmod(0o2777)
    assert files.writable_by_others(folder) == folder


@pytest.mark.usefixtures("needs_bytewax")
def test_the_command_creates_a_store_once(
    run_command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = run_command("recovery", "store", "--partitions", "2")
    assert done.returncode == 0
    assert "created a recovery store of 2 files" in done.stdout
    before = contents(tmp_path / "store")
    assert sorted(before) == ["part-0.sqlite3", "part-1.sqlite3"]
    done = run_command("recovery", "store", "--partitions", "5")
    assert done.returncode == 0
    assert "already" in done.stdout
    assert contents(tmp_path / "store") == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious").touch()
    done = run_command("recovery", "other")
    assert done.returncode == 1
    assert "not empty" in done.stderr


@pytest.mark.parametrize("step", ["create_files", "_enlarge_pages"])
def test_a_store_whose_creation_was_killed(
    run_flow: Flow,
    run_command: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    """No flow starts on it, and the command creates it again."""
    write_csv(tmp_path / "metrics.csv", made_rows(2, 20))
    store = tmp_path / "store"

    def die(*_: object) -> None:
        (store / "part-0.sqlite3").write_bytes(b"")  # as if it had just been opened
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, step, die)
        with pytest.raises(KeyboardInterrupt):
            initialize(store, 3)
    assert list(store.glob("part-*"))
    done = run_flow(*with_store(store), input="metrics.csv", output="found.jsonl")
    refused(done, "no recovery store", f"python -m dataflow recovery {store}")
    assert (
        "created a recovery store of 2 files"
        in run_command("recovery", str(store), "--partitions", "2").stdout
    )
    assert sorted(contents(store)) == ["part-0.sqlite3", "part-1.sqlite3"]
    done = run_flow(*with_store(store), input="metrics.csv", output="found.jsonl")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("seed", 7, "ANOMALY_SEED=42, and now it is 7"),
        ("interval", 60, "ANOMALY_INTERVAL=300.0, and now it is 60.0"),
        ("value_field", "other", "ANOMALY_VALUE_FIELD=value, and now it is other"),
        ("scale", 200, "ANOMALY_SCALE=100.0, and now it is 200.0"),
        ("input", "other.csv", "ANOMALY_INPUT="),
    ],
)
def test_changed_settings(
    run_flow: Flow,
    tmp_path: Path,
    used: tuple[Path, dict[str, object]],
    setting: str,
    value: object,
    said: str,
) -> None:
    store, settings = used
    write_csv(tmp_path / "other.csv", made_rows(1, 20))
    fails_untouched(run_flow, store, {**settings, setting: value}, said)


def test_other_settings_may_change(
    run_flow: Flow, used: tuple[Path, dict[str, object]], tmp_path: Path
) -> None:
    store, settings = used
    done = run_flow(*with_store(store), **{**settings, "threshold": 0.9, "output": "more.jsonl"})
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "more.jsonl").read_bytes() == b""  # the input had ended before


def test_another_programs_store(run_flow: Flow, used: tuple[Path, dict[str, object]]) -> None:
    store, settings = used
    (store / "dataflow.json").unlink()
    fails_untouched(run_flow, store, settings, "belongs to another program")


def test_a_store_of_another_format(run_flow: Flow, used: tuple[Path, dict[str, object]]) -> None:
    store, settings = used
    owner = json.loads((store / "dataflow.json").read_text())
    (store / "dataflow.json").write_text(json.dumps({**owner, "version": 99}))
    fails_untouched(run_flow, store, settings, "format 99")


def test_states_of_another_version(run_flow: Flow, used: tuple[Path, dict[str, object]]) -> None:
    """As if a newer detector, or a River that draws other trees, had written them."""
    store, settings = used
    owner = json.loads((store / "dataflow.json").read_text())
    (store / "dataflow.json").write_text(json.dumps({**owner, "states": "0011223344556677"}))
    fails_untouched(run_flow, store, settings, "another version of the detector tutorial")


def test_a_state_that_no_detector_stored(
    run_flow: Flow, used: tuple[Path, dict[str, object]]
) -> None:
    store, settings = used
    for path in store.glob("part-*"):
        with contextlib.closing(sqlite3.connect(path)) as part, part:
            part.execute(
                "UPDATE snaps SET ser_change = ? WHERE step_id LIKE '%.score'",
                (pickle.dumps(b"something else"),),
            )
    before = (store.parent / "found.jsonl").read_bytes()
    done = run_flow(*with_store(store), **settings)
    refused(done, "the recovery store holds a state that cannot be read")
    assert (store.parent / "found.jsonl").read_bytes() == before


def test_a_start_that_failed_does_not_own_the_store(run_flow: Flow, tmp_path: Path) -> None:
    write_csv(tmp_path / "metrics.csv", made_rows(1, 20))
    (tmp_path / "found.jsonl").write_text("precious\n")
    store = tmp_path / "store"
    initialize(store, 1)
    settings = {"input": "metrics.csv", "detector": "tutorial"}
    refused(run_flow(*with_store(store), output="found.jsonl", **settings), "already holds")
    done = run_flow(*with_store(store), output="more.jsonl", seed=7, **settings)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["dataflow.json", "part-1.sqlite3"])
def test_a_damaged_store(run_flow: Flow, used: tuple[Path, dict[str, object]], name: str) -> None:
    store, settings = used
    path = store / name
    data = bytearray(path.read_bytes())
    data[: len(data) // 2] = b"\xa5" * (len(data) // 2)
    path.write_bytes(data)
    fails_untouched(run_flow, store, settings, "damaged", name)


def test_an_incomplete_store(run_flow: Flow, used: tuple[Path, dict[str, object]]) -> None:
    store, settings = used
    (store / "part-0.sqlite3").unlink()
    fails_untouched(run_flow, store, settings, "incomplete", "1 of 2")


def test_one_file_from_some_epochs_before(run_flow: Flow, tmp_path: Path) -> None:
    """Each file of a store, from each of the five lives before: a life is an epoch or two."""
    rows = made_rows(3, 300)
    store = tmp_path / "store"
    initialize(store, 4)
    copies = []
    for life in range(1, 7):
        write_csv(tmp_path / "metrics.csv", rows[: 150 * life])
        done = run_flow(
            *with_store(store), input="metrics.csv", detector="tutorial", output="found.jsonl"
        )
        assert done.returncode == 0, done.stderr
        copies.append(shutil.copytree(store, tmp_path / f"copy-{life}"))
    assert files.check(store, alone=True) is not None
    for copy in copies[:-1]:
        for path in sorted(store.glob("part-*.sqlite3")):
            newer = path.read_bytes()
            shutil.copy(copy / path.name, path)
            with pytest.raises(UserError, match="mixes files of different times"):
                files.check(store, alone=True)
            path.write_bytes(newer)
    for copy in copies:  # all files of the same time
        assert files.check(copy, alone=True) is not None


def test_states_of_an_epoch_that_a_killed_flow_began(run_flow: Flow, tmp_path: Path) -> None:
    """They are ahead of the input: the next flow must not load them, nor the one after it."""
    rows = made_rows(2, 300)
    store = tmp_path / "store"
    initialize(store, 2)

    def read(rows: list[Row]) -> None:
        write_csv(tmp_path / "metrics.csv", rows)
        done = run_flow(
            *with_store(store), input="metrics.csv", detector="tutorial", output="found.jsonl"
        )
        assert (done.returncode, done.stderr) == (0, "")

    read(rows)
    epoch = files.check(store, alone=True)
    assert epoch is not None
    for path in store.glob("part-*.sqlite3"):
        with contextlib.closing(sqlite3.connect(path)) as part, part:
            # As if the flow had read more of host-0, and was killed while it took the snapshot.
            part.execute(
                "INSERT INTO snaps (step_id, state_key, snap_epoch, ser_change)"
                " SELECT step_id, state_key, ?, ? FROM snaps"
                " WHERE step_id LIKE '%.score' AND state_key = 'host-0'",
                (epoch, pickle.dumps(b"of later")),
            )
    more = made_rows(2, 600)[600:]
    read([*rows, *(row for row in more if row["instance"] == "host-1")])
    whole = [*rows, *(row for row in more if row["instance"] == "host-1"), *more[::2]]
    read(whole)
    check_once(read_json_lines(tmp_path / "found.jsonl"), whole)


@pytest.mark.kafka
def test_a_second_flow_on_the_store(
    run_flow: Flow, brokers: str, topic: str, tmp_path: Path
) -> None:
    fill_topic(brokers, topic, [])
    store = tmp_path / "store"
    initialize(store, 1)
    settings: dict[str, object] = {"brokers": brokers, "topic": topic, "output": "found.jsonl"}
    first = run_flow.start(*with_store(store), **settings)
    try:
        deadline = time.monotonic() + 120
        while not (store / "lock-0").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        refused(run_flow(*with_store(store), **settings), "in use by another process")
        assert first.poll() is None
    finally:
        await_handlers(first)
        first.terminate()
        first.communicate(timeout=120)
    assert first.returncode == 0


@pytest.mark.kafka
def test_a_topic_that_was_created_again(
    run_flow: Flow, brokers: str, topic: str, tmp_path: Path
) -> None:
    rows = made_rows(4, 200)
    records = keyed(rows)
    fill_topic(brokers, topic, records)
    store = tmp_path / "store"
    initialize(store, 1)
    settings: dict[str, object] = {
        "brokers": brokers,
        "topic": topic,
        "output": "found.jsonl",
        "follow": "false",
    }
    assert run_flow(*with_store(store), **settings).returncode == 0
    topics.delete(Settings(_env_file=None, brokers=brokers), [topic])
    fill_topic(brokers, topic, records[:8])
    found = (tmp_path / "found.jsonl").read_bytes()
    refused(run_flow(*with_store(store), **settings), topic, "created again")
    assert (tmp_path / "found.jsonl").read_bytes() == found


def test_a_crash_before_the_first_snapshot(run_flow: Flow, tmp_path: Path) -> None:
    """Records written before the first snapshot are not written again."""
    rows = made_rows(8, 1500)
    write_csv(tmp_path / "metrics.csv", rows)
    store = tmp_path / "store"
    initialize(store, 1)
    settings = {"input": "metrics.csv", "detector": "tutorial", "output": "found.jsonl"}
    hour = ["-r", str(store), "-s", "3600", "-b", "0"]
    flow = run_flow.start(*hour, **settings)
    deadline = time.monotonic() + 120
    found = tmp_path / "found.jsonl"
    while not (found.exists() and found.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.001)
    flow.kill()
    flow.communicate()
    assert found.stat().st_size
    done = run_flow(*hour, **settings)
    assert (done.returncode, done.stderr) == (0, "")
    check_once(read_json_lines(found), rows)


def check_once(found: list[dict[str, object]], rows: list[Row]) -> None:
    expected = rivers_anomalies(rows)
    assert len(found) == len(expected)
    assert {(it["instance"], it["index"]): it["score"] for it in found} == expected


def test_a_line_cut_off_by_a_crash_is_completed(
    run_flow: Flow, used: tuple[Path, dict[str, object]], tmp_path: Path
) -> None:
    store, settings = used
    found = tmp_path / "found.jsonl"
    whole = found.read_bytes()
    assert whole.count(b"\n") > 2
    with found.open("ab") as file:
        file.write(whole[:40])
    done = run_flow(*with_store(store), **settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert found.read_bytes() == whole


def test_an_output_that_lost_records(
    run_flow: Flow, used: tuple[Path, dict[str, object]], tmp_path: Path
) -> None:
    store, settings = used
    found = tmp_path / "found.jsonl"
    found.write_bytes(found.read_bytes()[:-10])
    refused(run_flow(*with_store(store), **settings), "shorter than at the last snapshot")
