"""Telegraf and the Collector, built once from Go modules into a folder of the user's cache.

Each is built with no more than what reads the CPU of a host and writes it to Kafka.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

TELEGRAF = "github.com/influxdata/telegraf/cmd/telegraf@v1.37.2"
TAGS = "custom,inputs.cpu,outputs.kafka,serializers.influx,serializers.json"
"""What `tools/custom_builder` of Telegraf would pass for the configuration in docs/feeds.md."""

COLLECTOR = Path(__file__).with_name("collector")
BUILD_SECONDS = 1_500


class Unavailable(Exception):  # noqa: N818  it is not a fault of the tests
    """Why a producer cannot run here, in a sentence."""


def telegraf() -> Path:
    """The program `telegraf`."""
    return _built("telegraf-1.37.2", TELEGRAF, "-tags", TAGS, source=None)


def collector() -> Path:
    """The program of a Collector."""
    return _built("collector-0.160.0", ".", source=COLLECTOR)


def _built(name: str, package: str, *arguments: str, source: Path | None) -> Path:
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = caches / "ec2-anomaly-dataflow"
    program = cache / name
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
