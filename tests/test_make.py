"""What make installs: the Python of `scripts/create-venv`, the packages, and `make help`."""

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

from dataflow.errors import missing_river

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
    installed = checkout.glob(".venv/lib/python*/site-packages/*.dist-info")
    assert [path.name.partition("-")[0] for path in installed] == ["pip"]


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


def test_the_demos_have_every_dependency_but_river() -> None:
    done = subprocess.run(
        [sys.executable, REPOSITORY / "scripts" / "list-requirements", "broker", "dashboard"],
        capture_output=True,
        text=True,
        check=True,
    )
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    listed = done.stdout.splitlines()
    (left_out,) = {*project["dependencies"]} - {*listed}
    assert left_out.startswith("river>=")
    assert sorted([*listed, left_out]) == sorted(
        [*project["dependencies"], *extras["broker"], *extras["dashboard"]]
    )


WITHOUT_RIVER = """
import sys
from importlib import import_module
from pkgutil import walk_packages

class Absent:
    def find_spec(name, path=None, target=None):
        if name in ("river", "scipy"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent)
import dataflow
from dataflow.detectors import find
from dataflow.errors import UserError
imported = {module.name for module in walk_packages(dataflow.__path__, "dataflow.")} - {
    "dataflow.__main__",
    "dataflow.detectors.river",
    "dataflow.detectors.isolation_forest",  # scikit-learn needs SciPy
}
for name in imported:
    import_module(name)
print(len(imported))
for name in ("river.anomaly:HalfSpaceTrees", "uses_river:Model", "has_its_methods:Model"):
    try:
        find(name)
    except UserError as error:
        print(error)
"""


@needs_flow
def test_only_rivers_models_need_river_and_say_how_to_get_it(tmp_path: Path) -> None:
    model = "class Model:\n    score_one = learn_one = None\n"
    (tmp_path / "has_its_methods.py").write_text(model)
    (tmp_path / "uses_river.py").write_text(f"import river.anomaly\n{model}")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_RIVER],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    count, *errors = done.stdout.splitlines()
    assert int(count) > 100
    assert len(errors) == 3
    assert {*errors} == {str(missing_river())}


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
