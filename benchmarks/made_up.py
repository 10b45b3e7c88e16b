"""Makes labeled series for `python -m dataflow evaluate --data DIR`, from a seed.

    python benchmarks/made_up.py minute DIR [--seed 1] [--series 20] [--days 14]
    python benchmarks/made_up.py short DIR --series 56 [--interval 60] [--days 14]
    python benchmarks/made_up.py gutentag DIR --series 40 --days 24

Each series is a file with the columns timestamp, value and is_anomaly.

`minute` are readings 60 s apart with a daily rhythm. Their anomalies last one to five readings and
stay within the range of the ordinary readings: what no range and no mean of an hour shows.
Labeled are the changed readings and the one after them, since a return is a change too. The first
three days have no anomaly:

    python -m dataflow evaluate --data DIR --interval 60 --skip 3d

`short` are readings `--interval` seconds apart of hosts of seven habits in turn: steady, daily,
office (weekly), cron (a job of one reading an hour), wander, tails (heavy-tailed noise) and nightly
(a batch). Their anomalies, one a day, are spikes, dips, drops to the lowest, plateaus, doubles and
saws of 1 to 6 readings, 9 to 20 deviations of the usual noise, or at other minutes than the job's
a third to two thirds of it. All stay within the range that the host has had. Labels are as above.
The first three days, or 336 readings if these are longer, have no anomaly; `--files 'short-cron*'`
of `evaluate` shows one habit, and `--calm` makes the same hosts without anomalies:

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


HABITS = ("steady", "daily", "office", "cron", "wander", "tails", "nightly")
SMALLEST, LARGEST = 9.0, 20.0
LONGEST_SHORT = 6

#: What each short anomaly makes of a few readings, as parts of its size; None is the lowest value.
SHAPES: dict[str, Callable[[Generator], list[float | None]]] = {
    "spike": lambda rng: [1],
    "dip": lambda rng: [-1],
    "drop": lambda rng: int(rng.integers(1, 3)) * [None],
    "plateau": lambda rng: int(rng.integers(3, 7)) * [rng.choice([-1, 1])],
    "double": lambda rng: [1, 0, 0, 1],
    "saw": lambda rng: [1 / 3, 2 / 3, 1, 1 / 3, 2 / 3, 1],
}


def habit(rng: Generator, name: str, at: Floats) -> Floats:
    """Return the expected values at these seconds, in deviations of the noise."""
    size = rng.uniform(20, 60)
    day = at / 86_400
    hour = 24 * (day % 1)
    apart = at[1] - at[0]
    found = np.zeros(len(at))
    if name == "steady":  # a busy and an idle time on the first day leave room for anomalies
        for change in (size, -size):
            first = rng.uniform(0.1, 0.8)
            found[(day >= first) & (day < first + max(1 / 24, apart / 86_400))] += change
    elif name == "daily":
        found = size * (0.5 - 0.5 * np.cos(2 * np.pi * (day - rng.uniform())))
    elif name == "office":
        open_, close = rng.uniform(7, 9), rng.uniform(16, 19)
        found = size / (1 + np.exp(-6 * (hour - open_))) - size / (1 + np.exp(-6 * (hour - close)))
        found[day.astype(int) % 7 >= 5] = 0
    elif name == "cron":
        found[jobs(rng, at)] = size
        found *= rng.uniform(0.8, 1.2, len(at))
    elif name == "wander":
        keeps = np.exp(-1 / max(86_400 / apart, 300))
        steps = rng.normal(0, rng.uniform(10, 20) * np.sqrt(1 - keeps**2), len(at))
        last = 0.0
        for place, step in enumerate(steps.tolist()):
            found[place] = last = keeps * last + step
    elif name == "nightly":
        begins, hours = rng.uniform(0, 5), max(rng.uniform(0.5, 1.5), 2 * apart / 3600)
        found[(hour >= begins) & (hour < begins + hours)] = size
        found *= rng.uniform(0.9, 1.1, int(day[-1]) + 1)[day.astype(int)]
    return found


def jobs(rng: Generator, at: Floats) -> NDArray[np.int64]:
    """Return the places of the readings in which the hourly job runs; of at most each 12th."""
    every = max(round(3600 / float(at[1] - at[0])), 12)
    return np.arange(rng.integers(every), len(at), every)


def short(rng: Generator, name: str, interval: int, days: int, calm: bool) -> pd.DataFrame:
    """Return a series of a host of this habit with labels; if calm, without anomalies."""
    at = np.arange(0, days * 86_400, interval, dtype=float)
    expected = habit(rng, name, at)
    heavy = name == "tails"
    around = rng.standard_t(3, len(at)) / np.sqrt(3) if heavy else noise(rng, len(at))
    values = expected + around
    values += rng.uniform(5, 50) - values.min()
    busy = expected > 0.5 * expected.max() if name == "cron" else np.zeros(len(at), bool)
    labels = np.zeros(len(values), int)
    apart = max(86_400 / interval, 96)
    first = max(QUIET_DAYS * 86_400 / interval, 336)
    while not calm and (first := first + apart * rng.uniform(0.5, 1.5)) < len(values) - 24:
        begin = int(first)
        while busy[begin - 1 : begin + LONGEST_SHORT + 1].any():
            begin += 1
        low, high = float(values[:begin].min()), float(values[:begin].max())
        size = rng.uniform(SMALLEST, LARGEST)
        if name == "cron":
            size = max(expected[busy].mean() * rng.uniform(1 / 3, 2 / 3), SMALLEST)
        for kind in rng.permutation(list(SHAPES)):
            parts = SHAPES[kind](rng)
            before = values[begin : begin + len(parts)]
            if parts[0] is None:
                changed = np.full(len(parts), low)
                fits = before[0] - low >= SMALLEST
            else:
                change = size * np.array(parts, float)
                # Where there is no room on this side, it is the other side.
                for changed in (before + change, before - change):
                    fits = bool(low <= changed.min() and changed.max() <= high)
                    if fits:
                        break
            if fits:
                values[begin : begin + len(parts)] = changed
                labels[begin : begin + len(parts) + 1] = 1
                break
    scale = 10 ** rng.uniform(0, 6)
    return pd.DataFrame(
        {
            "timestamp": START + pd.to_timedelta(at, unit="s"),
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
    parser.add_argument("kind", choices=["minute", "short", "gutentag"])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--series", type=int, default=20)
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--interval", type=int, default=60, help="seconds, of `short` only")
    parser.add_argument("--calm", action="store_true", help="`short` without anomalies")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    names = [f"{arguments.kind}{number:02}" for number in range(arguments.series)]
    if arguments.kind == "gutentag":
        made = gutentag(arguments.seed, arguments.series, arguments.days)
    elif arguments.kind == "minute":
        made = (
            minute(default_rng([arguments.seed, number]), arguments.days)
            for number in range(arguments.series)
        )
    else:
        habits = [HABITS[number % len(HABITS)] for number in range(arguments.series)]
        names = [f"short-{name}-{number:02}" for number, name in enumerate(habits)]
        made = (
            short(
                default_rng([arguments.seed, number]),
                name,
                arguments.interval,
                arguments.days,
                arguments.calm,
            )
            for number, name in enumerate(habits)
        )
    for name, table in zip(names, made, strict=True):
        table.to_csv(arguments.directory / f"{name}.csv", index=False)


if __name__ == "__main__":
    main()
