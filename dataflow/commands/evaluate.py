"""`python -m dataflow evaluate`: how good a detector is on labeled data, at which threshold."""

from __future__ import annotations

import glob
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from dataflow import settings
from dataflow.cloudwatch.plan import duration
from dataflow.commands import progress
from dataflow.commands.tables import print_table
from dataflow.dashboard.intake import Intake, row_name
from dataflow.detectors import compiled, find
from dataflow.detectors.base import AnyDetector
from dataflow.errors import UserError, missing_extra
from dataflow.evaluation import alarms, pairs
from dataflow.evaluation.backtest import (
    FIGURES,
    Figures,
    Outcome,
    alerts_at,
    best_f1,
    judge,
    judge_at,
    replay,
    series_for,
    verdicts,
)
from dataflow.evaluation.datasets import (
    has_columns,
    load_directory,
    load_nab,
    load_sample,
    series_of,
)
from dataflow.evaluation.instances import AnyOf, Scored
from dataflow.evaluation.nab import Corpus, Floats, Series
from dataflow.formats.files import KINDS, check_file, is_file, read_records
from dataflow.records import Reading
from dataflow.warnings import say

__all__ = ["evaluate"]

BASELINES = ("tutorial", "zscore")
DEFAULT = "calibrated"
TUNING_ROUNDS = 6
NAB_INTERVAL = 300
FIRST_SEED = 42  # The flow's default: with one seed, what is evaluated is what would run.

_TITLES = {
    "standard": "NAB",
    "low_fp": "low FP",
    "low_fn": "low FN",
    "precision": "prec.",
    "recall": "recall",
    "f1": "F1",
    "false_alarms_per_day": "FP/day",
    "alerts_per_day": "alerts/day",
    "instances_alerting": "instances",
    "delay_hours": "delay h",
    "best_f1": "best F1",
    "best_f1_false_alarms_per_day": "its FP/day",
    "average_precision": "AP",
}
_DIGITS = {
    "standard": 1,
    "low_fp": 1,
    "low_fn": 1,
    "false_alarms_per_day": 3,
    "alerts_per_day": 3,
    "instances_alerting": 0,
    "delay_hours": 1,
}
_SHOWN = tuple(name for name in FIGURES if name != "alerts_per_day")

_UNLABELED = ("alerts_per_day", "instances_alerting")
_LEGEND_UNLABELED = """\
Alerts are per instance and day, those within an hour count as one; what repeats a known one is held
back for seven hours. The last column has how many instances have any."""

_LEGEND_PAIRS = """\
An interval that has no 0 in it is a difference that other instances like these would show as well:
it comes from drawing the instances anew 2,000 times, the same for both."""

_LEGEND = """\
NAB's scores: 0 for a detector that never alerts, 100 for a perfect one. "best" is the threshold
with the highest standard score, "best F1" that with the highest F1, which only labels can show.
False alarms are per instance and day, those within an hour count as one; the delay counts from the
labeled time, or from the window's start if no other time is known. Alerts count, not all anomalies:
what repeats a known one is held back for seven hours. AP, average precision, ranks the scores
themselves, without a threshold: 1 if all readings in labeled windows have higher scores than all
others."""


@dataclass
class Candidate:
    """A detector to evaluate, one instance of it a seed, and its results."""

    name: str
    asked: bool
    makes: list[AnyDetector]
    threshold: float
    interval: float
    runs: list[list[Scored]] = field(default_factory=list)
    outcome: Outcome | None = None
    at_best_f1: tuple[float, Figures] | None = None
    alerts: Figures = field(default_factory=dict)  # without labels
    tally: pairs.Tally = field(default_factory=dict)
    instances: list[str] = field(default_factory=list)
    metrics: dict[str, Figures] = field(default_factory=dict)
    tuned: tuple[float, float] | None = None  # the threshold and its alerts a week
    at_tuned: Figures | None = None

    def judge(self, corpus: Corpus, judged: AnyOf, labeled: bool) -> None:
        """Count the alerts; with labels, also what they were worth."""
        if labeled:
            self.outcome = judge(corpus, judged, self.runs, self.threshold, self.interval)
            self.at_best_f1 = best_f1(corpus, judged, self.runs, self.threshold, self.interval)
            return
        self.alerts = alerts_at(corpus, self._alerts(judged, self.threshold), self.threshold)

    def count(self, corpus: Corpus, judged: AnyOf) -> None:
        """Count by instance, after `judge`."""
        ranked = [judged.ranked(run) for run in self.runs]
        best = self.at_best_f1 and (self.at_best_f1[0], self._alerts(judged, self.at_best_f1[0]))
        alerts = self._alerts(judged, self.threshold)
        self.tally = pairs.tally(corpus, ranked, alerts, self.threshold, best)
        self.instances = [one.instance for one in corpus.series]

    def judge_metrics(self, series: Sequence[Series], labeled: bool) -> None:
        """Judge each metric by itself, over all instances that have it."""
        for metric in dict.fromkeys(one.metric for one in series):
            places = [place for place, one in enumerate(series) if one.metric == metric]
            judged = AnyOf([series[place] for place in places])
            alone = Candidate(self.name, self.asked, self.makes, self.threshold, self.interval)
            alone.runs = [[run[place] for place in places] for run in self.runs]
            alerts = alone._alerts(judged, self.threshold)
            figures = judge_at(Corpus(judged.instances), alerts, self.threshold)
            kept = FIGURES if labeled else ("alerts_per_day",)
            self.metrics[metric or "value"] = {
                name: figures[name] for name in figures if name.removesuffix("_sd") in kept
            }

    def _alerts(self, judged: AnyOf, threshold: float) -> list[list[Floats]]:
        return [judged.alerts(run, threshold, self.interval) for run in self.runs]

    def tune(self, corpus: Corpus, judged: AnyOf, rate: float, labeled: bool) -> None:
        """Find the threshold for a rate of alerts; labels only judge it afterwards.

        At another threshold, other alerts are held back: the alerts at the threshold that is found
        are tuned on again, until both agree.
        """
        runs = self._alerts(judged, self.threshold)
        try:
            for _ in range(TUNING_ROUNDS):
                threshold, _ = alarms.tune(corpus.series, runs, rate)
                runs = self._alerts(judged, threshold)
                reached = alarms.alarms_per_week(corpus.series, runs, threshold)
                if reached <= rate:
                    break
        except ValueError as error:
            raise UserError(str(error)) from error
        self.tuned = threshold, reached
        if labeled:
            self.at_tuned = judge_at(corpus, runs, threshold)

    def as_dict(self) -> dict[str, Any]:
        """Return the results as they appear in JSON."""
        found: dict[str, Any] = {"threshold": self.threshold}
        if self.outcome:
            found |= {
                "at_threshold": self.outcome.at_threshold,
                "at_best": self.outcome.at_best,
                "average_precision": self.outcome.average_precision,
            }
        if self.at_best_f1:
            found["at_best_f1"] = {"threshold": self.at_best_f1[0], **self.at_best_f1[1]}
        if self.alerts:
            found["at_threshold"] = self.alerts
        if self.metrics:
            found["metrics"] = self.metrics
        if self.tally:
            found["instances"] = pairs.to_json(self.instances, self.tally)
        if self.tuned:
            found["tuned"] = {
                "threshold": self.tuned[0],
                "alerts_per_week": self.tuned[1],
                **(self.at_tuned or {}),
            }
        return found

    def rows(self) -> list[tuple[str, str, Figures, str]]:
        """Return its rows of the table: name, threshold, figures, average precision."""
        if not self.outcome:
            return []
        known = self.outcome.average_precision
        ranked = "-" if known is None else f"{known:.2f}"
        rows = [(self.name, f"{self.threshold:.4g}", self.outcome.at_threshold, ranked)]
        if self.tuned and self.at_tuned:
            rows.append(("", f"tuned {self.tuned[0]:.4g}", self.at_tuned, ranked))
        best = self.outcome.at_best
        rows.append(("", f"best {best['threshold']:.4g}", best, ranked))
        if self.at_best_f1:
            threshold, figures = self.at_best_f1
            rows.append(("", f"best F1 {threshold:.4g}", figures, ranked))
        return rows


class Pair(NamedTuple):
    """A detector, what it is compared with, and the differences."""

    detector: str
    against: str
    figures: dict[str, pairs.Difference]

    def as_dict(self) -> dict[str, Any]:
        """Return the comparison as it appears in JSON."""
        figures = {name: one._asdict() for name, one in self.figures.items()}
        return {"detector": self.detector, "against": self.against, "figures": figures}


def evaluate(
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Readings: a CSV file with timestamp, value, instance, or records as the flow "
            "reads them, by its settings; or a .csv.gz file or folder of CSV files, of any values: "
            "timestamp, a column a metric, maybe instance, metric, is_anomaly.",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="JSON",
            help="Their labels: windows by instance. Default: labels.json in the folder of --data, "
            "or the columns is_anomaly. Without labels, alerts are counted.",
        ),
    ] = None,
    nab: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A checkout of NAB, instead of both.")
    ] = None,
    files: Annotated[
        str | None,
        typer.Option(metavar="GLOB", help="Which files under its data/, or the folder of --data."),
    ] = None,
    detector: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A detector; repeat for more."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Repeat with this many seeds, from 42 on.")] = 1,
    threshold: Annotated[
        float | None, typer.Option(help="Instead of the detectors' own (0 to 1).")
    ] = None,
    interval: Annotated[
        float | None,
        typer.Option(
            help="Seconds between an instance's readings. Default: ANOMALY_INTERVAL, with --nab "
            f"{NAB_INTERVAL}."
        ),
    ] = None,
    skip: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Do not count this time at the start of each series, such as 20d or 36h. Default: "
            "15% of the readings, at most 750, as NAB does.",
        ),
    ] = None,
    by_metric: Annotated[
        bool,
        typer.Option(
            "--by-metric",
            help="Judge each metric by itself as well. An instance has an alert if any has one.",
        ),
    ] = False,
    baselines: Annotated[bool, typer.Option(help="Evaluate tutorial and zscore as well.")] = True,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|JSON",
            help="Compare with another detector, or with the same one in a file that --json "
            "printed earlier: differences and their 90% intervals.",
        ),
    ] = None,
    tune: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="Propose the threshold for at most RATE alerts per instance and week; "
            "needs no labels.",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Draw each series as a PNG file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """Replay readings through detectors; print their alerts, and by labels what these were worth.

    The tutorial's detector and a rolling z-score are evaluated beside the given detectors.
    """
    if tune is not None and not tune >= 0:
        raise UserError(f"--tune must be a number of alerts a week from 0 on, not {tune:g}.")
    options = settings.load() if nab is None else None
    if interval is None:
        interval = options.interval if options else NAB_INTERVAL
    skipped = None if skip is None else _skipped(skip)
    series = [replace(one, skip=skipped) for one in _series(data, labels, nab, files, interval)]
    earlier = Path(against) if against is not None and against.endswith(".json") else None
    beside = [*(BASELINES if baselines else ()), *([against] if against and not earlier else ())]
    candidates = _candidates(detector, beside, seeds, threshold, interval)
    raw = options is None or options.scale is None or (data is not None and _is_unscaled(data))
    judged = AnyOf(series)
    corpus = Corpus(judged.instances)
    labeled = any(one.windows for one in series)
    _check_skip(corpus, skip, labeled)
    if nab is None:
        _check_interval(series, interval)
    asked = [one for one in candidates if one.asked and one.name != against]
    if against is not None and not asked:
        raise UserError(f"--against {against} needs another one in --detector.")
    before = {}
    if earlier:
        before = _earlier(earlier, asked, corpus)
    if plot is not None:
        _check_plot(plot)
    _replay(candidates, series, raw)
    for candidate in candidates:
        candidate.judge(corpus, judged, labeled)
        if as_json or against is not None:
            candidate.count(corpus, judged)
        if by_metric:
            candidate.judge_metrics(series, labeled)
        if tune is not None and candidate.asked:
            candidate.tune(corpus, judged, tune, labeled)
    if plot is not None:
        _plot([one for one in candidates if one.asked], series, raw, plot)
    compared = []
    if against is not None:
        tallies = {one.name: one.tally for one in candidates}
        for one in asked:
            other = before[one.name] if earlier else tallies[against]
            compared.append(Pair(one.name, against, _compare(one.tally, other, against)))
    if as_json:
        found: dict[str, Any] = {"detectors": {one.name: one.as_dict() for one in candidates}}
        if compared:
            found["pairs"] = [one.as_dict() for one in compared]
        print(json.dumps(found, indent=2))
    else:
        _print(candidates, corpus, len(series), seeds, tune)
        _print_pairs(compared)


def _series(
    data: Path | None, labels: Path | None, nab: Path | None, files: str | None, interval: float
) -> list[Series]:
    if (data is None) == (nab is None):
        raise UserError("Give either --data PATH, or --nab DIR.")
    if nab is not None:
        if labels is not None:
            raise UserError("--labels goes with --data: leave it out, a NAB checkout has its own.")
        return load_nab(nab, files or "**/*.csv")
    assert data is not None
    if data.is_dir():
        return load_directory(data, files, labels, interval)
    if _is_packed(data):
        return load_directory(data.parent, glob.escape(data.name), labels, interval)
    if files is not None:
        raise UserError("--files goes with a folder: leave it out, or give one in --data or --nab.")
    return _of_file(data, labels)


def _is_packed(data: Path) -> bool:
    return data.name.endswith(".csv.gz") and data.is_file()


def _is_unscaled(data: Path) -> bool:
    return data.is_dir() or _is_packed(data)


def _skipped(text: str) -> float:
    try:
        return duration(text).total_seconds()
    except ValueError as error:
        raise UserError(f"--skip: {error}.") from None


def _check_skip(corpus: Corpus, skip: str | None, labeled: bool) -> None:
    """Raise `UserError` if nothing is left to count."""
    if labeled and not corpus.windows:
        first = f"{skip}" if skip else "15%"
        raise UserError(
            f"All labels lie in the first {first} of their series, which does not count: label a "
            "later anomaly."
        )
    if all(one.start >= len(one.times) for one in corpus.series):
        raise UserError(f"--skip {skip} leaves no reading: give a shorter time.")


def _check_interval(series: Sequence[Series], interval: float) -> None:
    """Warn of readings that lie further apart, or less far, than the detectors are built for."""
    usual = [median(np.diff(one.times).tolist()) for one in series if len(one.times) > 1]
    wrong = [apart for apart in usual if not interval / 1.5 <= apart <= interval * 1.5]
    if wrong:
        apart = median(wrong)
        say(
            f"warning: readings of {len(wrong)} of {len(series)} series are about {apart:g} s "
            f"apart, and the interval is {interval:g} s: give --interval {apart:g} if their times "
            "are right."
        )


def _of_file(data: Path, labels: Path | None) -> list[Series]:
    """Return the series of a file, of which the settings say how the flow would read it."""
    check_file(data, {})
    if not is_file(data.name):
        raise UserError(
            f"{data} is not a file of records, a line each: give one whose name ends in {KINDS}."
        )
    options = settings.load(input=str(data))
    named = options.names_fields or "scale" in options.model_fields_set
    if not named and options.format in ("auto", "json") and has_columns(data):
        return load_sample(data, labels)
    check_file(data, options.columns)
    return series_of(_readings(data, options), data, labels)


def _readings(data: Path, options: settings.Settings) -> Iterator[Reading]:
    intake = Intake(options)

    def of_all() -> Iterator[Reading]:
        for raw in read_records(data):
            yield from intake.readings(raw)
        yield from intake.rest()

    for reading in of_all():
        reading.instance = row_name(reading.instance, reading.metric)
        yield reading


def _candidates(
    asked: list[str] | None,
    beside: Sequence[str],
    seeds: int,
    threshold: float | None,
    interval: float,
) -> list[Candidate]:
    if seeds < 1:
        raise UserError(f"--seeds must be 1 or more, not {seeds}.")
    if threshold is not None and not 0 <= threshold <= 1:
        raise UserError(f"--threshold must be from 0 to 1, not {threshold:g}.")
    if not 0 < interval < float("inf"):
        raise UserError(f"--interval must be a number of seconds above 0, not {interval:g}.")
    chosen = asked or [DEFAULT]
    candidates = []
    for name in dict.fromkeys([*chosen, *beside]):
        try:
            makes = _makes(name, seeds, interval, threshold if name in chosen else None)
        except ValueError as error:
            raise UserError(f"--detector {name} cannot work with these options: {error}") from None
        limit = makes[0].threshold if threshold is None or name not in chosen else threshold
        candidates.append(Candidate(name, name in chosen, makes, limit, interval))
    return candidates


def _makes(name: str, seeds: int, interval: float, threshold: float | None) -> list[AnyDetector]:
    kind = find(name, "--detector")
    return [
        kind.create(seed=FIRST_SEED + i, interval=interval, threshold=threshold)
        for i in range(seeds)
    ]


def _earlier(path: Path, asked: Sequence[Candidate], corpus: Corpus) -> dict[str, pairs.Tally]:
    """Return what an earlier run on the same readings counted, by detector."""
    try:
        detectors = json.loads(path.read_bytes())["detectors"]
        found = {name: one["instances"] for name, one in detectors.items()}
        tallies: dict[str, pairs.Tally] = {
            name: pairs.from_json(instances) for name, instances in found.items()
        }
    except OSError as error:
        raise UserError(
            f"Cannot read {path} ({error.strerror}): give a file that evaluate --json printed."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} has no counts of instances: give a file that this version's evaluate --json "
            "printed."
        ) from error
    for one in asked:
        if one.name not in tallies:
            raise UserError(f"{path} has no detector {one.name}: give one of a run that had it.")
        if list(found[one.name]) != [each.instance for each in corpus.series]:
            raise _other_readings(path)
    return tallies


def _compare(one: pairs.Tally, other: pairs.Tally, against: str) -> dict[str, pairs.Difference]:
    if one.keys() != other.keys() or not np.allclose(one["days"][0], other["days"][0]):
        raise _other_readings(against)
    return pairs.compare(one, other)


def _other_readings(against: object) -> UserError:
    return UserError(
        f"{against} is of other readings: run both on the same, with the same labels and --skip."
    )


def _check_plot(directory: Path) -> None:
    """Raise `UserError` if no drawings can be written there: before the long work, not after."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise missing_extra("--plot", "plot") from error
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise UserError(
            f"--plot cannot write to {directory} ({error.strerror}): give a folder that can be "
            "written to."
        ) from error


def _replay(candidates: Sequence[Candidate], series: Sequence[Series], raw: bool) -> None:
    readings = sum(len(one.values) for one in series)
    total = readings * sum(len(candidate.makes) for candidate in candidates)
    with progress.bar("replaying", total) as advance:
        for candidate in candidates:
            for detector in candidate.makes:
                suited = series_for(detector, series, raw)
                candidate.runs.append(replay(detector, suited, advance))


def _plot(
    candidates: Sequence[Candidate], series: Sequence[Series], raw: bool, directory: Path
) -> None:
    from dataflow.evaluation.plot import draw  # an extra, slow to import

    names = _file_names([_called(one) for one in series])
    with progress.bar("drawing", len(candidates) * len(series)) as advance:
        for candidate in candidates:
            detector = candidate.makes[0]
            for one in series_for(detector, series, raw):
                path = directory / f"{names[_called(one)]}-{_plain(candidate.name)}.png"
                try:
                    found = list(verdicts(detector, one))
                    draw(path, one, found, candidate.name, candidate.threshold, candidate.interval)
                except OSError as error:
                    raise UserError(
                        f"Cannot write {path} ({error.strerror}): give --plot another folder."
                    ) from error
                advance(1)


def _called(series: Series) -> str:
    name = series.instance.removesuffix(".csv")
    return f"{name}-{series.metric}" if series.metric else name


def _file_names(instances: Sequence[str]) -> dict[str, str]:
    """Return a file name for each instance, whose own name may hold any characters."""
    names: dict[str, str] = {}
    for instance in instances:
        plain = _plain(instance)
        taken = {name.casefold() for name in names.values()}
        choices = (plain if number == 1 else f"{plain}_{number}" for number in count(1))
        names[instance] = next(name for name in choices if name and name.casefold() not in taken)
    return names


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name).lstrip("._")[:150]


def _print(
    candidates: Sequence[Candidate], corpus: Corpus, metrics: int, seeds: int, rate: float | None
) -> None:
    runs = f", {seeds} seeds (mean ± standard deviation)" if seeds > 1 else ""
    called = f"{len(corpus.series)} series"
    if metrics > len(corpus.series):
        called = f"{len(corpus.series)} instances with {metrics} series"
    if any(one.outcome for one in candidates):
        print_table(
            [
                [name, limit, *_cells(figures, _SHOWN, spread=seeds > 1), ranked]
                for one in candidates
                for name, limit, figures, ranked in one.rows()
            ],
            ["detector", "threshold", *(_TITLES[name] for name in _SHOWN), "AP"],
            left=2,
        )
        print(f"\n{called}, {corpus.windows} labeled windows{runs}.\n{_LEGEND}")
    else:
        print_table(
            [
                [one.name, f"{one.threshold:.4g}", *_cells(one.alerts, _UNLABELED, seeds > 1)]
                for one in candidates
            ],
            ["detector", "threshold", *(_TITLES[name] for name in _UNLABELED)],
        )
        print(f"\n{called}, no labels{runs}.\n{_LEGEND_UNLABELED}")
    _print_metrics(candidates, seeds)
    slow = [one.name for one in candidates if one.makes[0].compilable and not compiled()]
    if slow:
        print(f"{' and '.join(slow)} ran as Python, not compiled: slower, with the same results.")
    for one in candidates:
        if one.tuned:
            print(
                f"{one.name}: threshold {one.tuned[0]:.6g} gives {one.tuned[1]:.3g} alerts per "
                f"instance and week (asked: at most {rate:g}), counted without labels."
            )


def _print_pairs(compared: Sequence[Pair]) -> None:
    for one in compared:
        print(f"\n{one.detector} against {one.against}:")
        rows = []
        for name, found in one.figures.items():
            digits = 1 if name == "standard" else 3
            numbers = [f"{number:.{digits}f}" for number in found[:2]]
            bounds = ["-" if number is None else f"{number:+.{digits}f}" for number in found[3:]]
            rows.append(
                [_TITLES[name], *numbers, f"{found.difference:+.{digits}f}", " .. ".join(bounds)]
            )
        print_table(rows, ["", one.detector, "against", "difference", "90% interval"])
    if compared:
        print(_LEGEND_PAIRS)


def _print_metrics(candidates: Sequence[Candidate], seeds: int) -> None:
    for one in candidates:
        if one.metrics:
            shown = _SHOWN if one.outcome else ("alerts_per_day",)
            print(f"\n{one.name}, each metric by itself:")
            print_table(
                [
                    [metric, *_cells(figures, shown, spread=seeds > 1)]
                    for metric, figures in one.metrics.items()
                ],
                ["metric", *(_TITLES[name] for name in shown)],
            )


def _cells(figures: Figures, names: Sequence[str], spread: bool) -> list[str]:
    """Return the figures as text, with `spread` their standard deviations too."""
    cells = []
    for name in names:
        value, deviation, digits = figures[name], figures[f"{name}_sd"], _DIGITS.get(name, 2)
        cell = "-" if value is None else f"{value:.{digits}f}"
        if spread and deviation is not None:
            cell += f" ±{deviation:.{digits}f}"
        cells.append(cell)
    return cells
