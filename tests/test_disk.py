"""A full disk under a recovery store is one line, and nothing is lost."""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Flow, fill_topic, read_json_lines
from test_errors import refused
from test_flow import THRESHOLD, made_rows, rivers_scores, write_csv

from dataflow.errors import UserError
from dataflow.recovery import disk
from dataflow.recovery.files import initialize, is_made


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount an empty file system of a size."""
    folder = tmp_path / "small"
    folder.mkdir()

    def mount(size: str) -> Path:
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
            capture_output=True,
            check=False,
        )
        if made.returncode:
            pytest.skip("cannot mount a file system: needs root")
        return folder

    yield mount
    subprocess.run(["umount", str(folder)], capture_output=True, check=False)


def test_a_store_that_does_not_fit(
    run_command: Callable[..., subprocess.CompletedProcess[str]],
    small_disk: Callable[[str], Path],
    needs_bytewax: None,
) -> None:
    folder = small_disk("64k")
    refused(run_command("recovery", str(folder / "store")), "No space left", "has room")
    assert not is_made(folder / "store")
    subprocess.run(["mount", "-o", "remount,size=2m", str(folder)], check=True)
    assert run_command("recovery", str(folder / "store")).returncode == 0


def test_files_that_may_not_be_so_large(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (disk.FILE // 2, before[1]))
    try:
        with pytest.raises(UserError, match="File too large"):
            initialize(tmp_path / "store", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert initialize(tmp_path / "store", 1)
    assert not list((tmp_path / "store").glob("reserved*"))


def test_a_flow_does_not_start_on_a_disk_that_is_nearly_full(
    run_flow: Flow, small_disk: Callable[[str], Path], tmp_path: Path
) -> None:
    write_csv(tmp_path / "metrics.csv", made_rows(1, 20))
    folder = small_disk("4m")
    initialize(folder / "store", 1)
    done = run_flow("-r", str(folder / "store"), "-s", "1", "-b", "0", input="metrics.csv")
    refused(done, "the disk under the recovery store", "MB left", "free some space")


def test_a_store_of_more_files_than_a_process_may_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        (tmp_path / f"part-{number}.sqlite3").touch()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (170, 4096))
    disk.check(tmp_path)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (169, 4096))
    with pytest.raises(UserError, match=r"has 40 files, .* 170 open files, and the limit is 169"):
        disk.check(tmp_path)


def test_a_disk_that_fills_while_the_flow_runs(
    run_flow: Flow, small_disk: Callable[[str], Path], tmp_path: Path, brokers: str, topic: str
) -> None:
    rows = made_rows(4, 300)
    keyed = [(row["instance"], str(row).replace("'", '"').encode()) for row in rows]
    fill_topic(brokers, topic, keyed[: len(rows) // 2])
    folder = small_disk("24m")
    initialize(folder / "store", 1)
    arguments = ["-r", str(folder / "store"), "-s", "1", "-b", "0"]
    settings = {
        **{"brokers": brokers, "topic": topic, "detector": "tutorial"},
        **{"output": "found.jsonl", "threshold": THRESHOLD},
    }
    flow = run_flow.start(*arguments, **settings)
    found = tmp_path / "found.jsonl"
    deadline = time.monotonic() + 120
    while not (found.exists() and found.stat().st_size):
        assert flow.poll() is None, flow.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    fill_topic(brokers, topic, keyed[len(rows) // 2 :])
    with pytest.raises(OSError, match="No space"):
        (folder / "other").write_bytes(bytes(32 * 2**20))
    assert flow.wait(120) == 1
    created, line = flow.communicate()[1].splitlines()
    assert created.startswith("created the topic")
    assert "cannot save to the recovery store" in line
    assert "free some space" in line
    (folder / "other").unlink()
    done = run_flow(*arguments, follow="false", **settings)
    assert (done.returncode, done.stderr) == (0, "")
    wanted = {key for key, score in rivers_scores(rows).items() if score > THRESHOLD}
    assert wanted
    assert sorted((it["instance"], it["index"]) for it in read_json_lines(found)) == sorted(wanted)
