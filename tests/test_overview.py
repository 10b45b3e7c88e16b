"""The table of all instances."""

from __future__ import annotations

import math
from typing import Any

from dataflow.dashboard.fleet import Overview, Row
from dataflow.dashboard.overview import columns_of, table_of
from dataflow.settings import Settings

FIELDS = ["instance", "value", "spark", "score", "hour", "day", "last_anomaly", "last_reading"]


def table(rows: list[Row], **settings: Any) -> Any:
    return table_of(Overview(rows, None), columns_of(Settings(_env_file=None, **settings), 0.5))


def test_values_are_in_the_unit_of_the_input() -> None:
    rows = [
        Row("a", 0.25, 0.5, 1, 3, 1200.0, 1500.0, "<svg>"),
        Row("b", 0.5, math.nan, 1, 3, None, 1500.0, ""),
    ]
    assert list(table(rows).columns) == FIELDS
    assert table(rows)["value"].tolist() == [25.0, 50.0]
    assert table(rows, scale=None, detector="zscore")["value"].tolist() == [0.25, 0.5]


def test_among_equal_counts_the_higher_score_comes_first() -> None:
    scores = {"a": 0.2, "b": math.nan, "c": 0.9, "d": 0.0}
    rows = [Row(name, 0.0, score, 0, 2, 0.0, 0.0, "") for name, score in scores.items()]
    rows.append(Row("e", 0.0, 0.1, 0, 3, 0.0, 0.0, ""))
    days = table(rows).sort_values("day", ascending=False, kind="stable")
    assert days["instance"].tolist() == ["e", "c", "a", "b", "d"]
    assert days["day"].astype(int).tolist() == [3, 2, 2, 2, 2]


def test_a_table_of_no_rows_or_of_rows_without_times_has_all_columns() -> None:
    rows = [Row("a", 0.25, math.nan, None, None, None, 7.0, "")]
    for some in ([], rows):
        found = table(some, time_field="none")
        assert list(found.columns) == FIELDS
        assert found["hour"].isna().all()
        assert found.dtypes["value"].kind == "f"
        assert found.dtypes["instance"].kind == "O"
