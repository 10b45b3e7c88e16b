"""The cost of a snapshot: each detector's state, beside a state of one byte.

    python benchmarks/snapshots.py [--rounds 5] [--keys 2000] [--epochs 20] [--json FILE]
                                   [--quick]

A Bytewax flow touches every key in every epoch, once with a recovery store and once without; the
difference in CPU time per key and epoch is the figure: making bytes of a state, pickling them, and
the store.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from bytewax import operators as op
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig
from bytewax.testing import TestingSink, TestingSource, run_main
from processes import describe, machine

from dataflow.detectors import make
from dataflow.recovery.files import initialize
from dataflow.runtime.stateful_map import stateful_map

LIMIT = 300.0
"""Time limit of one process, in seconds."""

STATES = ("one byte", "2,100 bytes", "tutorial", "calibrated")


def nothing(state: Any) -> bytes:
    """Store nothing of a state."""
    return b""


def plain(state: bytes) -> bytes:
    """Return a state that is stored as it is."""
    return state


def state(name: str) -> tuple[bytes, Any, Any]:
    """Return the stored bytes of a state that has learned, its `dump` and its `load`."""
    if name == "one byte":
        return b"1", plain, plain
    if name == "2,100 bytes":
        return bytes(2_100), plain, plain
    detector: Any = make(name)
    learned = None
    for number in range(500):
        learned, _ = detector.update(learned, number * 7 % 10 / 100, 300.0 * number)
    return detector.dump(learned), detector.dump, detector.load


def cost(name: str, keys: int, epochs: int, folder: Path | None) -> float:
    """Return the seconds of CPU of a flow that passes each key's state through every epoch."""
    saved, dump, load = state(name)
    config = None
    if folder is None:
        # Bytewax asks for states without a store too.
        dump = nothing
    else:
        initialize(folder, 1)
        config = RecoveryConfig(str(folder))

    def same(held: Any, value: int) -> tuple[Any, int]:
        return load(saved) if held is None else held, value

    items = [(f"i-{key:06}", 0) for key in range(keys)]
    flow = Dataflow("snapshots")
    stream: Any = op.input("in", flow, TestingSource(items * epochs, batch_size=keys))
    op.output("out", stateful_map("state", stream, same, dump, load), TestingSink([]))
    started = time.process_time()
    # An epoch ends with each batch.
    run_main(flow, epoch_interval=timedelta(0), recovery_config=config)
    return time.process_time() - started


def difference(name: str, keys: int, epochs: int) -> float:
    """Return the microseconds of a key and epoch that the recovery store costs."""
    with tempfile.TemporaryDirectory() as folder:
        kept = cost(name, keys, epochs, Path(folder))
    return (kept - cost(name, keys, epochs, None)) / (keys * epochs) * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keys", type=int, default=2_000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="one small round: does it work?")
    parser.add_argument("--one", choices=STATES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(difference(options.one, options.keys, options.epochs))
        return
    if options.quick:
        options.rounds, options.keys, options.epochs = 1, 20, 2
    sizes = ["--keys", str(options.keys), "--epochs", str(options.epochs)]
    rounds: list[dict[str, float]] = []
    for _ in range(options.rounds):
        # Each in a process of its own: memory that one leaves costs the others nothing.
        rounds.append({})
        for name in STATES:
            command = [sys.executable, __file__, "--one", name, *sizes]
            done = subprocess.run(command, stdout=-1, check=True, timeout=LIMIT)
            rounds[-1][name] = float(done.stdout)
    where = machine()
    found = {
        name: {
            "us": statistics.median(one[name] for one in rounds),
            "x": statistics.median(one[name] / one["one byte"] for one in rounds),
            "bytes": len(state(name)[0]),
        }
        for name in STATES
    }
    if options.json:
        kept = {"machine": where, "rounds": options.rounds, "states": found}
        options.json.write_text(json.dumps(kept, indent=2) + "\n")
    print(describe(where), end="\n\n")
    print(
        "| state | CPU µs a key and epoch | x one byte | bytes stored |\n| --- | --- | --- | --- |"
    )
    for name, one in found.items():
        print(f"| {name} | {one['us']:.1f} | {one['x']:.2f} | {one['bytes']:,} |")


if __name__ == "__main__":
    main()
