"""A checkout of the Numenta Anomaly Benchmark, brought into the tutorial's form."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from dataflow.refusal import Refusal

__all__ = ["EC2_CPU", "convert"]

EC2_CPU = "realAWSCloudwatch/ec2_cpu_utilization_*.csv"
"""The series of the tutorial: eight instances, named by six hexadecimal digits."""


def convert(nab: Path, files: str = EC2_CPU) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return readings and labels of the files under `data/` whose path fits a glob.

    The readings have the columns index, timestamp, value and instance, all but the index as the
    text that NAB has; they are ordered by index, then instance, as a topic would have them. The
    labels are the windows of `labels/combined_windows.json`, by instance. A Refusal if there is
    nothing to convert.
    """
    root = nab / "data"
    try:
        paths = sorted(path for path in root.glob(files) if path.is_file())
    except (NotImplementedError, ValueError):  # an absolute or empty glob
        paths = []
    if not paths:
        raise Refusal(_nothing(root, files))
    windows = _windows(nab / "labels" / "combined_windows.json")
    series: dict[str, pd.DataFrame] = {}
    labels = {}
    for path in paths:
        name = path.relative_to(root).as_posix()
        instance = _instance(path)
        if instance in series:
            raise Refusal(f"{files!r} fits two files called {instance}: convert them one by one.")
        if name not in windows:
            raise Refusal(f"{nab}: labels/combined_windows.json says nothing of {name}.")
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
        raise Refusal(f"{path} cannot be read as timestamp,value: {why}.") from error


def _windows(path: Path) -> dict[str, Any]:
    try:
        windows: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise Refusal(f"{path} cannot be read: {error}.") from error
    return windows


def _nothing(root: Path, files: str) -> str:
    folders = sorted({path.parent.name for path in root.glob("*/*.csv")})
    if not folders:
        return f"{root} holds no series: give the folder of a NAB checkout."
    like = ("realAWSCloudwatch" if "realAWSCloudwatch" in folders else folders[0]) + "/*.csv"
    return f"{root} has no file like {files!r}: say which, for example --files {like!r}."
