"""Apache Kafka for the tests: a missing part is named, and no process stays behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kafka_jars import Unavailable, jars

import dataflow
from dataflow.demo.broker import listening

START_AND_WAIT = """
import sys, time
from pathlib import Path
from kafka_server import ApacheKafka
broker = ApacheKafka(Path(sys.argv[1]), jars=Path(sys.argv[2]))
broker.start()
print(broker.ports["PLAINTEXT"], flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv (util-linux) is not on PATH")
def test_no_broker_outlives_tests_that_were_killed(kafka_jars: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", START_AND_WAIT, str(tmp_path / "kafka"), str(kafka_jars)]
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(dataflow.__file__).parents[1])])
    with subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
    ) as tests:
        assert tests.stdout is not None
        port = int(tests.stdout.readline())
        tests.kill()
    deadline = time.monotonic() + 120
    while listening(port) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not listening(port)


def make_program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


JAVA_17 = "echo 'openjdk version \"17.0.15\" 2025-04-15' >&2"


@pytest.mark.parametrize(
    ("programs", "reason"),
    [
        ({}, "java is not on PATH"),
        ({"java": "echo 'java version \"1.8.0_402\"' >&2"}, "Java 17 or later: .*1.8.0_402"),
        ({"java": JAVA_17}, "mvn, which fetches it, is not on PATH"),
        (
            {
                "java": JAVA_17,
                "mvn": "/bin/mkdir jars; : >jars/half.jar; echo '[ERROR] Unknown host'; exit 1",
            },
            "not fetched: Unknown host",
        ),
    ],
)
def test_a_missing_part_is_named_and_a_partial_download_is_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, programs: dict[str, str], reason: str
) -> None:
    (tmp_path / "bin").mkdir()
    for name, script in programs.items():
        make_program(tmp_path / "bin", name, script)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(Unavailable, match=reason):
        jars()
    assert not list(tmp_path.glob("cache/*/*"))
