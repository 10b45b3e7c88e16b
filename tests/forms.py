"""The two forms of the detectors: as installed, which may be compiled, and the Python files."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import dataflow.detectors

FOLDER = Path(dataflow.detectors.__file__).parent
# In the order in which they import each other.
NAMES = (
    "tutorial",
    "rcf.draws",
    "rcf.tree",
    "rcf.detector",
    "calibrated.masses",
    "calibrated.memory",
    "calibrated.habit",
    "calibrated.trees",
    "calibrated.detector",
)


def path_of(name: str, folder: Path = FOLDER) -> Path:
    """Return the Python file of a module of the detectors."""
    return folder.joinpath(*name.split(".")).with_suffix(".py")


@contextlib.contextmanager
def plain(folder: Path = FOLDER) -> Iterator[ModuleType]:
    """Let all that is imported here be the Python files, whatever was compiled.

    Yields the module of `Calibrated`.
    """
    names = [f"dataflow.detectors.{name}" for name in NAMES]
    installed = [importlib.import_module(name) for name in names]
    for name in names:
        del sys.modules[name]
    try:
        for short, name in zip(NAMES, names, strict=True):
            spec = importlib.util.spec_from_file_location(name, path_of(short, folder))
            assert spec is not None
            assert spec.loader is not None
            sys.modules[name] = module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            _set(name, module)
        yield module
    finally:
        for name, module in zip(names, installed, strict=True):
            sys.modules[name] = module
            _set(name, module)


def _set(name: str, module: ModuleType) -> None:
    """Put a module into the package that it belongs to."""
    package, _, last = name.rpartition(".")
    setattr(sys.modules[package], last, module)
