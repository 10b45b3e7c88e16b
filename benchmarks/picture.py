"""Draws records a second over the number of instances: one process, two, a cluster of two.

    python benchmarks/picture.py PICTURE [--instances 10 100 1000 10000] [--rounds 5]
                                 [--records 200000] [--minutes 20] [--json FILE] [--quick]
                                 [--brokers HOST:PORT]
    python benchmarks/picture.py PICTURE --show FILE

The rows of `throughput.py` with a recovery store run in turns as there, once for each number of
instances; beside them, up to 1,000, the tutorial's flow. Points are medians of the rounds, whiskers
their minimum and maximum. With many instances each has few readings, of which the first cost most:
the true speed is rather higher there. --json saves the figures after each round; --show draws them
again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from processes import describe
from rows import TUTORIAL, rows
from throughput import add_options, take_turns

ONE = "ours, calibrated, one process with recovery"
LINES = {
    "ours, calibrated, two processes with recovery": ("two processes, each its partitions", "s-"),
    ONE: ("one process", "o-"),
    "ours, calibrated, a cluster of two processes": ("one Bytewax cluster of two processes", "^-"),
    TUTORIAL: ("the tutorial's flow, without recovery", "x--"),
}
MOST_FOR_TUTORIAL = 1_000
"""It copies each model that an epoch touches: with 10,000 that takes longer than the epoch."""

COLORS = ("#0072b2", "#d55e00", "#009e73", "#666666")
"""Distinct for color-blind readers too, as are the markers."""


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Return the figures by the number of instances (as text)."""
    sizes: dict[str, Any] = {}
    for instances in sorted(asked.instances):
        print(f"{instances:,} instances", file=sys.stderr)

        def keep(found: dict[str, Any], size: str = str(instances)) -> None:
            sizes[size] = found
            if asked.json:
                asked.json.write_text(json.dumps({"sizes": sizes}, indent=2) + "\n")

        with tempfile.TemporaryDirectory(prefix="picture-") as name:
            take_turns(
                Path(name),
                [
                    row
                    for row in rows(Path(name))
                    if row.name in LINES
                    and (row.name != TUTORIAL or instances <= MOST_FOR_TUTORIAL)
                ],
                keep,
                records=asked.records,
                instances=instances,
                rounds=asked.rounds,
                minutes=asked.minutes / len(asked.instances),
                brokers=asked.brokers,
            )
    return {"sizes": sizes}


def draw(found: dict[str, Any], picture: Path) -> None:
    """Draw a line for each row."""
    from matplotlib.figure import Figure

    measured = list(found["sizes"].values())
    figure = Figure(figsize=(8, 5), layout="constrained", facecolor="white")
    axes = figure.subplots()
    most = 0.0
    for (name, (label, style)), color in zip(LINES.items(), COLORS, strict=True):
        own = {one["instances"]: one["rows"][name] for one in measured if name in one["rows"]}
        middle = [one["records_s"] for one in own.values()]
        below = [one["records_s"] - one["records_s_least"] for one in own.values()]
        above = [one["records_s_most"] - one["records_s"] for one in own.values()]
        axes.errorbar(
            # Whiskers side by side, and not on top of each other.
            [count * 1.05 ** len(axes.containers) for count in own],
            middle,
            (below, above),
            fmt=style,
            color=color,
            label=label,
            elinewidth=1,
            capsize=2,
        )
        most = max(most, *middle)
    # Whiskers may be cut off: one bad round must not flatten all lines.
    axes.set(xscale="log", xlabel="instances", ylabel="records a second", ylim=(0, 1.25 * most))
    counts = [one["instances"] for one in measured]
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.grid(color="#dddddd")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("From the broker to the output: calibrated, with recovery", fontsize=13)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    rounds = min(one["rounds"] for one in measured)
    axes.set_title(
        f"{describe(measured[0]['machine'])}; {measured[0]['records']:,} records, the broker on "
        f"the same machine; medians, {rounds} rounds",
        fontsize=8,
        color="#555555",
    )
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=120)


def table(found: dict[str, Any]) -> str:
    """Write the records a second as a Markdown table, with their ratio to one process."""
    sizes = found["sizes"]
    lines = [f"| records/s (x one process) | {' | '.join(f'{int(n):,}' for n in sizes)} |"]
    lines.append("|" + " --- |" * (1 + len(sizes)))
    for name in LINES:
        cells = []
        for one in sizes.values():
            base = one["rows"][ONE]["records_s"]
            speed = one["rows"].get(name, {}).get("records_s")
            cells.append(f"{speed:,.0f} ({speed / base:.2f})" if speed else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("picture", type=Path, metavar="PICTURE", help="a .png or .svg file")
    parser.add_argument("--instances", type=int, nargs="+", default=[10, 100, 1_000, 10_000])
    add_options(parser, minutes=20.0)
    parser.add_argument("--show", type=Path, help="measure nothing: a file that --json wrote")
    return parser.parse_args()


def main() -> None:
    """Measure, or read what was measured; draw and print."""
    asked = options()
    if asked.quick:
        asked.instances, asked.rounds, asked.records = [10, 100], 1, 50_000
    for name in [name for name in os.environ if name.startswith("ANOMALY_")]:
        del os.environ[name]
    found = json.loads(asked.show.read_text()) if asked.show else measure(asked)
    draw(found, asked.picture)
    print(table(found))


if __name__ == "__main__":
    main()
