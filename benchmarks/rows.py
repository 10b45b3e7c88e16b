"""The rows of `throughput.py`: what is compared, each as the commands that read the topic once."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bytewax.recovery import init_db_dir

import dataflow
from dataflow import detectors

__all__ = ["PARTITIONS", "TUTORIAL", "Place", "Row", "Run", "rows"]

PARTITIONS = 4
TUTORIAL = "tutorial's flow"
PEERS = Path(__file__).parent / "peers"
FLOW = (sys.executable, "-m", "bytewax.run", "dataflow.flow")


class Place(NamedTuple):
    """A filled topic, how many records it holds, and an empty folder of the run's own."""

    brokers: str
    topic: str
    count: int
    folder: Path


class Run(NamedTuple):
    """A process: its command, and its environment beside the usual one."""

    command: tuple[str, ...]
    environment: dict[str, str]


class Row(NamedTuple):
    """A line of the table: its name, and the processes that share its work."""

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


def _ours(
    detector: str, *, plain: Path | None = None, processes: int = 0, partitions: int = PARTITIONS
) -> Callable[[Place], list[Run]]:
    """Run the flow; `processes` of 1 and more each have partitions and a recovery store."""

    def runs(place: Place) -> list[Run]:
        environment = {
            "ANOMALY_BROKERS": place.brokers,
            "ANOMALY_TOPIC": place.topic,
            "ANOMALY_DETECTOR": detector,
            "ANOMALY_FOLLOW": "false",
        }
        if plain is not None:
            environment["PYTHONPATH"] = str(plain)
        if not processes:
            return [Run(FLOW, environment)]
        found = []
        for number in range(processes):
            store = place.folder / f"recovery-{number}"
            store.mkdir()
            init_db_dir(store, 1)
            own = ",".join(map(str, range(number, partitions, processes)))
            found.append(
                Run(
                    (*FLOW, "-r", str(store), "-s", "10", "-b", "0"),
                    {**environment, "ANOMALY_PARTITIONS": own},
                )
            )
        return found

    return runs


def uncompiled(folder: Path) -> Path:
    """Copy the package without what was compiled; what to put on PYTHONPATH."""
    source = Path(dataflow.__file__).parent
    ignored = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    shutil.copytree(source, folder / "dataflow", ignore=ignored)
    return folder


def rows(folder: Path) -> list[Row]:
    """Return what can be compared here; `folder` is for what they share."""
    found = [Row(TUTORIAL, _tutorial), _peer("confluent-kafka loop + River", "plain_loop.py")]
    if importlib.util.find_spec("aiokafka"):
        found.append(_peer("aiokafka loop + River", "aiokafka_loop.py"))
    if importlib.util.find_spec("quixstreams"):
        found.append(_peer("Quix Streams + River", "quix_flow.py", folder=True))
    found.append(Row("ours, tutorial", _ours("tutorial")))
    if detectors.compiled():
        found.append(Row("ours, calibrated, compiled", _ours("calibrated")))
    found.append(
        Row("ours, calibrated, plain", _ours("calibrated", plain=uncompiled(folder / "plain")))
    )
    for processes, name in ((1, "one process"), (2, "two processes")):
        found.append(
            Row(f"ours, calibrated, {name} with recovery", _ours("calibrated", processes=processes))
        )
    found.append(_peer("consume only, librdkafka's defaults", "plain_loop.py", "--consume-only"))
    found.append(_peer("consume only, tuned", "plain_loop.py", "--consume-only", "--tuned"))
    return found
