"""`python -m dataflow demo`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from dataflow import settings
from dataflow.alerts.line import line as shown_as
from dataflow.commands import progress
from dataflow.demo import producer, sample
from dataflow.demo.broker import EmbeddedBroker
from dataflow.detectors import compiled, find
from dataflow.errors import UserError, missing_bytewax
from dataflow.kafka import topics
from dataflow.records import Anomaly, Incident

__all__ = ["demo"]

_anomaly = msgspec.json.Decoder(Anomaly).decode
_incident = msgspec.json.Decoder(Incident).decode


def demo(
    workers: Annotated[int, typer.Option(min=1, max=64, help="Workers of the flow.")] = 3,
    partitions: Annotated[int, typer.Option(min=1, max=64, help="Partitions of the topic.")] = 3,
    dashboard: Annotated[
        bool, typer.Option("--dashboard", help="Play the stream on the live page until Ctrl-C.")
    ] = False,
    instances: Annotated[
        int, typer.Option(min=1, max=100_000, help="Instances on the live page.")
    ] = 8,
    speed: Annotated[
        float | None,
        typer.Option(
            min=1, help="Factor of real time. Default: up to 600, at most 1,000 readings a second."
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the live page; 0 selects a free one.")
    ] = 5006,
) -> None:
    """Start a broker, run the flow on the sample stream, print its alerts, and exit."""
    if find_spec("bytewax") is None:
        raise missing_bytewax()
    if dashboard:
        from dataflow.commands.demo_dashboard import play  # imports numpy

        play(instances, speed, workers, partitions, "127.0.0.1", port)
        return
    out = Console(highlight=False, soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="anomaly-demo-") as folder:
        file, _labels = sample.write(Path(folder))
        with EmbeddedBroker(Path(folder) / "broker") as broker:
            # The demo must not depend on the settings of the user.
            demo_settings = {
                "ANOMALY_BROKERS": broker.address,
                "ANOMALY_INPUT": "kafka",
                "ANOMALY_TOPIC": "ec2_metrics",
                "ANOMALY_FOLLOW": "false",
                "ANOMALY_OUTPUT": "stdout",
                "ANOMALY_INCIDENTS": "true",
            }
            os.environ.update(demo_settings)
            options = settings.load()
            topics.create(options, [options.topic, options.rejected_topic], partitions)
            out.print(f"broker    {broker.address} (embedded, for this demo)")
            records = producer.count_records(file)
            with progress.bar("loading", records) as advance:
                producer.send(options, producer.keyed_records(file, options), None, advance)
            out.print(
                f"loaded    {records:,} readings into {options.topic}, {partitions} partitions"
            )
            out.print(
                f"flow      python -m bytewax.run dataflow.flow -w {workers}, "
                f"detector {options.detector} {_form(options.detector)}\n"
            )
            started = time.monotonic()
            alerts: Counter[str] = Counter()
            anomalies: Counter[str] = Counter()
            for line in _run_flow(workers):
                record = _record(line)
                if isinstance(record, Anomaly):
                    anomalies[record.instance] += 1
                    alerts[record.instance] += record.alert
                if shown := shown_as(record):
                    out.print(shown)
            took = time.monotonic() - started
    _summary(out, alerts, anomalies, records, took)


def _form(detector: str) -> str:
    """Return whether a detector with compiled code runs compiled, for display."""
    if not find(detector).compilable:
        return ""
    return "(compiled)" if compiled() else "(not compiled: slower, same results)"


def _record(line: bytes) -> Anomaly | Incident:
    return _incident(line) if b'"state":' in line else _anomaly(line)


def _run_flow(workers: int) -> Iterator[bytes]:
    command = [sys.executable, "-m", "bytewax.run", "dataflow.flow", "-w", str(workers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as flow:
        try:
            assert flow.stdout is not None
            yield from flow.stdout
        except BaseException:
            flow.kill()
            raise
    if flow.returncode:
        raise UserError(
            f"The flow ended with exit status {flow.returncode}: see its messages above."
        )


def _summary(
    out: Console, alerts: Counter[str], anomalies: Counter[str], records: int, took: float
) -> None:
    table = Table("instance", "alerts", "anomalies", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for instance in sorted(anomalies):
        table.add_row(instance, str(alerts[instance]), str(anomalies[instance]))
    table.add_row("all", str(alerts.total()), str(anomalies.total()))
    out.print()
    out.print(table)
    out.print(
        f"\n{records:,} records in {took:.1f} s ({records / took:,.0f} a second, startup included)."
        "\nNext: your own topic with ANOMALY_BROKERS and ANOMALY_TOPIC, and"
        "\n`python -m dataflow --help`; the README explains how it works."
    )
