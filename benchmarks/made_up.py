"""Makes labeled series for `python -m dataflow evaluate --data DIR`, from a seed.

    python benchmarks/made_up.py minute DIR [--seed 1] [--series 20] [--days 14]

`minute` are readings 60 s apart with a daily rhythm. Their anomalies last one to five readings and
stay within the range of the ordinary readings: what no range and no mean of an hour shows. Each
series is a file with the columns timestamp, value and is_anomaly; labeled are the changed readings
and the one after them, since a return is a change too. The first three days have no anomaly:

    python -m dataflow evaluate --data DIR --interval 60 --skip 3d
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

Floats = NDArray[np.float64]

START = pd.Timestamp("2024-01-01")
DAY = 1_440
QUIET_DAYS = 3
HOURS_APART = (6.0, 18.0)

#: What each anomaly makes of a few readings: in sizes of the usual noise, or None for the lowest
#: value of the series.
KINDS: dict[str, Callable[[Generator], list[float | None]]] = {
    "spike": lambda rng: [rng.uniform(9, 20)],
    "dip": lambda rng: [-rng.uniform(9, 20)],
    "plateau": lambda rng: 3 * [rng.choice([-1, 1]) * rng.uniform(7, 14)],
    "sawtooth": lambda rng: [step * rng.uniform(3, 5) for step in (1, 2, 3, 4)],
    "drop": lambda rng: int(rng.integers(1, 3)) * [None],
    "double spike": lambda rng: [rng.uniform(9, 20), 0.0, 0.0, rng.uniform(9, 20)],
    "swing": lambda rng: [rng.uniform(8, 15), -rng.uniform(8, 15)],
    "jitter": lambda rng: [sign * rng.uniform(6, 12) for sign in (1, -1, 1, -1, 1)],
}


def rhythm(rng: Generator, days: int) -> Floats:
    """Return the expected values of a series, about 0 to 1, of one of three shapes of a day."""
    at = np.arange(days * DAY) / DAY
    hour = (at - rng.uniform()) % 1
    shape = rng.integers(3)
    if shape == 0:
        day = 0.5 - 0.5 * np.cos(2 * np.pi * hour)
    elif shape == 1:  # two peaks
        day = np.clip(0.45 - 0.35 * np.cos(2 * np.pi * hour) - 0.2 * np.cos(4 * np.pi * hour), 0, 1)
    else:  # hours of work
        day = 1 / (1 + np.exp(-40 * (hour - 0.3))) - 1 / (1 + np.exp(-40 * (hour - 0.7)))
    weekend = np.where(at.astype(int) % 7 >= 5, rng.uniform(0.5, 1), 1)
    return np.asarray(day * weekend)


def noise(rng: Generator, readings: int) -> Floats:
    """Return noise of a deviation of about 1 that remembers a little, with some heavier tails."""
    sudden = rng.standard_t(6, readings)
    remembered = rng.uniform(0.2, 0.7)
    found = np.empty(readings)
    last = 0.0
    for at, one in enumerate(sudden.tolist()):
        last = remembered * last + one
        found[at] = last
    return found / found.std()


def minute(rng: Generator, days: int) -> pd.DataFrame:
    """Return a series of readings 60 s apart with labels."""
    expected = rhythm(rng, days)
    size = rng.uniform(0.015, 0.04)
    floor = rng.choice([0.0, 0.1, 0.5])
    values = np.maximum(floor + expected + size * noise(rng, len(expected)), floor / 2)
    low, high = float(values.min()), float(values.max())
    labels = np.zeros(len(values), int)
    at = float(QUIET_DAYS * DAY)
    order: list[str] = []
    while (at := at + 60 * rng.uniform(*HOURS_APART)) < len(values) - 10:
        order = order or list(rng.permutation(list(KINDS)))
        first = int(at)
        changes = KINDS[order.pop()](rng)
        for place, change in enumerate(changes, start=first):
            changed = low if change is None else values[place] + size * change
            # Where there is no room on this side, it is the other side.
            if change is not None and not low <= changed <= high:
                changed = values[place] - size * change
            values[place] = min(max(changed, low), high)
        labels[first : first + len(changes) + 1] = 1
    scale = 10 ** rng.uniform(0, 6)
    return pd.DataFrame(
        {
            "timestamp": START + pd.to_timedelta(np.arange(len(values)), unit="min"),
            "value": [f"{one:.6g}" for one in scale * values],
            "is_anomaly": labels,
        }
    )


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=["minute"])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--series", type=int, default=20)
    parser.add_argument("--days", type=int, default=14)
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    for number in range(arguments.series):
        made = minute(default_rng([arguments.seed, number]), arguments.days)
        made.to_csv(arguments.directory / f"minute{number:02}.csv", index=False)


if __name__ == "__main__":
    main()
