"""Reads labelled series: this project's sample form, and a checkout of NAB (MIT licence)."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dataflow.errors import UserError
from dataflow.evaluation.nab import Floats, Series

__all__ = ["EC2_CPU", "LabelsError", "convert", "load_nab", "load_sample", "to_unit_range"]

SCALE = 100.0


class LabelsError(ValueError):
    """Labelled data that cannot be used: which file, what is wrong, what to do."""


def load_sample(data: Path, labels: Path | None) -> list[Series]:
    """Read a CSV with columns timestamp, value, instance and its labels, one series an instance.

    The labels are JSON, `{instance: [[start, end], ...]}`; an instance without labels has no
    anomaly. Values run from 0 to 100 and are returned as 0 to 1, as the flow normalizes them.
    Raises LabelsError. Without a labels file the series have no windows.
    """
    table = _table(data, {"timestamp", "value", "instance"})
    _refuse(data, table["instance"] == "", "has no instance")
    _refuse(data, ~table["value"].between(0, SCALE), f"has a value outside 0 to {SCALE:g}")
    table["value"] /= SCALE
    windows = _labels(labels) if labels else {}
    groups = {str(name): rows for name, rows in table.groupby("instance", sort=False)}
    if windows and not set(windows) & set(groups):
        raise LabelsError(f"{labels}: labels no instance of {data} (but {min(windows)!r}).")
    source = labels or data
    series = [
        _series(name, rows, windows.get(name, []), [], source) for name, rows in groups.items()
    ]
    return _usable(series, source) if labels else series


def to_unit_range(series: Series) -> Series:
    """Return a NAB series with values from 0 to 1, for detectors that do not scale for themselves.

    CPU percent is divided by 100. Other metrics have no natural range: they are stretched between
    the least and the greatest value of the whole file, NAB's own convention, which shows a detector
    the future and so can only flatter it.
    """
    if "cpu_utilization" in series.instance and series.values.max() <= SCALE:
        return replace(series, values=series.values / SCALE)
    low, high = series.values.min(), series.values.max()
    return replace(series, values=(series.values - low) / ((high - low) or 1.0))


def load_nab(directory: Path, files: str = "**/*.csv") -> list[Series]:
    """Read the files of a NAB checkout whose path under `data/` fits a glob, one series a file.

    The moments at which anomalies began come from `labels/combined_labels.json` where it is
    there, else they are the beginnings of the windows. Raises LabelsError.
    """
    root = directory / "data"
    if not root.is_dir():
        raise LabelsError(f"{directory} is no NAB checkout: it has no folder data.")
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
        raise LabelsError(f"{root}: no file fits {files!r}.")
    for name in names:
        if name not in windows:
            raise LabelsError(f"{source}: says nothing of {name}.")
    series = []
    for name, path in zip(names, paths, strict=True):
        table = _table(path, {"timestamp", "value"})
        series.append(_series(name, table, windows[name], began.get(name, []), source))
    return _usable(series, source)


def _table(path: Path, columns: set[str]) -> pd.DataFrame:
    try:
        # All as text: an instance may be called NA, and 007 is not 7.
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except OSError as error:
        raise LabelsError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise LabelsError(f"{path}: is no CSV ({' '.join(str(error).split())}).") from error
    missing = sorted(columns - set(table.columns))
    if missing:
        raise LabelsError(f"{path}: has no column {', '.join(missing)}.")
    values = pd.to_numeric(table["value"], errors="coerce").astype(float)
    _refuse(path, ~values.between(-1.7e308, 1.7e308), "has a value that is not a finite number")
    times = pd.Series(_seconds(table["timestamp"]), index=table.index)
    _refuse(path, times.isna(), "has a timestamp that cannot be read")
    if table.empty:
        raise LabelsError(f"{path}: holds no readings.")
    return table.assign(value=values, time=times)


def _refuse(path: Path, wrong: pd.Series[bool], what: str) -> None:
    if wrong.any():
        raise LabelsError(f"{path}: line {int(wrong.argmax()) + 2} {what}.")


def _seconds(stamps: pd.Series[Any]) -> Floats:
    """Return times in seconds since 1970, NaN where one cannot be read.

    Numbers are seconds, or milliseconds from 1e11 on; text without a zone is UTC.
    """
    numbers = pd.to_numeric(stamps, errors="coerce").to_numpy(dtype=float)
    parsed = pd.to_datetime(
        stamps.where(np.isnan(numbers)), errors="coerce", utc=True, format="ISO8601"
    )
    text = (parsed - pd.Timestamp(0, tz="UTC")).dt.total_seconds().to_numpy(dtype=float)
    number = np.where(np.abs(numbers) >= 1e11, numbers / 1000, numbers)
    return np.asarray(np.where(np.isnan(numbers), text, number), dtype=float)


def _labels(path: Path) -> dict[str, list[Any]]:
    try:
        labels = json.loads(path.read_bytes())
    except OSError as error:
        raise LabelsError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise LabelsError(f"{path}: is no JSON ({error}).") from error
    if not isinstance(labels, dict) or not all(isinstance(v, list) for v in labels.values()):
        raise LabelsError(f"{path}: must be {{instance: [[start, end], ...]}}.")
    return labels


def _series(
    name: str, table: pd.DataFrame, windows: list[Any], began: list[Any], source: Path
) -> Series:
    if not all(isinstance(window, list) and len(window) == 2 for window in windows):
        raise LabelsError(f"{source}: a window of {name} is not a pair [start, end].")
    bounds = _seconds(pd.Series([moment for window in windows for moment in window], dtype=object))
    moments = _seconds(pd.Series(began, dtype=object))
    if np.isnan(bounds).any() or np.isnan(moments).any():
        raise LabelsError(f"{source}: a time of {name} cannot be read.")
    pairs = sorted((float(a), float(b)) for a, b in bounds.reshape(-1, 2))
    edges = [moment for pair in pairs for moment in pair]
    if edges != sorted(edges):
        raise LabelsError(f"{source}: windows of {name} run backwards or overlap.")
    labels = tuple(
        min((float(m) for m in moments if start <= m <= end), default=start) for start, end in pairs
    )
    return Series(
        name,
        table["time"].to_numpy(dtype=float),
        table["value"].to_numpy(dtype=float),
        tuple(pairs),
        labels,
    )


def _usable(series: list[Series], source: Path) -> list[Series]:
    if not any(one.spans() for one in series):
        raise LabelsError(f"{source}: no window holds a reading, so there is nothing to score by.")
    return series


EC2_CPU = "realAWSCloudwatch/ec2_cpu_utilization_*.csv"
"""The series of the tutorial: eight instances, named by six hexadecimal digits."""


def convert(nab: Path, files: str = EC2_CPU) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return readings and labels of the files under `data/` whose path fits a glob.

    The readings have the columns index, timestamp, value and instance, all but the index as the
    text that NAB has; they are ordered by index, then instance, as a topic would have them. The
    labels are the windows of `labels/combined_windows.json`, by instance. A UserError if there is
    nothing to convert.
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
            raise UserError(f"{files!r} fits two files called {instance}: convert them one by one.")
        if name not in windows:
            raise UserError(f"{nab}: labels/combined_windows.json says nothing of {name}.")
        series[instance] = _read(path)
        labels[instance] = windows[name]
    readings = pd.concat(
        [one.assign(index=range(len(one)), instance=name) for name, one in series.items()]
    ).sort_values(["index", "instance"])
    ordered = dict(sorted(labels.items()))
    return readings[["index", "timestamp", "value", "instance"]].reset_index(drop=True), ordered


def _instance(path: Path) -> str:
    cpu = re.fullmatch(r"ec2_cpu_utilization_([0-9a-f]{6})", path.stem)
    return cpu[1] if cpu else path.stem


def _read(path: Path) -> pd.DataFrame:
    try:
        series = pd.read_csv(path, dtype=str, keep_default_na=False)
        return series[["timestamp", "value"]]
    except (OSError, ValueError, KeyError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read as timestamp,value: {why}.") from error


def _windows(path: Path) -> dict[str, Any]:
    try:
        windows: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    return windows


def _nothing(root: Path, files: str) -> str:
    folders = sorted({path.parent.name for path in root.glob("*/*.csv")})
    if not folders:
        return f"{root} holds no series: give the folder of a NAB checkout."
    like = ("realAWSCloudwatch" if "realAWSCloudwatch" in folders else folders[0]) + "/*.csv"
    return f"{root} has no file like {files!r}: say which, for example --files {like!r}."
