"""The cost of a fleet: CPU, memory, recovery store and restart, by the number of instances.

    python benchmarks/instances.py [--instances 8 1000 100000 1000000] [--detectors NAME ...]
                                   [--epochs 10 60] [--json FILE] [--picture FILE] [--quick]
    python benchmarks/instances.py --show FILE [--picture FILE]

Each instance sends a reading every `interval` seconds, here as fast as the flow takes them: the
readings of an epoch of 10 or 60 seconds come as one batch, and the epoch ends with it. They are
generated in the process itself, whose CPU time for that is subtracted; there is no broker. Each
figure comes from processes of its own, one at a time: without a recovery store, with one, and
restarted on that. CPU is the median of the rounds after the first, in which states are created.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import processes
from processes import Run

from dataflow.commands.plan import store_files
from dataflow.recovery.files import initialize

INTERVAL = 300
LIMIT = 1_200.0
"""Time limit of one process, in seconds."""

MOST_ROUNDS = 40
ENOUGH = 4_000
"""Readings after which a small fleet needs no more rounds."""


def run(
    detector: str,
    instances: int,
    records: int,
    batch: int,
    store: Path | None,
    folder: Path,
    *,
    leave: bool = False,
) -> dict[str, Any]:
    """Run a process over all readings up to `records`, and return what it measured."""
    (folder / "none.jsonl").touch()
    figures = folder / "figures.json"
    plan: dict[str, Any] = {
        "instances": instances,
        "records": records,
        "batch": batch,
        "interval": INTERVAL,
        "started": time.monotonic(),
        "figures": str(figures),
        "leave": leave,
    }
    command = [
        *(sys.executable, "-m", "bytewax.run", "instances_flow", "-s", "0"),
        *(() if store is None else ("-r", str(store), "-b", "0")),
    ]
    environment = {
        "INSTANCES_PLAN": json.dumps(plan),
        "PYTHONPATH": os.pathsep.join(
            filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])
        ),
        "ANOMALY_INPUT": "none.jsonl",
        "ANOMALY_DETECTOR": detector,
        "ANOMALY_MAX_INSTANCES": str(instances),
    }
    taken = processes.measure("the flow", [Run(command, environment)], folder, LIMIT)
    seen = dict(json.loads(figures.read_bytes()))
    seen["stop_s"] = time.monotonic() - plan["started"] - seen["read_until"]
    seen["stop_cpu"] = taken.cpu - seen["read_cpu"]
    seen["stop_peak"] = taken.memory
    return seen


def rounds_of(instances: int) -> int:
    """Return how often each instance sends: at least twice, as the first round is not measured."""
    return max(2, min(MOST_ROUNDS, 1 + ENOUGH // instances))


def cost(seen: dict[str, Any], instances: int) -> float:
    """Return the microseconds of CPU per reading."""
    return statistics.median(cpu for cpu, _, _ in seen["rounds"][1:]) / instances * 1e6


def measure(detector: str, instances: int, epochs: list[int]) -> dict[str, Any]:
    """Return the figures of one detector and one number of instances."""
    records = instances * rounds_of(instances)
    found: dict[str, Any] = {"epochs": {}}
    with tempfile.TemporaryDirectory(prefix="instances-") as name:
        folder = Path(name)
        batch = max(1, instances * epochs[0] // INTERVAL)
        seen = run(detector, instances, records, batch, None, folder)
        found |= {"cpu_us": cost(seen, instances), "resident": seen["rounds"][-1][2]}
        for epoch in epochs:
            batch = max(1, instances * epoch // INTERVAL)
            store = folder / f"store-{epoch}"
            store.mkdir()
            initialize(store, store_files(instances))
            kept = run(detector, instances, records, batch, store, folder)
            size = sum(path.stat().st_size for path in store.iterdir())
            more = records + batch
            again = run(detector, instances, more, batch, store, folder, leave=True)
            found["epochs"][str(epoch)] = {
                "cpu_us": cost(kept, instances),
                "peak": kept["peak"],
                "store": size,
                "restart_s": again["scored_after"],
                "restart_cpu_s": again["scored_cpu"],
                "restart_peak": again["peak"],
                "stop_s": kept["stop_s"],
                "stop_cpu": kept["stop_cpu"],
                "stop_peak": kept["stop_peak"],
            }
            for path in store.iterdir():
                path.unlink()
    return found


def table(found: dict[str, Any]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| detector | instances | saves every | CPU µs a reading, without store | with it "
        "| of a core | memory | at most | store | restart, CPU | by the clock | stop, CPU |",
        "|" + " --- |" * 12,
    ]
    for detector, sizes in found["detectors"].items():
        for instances, one in sizes.items():
            for epoch, kept in one["epochs"].items():
                share = kept["cpu_us"] * int(instances) / INTERVAL / 1e6
                cells = [
                    *(f"`{detector}`", f"{int(instances):,}", f"{epoch} s"),
                    *(f"{one['cpu_us']:.1f}", f"{kept['cpu_us']:.1f}", f"{share:.2g}"),
                    f"{max(kept['peak'], kept['restart_peak']) / 1e6:,.0f} MB",
                    f"{kept['stop_peak'] / 1e6:,.0f} MB",
                    f"{kept['store'] / 1e6:,.1f} MB",
                    f"{kept['restart_cpu_s']:.1f} s",
                    f"{kept['restart_s']:.1f} s",
                    f"{kept['stop_cpu']:.1f} s",
                ]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw the figures of the longest epoch over the number of instances."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(14, 3.4), layout="constrained")
    for detector, sizes in found["detectors"].items():
        counts = [int(instances) for instances in sizes]
        kept = [list(one["epochs"].values())[-1] for one in sizes.values()]
        shares = [one["cpu_us"] * n / INTERVAL / 1e6 for one, n in zip(kept, counts, strict=True)]
        peaks = [one["stop_peak"] / 1e9 for one in kept]
        stores = [one["store"] / 1e9 for one in kept]
        restarts = [one["restart_cpu_s"] for one in kept]
        for axis, values in zip(axes, (shares, peaks, stores, restarts), strict=True):
            axis.plot(counts, values, "o-", label=detector)
    titles = (
        "cores, a reading each 5 minutes",
        "memory at most, GB",
        "recovery store, GB",
        "restart, CPU seconds",
    )
    for axis, title, goal in zip(axes, titles, (0.25, 8, None, 60), strict=True):
        axis.set(xscale="log", yscale="log", title=title, xlabel="instances")
        axis.grid(alpha=0.3)
        if goal is not None:
            axis.axhline(goal, color="grey", linestyle="--", linewidth=1)
    axes[0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--instances", type=int, nargs="+", default=[8, 1_000, 100_000, 1_000_000])
    parser.add_argument("--detectors", nargs="+", default=["calibrated", "tutorial"])
    parser.add_argument("--epochs", type=int, nargs="+", default=[10, 60], metavar="SECONDS")
    parser.add_argument("--json", type=Path, help="write the figures here, add to what is there")
    parser.add_argument("--show", type=Path, help="measure nothing: a file that --json wrote")
    parser.add_argument("--picture", type=Path, help="draw the figures (needs matplotlib)")
    parser.add_argument("--quick", action="store_true", help="small fleets only: does it work?")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    asked = options()
    if asked.quick:
        asked.instances, asked.epochs, asked.detectors = [8, 300], [60], ["tutorial"]
    for name in [name for name in os.environ if name.startswith(("ANOMALY_", "BYTEWAX_"))]:
        del os.environ[name]
    found: dict[str, Any] = {"detectors": {}}
    kept = asked.show or asked.json
    if kept and kept.is_file():
        found = json.loads(kept.read_text())
    if not asked.show:
        found["machine"] = processes.machine()
        for detector in asked.detectors:
            for instances in asked.instances:
                began = time.monotonic()
                sizes = found["detectors"].setdefault(detector, {})
                # The largest fleets are not measured twice: that takes long.
                epochs = asked.epochs if instances <= 100_000 else asked.epochs[-1:]
                sizes[str(instances)] = measure(detector, instances, epochs)
                took = time.monotonic() - began
                print(f"{detector}, {instances:,} instances: {took:.0f} s", file=sys.stderr)
                if asked.json:
                    asked.json.write_text(json.dumps(found, indent=2) + "\n")
    print(processes.describe(found["machine"]), end="\n\n")
    print(table(found))
    if asked.picture:
        draw(found, asked.picture)


if __name__ == "__main__":
    main()
