"""Draws records a second against the number of instances, from files that `throughput.py` wrote.

python benchmarks/throughput.py --only recovery --instances 1000 --json 1000.json
python benchmarks/picture.py PICTURE.png 100.json 1000.json 10000.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from matplotlib.figure import Figure

__all__ = ["draw"]


def draw(picture: Path, files: list[Path]) -> None:
    """Draw a line for each row that all files have."""
    found = sorted((json.loads(path.read_text()) for path in files), key=lambda it: it["instances"])
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name in found[0]["rows"]:
        if all(name in one["rows"] for one in found):
            speeds = [one["rows"][name]["records_s"] for one in found]
            axes.plot([one["instances"] for one in found], speeds, marker="o", label=name)
    axes.set(xscale="log", xlabel="instances", ylabel="records a second", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    axes.set_title(f"{found[0]['machine']['cpu']}, {found[0]['machine']['cores']} cores", size=9)
    figure.savefig(picture, dpi=100)


if __name__ == "__main__":
    draw(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
