"""Makes labeled series for `python -m dataflow evaluate --data DIR`, from a seed.

    python benchmarks/made_up.py minute DIR [--seed 1] [--series 20] [--days 14]
    python benchmarks/made_up.py gutentag DIR --series 40 --days 24

Each series is a file with the columns timestamp, value and is_anomaly.

`minute` are readings 60 s apart with a daily rhythm. Their anomalies last one to five readings and
stay within the range of the ordinary readings: what no range and no mean of an hour shows.
Labeled are the changed readings and the one after them, since a return is a change too. The first
three days have no anomaly:

    python -m dataflow evaluate --data DIR --interval 60 --skip 3d

`gutentag` are readings 300 s apart of GutenTAG (Wenig, Schmidl and Papenbrock, PVLDB 2022): five of
its oscillations, most with a period of a day, and nine of its kinds of anomalies, up to six hours
long. It needs `pip install timeeval-gutentag` in an environment of its own, for its older SciPy.
The first eight days have no anomaly:

    python -m dataflow evaluate --data DIR --interval 300 --skip 8d
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


OSCILLATIONS = ("sine", "cosine", "square", "sawtooth", "random-walk")
OF_A_PERIOD = ("frequency", "pattern", "pattern-shift")
LONGEST = 72
FIRST_DAYS = 8


def oscillation(rng: Generator, kind: str) -> dict[str, Any]:
    """Return the settings of one of GutenTAG's oscillations, with a period of a day if any."""
    settings: dict[str, Any] = {"kind": kind, "variance": float(rng.uniform(0.02, 0.1))}
    if kind == "random-walk":
        return {**settings, "amplitude": 1.0, "smoothing": 0.01}
    settings |= {"frequency": 100 / 288, "amplitude": float(rng.uniform(0.5, 1.5))}
    if kind == "square":
        settings["duty"] = float(rng.uniform(0.3, 0.6))
    return settings


def anomaly(rng: Generator, of: str, position: int) -> dict[str, Any]:
    """Return the settings of one of GutenTAG's anomalies, which fits the oscillation."""
    kinds: dict[str, dict[str, Any]] = {
        "amplitude": {"amplitude_factor": float(rng.choice([0.4, 1.6, 2.2]))},
        "extremum": {"min": bool(rng.integers(2)), "local": bool(rng.integers(2))},
        "mean": {"offset": float(rng.choice([-1, 1]) * rng.uniform(0.3, 1))},
        "platform": {"value": float(rng.uniform(-0.8, 0.8))},
        "trend": {
            "oscillation": {"kind": "polynomial", "polynomial": [0, float(rng.uniform(1, 2))]}
        },
        "variance": {"variance": float(rng.uniform(0.3, 0.7))},
        "frequency": {"frequency_factor": float(rng.choice([2, 4, 8]))},
        "pattern": {"sinusoid_k": 8.0, "square_duty": 0.9, "sawtooth_width": 0.3},
        "pattern-shift": {"shift_by": 20, "transition_window": 25},
    }
    fitting = [kind for kind in kinds if of != "random-walk" or kind not in OF_A_PERIOD]
    kind = str(rng.choice(fitting))
    # A trend needs a multiple of five.
    length = 1 if kind == "extremum" else 5 * int(rng.integers(2, LONGEST // 5 + 1))
    if kind in OF_A_PERIOD:
        length = LONGEST
    return {
        "position": "middle",
        "exact-position": position,
        "length": length,
        "kinds": [{"kind": kind, **kinds[kind]}],
    }


def gutentag(seed: int, series: int, days: int) -> Iterator[pd.DataFrame]:
    """Yield series of readings 300 s apart with labels."""
    try:
        from gutenTAG import GutenTAG
    except ImportError:
        raise SystemExit("error: gutentag needs `pip install timeeval-gutentag`.") from None
    configs = []
    for number in range(series):
        rng = default_rng([seed, number])
        kind = OSCILLATIONS[number % len(OSCILLATIONS)]
        starts = np.arange(FIRST_DAYS * 288, days * 288 - 576, 4 * 288)
        configs.append(
            {
                "name": f"{number:02}",
                "length": days * 288,
                "base-oscillations": [oscillation(rng, kind)],
                "anomalies": [
                    anomaly(rng, kind, int(start + rng.integers(3 * 288))) for start in starts
                ],
            }
        )
    generator = GutenTAG(seed=seed)
    generator.load_config_dict({"timeseries": configs})
    for made in generator.generate(return_timeseries=True) or []:
        table = made.timeseries
        values = table.iloc[:, 0].to_numpy()
        yield pd.DataFrame(
            {
                "timestamp": START + pd.to_timedelta(5 * np.arange(len(values)), unit="min"),
                "value": [f"{20 + 5 * one:.6g}" for one in values],
                "is_anomaly": table["is_anomaly"].to_numpy().astype(int),
            }
        )


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=["minute", "gutentag"])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--series", type=int, default=20)
    parser.add_argument("--days", type=int, default=14)
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    if arguments.kind == "gutentag":
        made = gutentag(arguments.seed, arguments.series, arguments.days)
    else:
        made = (
            minute(default_rng([arguments.seed, number]), arguments.days)
            for number in range(arguments.series)
        )
    for number, table in enumerate(made):
        table.to_csv(arguments.directory / f"{arguments.kind}{number:02}.csv", index=False)


if __name__ == "__main__":
    main()
