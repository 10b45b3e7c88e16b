"""Starts the processes of a benchmark with a time limit, and measures their cost."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import IO, Any, NamedTuple

__all__ = ["Cost", "Process", "Run", "describe", "machine", "measure", "started"]

LIBRARIES = ("bytewax", "river", "confluent-kafka", "msgspec")


class Run(NamedTuple):
    """A process to start: its command, and what it adds to the environment."""

    command: Sequence[str]
    environment: dict[str, str]
    head_start: float = 0.0
    """Seconds until the next process starts."""


class Process(NamedTuple):
    """A started process and its standard error."""

    popen: subprocess.Popen[bytes]
    errors: IO[bytes]

    def check(self, name: str) -> None:
        """End the benchmark if the process has failed."""
        if self.popen.returncode:
            self.errors.seek(0)
            output = self.errors.read().decode(errors="replace")[-2000:]
            raise SystemExit(f"error: {name} failed, or took too long:\n{output}")


class Cost(NamedTuple):
    """Seconds of CPU and of the clock, and peak memory of all processes together in bytes."""

    cpu: float
    wall: float
    memory: int


@contextlib.contextmanager
def started(runs: Sequence[Run], folder: Path, limit: float) -> Iterator[list[Process]]:
    """Start processes in a folder; kill what still runs after `limit` seconds, or at the end.

    One that waits for ever must neither keep the others waiting nor outlive the benchmark.
    """
    processes: list[Process] = []
    timer = threading.Timer(limit, lambda: [one.popen.kill() for one in processes])
    timer.daemon = True
    timer.start()
    with contextlib.ExitStack() as files:
        try:
            for run in runs:
                # A file, not a pipe: nothing reads it meanwhile, and a full pipe would block.
                errors = files.enter_context(tempfile.TemporaryFile())
                popen = subprocess.Popen(
                    run.command,
                    cwd=folder,
                    env={**os.environ, **run.environment},
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                )
                processes.append(Process(popen, errors))
                time.sleep(run.head_start)
            yield processes
        finally:
            timer.cancel()
            for one in processes:
                if one.popen.poll() is None:
                    one.popen.kill()
                    one.popen.wait()


def measure(name: str, runs: Sequence[Run], folder: Path, limit: float) -> Cost:
    """Wait until all processes have ended with status 0; return their cost, with all threads."""
    began = time.monotonic()
    cpu, memory = 0.0, 0
    with started(runs, folder, limit) as processes:
        for process in processes:
            _, status, used = os.wait4(process.popen.pid, 0)
            process.popen.returncode = os.waitstatus_to_exitcode(status)
            process.check(name)
            cpu += used.ru_utime + used.ru_stime
            memory += used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Cost(cpu, time.monotonic() - began, memory)


def machine() -> dict[str, Any]:
    """Return what figures depend on: CPU, cores, versions."""
    model = "unknown"
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        pass
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {
            found.name: found.version
            for name in LIBRARIES
            # Bytewax has wheels for some versions of Python only.
            for found in distributions(name=name)
        },
    }


def describe(where: dict[str, Any]) -> str:
    """Return a line that describes what `machine` returned."""
    return (
        f"{where['cpu']}, {where['cores']} cores, load {where['load']:.1f}, "
        f"Python {where['python']}"
    )
