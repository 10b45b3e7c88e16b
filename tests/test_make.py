"""`scripts/create-venv`, which finds or gets the Python of `make run`, and `make help`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import REPOSITORY

THIS_PYTHON = f'exec {sys.executable} "$@"'
NEWER_PYTHON = '[ "$1" = -c ] && exit 1'


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with `scripts/create-venv`, and a folder `bin` of all programs that it finds."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(REPOSITORY / "scripts" / "create-venv", tmp_path / "scripts")
    (tmp_path / "bin").mkdir()
    for name in ("sh", "dirname", "mktemp", "grep", "tail", "sed", "rm"):
        place = shutil.which(name)
        assert place is not None
        (tmp_path / "bin" / name).symlink_to(place)
    return tmp_path


def add(checkout: Path, name: str, script: str) -> None:
    program = checkout / "bin" / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def make_venv(checkout: Path, *python: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "scripts" / "create-venv", ".venv", *python],
        env={"PATH": str(checkout / "bin"), "HOME": str(checkout)},
        capture_output=True,
        text=True,
        check=False,
    )


needs_flow = pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="this Python is none that Bytewax has wheels for"
)


@needs_flow
def test_a_python_that_suits_is_taken_from_the_path(checkout: Path) -> None:
    add(checkout, "python3.12", NEWER_PYTHON)  # such as pyenv's stand-in for one not installed
    add(checkout, "python3", THIS_PYTHON)
    done = make_venv(checkout)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (checkout / ".venv" / "bin" / "python").exists()


@needs_flow
def test_without_one_uv_gets_it(checkout: Path) -> None:
    add(checkout, "python3", NEWER_PYTHON)
    add(checkout, "uv", f'[ "$2" = install ] || echo {sys.executable}')
    done = make_venv(checkout)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("No Python 3.11 or 3.12 found")
    assert (checkout / ".venv" / "bin" / "python").exists()


def test_if_uv_cannot_one_line_says_what_remains(checkout: Path) -> None:
    add(checkout, "python3", NEWER_PYTHON)
    add(checkout, "uv", "echo 'error: no network' >&2; exit 2")
    done = make_venv(checkout)
    assert done.returncode == 1
    assert done.stderr.startswith("error: uv cannot get Python 3.12 (error: no network): install")
    assert len(done.stderr.splitlines()) == 1
    assert not (checkout / ".venv").exists()


def test_a_named_python_must_suit(checkout: Path) -> None:
    add(checkout, "python3.13", NEWER_PYTHON)
    done = make_venv(checkout, "python3.13")
    assert done.returncode == 1
    assert done.stderr.startswith("error: python3.13 is not Python 3.11 or 3.12")
    assert len(done.stderr.splitlines()) == 1


def test_help_has_a_line_for_every_target() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)", makefile, re.MULTILINE)
    done = subprocess.run(
        ["make", "help"], cwd=REPOSITORY, env=os.environ, capture_output=True, text=True, check=True
    )
    listed = re.findall(r"^make ([a-z-]+)  *[A-Z]", done.stdout, re.MULTILINE)
    assert {*listed, "help"} == set(phony.split())


@pytest.mark.parametrize("file", ["constraints.txt", "benchmarks/constraints.txt"])
def test_the_lock_pins_every_dependency(file: str) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"]]
    extras = project["optional-dependencies"]
    locked = ("broker", "bench") if "benchmarks" in file else extras.keys() - {"bench"}
    for extra in locked:
        named += extras[extra]
    names = {re.match(r"[\w.-]+", each)[0].lower() for each in named}  # type: ignore[index]
    pinned = set(re.findall(r"^([\w.-]+)==", (REPOSITORY / file).read_text(), re.MULTILINE))
    assert names - {"ec2-anomaly-dataflow"} <= pinned
