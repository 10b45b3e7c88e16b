"""Reads series from CSV files of other shapes: several metrics, labels in a column, gzip."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dataflow.errors import UserError
from dataflow.evaluation.nab import Floats
from dataflow.records import seconds

__all__ = ["LABELS", "Metric", "is_table", "name_of", "read"]

TIMES = ("timestamp", "time")
LABELS = ("is_anomaly", "label", "anomaly")
KEYS = ("instance", "metric")
IGNORED = ("index", "Unnamed: 0")
ENDINGS = (".csv.gz", ".csv")
MOST_NUMBERED = 1e8  # Greater whole numbers are seconds since 1970.


@dataclass(frozen=True)
class Metric:
    """The readings of one metric of an instance; `anomalous` is None without labels."""

    instance: str
    metric: str
    times: Floats
    values: Floats
    anomalous: NDArray[np.bool_] | None

    def windows(self) -> list[tuple[float, float]]:
        """Return the first and last time of each run of anomalous readings."""
        if self.anomalous is None:
            return []
        edges = np.flatnonzero(np.diff(self.anomalous, prepend=False, append=False))
        return [
            (float(self.times[first]), float(self.times[past - 1]))
            for first, past in edges.reshape(-1, 2)
        ]


def is_table(path: Path) -> bool:
    """Return whether a file is named as one that `read` takes."""
    return path.name.endswith(ENDINGS)


def name_of(path: str) -> str:
    """Return the instance's name of a file that names none.

    >>> name_of("eu/web-1.csv.gz"), name_of("a.b.csv")
    ('eu/web-1', 'a.b')
    """
    return path.removesuffix(".gz").removesuffix(".csv")


def read(path: Path, name: str, interval: float) -> Iterator[Metric]:
    """Yield the metrics of a CSV file, by instance and metric in the order of their appearance.

    The columns are `timestamp`, maybe `instance` (else all readings are of `name`), `metric`, and
    one of `LABELS` with 0 or 1; each other column has the values of a metric, and one named `index`
    has no meaning. An empty cell is no reading. Timestamps are as the flow reads them; whole
    numbers below 100 million number the readings (0, 1, 2...), which are `interval` seconds apart.

    Raises `UserError` if the file cannot be used.
    """
    table = _table(path)
    stamp = next((column for column in TIMES if column in table), None)
    if stamp is None:
        raise UserError(f"{path} has no column timestamp: name the columns in its first line.")
    label = next((column for column in LABELS if column in table), None)
    keys = [column for column in KEYS if column in table]
    columns = [one for one in map(str, table) if one not in (stamp, label, *keys, *IGNORED)]
    if not columns or ("metric" in keys and len(columns) > 1):
        raise UserError(
            f"{path} needs one column of values, or without a column metric several: it has "
            f"{', '.join(columns) or 'none'}."
        )
    if table.empty:
        raise UserError(f"{path} has no readings: give a file with some.")
    times = _times(path, table[stamp], interval)
    values = {column: _values(path, table[column]) for column in columns}
    anomalous = None if label is None else _anomalous(path, table[label])
    for instance, metric, rows in _groups(path, table, keys, name):
        for column, found in values.items():
            called = metric if metric is not None else column if len(columns) > 1 else ""
            there = rows[~np.isnan(found[rows])]
            if len(there):
                flags = None if anomalous is None else anomalous[there]
                yield Metric(instance, called, times[there], found[there], flags)


def _table(path: Path) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():
            # Else the further cells of a row that is longer than the first line would be dropped.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                path,
                index_col=False,
                dtype=dict.fromkeys(KEYS, str),
                keep_default_na=False,
                na_values=[""],
                skip_blank_lines=False,
                encoding="utf-8-sig",
                compression="gzip" if path.suffix == ".gz" else None,
                low_memory=False,
            )
    except OSError as error:
        what = error.strerror or str(error)
        raise UserError(f"Cannot read {path} ({what}): give CSV files.") from error
    except (ValueError, EOFError, zlib.error, pd.errors.ParserWarning) as error:
        what = " ".join(str(error).split())
        raise UserError(f"{path} is not CSV ({what}): correct or remove it.") from error
    return table.dropna(how="all")


def _groups(
    path: Path, table: pd.DataFrame, keys: Sequence[str], name: str
) -> Iterator[tuple[str, str | None, NDArray[np.intp]]]:
    """Yield instance, metric (None: the column names it) and places of the rows."""
    for key in keys:
        _check(path, table[key].isna(), f"has no {key}")
    if not keys:
        yield name, None, np.arange(len(table))
        return
    codes = table.groupby(list(keys), sort=False).ngroup().to_numpy()
    order = np.argsort(codes, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        first = table.iloc[rows[0]]
        instance = str(first["instance"]) if "instance" in keys else name
        yield instance, str(first["metric"]) if "metric" in keys else None, rows


def _times(path: Path, stamps: pd.Series[Any], interval: float) -> Floats:
    if pd.api.types.is_integer_dtype(stamps) and stamps.max() < MOST_NUMBERED:
        return stamps.to_numpy(dtype=float) * interval
    times = _parsed(stamps)
    _check(
        path,
        pd.Series(np.isnan(times), stamps.index, dtype=bool),
        "has a timestamp that cannot be read",
    )
    return times


def _parsed(stamps: pd.Series[Any]) -> Floats:
    if not pd.api.types.is_numeric_dtype(stamps) and not stamps.isna().any():
        try:
            moments = pd.to_datetime(stamps, format="ISO8601", utc=True)
        except ValueError:
            pass
        else:
            return moments.to_numpy(dtype="datetime64[ns]").astype(np.int64) / 1e9
    return np.array([_time(stamp) for stamp in stamps.tolist()])


def _time(stamp: object) -> float:
    try:
        return seconds(stamp)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return np.nan


def _values(path: Path, column: pd.Series[Any]) -> Floats:
    numbers = pd.to_numeric(column, errors="coerce")
    wrong = (numbers.isna() & column.notna()) | np.isinf(numbers)
    _check(path, wrong, f"has a value of {column.name} that is not a finite number")
    return numbers.to_numpy(dtype=float)


def _anomalous(path: Path, column: pd.Series[Any]) -> NDArray[np.bool_]:
    texts = column.fillna(0).astype(str).str.lower()
    yes = texts.isin(["1", "1.0", "true"])
    _check(
        path, ~yes & ~texts.isin(["0", "0.0", "false"]), f"has a {column.name} that is not 0 or 1"
    )
    return yes.to_numpy()


def _check(path: Path, wrong: pd.Series[bool], what: str) -> None:
    if wrong.any():
        line = wrong.index[int(wrong.to_numpy().argmax())] + 2
        raise UserError(f"{path}, line {line}, {what}: correct or remove it.")
