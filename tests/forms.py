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
# In the order in which they import each other; `halfspace` is never compiled, but imports what is.
NAMES = (
    "halfspace_step",
    "halfspace_short",
    "halfspace",
    "tutorial",
    "calibrated_masses",
    "calibrated_state",
    "calibrated_habit",
    "calibrated_trees",
    "calibrated",
)


@contextlib.contextmanager
def plain(folder: Path = FOLDER) -> Iterator[ModuleType]:
    """Let all that is imported here be the Python files, whatever was compiled; `calibrated`."""
    names = [f"dataflow.detectors.{name}" for name in NAMES]
    installed = [importlib.import_module(name) for name in names]
    for name in names:
        del sys.modules[name]
    try:
        for short, name in zip(NAMES, names, strict=True):
            spec = importlib.util.spec_from_file_location(name, folder / f"{short}.py")
            assert spec is not None
            assert spec.loader is not None
            sys.modules[name] = module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            setattr(dataflow.detectors, short, module)
        yield module
    finally:
        for short, name, module in zip(NAMES, names, installed, strict=True):
            sys.modules[name] = module
            setattr(dataflow.detectors, short, module)
