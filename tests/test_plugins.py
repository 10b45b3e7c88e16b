"""Parts by name: built-in, entry point, module:Class; a wrong name is one line."""

from __future__ import annotations

import sys
from collections import OrderedDict
from pathlib import Path

import pytest

from dataflow.errors import UserError
from dataflow.plugins import Kind, load, names

KIND = Kind(
    "detector", "ANOMALY_DETECTOR", "test.detectors", {"ordered": "collections:OrderedDict"}
)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package in the path that declares two entry points."""
    (tmp_path / "theirs.py").write_text("class Jump:\n    class Inner: ...\n")
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[test.detectors]\njump = theirs:Jump\nordered = theirs:Jump\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "theirs", raising=False)


def test_a_built_in_wins_over_an_entry_point(installed: None) -> None:
    assert load(KIND, "ordered") is OrderedDict


def test_an_entry_point_of_an_installed_package(installed: None) -> None:
    assert load(KIND, "jump").__name__ == "Jump"
    assert names(KIND) == ["ordered", "jump"]


def test_a_class_of_a_module_and_one_inside_of_it(installed: None) -> None:
    assert load(KIND, "theirs:Jump").__name__ == "Jump"
    assert load(KIND, "theirs:Jump.Inner").__name__ == "Inner"


def test_a_module_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beside_it.py").write_text("class Mine: ...\n")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    monkeypatch.delitem(sys.modules, "beside_it", raising=False)
    assert load(KIND, "beside_it:Mine").__name__ == "Mine"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("jumpp", "'jumpp', which does not exist: use one of ordered, jump, or module:Class"),
        ("not_there:Jump", "cannot be imported (No module named 'not_there')"),
        ("theirs:Hop", "has no attribute 'Hop'"),
        (":Jump", "cannot be imported (Empty module name)"),
        ("theirs:", "cannot be imported"),
    ],
)
def test_a_wrong_name_is_one_line_that_lists_what_there_is(
    name: str, says: str, installed: None
) -> None:
    with pytest.raises(UserError) as error:
        load(KIND, name)
    assert says in str(error.value)
    assert "ordered, jump" in str(error.value)
    assert "\n" not in str(error.value)
