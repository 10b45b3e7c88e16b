"""The two forms of the detectors: as installed, which may be compiled, and the Python files."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import dataflow.detectors

PACKAGE = dataflow.detectors.__name__
FOLDER = Path(dataflow.detectors.__file__).parent
# The modules that may be compiled, and in the folders of these all others.
NAMES = (
    "tutorial",
    *(
        f"{folder}.{path.stem}"
        for folder in ("calibrated", "rcf")
        for path in sorted(FOLDER.joinpath(folder).glob("[!_]*.py"))
    ),
)


def path_of(name: str, folder: Path = FOLDER) -> Path:
    """Return the Python file of a module of the detectors."""
    return folder.joinpath(*name.split(".")).with_suffix(".py")


class PythonFiles:
    """Finds these modules as Python files, before Python finds their compiled form."""

    def __init__(self, folder: Path) -> None:
        self._paths = {f"{PACKAGE}.{name}": path_of(name, folder) for name in NAMES}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        file = self._paths.get(name)
        return importlib.util.spec_from_file_location(name, file) if file else None


@contextlib.contextmanager
def plain(folder: Path = FOLDER) -> Iterator[ModuleType]:
    """Let all that is imported here be the Python files, whatever was compiled.

    Yields the module of `Calibrated`.
    """
    names = [f"{PACKAGE}.{name}" for name in NAMES]
    installed = [importlib.import_module(name) for name in names]
    finder = PythonFiles(folder)
    for name in names:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    try:
        for name in names:
            importlib.import_module(name)
        yield sys.modules[f"{PACKAGE}.calibrated.detector"]
    finally:
        sys.meta_path.remove(finder)
        for name, module in zip(names, installed, strict=True):
            sys.modules[name] = module
            package, _, last = name.rpartition(".")
            setattr(sys.modules[package], last, module)
