"""The rows of `throughput.py`, each as the commands that read the topic once."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from processes import Run
from topic import PARTITIONS

import dataflow
from dataflow import detectors
from dataflow.recovery.files import initialize

__all__ = ["FLOW", "TUTORIAL", "Place", "Row", "rows", "settings", "with_store"]

TUTORIAL = "tutorial's flow"
PEERS = Path(__file__).parent / "peers"
HEAD_START = 0.5
FLOW = (sys.executable, "-m", "bytewax.run", "dataflow.flow")


class Place(NamedTuple):
    """A filled topic, its number of records, and an empty folder for the run."""

    brokers: str
    topic: str
    count: int
    folder: Path


class Row(NamedTuple):
    """A line of the table: its name and the processes that share its work."""

    name: str
    runs: Callable[[Place], list[Run]]


def _peer(name: str, script: str, *flags: str, folder: bool = False) -> Row:
    def runs(place: Place) -> list[Run]:
        more = (str(place.folder),) if folder else flags
        command = (sys.executable, str(PEERS / script), place.brokers, place.topic)
        return [Run((*command, str(place.count), *more), {})]

    return Row(name, runs)


def _tutorial(place: Place) -> list[Run]:
    command = (sys.executable, "-m", "bytewax.run", "tutorial_flow")
    where = {"BENCH_BROKERS": place.brokers, "BENCH_TOPIC": place.topic}
    return [Run(command, {"PYTHONPATH": str(PEERS), **where})]


def settings(place: Place, detector: str, **more: object) -> dict[str, str]:
    """Return the environment of our flow; by default it stops at the end of the topic."""
    named = {
        "brokers": place.brokers,
        "topic": place.topic,
        "detector": detector,
        "follow": False,
        **more,
    }
    return {f"ANOMALY_{name.upper()}": str(value) for name, value in named.items()}


def with_store(folder: Path, files: int = 1) -> tuple[str, ...]:
    """Create an empty recovery store; return the command of a flow that saves to it."""
    initialize(folder, files)
    return (*FLOW, "-r", str(folder), "-s", "10", "-b", "0")


def _alone(detector: str, path: Path | None = None) -> Callable[[Place], list[Run]]:
    """Run the flow without a store, with the package from `path` if it is given."""

    def runs(place: Place) -> list[Run]:
        more = {"PYTHONPATH": str(path)} if path else {}
        return [Run(FLOW, {**settings(place, detector), **more})]

    return runs


def _apart(detector: str, processes: int) -> Callable[[Place], list[Run]]:
    """Run this many flows, each with partitions and a recovery store of its own."""

    def runs(place: Place) -> list[Run]:
        found = []
        for number in range(processes):
            command = with_store(place.folder / f"recovery-{number}")
            own = ",".join(map(str, range(number, PARTITIONS, processes)))
            found.append(Run(command, settings(place, detector, partitions=own)))
        return found

    return runs


def _cluster(detector: str, processes: int) -> Callable[[Place], list[Run]]:
    """Run one flow in this many processes of a Bytewax cluster, which share a recovery store."""

    def runs(place: Place) -> list[Run]:
        command = (*with_store(place.folder / "recovery", processes), "-a", _addresses(processes))
        environment = settings(place, detector)
        # Bytewax retries a second later to reach a process that is not up yet.
        return [
            Run((*command, "-i", str(number)), environment, 0.0 if number else HEAD_START)
            for number in range(processes)
        ]

    return runs


def _addresses(count: int) -> str:
    """Return addresses with free ports."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return ";".join(f"127.0.0.1:{one.getsockname()[1]}" for one in sockets)


def _workers(detector: str, workers: int) -> Callable[[Place], list[Run]]:
    """Run one flow with a recovery store in one process with this many workers."""

    def runs(place: Place) -> list[Run]:
        command = with_store(place.folder / "recovery", workers)
        return [Run((*command, "-w", str(workers)), settings(place, detector))]

    return runs


def _from_memory(processes: int) -> Callable[[Place], list[Run]]:
    """Score the records with the detector alone, divided among independent processes."""

    def runs(place: Place) -> list[Run]:
        share = str(place.count // processes)
        script = str(Path(__file__).with_name("from_memory.py"))
        return [Run((sys.executable, script, share), {})] * processes

    return runs


def uncompiled(folder: Path) -> Path:
    """Copy the package without extension modules; return what to put on PYTHONPATH."""
    source = Path(dataflow.__file__).parent
    ignored = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    shutil.copytree(source, folder / "dataflow", ignore=ignored)
    return folder


def _recovering(detector: str) -> list[Row]:
    return [
        Row(f"ours, {detector}, one process with recovery", _apart(detector, 1)),
        Row(f"ours, {detector}, two processes with recovery", _apart(detector, 2)),
        Row(f"ours, {detector}, a cluster of two processes", _cluster(detector, 2)),
    ]


def rows(folder: Path) -> list[Row]:
    """Return the rows that can run here; `folder` is for files that they share."""
    found = [Row(TUTORIAL, _tutorial), _peer("confluent-kafka loop + River", "plain_loop.py")]
    if importlib.util.find_spec("aiokafka"):
        found.append(_peer("aiokafka loop + River", "aiokafka_loop.py"))
    if importlib.util.find_spec("quixstreams"):
        found.append(_peer("Quix Streams + River", "quix_flow.py", folder=True))
    plain = uncompiled(folder / "plain")
    for detector in ("tutorial", "calibrated"):
        if detectors.compiled():
            found.append(Row(f"ours, {detector}, compiled", _alone(detector)))
        found.append(Row(f"ours, {detector}, plain", _alone(detector, plain)))
        found += _recovering(detector)
    found.append(Row("ours, tutorial, one process of four workers", _workers("tutorial", 4)))
    found.append(Row("calibrated from memory, one process", _from_memory(1)))
    found.append(Row("calibrated from memory, two processes", _from_memory(2)))
    found.append(_peer("consume only, librdkafka's defaults", "plain_loop.py", "--consume-only"))
    found.append(_peer("consume only, tuned", "plain_loop.py", "--consume-only", "--tuned"))
    return found
