"""The cost of each detector, beside River's half-space trees.

    python benchmarks/detectors.py [--json] [--rounds 5] [--records 20000] [--quick]

The subjects run in turns in each round; times are medians of CPU time over the rounds, and a ratio
is the median of the rounds' ratios to River's trees (of the tutorial's parameters, for detectors of
this package). Times vary with the machine, ratios much less. Storing a state means making the bytes
that the recovery store gets: the detector's own, or a pickled copy of River's trees.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import pickle
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from processes import describe, machine
from river.anomaly import HalfSpaceTrees

from dataflow.detectors import make
from dataflow.detectors.base import AnyDetector

KEYS = 50
MANY_KEYS = 100_000
# States are copied until they take this many bytes, to measure their memory.
MOST_BYTES = 10_000_000

TUTORIAL = (5, 3, 5)
RIVERS = (10, 8, 250)


class Subject(NamedTuple):
    """Something to measure: `step(state, value, time)` takes None for the first state."""

    name: str
    step: Callable[[Any, float, float], Any]
    dump: Callable[[Any], bytes]
    load: Callable[[bytes], Any]
    beside: str


def river(parameters: tuple[int, int, int]) -> Subject:
    """River's trees, one object a key, in the tutorial's order."""

    def step(state: Any, value: float, time: float) -> Any:
        if state is None:
            state = HalfSpaceTrees(*parameters, seed=42)
        x = {"value": value}
        state.learn_one(x)
        state.score_one(x)
        return state

    def dump(state: Any) -> bytes:
        # As Bytewax's `stateful_map` does for each key that an epoch touches.
        return pickle.dumps(copy.deepcopy(state))

    name = f"River {parameters}"
    return Subject(name, step, dump, pickle.loads, name)


def ours(name: str, detector: AnyDetector, beside: str) -> Subject:
    """A detector of this package."""

    def step(state: Any, value: float, time: float) -> Any:
        return detector.update(state, value, time)[0]

    return Subject(name, step, detector.dump, detector.load, beside)


def subjects() -> list[Subject]:
    """River's trees in two sizes, and the detectors that judge readings one by one."""
    tutorial = river(TUTORIAL)
    return [
        tutorial,
        ours(f"tutorial {TUTORIAL}", make("tutorial"), tutorial.name),
        river(RIVERS),
        *(ours(name, make(name), tutorial.name) for name in ("calibrated", "zscore", "rcf")),
    ]


def readings(count: int, keys: int) -> list[tuple[int, float, float]]:
    """Return generated CPU readings (key, value, time), each key around its own level."""
    rng = random.Random(1)
    levels = [rng.random() for _ in range(keys)]
    rows = []
    for i in range(count):
        key = rng.randrange(keys)
        value = rng.random() if rng.random() < 0.01 else rng.gauss(levels[key], 0.03)
        rows.append((key, min(max(value, 0.0), 1.0), 1.7e9 + i // keys * 300.0))
    return rows


def cpu(call: Callable[[], Any]) -> float:
    """Return the microseconds of CPU per call, over 20 ms of calls."""
    calls, taken = 5, 0.0
    while taken < 0.02:
        calls *= 2
        start = time.process_time()
        for _ in range(calls):
            call()
        taken = time.process_time() - start
    return taken / calls * 1e6


def stream(
    subject: Subject, rows: list[tuple[int, float, float]], keys: int
) -> tuple[float, list[Any]]:
    """Return the microseconds of CPU per record, without the loop, and the states after."""
    step = subject.step
    states: list[Any] = [None] * keys
    start = time.process_time()
    for key, _, _ in rows:
        states[key]
    loop = time.process_time() - start
    start = time.process_time()
    for key, value, at in rows:
        states[key] = step(states[key], value, at)
    return (time.process_time() - start - loop) / len(rows) * 1e6, states


def weigh(subject: Subject, states: list[Any], most: int) -> float:
    """Return the bytes of memory per key: a state that has scored, and its slot in a dict."""
    saved = [subject.dump(state) for state in states]
    mean = statistics.mean(map(len, saved))
    keys = list(range(min(most, max(1, int(MOST_BYTES / mean)))))
    gc.collect()
    tracemalloc.start()
    held = {}
    for key in keys:
        held[key] = subject.step(subject.load(saved[key % len(saved)]), 0.5, 1.8e9)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / len(held)


def measure(rounds: int, records: int, keys: int, most_keys: int) -> dict[str, dict[str, float]]:
    """Return each subject's figures by name."""
    rows = readings(records, keys)
    everyone = subjects()
    times: dict[str, dict[str, list[float]]] = {subject.name: {} for subject in everyone}
    figures: dict[str, dict[str, float]] = {subject.name: {} for subject in everyone}
    for number in range(rounds):
        for subject in everyone:
            record, states = stream(subject, rows, keys)
            state = states[0]
            taken = {
                "record_us": record,
                "new_key_us": cpu(partial(subject.step, None, 0.5, 1.7e9)),
                "store_us": cpu(partial(subject.dump, state)),
            }
            for what, value in taken.items():
                times[subject.name].setdefault(what, []).append(value)
            if number == 0:
                figures[subject.name] = {
                    "memory_bytes": weigh(subject, states, most_keys),
                    "stored_bytes": max(len(subject.dump(state)) for state in states),
                }
    for subject in everyone:
        figure = figures[subject.name]
        for what, values in times[subject.name].items():
            figure[what] = statistics.median(values)
            pairs = zip(times[subject.beside][what], values, strict=True)
            figure[f"{what.removesuffix('_us')}_ratio"] = statistics.median(
                theirs / own for theirs, own in pairs if own
            )
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="one small round: does it work?")
    options = parser.parse_args()
    keys, most_keys = KEYS, MANY_KEYS
    if options.quick:
        options.rounds, options.records = 1, 500
        keys = most_keys = 5
    figures = measure(options.rounds, options.records, keys, most_keys)
    if options.json:
        where = {"machine": machine(), "rounds": options.rounds}
        print(json.dumps({**where, "detectors": figures}, indent=2))
        return
    print(describe(machine()), end="\n\n")
    columns = {
        "record_us": "µs a record",
        "record_ratio": "x River",
        "new_key_us": "µs a new key",
        "store_us": "µs to store",
        "memory_bytes": "B in memory",
        "stored_bytes": "B stored",
    }
    width = max(map(len, figures))
    print(" " * width, *(f"{title:>12}" for title in columns.values()))
    for name, figure in figures.items():
        cells = (f"{figure[what]:>12,.{0 if what.endswith('bytes') else 2}f}" for what in columns)
        print(f"{name:{width}}", *cells)


if __name__ == "__main__":
    main()
