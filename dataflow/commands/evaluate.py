"""`evaluate`: how good is a detector on labelled data, and which threshold suits."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from dataflow.commands.tables import print_table
from dataflow.detectors import compiled, make
from dataflow.detectors.base import AnyDetector
from dataflow.evaluation import alarms
from dataflow.evaluation.backtest import (
    Figures,
    Outcome,
    judge,
    judge_at,
    replay,
    series_for,
    verdicts,
)
from dataflow.evaluation.datasets import LabelsError, load_nab, load_sample
from dataflow.evaluation.nab import Corpus, Floats, Series

__all__ = ["evaluate"]

BASELINES = ("tutorial", "zscore")
DEFAULT = "calibrated"
TUNING_ROUNDS = 6
FIRST_SEED = 42  # the flow's default, so that one seed judges what would run

_LEGEND = """\
NAB's scores: 0 for silence, 100 for perfection. "best" is the threshold with the highest standard
score, which only labels can tell. False alarms are per instance and day, an hour of them being one;
the delay counts from the labelled time, or from the window's start if no other time is known."""


class RequestError(ValueError):
    """Options that cannot be done, in a sentence."""


@dataclass
class Candidate:
    """A detector to evaluate: one make of it a seed, and what came of them."""

    name: str
    asked: bool
    makes: list[AnyDetector]
    threshold: float
    runs: list[list[Floats]] = field(default_factory=list)
    outcome: Outcome | None = None
    tuned: tuple[float, float] | None = None  # the threshold and its alerts a week
    at_tuned: Figures | None = None

    def tune(
        self,
        corpus: Corpus,
        rate: float,
        labelled: bool,
        told: Callable[[float], list[list[Floats]]],
    ) -> None:
        """Find the threshold for a rate of alerts; the labels only judge it afterwards.

        A detector that holds back repeated alerts scores otherwise when it is `told` another
        threshold: its new scores are tuned on again, until the two agree.
        """
        runs = self.runs
        try:
            for _ in range(TUNING_ROUNDS):
                threshold, _ = alarms.tune(corpus.series, runs, rate)
                runs = told(threshold)
                reached = alarms.alarms_per_week(corpus.series, runs, threshold)
                if reached <= rate:
                    break
        except ValueError as error:
            raise RequestError(str(error)) from error
        self.tuned = threshold, reached
        if labelled:
            self.at_tuned = judge_at(corpus, runs, threshold)

    def as_dict(self) -> dict[str, Any]:
        """Return what came of it as JSON has it."""
        found: dict[str, Any] = {"threshold": self.threshold}
        if self.outcome:
            found |= {"at_threshold": self.outcome.at_threshold, "at_best": self.outcome.at_best}
        if self.tuned:
            found["tuned"] = {
                "threshold": self.tuned[0],
                "alerts_per_week": self.tuned[1],
                **(self.at_tuned or {}),
            }
        return found

    def rows(self) -> list[tuple[str, str, Figures]]:
        """Return its lines of the table: whose, at which threshold, and the figures."""
        if not self.outcome:
            return []
        rows = [(self.name, f"{self.threshold:.4g}", self.outcome.at_threshold)]
        if self.tuned and self.at_tuned:
            rows.append(("", f"tuned {self.tuned[0]:.4g}", self.at_tuned))
        best = self.outcome.at_best
        return [*rows, ("", f"best {best['threshold']:.4g}", best)]


def evaluate(
    data: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Readings: timestamp, value, instance.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(metavar="JSON", help="Their labels: starts and ends by instance."),
    ] = None,
    nab: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A checkout of NAB, instead of both.")
    ] = None,
    files: Annotated[
        str | None, typer.Option(metavar="GLOB", help="Which files under its data/.")
    ] = None,
    detector: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A detector; repeat for more. Baselines come along."),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Repeat with so many seeds, from 42 on.")] = 1,
    threshold: Annotated[
        float | None, typer.Option(help="In place of the detectors' own (0 to 1).")
    ] = None,
    interval: Annotated[float, typer.Option(help="Seconds between an instance's readings.")] = 300,
    tune: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="Propose the threshold for at most RATE alerts an instance and week; "
            "this needs no labels.",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Draw each series, as PNG files.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """Replay labelled readings through detectors and say what their alerts were worth.

    The tutorial's detector and a rolling z-score are judged beside those that are asked for.
    """
    try:
        series = _series(data, labels, nab, files, unlabelled=tune is not None)
        corpus = Corpus(series)
        candidates = _candidates(detector, seeds, threshold, interval)
        if tune is not None and not tune >= 0:
            raise RequestError("--tune takes a number of alerts a week, 0 or more.")
        labelled = any(one.windows for one in series)
        if labelled and not corpus.windows:
            raise RequestError("All labels lie in the first 15% of their series: none counts.")
        if plot is not None:
            _check_plot(plot)
        _replay(candidates, series, raw=nab is not None)
        for candidate in candidates:
            if labelled:
                candidate.outcome = judge(corpus, candidate.runs, candidate.threshold)
            if tune is not None and candidate.asked:
                name = candidate.name

                def told(threshold: float, name: str = name) -> list[list[Floats]]:
                    # Any threshold is proposed; no detector that must know it takes 0 or 1.
                    threshold = min(max(threshold, 1e-6), 1 - 1e-6)
                    again = Candidate(name, True, _makes(name, seeds, interval, threshold), 0)
                    _replay([again], series, raw=nab is not None)
                    return again.runs

                candidate.tune(corpus, tune, labelled, told)
        if plot is not None:
            _plot([one for one in candidates if one.asked], series, nab is not None, plot)
    except (LabelsError, RequestError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    if as_json:
        found = {one.name: one.as_dict() for one in candidates}
        print(json.dumps({"detectors": found}, indent=2))
    else:
        _print(candidates, corpus, seeds, tune)


def _series(
    data: Path | None, labels: Path | None, nab: Path | None, files: str | None, unlabelled: bool
) -> list[Series]:
    if (data is None) == (nab is None):
        raise RequestError("give either --data CSV with --labels JSON, or --nab DIR.")
    if nab is not None:
        if labels is not None:
            raise RequestError("--labels goes with --data; a NAB checkout brings its own.")
        return load_nab(nab, files or "**/*.csv")
    assert data is not None
    if files is not None:
        raise RequestError("--files goes with --nab.")
    if labels is None and not unlabelled:
        raise RequestError("--data needs --labels JSON (only --tune does without).")
    return load_sample(data, labels)


def _candidates(
    asked: list[str] | None, seeds: int, threshold: float | None, interval: float
) -> list[Candidate]:
    if seeds < 1:
        raise RequestError("--seeds takes a number of 1 or more.")
    if threshold is not None and not 0 <= threshold <= 1:
        raise RequestError(f"--threshold must lie between 0 and 1, not at {threshold:g}.")
    if not 0 < interval < float("inf"):
        raise RequestError("--interval takes a number of seconds above 0.")
    chosen = asked or [DEFAULT]
    candidates = []
    for name in dict.fromkeys([*chosen, *BASELINES]):
        try:
            told = threshold if name in chosen else None
            makes = _makes(name, seeds, interval, told)
        except (ValueError, ImportError) as error:
            raise RequestError(str(error)) from error
        limit = makes[0].threshold if threshold is None or name not in chosen else threshold
        candidates.append(Candidate(name, name in chosen, makes, limit))
    return candidates


def _makes(name: str, seeds: int, interval: float, threshold: float | None) -> list[AnyDetector]:
    return [
        make(name, seed=FIRST_SEED + i, interval=interval, threshold=threshold)
        for i in range(seeds)
    ]


def _check_plot(directory: Path) -> None:
    """Find out before the long work whether drawings can be made there."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise RequestError(
            "--plot needs matplotlib: pip install 'ec2-anomaly-dataflow[plot]'."
        ) from error
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise RequestError(f"--plot: cannot write to {directory} ({error.strerror}).") from error


def _replay(candidates: Sequence[Candidate], series: Sequence[Series], raw: bool) -> None:
    readings = sum(len(one.values) for one in series)
    total = readings * sum(len(candidate.makes) for candidate in candidates)
    with _progress("replaying", total) as done:
        for candidate in candidates:
            for detector in candidate.makes:
                suited = series_for(detector, series, raw)
                candidate.runs.append(replay(detector, suited, done))


def _plot(
    candidates: Sequence[Candidate], series: Sequence[Series], raw: bool, directory: Path
) -> None:
    from dataflow.evaluation.plot import draw  # an extra, slow to import

    names = _file_names([one.instance for one in series])
    with _progress("drawing", len(candidates) * len(series)) as done:
        for candidate in candidates:
            detector = candidate.makes[0]
            for one in series_for(detector, series, raw):
                path = directory / f"{names[one.instance]}-{candidate.name}.png"
                try:
                    said = list(verdicts(detector, one))
                    draw(path, one, said, candidate.name, candidate.threshold)
                except OSError as error:
                    raise RequestError(f"cannot write {path} ({error.strerror}).") from error
                done(1)


def _file_names(instances: Sequence[str]) -> dict[str, str]:
    """Return a name for the files of each instance, which may itself be called anything."""
    names: dict[str, str] = {}
    for instance in instances:
        plain = re.sub(r"[^\w.-]+", "_", instance.removesuffix(".csv")).lstrip("._")[:150]
        taken = {name.casefold() for name in names.values()}
        choices = (plain if number == 1 else f"{plain}_{number}" for number in count(1))
        names[instance] = next(name for name in choices if name and name.casefold() not in taken)
    return names


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int], object]]:
    """Show how far a long work is, on a terminal; elsewhere nothing."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(what, total=total)
        yield lambda step: progress.advance(task, step)


def _print(candidates: Sequence[Candidate], corpus: Corpus, seeds: int, rate: float | None) -> None:
    rows = [row for one in candidates for row in one.rows()]
    if rows:
        print_table(rows, spread=seeds > 1)
        runs = f", {seeds} seeds (mean ± standard deviation)" if seeds > 1 else ""
        print(f"\n{len(corpus.series)} series, {corpus.windows} labelled windows{runs}.\n{_LEGEND}")
    slow = [one.name for one in candidates if one.makes[0].compilable and not compiled()]
    if slow:
        print(f"{' and '.join(slow)} ran as Python, not compiled: slower, with the same results.")
    for one in candidates:
        if one.tuned:
            print(
                f"{one.name}: threshold {one.tuned[0]:.6g} gives {one.tuned[1]:.3g} alerts an "
                f"instance and week (asked: at most {rate:g}), counted without labels."
            )
