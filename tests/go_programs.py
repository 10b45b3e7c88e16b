"""Programs of others that tests run, built once from Go modules into the cache of the user."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

__all__ = ["Unavailable", "built", "place"]

BUILD_SECONDS = 1_500


class Unavailable(Exception):  # noqa: N818  it is not a fault of the tests
    """Why a program cannot run here, in a sentence."""


def place(name: str) -> Path:
    """Where a program is, or will be."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "ec2-anomaly-dataflow" / name


def built(name: str, package: str, *arguments: str, source: Path | None = None) -> Path:
    """The program of this name, built from a package unless it is there already.

    `source` is a folder with the package's module; None: the package names its version.
    """
    program = place(name)
    cache = program.parent
    if program.exists():
        return program
    go = shutil.which("go")
    if go is None:
        raise Unavailable(f"{program} is not there, and go, which builds it, is not on PATH")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="build-") as folder:
        if source is not None:
            shutil.copytree(source, folder, dirs_exist_ok=True)
        command = [go, "install", "-trimpath", "-ldflags=-s -w", *arguments, package]
        # Several compilers at once would take the processors from all tests.
        more = {"GOFLAGS": "-p=1 -buildvcs=false", "GOBIN": f"{folder}/bin"}
        if source is not None:
            more["GOFLAGS"] += " -mod=mod"
        try:
            subprocess.run(
                command,
                cwd=folder,
                env={**os.environ, **more},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=BUILD_SECONDS,
                check=True,
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(
                f"{name} was not built within {BUILD_SECONDS} s: try again, and go continues"
            ) from None
        except subprocess.CalledProcessError as failed:
            lines = failed.stderr.strip().splitlines() or ["no message"]
            raise Unavailable(f"{name} was not built: {lines[-1]}") from None
        (built,) = (Path(folder) / "bin").iterdir()
        # Only a whole program gets the name; a run beside this one may have been first.
        with contextlib.suppress(OSError):
            built.rename(program)
    return program
