"""What a flow needs for a topic of many partitions: memory, threads, open files, CPU, time.

    python benchmarks/partitions.py [--partitions 4,200,1000] [--rounds 5] [--records 400000]
        [--brokers HOST:PORT] [--against DIR] [--json FILE] [--quick]

The flow reads a filled topic as its users run it, with one worker, until its metrics count all
records; then it waits for new ones. Shown are the medians of rounds in which the rows take turns:
the seconds until the first record and until the last one, the CPU per record, the peak memory, the
threads and open files, and the CPU while there is nothing to read. `--against` runs the package of
another checkout too, in the same rounds, and shows the ratios to it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from processes import Run, describe, machine, started
from rows import FLOW, Place, settings
from topic import filled

from dataflow.demo.broker import EmbeddedBroker

INSTANCES = 1_000
LIMIT = 300.0
"""Time limit of a flow, in seconds."""

IDLE = 5.0
"""Seconds for which the CPU without records is measured."""

TICKS = os.sysconf("SC_CLK_TCK")
READ = "anomaly_records_read_total{"


class Figures(NamedTuple):
    """What one run needs."""

    first_s: float
    whole_s: float
    cpu_us: float
    memory_mb: float
    threads: float
    files: float
    idle_cpu: float


def cpu(pid: int) -> float:
    """Return the CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def status(pid: int, name: str) -> int:
    """Return a number of a process's status: a count, or kB."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0])


def records_read(port: int) -> float:
    """Return how many records a flow has read; 0 while it does not serve its metrics."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return 0.0
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(READ))


def measure(place: Place, path: str | None, idle: float) -> Figures:
    """Run the flow, with the package from `path` if it is given; let it idle for some seconds."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    more = {"PYTHONPATH": path} if path else {}
    own = settings(place, "tutorial", follow=True, output="found.jsonl", metrics_port=port)
    began = time.monotonic()
    with started([Run(FLOW, {**own, **more})], place.folder, LIMIT) as (process,):
        pid = process.popen.pid
        first = 0.0
        while (count := records_read(port)) < place.count:
            if process.popen.poll() is not None:
                process.check("the flow")
                raise SystemExit(f"error: the flow ended after {count:.0f} records.")
            first = first or (time.monotonic() - began if count else 0.0)
            time.sleep(0.05)
        whole, spent = time.monotonic() - began, cpu(pid)
        figures = Figures(
            first or whole,
            whole,
            spent / place.count * 1e6,
            status(pid, "VmHWM") / 1000,
            status(pid, "Threads"),
            len(list(Path(f"/proc/{pid}/fd").iterdir())),
            0.0,
        )
        time.sleep(idle / 5)
        before = cpu(pid)
        time.sleep(idle)
        figures = figures._replace(idle_cpu=(cpu(pid) - before) / idle)
        process.popen.send_signal(signal.SIGTERM)
        process.popen.wait()
        process.check("the flow")
    return figures


def table(found: dict[str, dict[str, list[Figures]]]) -> str:
    """Return the medians as a table; where two packages ran, with their ratio."""
    lines = [
        "| partitions | | first record, s | last record, s | CPU µs a record | peak MB | threads | "
        "files | cores while idle |",
        "| --- " * 9 + "|",
    ]
    for partitions, rows in found.items():
        medians = {
            name: Figures(*map(statistics.median, zip(*rounds, strict=True)))
            for name, rounds in rows.items()
        }
        for name, one in medians.items():
            lines.append(
                f"| {partitions} | {name} | {one.first_s:.1f} | {one.whole_s:.1f} | "
                f"{one.cpu_us:.2f} | {one.memory_mb:.0f} | {one.threads:.0f} | {one.files:.0f} | "
                f"{one.idle_cpu:.3f} |"
            )
        if len(rows) == 2:
            this, other = rows.values()
            ratios = [
                [a / b if b else float("nan") for a, b in zip(mine, its, strict=True)]
                for mine, its in zip(this, other, strict=True)
            ]
            shown = " | ".join(
                f"x {statistics.median(one):.2f}" for one in zip(*ratios, strict=True)
            )
            lines.append(f"| {partitions} | ratio | {shown} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--partitions", default="4,200,1000", help="several with commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--records", type=int, default=400_000)
    parser.add_argument("--brokers", help="HOST:PORT; by default an embedded broker")
    parser.add_argument("--against", type=Path, help="checkout of another version to compare with")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="one round of few: does it work?")
    options = parser.parse_args()
    idle = IDLE
    if options.quick:
        options.partitions, options.rounds, options.records = "4,50", 1, 5_000
        idle = 0.5
    for name in [name for name in os.environ if name.startswith("ANOMALY_")]:
        del os.environ[name]
    paths = {"this version": None}
    if options.against:
        paths["other version"] = str(options.against.resolve())
    found: dict[str, dict[str, list[Figures]]] = {}
    with ExitStack() as stack:
        brokers = options.brokers
        if brokers is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            brokers = stack.enter_context(EmbeddedBroker(Path(folder))).address
        for partitions in options.partitions.split(","):
            rows = found[partitions] = {name: [] for name in paths}
            with filled(brokers, options.records, INSTANCES, int(partitions)) as topic:
                for _ in range(options.rounds):
                    for name, path in paths.items():
                        with tempfile.TemporaryDirectory() as own:
                            place = Place(brokers, topic, options.records, Path(own))
                            rows[name].append(measure(place, path, idle))
                        print(partitions, name, rows[name][-1], file=sys.stderr, flush=True)
    where = machine()
    if options.json:
        kept = {"machine": where, "rounds": options.rounds, "rows": found}
        options.json.write_text(json.dumps(kept, indent=2) + "\n")
    print(f"{describe(where)}; {options.rounds} rounds, {options.records:,} records\n")
    print(table(found))


if __name__ == "__main__":
    main()
