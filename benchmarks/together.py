"""How well the metrics of an instance are judged together, and how well each by itself.

    python benchmarks/together.py DIR [--only service0,service6] [--unlabeled 20] [--seeds 42,1,2]
        [--detector calibrated] [--threshold 0.5] [--metrics 11]

`DIR` holds `NAME.csv` or `NAME.csv.gz` for each instance, with a column `timestamp` and one for
each metric, and `labels.json`: `{NAME: [[start, end], ...]}`. The first `--unlabeled` days of each
do not count. A window with an alert is found; alerts outside of windows are false alarms of at most
an hour each. "any metric" are the alerts of all metrics, each by itself at its detector's
threshold; "together" those of `dataflow.detectors.together`. `--metrics` draws so many metrics of
each instance, others for each seed. Figures are means over the seeds.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dataflow.alerts.news import Heard, News
from dataflow.detectors import make
from dataflow.detectors.base import Detector
from dataflow.detectors.calibrated.detector import Calibrated
from dataflow.detectors.together import THRESHOLD, Memory, Together
from dataflow.evaluation.alarms import DAY, Counts, alarms
from dataflow.evaluation.nab import Series
from dataflow.records import Reading

INTERVAL = 300.0


def instance(path: Path, labels: dict[str, Any]) -> tuple[Series, dict[str, NDArray[np.float64]]]:
    """Return the times and windows of an instance, and the values of each of its metrics."""
    table = pd.read_csv(path)
    name = path.name.partition(".")[0]
    times = _seconds(table.pop("timestamp"))
    windows = tuple((start, end) for start, end in map(_seconds, labels.get(name, [])))
    metrics = {str(metric): table[metric].to_numpy(float) for metric in table}
    return Series(name, times, np.zeros(len(times)), windows), metrics


def _seconds(times: Any) -> Any:
    return pd.to_datetime(times).to_numpy().astype("datetime64[s]").astype(float)


def alerts(
    detector: Detector[Any],
    series: Series,
    metrics: dict[str, NDArray[np.float64]],
    threshold: float,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return at which times there are alerts of any metric, and of all together."""
    states: dict[str, Any] = dict.fromkeys(metrics)
    own, all_news = News(detector.threshold, INTERVAL), News(threshold, INTERVAL)
    heard = {name: Heard() for name in metrics}
    heard_together, memory = Heard(), Memory()
    together = Together(INTERVAL, detector.threshold)
    single, joint = np.zeros(len(series.times), bool), np.zeros(len(series.times), bool)
    for at, time in enumerate(series.times.tolist()):
        for name, values in metrics.items():
            value = float(values[at])
            if np.isnan(value):
                continue
            states[name], verdict = detector.update(states[name], value, time)
            score = verdict.score
            found = 0.0 if verdict.near else score
            single[at] |= own.take(heard[name], found) and found > detector.threshold
            reading = Reading(series.instance, time, None, value, time, 0, at, metric=name)
            for one in together.take(memory, reading, score):
                joint[at] |= all_news.take(heard_together, one.score) and one.score > threshold
    return single, joint


def count(series: Series, found: NDArray[np.bool_], start: float) -> Counts:
    """Count the alerts from a time on."""
    counted = found & (series.times >= start)
    outside = counted.copy()
    delays = []
    missed = 0
    for left, right in series.windows:
        within = (series.times >= left) & (series.times <= right)
        hits = np.flatnonzero(counted & within)
        if len(hits):
            delays.append(float(series.times[hits[0]] - left) / 3600)
        else:
            missed += within.any()
        outside &= ~within
    days = float(series.times.max() - start) / DAY
    fp = len(alarms(series.times[outside]))
    return Counts(len(delays), int(missed), fp, days, tuple(delays))


def line(name: str, counts: Sequence[Counts]) -> str:
    """Return the row of a table: the means over the seeds."""

    def mean(figure: str) -> float:
        return float(np.mean([getattr(one, figure) or 0.0 for one in counts]))

    return (
        f"| {name} | {mean('f1'):.3f} | {mean('precision'):.2f} | {mean('recall'):.2f} "
        f"| {mean('false_alarms_per_day'):.3f} | {mean('delay_hours'):.1f} |"
    )


def main() -> None:
    """Print a row for each instance, and the rows of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--only", help="names of instances, with commas")
    parser.add_argument("--unlabeled", type=float, default=20.0, help="days that do not count")
    parser.add_argument("--seeds", default="42", help="seeds of the detector, with commas")
    parser.add_argument("--detector", default="calibrated")
    parser.add_argument("--threshold", type=float, default=THRESHOLD)
    parser.add_argument("--metrics", type=int, help="how many metrics to draw; by default all")
    options = parser.parse_args()
    labels = json.loads((options.directory / "labels.json").read_text())
    only = options.only.split(",") if options.only else None
    seeds = [int(seed) for seed in options.seeds.split(",")]
    total = {kind: [Counts() for _ in seeds] for kind in ("any metric", "together")}
    print("| | F1 | precision | recall | false alarms a day | hours of delay |")
    print("| --- | --- | --- | --- | --- | --- |")
    for path in sorted(options.directory.glob("*.csv*")):
        series, metrics = instance(path, labels)
        if only is not None and series.instance not in only:
            continue
        start = float(series.times.min()) + options.unlabeled * DAY
        counts: list[Counts] = []
        for number, seed in enumerate(seeds):
            detector: Any = make(options.detector, seed=seed, interval=INTERVAL)
            if isinstance(detector, Calibrated):
                detector.ignore_runs()
            chosen = metrics
            if options.metrics:
                names = random.Random(f"{seed}{series.instance}").sample(
                    list(metrics), options.metrics
                )
                chosen = {name: metrics[name] for name in names}
            for kind, found in zip(
                total, alerts(detector, series, chosen, options.threshold), strict=True
            ):
                counted = count(series, found, start)
                total[kind][number] += counted
            counts.append(counted)
        print(line(series.instance, counts), flush=True)
    for kind, sums in total.items():
        print(line(f"all, {kind}", sums))


if __name__ == "__main__":
    main()
