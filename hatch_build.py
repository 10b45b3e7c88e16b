"""Compiles the hot code of the detectors while the package is built, where that can be.

    python hatch_build.py     compiles in place (mypy and setuptools must be there)

mypyc makes C of the typed Python files, a C compiler makes extension modules of that, and Python
prefers those to the files beside them. Without a C compiler, or if anything fails, the files run as
they are, with the same results to the bit; `dataflow.detectors.compiled()` says which form runs.
`HATCH_BUILD_NO_HOOKS=true pip install .` leaves them as they are on purpose.
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
# The version that `make lint` checks the types with, so that both agree on what they are.
NEEDS = ["mypy>=2.4,<2.5", "setuptools>=77"]


def compiler() -> str | None:
    """Return the C compiler that extension modules are built with, if it is there."""
    named = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    return shutil.which(named.split()[0])


def built() -> list[Path]:
    """Return the extension modules that lie in the source tree, of any version of Python."""
    return [*FOLDER.rglob("*.so"), *FOLDER.rglob("*.pyd")]


def compile_in_place() -> None:
    """Compile; what an earlier version was compiled to goes first."""
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
                # What is not compiled is called as Python; looking into River takes minutes.
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
            # A fused multiplication and addition rounds once, not twice: other bits.
            flags = [flag for flag in extension.extra_compile_args if flag != "-Werror"]
            extension.extra_compile_args = [*dict.fromkeys(flags), "-ffp-contract=off"]
        command = build_ext(Distribution({"ext_modules": extensions, "packages": []}))
        command.build_temp = f"{folder}/o"
        command.inplace = True
        command.ensure_finalized()
        command.run()


class CustomBuildHook(BuildHookInterface[Any]):
    """What Hatchling calls before it packs a wheel, an editable one too."""

    def dependencies(self) -> list[str]:
        """Return what the compilation needs; nothing if there is no C compiler."""
        return NEEDS if compiler() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile and pack what came of it; without, the wheel is one for any platform."""
        for path in built():
            path.unlink()
        if not compiler():
            self.app.display_warning("no C compiler: the detectors are left as Python")
            return
        # A process of its own: a failure in there, of whatever kind, is no failure of the build.
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
