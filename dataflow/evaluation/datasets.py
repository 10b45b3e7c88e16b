"""Reads labeled series: this project's sample, directories of CSV files, a checkout of NAB."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import pandas as pd

from dataflow.errors import UserError
from dataflow.evaluation import tables
from dataflow.evaluation.nab import Floats, Series
from dataflow.formats.base import bounds
from dataflow.formats.files import check_columns, read_rows
from dataflow.records import Reading, number, seconds

__all__ = [
    "EC2_CPU",
    "convert",
    "has_columns",
    "load_directory",
    "load_nab",
    "load_sample",
    "series_of",
    "to_unit_range",
]

SCALE = 100.0
COLUMNS = ("timestamp", "value", "instance")
Windows = tuple[tuple[float, float], ...]
# The usual forms of numbers and times, a line each.
_NUMBERS = re.compile(r"(?:-?\d{1,15}(?:\.\d{1,17})?\n)+", re.ASCII)
_DATES = re.compile(r"(?:[12]\d{3}-\d\d-\d\d[ T]\d\d:\d\d:\d\d\n)+", re.ASCII)
_LABELS_FORM = "{instance: [[start, end], ...]}"


def load_sample(data: Path, labels: Path | None) -> list[Series]:
    """Read a CSV with columns timestamp, value, instance and its labels, one series an instance.

    The labels are JSON, `{instance: [[start, end], ...]}`; an instance without labels has no
    anomaly, and without a labels file no series has windows. Values run from 0 to 100 and are
    returned as 0 to 1, as the flow normalizes them.

    Raises `UserError` if a file cannot be used.
    """
    table = _table(data, COLUMNS)
    _check(data, table["instance"] == "", "has no instance")
    low, high = bounds(SCALE)
    _check(
        data,
        ~table["value"].between(low, high),
        f"has a value outside 0 to {SCALE:g} (ANOMALY_SCALE=none: any)",
    )
    table["value"] = table["value"].clip(0.0, SCALE) / SCALE
    return _labeled(table, data, labels)


def has_columns(data: Path) -> bool:
    """Return whether a file is CSV with the columns that `load_sample` reads."""
    try:
        check_columns(data, dict.fromkeys(COLUMNS, ""))
    except UserError:
        return False
    return True


def load_directory(
    directory: Path, files: str | None, labels: Path | None, interval: float
) -> list[Series]:
    """Read the CSV files under a directory, one series a metric of an instance, values as they are.

    `files` is a glob of the paths under it, by default of all that end in `.csv` or `.csv.gz`. A
    file without a column `instance` is an instance named by its path, without the ending. See
    `tables.read` for the columns. The labels are those of `load_sample`, by default of a file
    `labels.json` in the directory, whose keys may have the ending too; without one, the columns
    of labels count. The windows of an instance are those of all its metrics.

    Raises `UserError` if a file cannot be used, or two have the same metric of an instance.
    """
    try:
        found = sorted(path for path in directory.glob(files or "**/*") if tables.is_table(path))
    except (NotImplementedError, ValueError):  # absolute or empty
        found = []
    if not found:
        named = f"that matches {files!r}" if files else "whose name ends in .csv or .csv.gz"
        raise UserError(f"{directory} has no file {named}: give one that has.")
    if labels is None and (directory / "labels.json").exists():
        labels = directory / "labels.json"
    metrics: dict[tuple[str, str], tables.Metric] = {}
    for path in found:
        name = tables.name_of(path.relative_to(directory).as_posix())
        for one in tables.read(path, name, interval):
            if metrics.setdefault((one.instance, one.metric), one) is not one:
                what = f"{one.instance}, {one.metric}" if one.metric else one.instance
                raise UserError(
                    f"{path} has readings of {what}, as another file or line has: give each name "
                    "to one instance."
                )
    return _of_metrics(list(metrics.values()), directory, labels)


def _of_metrics(metrics: list[tables.Metric], data: Path, labels: Path | None) -> list[Series]:
    names = {one.instance for one in metrics}
    windows: dict[str, Windows] = {}
    if labels is not None:
        given = {tables.name_of(name): pairs for name, pairs in _labels(labels).items()}
        if not names & set(given):
            raise UserError(
                f"{labels} labels no instance of {data} (but {min(given, default='none')!r}, for "
                "one): give the labels of these readings."
            )
        windows = {name: _windows_of(name, given.get(name, []), labels) for name in names}
    else:
        for one in metrics:
            windows[one.instance] = _joined((*windows.get(one.instance, ()), *one.windows()))
    series = [
        Series(one.instance, one.times, one.values, windows[one.instance], metric=one.metric)
        for one in metrics
    ]
    return _usable(series, labels) if labels else series


def _joined(windows: Windows) -> Windows:
    """Return the windows with those that overlap joined."""
    joined: list[tuple[float, float]] = []
    for start, end in sorted(windows):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return tuple(joined)


def series_of(readings: Iterable[Reading], data: Path, labels: Path | None) -> list[Series]:
    """Return one series an instance of readings in their order, which came from a file.

    Values are from 0 to 1, or in any range. The labels are as those of `load_sample`.

    Raises `UserError` if a reading has no time, there is none, or the labels cannot be used.
    """
    rows = [(one.instance, one.value, one.time) for one in readings]
    if not rows:
        raise UserError(
            f"{data} has no readings: see what `python -m dataflow inspect {quote(str(data))}` "
            "says."
        )
    table = pd.DataFrame(rows, columns=["instance", "value", "time"])
    if table["time"].isna().any():
        raise UserError(
            f"{data} has readings without a time: name its field in ANOMALY_TIME_FIELD."
        )
    return _labeled(table, data, labels)


def _labeled(table: pd.DataFrame, data: Path, labels: Path | None) -> list[Series]:
    windows = _labels(labels) if labels else {}
    groups = {str(name): rows for name, rows in table.groupby("instance", sort=False)}
    if windows and not set(windows) & set(groups):
        raise UserError(
            f"{labels} labels no instance of {data} (but {min(windows)!r}, for one): give the "
            "labels of these readings."
        )
    source = labels or data
    series = [
        _series(name, rows, windows.get(name, []), [], source) for name, rows in groups.items()
    ]
    return _usable(series, source) if labels else series


def to_unit_range(series: Series) -> Series:
    """Return a NAB series with values from 0 to 1, for detectors that do not scale for themselves.

    CPU percent is divided by 100. Other metrics have no natural range: they are stretched between
    the smallest and the largest value of the whole file, NAB's own convention, which shows the
    detector the future and so can only improve its figures.
    """
    if "cpu_utilization" in series.instance and series.values.max() <= SCALE:
        return replace(series, values=series.values / SCALE)
    low, high = series.values.min(), series.values.max()
    return replace(series, values=(series.values - low) / ((high - low) or 1.0))


def load_nab(directory: Path, files: str = "**/*.csv") -> list[Series]:
    """Read the files of a NAB checkout whose path under `data/` fits a glob, one series a file.

    The moments at which anomalies began come from `labels/combined_labels.json` where it is
    there, otherwise they are the starts of the windows.

    Raises `UserError` if a file is missing or cannot be used.
    """
    root = directory / "data"
    if not root.is_dir():
        raise UserError(
            f"{directory} is not a NAB checkout (it has no folder data): give the folder of one."
        )
    source = directory / "labels" / "combined_windows.json"
    windows = _labels(source)
    moments = directory / "labels" / "combined_labels.json"
    began = _labels(moments) if moments.exists() else {}
    try:
        paths = sorted(path for path in root.glob(files) if path.is_file())
        names = [path.relative_to(root).as_posix() for path in paths]
    except (NotImplementedError, ValueError):  # absolute, empty or out of the folder
        paths, names = [], []
    if not paths:
        raise UserError(_nothing(root, files))
    for name in names:
        if name not in windows:
            raise UserError(f"{source} has no entry for {name}: give a whole NAB checkout.")
    series = []
    for name, path in zip(names, paths, strict=True):
        table = _table(path, ["timestamp", "value"])
        series.append(_series(name, table, windows[name], began.get(name, []), source))
    return _usable(series, source)


def _texts(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Return columns of a CSV file as text, by the number of the line.

    An instance may be called NA, and 007 is not 7.
    """
    check_columns(path, dict.fromkeys(columns, "add it to the file"))
    rows = read_rows(path)
    _, header = next(rows)
    # Of columns of the same name, the flow reads the last.
    places = dict(zip(header, range(len(header)), strict=True))
    wanted = [places[column] for column in columns]
    cells_of = _plain_columns(path, len(header))
    if cells_of:
        texts = {column: cells_of[place] for column, place in zip(columns, wanted, strict=True)}
        return pd.DataFrame(texts, index=range(2, len(cells_of[0]) + 2), dtype=object)
    lines, found = [], []
    for line, (_, cells) in enumerate(rows, start=2):
        if isinstance(cells, str):
            raise UserError(f"{path}, line {line}: {cells}: correct or remove it.")
        if cells:
            lines.append(line)
            found.append([cells[place] for place in wanted])
    return pd.DataFrame(found, index=lines, columns=list(columns), dtype=str)


def _plain_columns(path: Path, count: int) -> list[list[str]] | None:
    """Return the columns below the first line if no cell has quotes and no line is odd, else None.

    This takes a third of the time of `read_rows`, which also says what is wrong with a line.
    """
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError:
        return None
    lines = text.removesuffix("\n").split("\n")[1:]
    if '"' in text or "\r" in text or {line.count(",") for line in lines} != {count - 1}:
        return None
    cells = ",".join(lines).split(",")
    return [cells[place::count] for place in range(count)]


def _table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    table = _texts(path, columns)
    values = pd.Series(_values(table["value"].tolist()), index=table.index, dtype=float)
    _check(path, ~values.between(-1.7e308, 1.7e308), "has a value that is not a finite number")
    times = pd.Series(_times(table["timestamp"].tolist()), index=table.index, dtype=float)
    _check(path, times.isna(), "has a timestamp that cannot be read")
    if table.empty:
        raise UserError(f"{path} has no readings: give a file with some.")
    return table.assign(value=values, time=times)


def _values(texts: list[str]) -> Floats:
    """Return the numbers as the flow reads them; NaN for what is none."""
    if _NUMBERS.fullmatch("\n".join([*texts, ""])):  # ten times faster
        return np.array(texts, dtype=float)
    return np.array([_value(text) for text in texts], dtype=float)


def _times(texts: list[str]) -> Floats:
    """Return times as `_seconds` does."""
    if _DATES.fullmatch("\n".join([*texts, ""])):  # faster as well
        try:
            return np.array(texts, dtype="datetime64[s]").astype(float)
        except ValueError:
            pass
    return _seconds(texts)


def _value(text: str) -> float:
    try:
        return float(number(text))
    except (ValueError, OverflowError):
        return math.nan


def _check(path: Path, wrong: pd.Series[bool], what: str) -> None:
    if wrong.any():
        raise UserError(f"{path}, line {wrong.idxmax()}, {what}: correct or remove it.")


def _seconds(stamps: Iterable[Any]) -> Floats:
    """Return times in seconds since 1970, UTC, as the flow reads them; NaN for what it rejects."""
    return np.array([_time(stamp) for stamp in stamps], dtype=float)


def _time(stamp: Any) -> float:
    try:
        return seconds(stamp)
    except (TypeError, ValueError):
        return math.nan


def _labels(path: Path) -> dict[str, list[Any]]:
    try:
        labels = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(
            f"Cannot read {path} ({error.strerror}): give an existing file of labels."
        ) from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}): give {_LABELS_FORM}.") from error
    if not isinstance(labels, dict) or not all(isinstance(v, list) for v in labels.values()):
        raise UserError(f"{path} has another form than labels: give {_LABELS_FORM}.")
    return labels


def _series(
    name: str, table: pd.DataFrame, windows: list[Any], began: list[Any], source: Path
) -> Series:
    pairs = _windows_of(name, windows, source)
    moments = _moments(name, began, source)
    labels = tuple(
        min((float(m) for m in moments if start <= m <= end), default=start) for start, end in pairs
    )
    return Series(
        name,
        table["time"].to_numpy(dtype=float),
        table["value"].to_numpy(dtype=float),
        pairs,
        labels,
    )


def _windows_of(name: str, windows: list[Any], source: Path) -> Windows:
    if not all(isinstance(window, list) and len(window) == 2 for window in windows):
        raise UserError(f"{source} has a window of {name} that is not a pair: give [start, end].")
    edges = _moments(name, [moment for window in windows for moment in window], source)
    pairs = sorted((float(a), float(b)) for a, b in edges.reshape(-1, 2))
    ordered = [moment for pair in pairs for moment in pair]
    if ordered != sorted(ordered):
        raise UserError(
            f"{source} has windows of {name} that run backward or overlap: give each window start "
            "first, and join those that overlap."
        )
    return tuple(pairs)


def _moments(name: str, stamps: list[Any], source: Path) -> Floats:
    moments = _seconds(stamps)
    if np.isnan(moments).any():
        raise UserError(
            f"{source} has a time of {name} that cannot be read: give one such as "
            "2024-03-01 12:00:00."
        )
    return moments


def _usable(series: list[Series], source: Path) -> list[Series]:
    if not any(one.spans() for one in series):
        raise UserError(
            f"{source} has no window with a reading in it, so nothing can be scored: give labels "
            "of the readings' own time, or files with anomalies."
        )
    return series


EC2_CPU = "realAWSCloudwatch/ec2_cpu_utilization_*.csv"
"""The series of the tutorial: eight instances, named by six hexadecimal digits."""


def convert(nab: Path, files: str = EC2_CPU) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return readings and labels of the files under `data/` whose path fits a glob.

    The readings have the columns index, timestamp, value and instance, all but the index as the
    text that NAB has; they are ordered by index, then instance, as a topic would have them. The
    labels are the windows of `labels/combined_windows.json`, by instance.

    Raises `UserError` if there is nothing to convert.
    """
    root = nab / "data"
    try:
        paths = sorted(path for path in root.glob(files) if path.is_file())
    except (NotImplementedError, ValueError):  # an absolute or empty glob
        paths = []
    if not paths:
        raise UserError(_nothing(root, files))
    windows = _windows(nab / "labels" / "combined_windows.json")
    series: dict[str, pd.DataFrame] = {}
    labels = {}
    for path in paths:
        name = path.relative_to(root).as_posix()
        instance = _instance(path)
        if instance in series:
            raise UserError(
                f"{files!r} matches two files named {instance}: convert them one by one, "
                "with --files."
            )
        if name not in windows:
            raise UserError(
                f"labels/combined_windows.json in {nab} has no entry for {name}: give a whole NAB "
                "checkout."
            )
        series[instance] = _texts(path, ["timestamp", "value"])
        labels[instance] = windows[name]
    readings = pd.concat(
        [one.assign(index=range(len(one)), instance=name) for name, one in series.items()]
    ).sort_values(["index", "instance"])
    ordered = dict(sorted(labels.items()))
    return readings[["index", "timestamp", "value", "instance"]].reset_index(drop=True), ordered


def _instance(path: Path) -> str:
    cpu = re.fullmatch(r"ec2_cpu_utilization_([0-9a-f]{6})", path.stem)
    return cpu[1] if cpu else path.stem


def _windows(path: Path) -> dict[str, Any]:
    try:
        windows: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path} ({error}): give a whole NAB checkout.") from error
    return windows


def _nothing(root: Path, files: str) -> str:
    folders = sorted({path.parent.name for path in root.glob("*/*.csv")})
    if not folders:
        return f"{root} has no series: give the folder of a NAB checkout."
    like = ("realAWSCloudwatch" if "realAWSCloudwatch" in folders else folders[0]) + "/*.csv"
    return f"{root} has no file that matches {files!r}: name some, for example --files {like!r}."
