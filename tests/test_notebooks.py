"""The notebooks in docs/ run from top to bottom, and are kept without their output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "docs").glob("*.ipynb"))


def test_there_are_both() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["sine", "tutorial"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_without_output(path: Path) -> None:
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path) -> None:
    """What it claims it asserts; that it draws is seen in the kinds of its output."""
    import nbformat  # takes five seconds: not in each process that collects the tests
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    outputs = [it for cell in notebook.cells for it in cell.get("outputs", [])]
    drawn = [it for it in outputs if "application/vnd.holoviews_exec.v0+json" in it.get("data", {})]
    assert drawn
    assert not [it for it in outputs if it.output_type == "error"]
