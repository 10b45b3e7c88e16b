"""Compiles the hot code of the detectors while the package is built, if there is a C compiler.

    python hatch_build.py     compiles in place (needs mypy and setuptools)

mypyc translates the typed Python files to C, a C compiler builds extension modules, and Python
imports those rather than the files beside them. Without a C compiler, or if anything fails, the
Python files run, with the same results to the bit; `dataflow.detectors.compiled()` says which form
runs. `HATCH_BUILD_NO_HOOKS=true pip install .` skips the compilation.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).resolve().parent
PACKAGE = "dataflow.detectors"
FOLDER = HERE / "dataflow" / "detectors"
NAMES = [
    "calibrated/detector",
    "calibrated/habit",
    "calibrated/masses",
    "calibrated/memory",
    "calibrated/trees",
    "tutorial",
]
# The version of mypy that `make lint` uses, so that both infer the same types.
NEEDS = ["mypy>=2.4,<2.5", "setuptools>=77"]


def compiler() -> str | None:
    """Return the path of the C compiler for extension modules, or None."""
    named = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    return shutil.which(named.split()[0])


def built() -> list[Path]:
    """Return the extension modules in the source tree, of any Python version."""
    return [*FOLDER.rglob("*.so"), *FOLDER.rglob("*.pyd")]


def compile_in_place() -> None:
    """Compile, after deleting earlier extension modules."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    for path in built():
        path.unlink()
    os.chdir(HERE)
    with tempfile.TemporaryDirectory() as folder:
        extensions = mypycify(
            [
                "--config-file=",
                # Modules that are not compiled are called as Python.
                "--follow-imports=skip",
                f"--cache-dir={folder}/cache",
                *(f"dataflow/detectors/{name}.py" for name in NAMES),
            ],
            group_name=f"{PACKAGE}.hot",
            opt_level="3",
            debug_level="0",
            target_dir=f"{folder}/c",
        )
        for extension in extensions:
            # A fused multiply-add rounds once, not twice, and would change bits of scores.
            flags = [flag for flag in extension.extra_compile_args if flag != "-Werror"]
            extension.extra_compile_args = [*dict.fromkeys(flags), "-ffp-contract=off"]
        command = build_ext(Distribution({"ext_modules": extensions, "packages": []}))
        command.build_temp = f"{folder}/o"
        command.inplace = True
        command.ensure_finalized()
        command.run()


class CustomBuildHook(BuildHookInterface[Any]):
    """The hook that Hatchling calls before it packs a wheel, an editable one too."""

    def dependencies(self) -> list[str]:
        """Return the requirements of the compilation; none if there is no C compiler."""
        return NEEDS if compiler() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile and pack the extension modules; without them, the wheel is for any platform."""
        for path in built():
            path.unlink()
        if not compiler():
            self.app.display_warning("no C compiler: the detectors are left as Python")
            return
        # In a process of its own, so that no failure there fails the build.
        done = subprocess.run([sys.executable, __file__], check=False)
        if done.returncode:
            self.app.display_warning("compiling failed: the detectors are left as Python")
            for path in built():
                path.unlink()
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["artifacts"].append("dataflow/detectors/**/*.so")
        build_data["artifacts"].append("dataflow/detectors/**/*.pyd")


if __name__ == "__main__":
    compile_in_place()
