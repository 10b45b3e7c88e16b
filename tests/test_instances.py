"""`benchmarks/instances.py` works; what it measures is for people to judge, and for no test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY


@pytest.mark.usefixtures("needs_bytewax")
def test_a_glance(tmp_path: Path) -> None:
    script = REPOSITORY / "benchmarks" / "instances.py"
    figures, picture = tmp_path / "figures.json", tmp_path / "images" / "instances.png"
    done = subprocess.run(
        [sys.executable, script, "--quick", "--json", figures, "--picture", picture],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n| `tutorial` |") == 2
    found = json.loads(figures.read_text())["detectors"]["tutorial"]
    assert list(found) == ["8", "300"]
    for one in found.values():
        assert one["cpu_us"] > 0
        kept = one["epochs"]["60"]
        assert kept["store"] > 4096
        assert kept["restart_s"] > 0
        assert kept["stop_peak"] >= kept["peak"] > 10e6
    assert found["300"]["epochs"]["60"]["store"] > found["8"]["epochs"]["60"]["store"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    shown = subprocess.run(
        [sys.executable, script, "--show", figures], capture_output=True, text=True, check=True
    )
    assert shown.stdout.endswith(done.stdout.partition("\n\n")[2])
