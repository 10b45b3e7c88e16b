"""Compiles the detectors' hot code during the build of the package, if there is a C compiler.

    python hatch_build.py     compiles in place (needs mypy and setuptools)

mypyc translates the typed Python files to C, and a C compiler builds extension modules of that,
which Python imports in place of the `.py` files beside them. Without a C compiler, or if anything
fails, the Python files run, with the same results to the bit. `dataflow.detectors.compiled()`
returns which form runs. `HATCH_BUILD_NO_HOOKS=true pip install .` installs without compiling.
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
    "calibrated/places",
    "calibrated/runs",
    "calibrated/trees",
    "calibrated/view",
    "rcf/detector",
    "rcf/draws",
    "rcf/tree",
    "tutorial",
]
# The same version of mypy as in the extra `lint`, so that both infer the same types.
NEEDS = ["mypy>=2.4,<2.5", "setuptools>=77"]


def compiler() -> str | None:
    """Return the path of the C compiler for extension modules, None if there is none."""
    named = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    return shutil.which(named.split()[0])


def built() -> list[Path]:
    """Return the extension modules in the source tree, of every Python version."""
    return [*FOLDER.rglob("*.so"), *FOLDER.rglob("*.pyd")]


def compile_in_place() -> None:
    """Delete the extension modules in the source tree and build them again."""
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
                # Code outside is called as Python: to analyze River would take minutes.
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
            # A fused multiply-add rounds once, not twice: the scores would differ in the last bit.
            flags = [flag for flag in extension.extra_compile_args if flag != "-Werror"]
            extension.extra_compile_args = [*dict.fromkeys(flags), "-ffp-contract=off"]
        command = build_ext(Distribution({"ext_modules": extensions, "packages": []}))
        command.build_temp = f"{folder}/o"
        command.inplace = True
        command.ensure_finalized()
        command.run()


class CustomBuildHook(BuildHookInterface[Any]):
    """Compiles before Hatchling packs a wheel, editable or not."""

    def dependencies(self) -> list[str]:
        """Return the packages that compiling needs: none without a C compiler."""
        return NEEDS if compiler() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and pack the modules. If that fails, the wheel is pure Python."""
        for path in built():
            path.unlink()
        if not compiler():
            self.app.display_warning("no C compiler found: the detectors run as Python")
            return
        # In a process of its own, so that no failure of it ends the build.
        done = subprocess.run([sys.executable, __file__], check=False)
        if done.returncode:
            self.app.display_warning("compiling failed: the detectors run as Python")
            for path in built():
                path.unlink()
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["artifacts"].append("dataflow/detectors/**/*.so")
        build_data["artifacts"].append("dataflow/detectors/**/*.pyd")


if __name__ == "__main__":
    compile_in_place()
