"""The sentence on the fleet, and the columns of its table."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from dataflow.dashboard.feed import Shown
from dataflow.dashboard.fleet import Overview, Row
from dataflow.dashboard.overview import columns_of, sentence
from dataflow.dashboard.present import Age
from dataflow.dashboard.status import Condition, Tone
from dataflow.dashboard.trouble import State, Trouble
from dataflow.dashboard.view import View
from dataflow.settings import Settings

FIELDS = ["instance", "state", "value", "spark", "score", "day", "last_anomaly", "last_reading"]
TROUBLE = Trouble("e", 600.0, 1200.0, 0.9, 900.0, "CPU 90.0%", True)
LIVE = Shown(Condition(Tone.GOOD, "Live"), 1500.0, Age.LIVE, 1500.0)


def row(name: str = "a", state: State = State.ORDINARY, **fields: Any) -> Row:
    given = {
        **{"since": None, "silent": None, "trouble": None, "value": 0.25, "score": 0.5},
        **{"day": 3, "last_anomaly": 1200.0, "place": 1500.0, **fields},
    }
    return Row(name, state, **given)


def anomalous(name: str, since: float) -> Row:
    return row(name, State.TROUBLED, since=since, trouble=TROUBLE)


def silent(name: str, since: float, state: State = State.TROUBLED) -> Row:
    return row(name, state, since=since, silent=1500.0 - since)


def cells(of: Row, **settings: Any) -> dict[str, str]:
    return {it.field: it.text(of) for it in columns_of(Settings(_env_file=None, **settings))}


def test_values_are_in_the_unit_of_the_input() -> None:
    assert list(cells(row())) == FIELDS
    assert cells(row())["value"] == "25.0"
    assert cells(row(), scale=None, detector="zscore")["value"] == "0.25"
    assert cells(row(score=math.nan, last_anomaly=None))["score"] == "-"
    untimed = cells(row(day=None, place=7.0, last_anomaly=None), time_field="none")
    assert [untimed[it] for it in ("day", "last_anomaly", "last_reading")] == ["-", "-", "7"]


def test_the_newest_trouble_is_first_and_who_is_switched_off_last() -> None:
    rows = [
        *(silent("gone", 0.0, State.GONE), row("calm", last_anomaly=None), row("ordinary")),
        *(anomalous("old", 300.0), silent("silent", 500.0), anomalous("new", 900.0)),
    ]
    message = View(columns_of(Settings(_env_file=None))).message(rows, 0.0, lambda _: "")
    assert message
    assert message["order"] == ["new", "silent", "old", "ordinary", "calm", "gone"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row()], "The instance is neither anomalous nor silent"),
        ([row(), row("b")], "None of 2 instances is anomalous or silent"),
        ([row(), anomalous("b", 1.0)], "1 anomalous of 2 instances"),
        ([anomalous("a", 1.0), silent("b", 1.0)], "1 anomalous and 1 silent of 2 instances"),
        ([silent("a", 1.0, State.GONE)], "No data from the instance"),
        ([silent(it, 1.0, State.GONE) for it in "ab"], "No data from all 2 instances"),
    ],
)
def test_one_sentence_says_how_the_fleet_is(rows: list[Row], said: str) -> None:
    found = sentence(Overview(rows, 1500.0, 1500.0), LIVE)
    assert re.findall(r"<p[^>]*>([^<]*)</p>", found)[0] == said
    old = sentence(Overview(rows, 1500.0, 1500.0), LIVE._replace(age=Age.OLD))
    assert f"{said} at 1970-01-01 00:25 UTC<" in old
