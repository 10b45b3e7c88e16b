"""The cost of a record from the broker to the output, beside the tutorial's flow and others.

    python benchmarks/throughput.py [--rounds 5] [--records 200000] [--instances 100] [--only WORD]
                                    [--minutes 9] [--json FILE] [--compare FILE] [--quick]
                                    [--brokers HOST:PORT]

Each row runs in processes of its own and reads the same topic, of the embedded broker or of the one
given with --brokers (the topics `bench-...` are deleted at the end). In each round all rows run in
turn, first on a short topic, then on the long one. The figures are the cost of the long one minus
the median of the short ones, so that starting costs nothing. CPU is that of all threads and
processes of a row, without the broker's; figures are medians of the rounds, and ratios are medians
of the rounds' ratios to the tutorial's flow in the same round. With --json a file is written after
each round: an end by Ctrl-C, or by --minutes, keeps the complete rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from processes import Cost, describe, machine, measure
from rows import TUTORIAL, Place, Row, rows
from topic import filled

from dataflow.demo.broker import EmbeddedBroker

__all__ = ["SHORT", "add_options", "take_turns"]

SHORT = 2_000
LIMIT = 300.0
"""Time limit of a row, in seconds."""

SHARE = 0.2
"""Share of the time of a start: where records took less, the difference is only noise."""

ONLY = "the rows with this in their name, and the tutorial's flow, which they are compared with"


Turn = tuple[Cost, Cost]
"""The cost of a row on the short topic, and on the long one."""


def turn(row: Row, short: Place, long: Place) -> Turn:
    """Run a row on both topics."""
    costs = []
    for place in (short, long):
        with tempfile.TemporaryDirectory() as folder:
            own = Path(folder)
            runs = row.runs(place._replace(folder=own))
            costs.append(measure(row.name, runs, own, LIMIT))
    return costs[0], costs[1]


def per_record(turns: list[Turn], more: int) -> tuple[list[float], list[float]]:
    """Return each round's µs of CPU per record and records per second, without the start."""
    cpu = statistics.median(start.cpu for start, _ in turns)
    wall = statistics.median(start.wall for start, _ in turns)
    return (
        [max(whole.cpu - cpu, 1e-3) / more * 1e6 for _, whole in turns],
        [more / max(whole.wall - wall, 1e-3) for _, whole in turns],
    )


def share(turns: list[Turn]) -> float:
    """Return the time of the records relative to a start: CPU or clock, the smaller."""

    def of(costs: list[tuple[float, float]]) -> float:
        start = statistics.median(short for short, _ in costs)
        return statistics.median(long for _, long in costs) / start - 1

    return min(
        of([(short.cpu, long.cpu) for short, long in turns]),
        of([(short.wall, long.wall) for short, long in turns]),
    )


def medians(rounds: list[dict[str, Turn]], more: int) -> dict[str, dict[str, float]]:
    """Return each row's figures over the rounds, and its ratios to the tutorial's flow."""
    taken = {name: per_record([one[name] for one in rounds], more) for name in rounds[0]}
    found = {}
    for name, (cpu, speed) in taken.items():
        found[name] = {
            "cpu_us": statistics.median(cpu),
            "records_s": statistics.median(speed),
            "records_s_least": min(speed),
            "records_s_most": max(speed),
            "share": share([one[name] for one in rounds]),
            "rss_mb": statistics.median(one[name][1].memory for one in rounds) / 1e6,
        }
        if TUTORIAL in taken:
            base_cpu, base_speed = taken[TUTORIAL]
            found[name] |= {"cpu_x": ratio(base_cpu, cpu), "speed_x": ratio(speed, base_speed)}
    return found


def ratio(these: list[float], those: list[float]) -> float:
    """Return the median of the rounds' ratios."""
    return statistics.median(this / that for this, that in zip(these, those, strict=True))


def take_turns(
    folder: Path,
    chosen: list[Row],
    keep: Callable[[dict[str, Any]], None],
    *,
    records: int,
    instances: int,
    rounds: int,
    minutes: float,
    brokers: str | None = None,
) -> None:
    """Run the rows in turns, for this many rounds; start none after this many minutes.

    `keep` gets the figures after each round. If no broker is given, one is started in `folder`.
    """
    began = time.monotonic()
    seen: list[dict[str, Turn]] = []
    with contextlib.ExitStack() as ends:
        if brokers is None:
            brokers = ends.enter_context(EmbeddedBroker(folder / "broker")).address
        places = []
        for count in (SHORT, records):
            topic = ends.enter_context(filled(brokers, count, instances))
            places.append(Place(brokers, topic, count, folder))
        for number in range(1, rounds + 1):
            if seen and time.monotonic() - began > 60 * minutes:
                break
            seen.append({row.name: turn(row, *places) for row in chosen})
            took = time.monotonic() - began
            print(f"round {number} of {rounds}, {took:.0f} s", file=sys.stderr)
            found = {"records": records, "instances": instances, "rounds": number}
            keep({"machine": machine(), **found, "rows": medians(seen, records - SHORT)})


def conditions(found: dict[str, Any]) -> str:
    """Return the machine and the amounts that figures are of, as a line."""
    return (
        f"{describe(found['machine'])}; {found['records']:,} records of "
        f"{found['instances']:,} instances, {found['rounds']} round"
        f"{'s' if found['rounds'] > 1 else ''}"
    )


def table(figures: dict[str, dict[str, float]], old: dict[str, dict[str, float]]) -> str:
    """Return the figures as a Markdown table; beside an older run, the change of the ratios."""
    heads = ["", "records/s, x tutorial", "CPU µs a record", "CPU, 1/x of tutorial", "peak MB"]
    lines = [[*heads, "CPU against the older run"] if old else heads]
    lines.append(["---"] * len(lines[0]))
    for name, one in figures.items():
        if min(one["share"], figures[TUTORIAL]["share"]) < SHARE:
            figured = ["?", "?", "?"]
        else:
            figured = [
                f"{one['speed_x']:.1f} ({one['records_s']:,.0f}/s)",
                f"{one['cpu_us']:.2f}",
                f"{one['cpu_x']:.1f}",
            ]
        cells = [name, *figured, f"{one['rss_mb']:.0f}"]
        if old:
            # Both against the tutorial's flow in their own run: machines and noise differ.
            was = old.get(name, {}).get("cpu_x")
            cells.append(f"x {was / one['cpu_x']:.2f}" if was and "?" not in cells else "")
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def caution(figures: dict[str, dict[str, float]]) -> str:
    """Return what a question mark in the table means, if there is one."""
    if all(one["share"] >= SHARE for one in figures.values()):
        return ""
    return (
        "\n? The row ran, but on too few records for a figure: they took less than "
        f"{SHARE:.0%} of\nthe time of a start. Use more --records.\n"
    )


def add_options(parser: argparse.ArgumentParser, minutes: float) -> None:
    """Add the options of `take_turns` to a command line."""
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--minutes", type=float, default=minutes, help="start no round after these")
    parser.add_argument("--brokers", metavar="HOST:PORT", help="instead of the embedded one")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--quick", action="store_true", help="one small round: does it work?")


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--instances", type=int, default=100)
    add_options(parser, minutes=9.0)
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help=ONLY)
    parser.add_argument("--compare", type=Path, help="a file that --json wrote")
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    asked = options()
    old = json.loads(asked.compare.read_text()) if asked.compare else {}
    if asked.quick:
        asked.rounds, asked.records = 1, 2 * SHORT
    for name in [name for name in os.environ if name.startswith("ANOMALY_")]:
        del os.environ[name]
    found: dict[str, Any] = {}

    def keep(figures: dict[str, Any]) -> None:
        found.update(figures)
        if asked.json:
            asked.json.write_text(json.dumps(found, indent=2) + "\n")

    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        words = [TUTORIAL, *asked.only] if asked.only else [""]
        chosen = [row for row in rows(Path(name)) if any(word in row.name for word in words)]
        with contextlib.suppress(KeyboardInterrupt):
            take_turns(
                Path(name),
                chosen,
                keep,
                records=asked.records,
                instances=asked.instances,
                rounds=asked.rounds,
                minutes=asked.minutes,
                brokers=asked.brokers,
            )
    if not found:
        raise SystemExit("error: No round was complete: raise --minutes.")
    print(conditions(found))
    if old:
        print(f"the older run: {conditions(old)}")
    print(f"\n{table(found['rows'], old.get('rows', {}))}")
    print(caution(found["rows"]), end="")


if __name__ == "__main__":
    main()
