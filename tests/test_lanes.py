"""The swim lanes of the last day, against an independent count."""

from __future__ import annotations

import math
import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dataflow.dashboard.history import ROW
from dataflow.dashboard.lanes import CELLS, DAY, Lane, drawn, worst

END = 1_800_000_000.0


@given(
    st.lists(
        st.tuples(
            st.floats(-3600, 1.2 * DAY),
            st.just(math.nan) | st.floats(0, 1, width=32),
        ),
        max_size=60,
    )
)
def test_a_cell_is_the_worst_score_of_its_half_hour(readings: list[tuple[float, float]]) -> None:
    rows = np.zeros(len(readings), ROW)
    for row, (ago, score) in zip(rows, readings, strict=True):
        row["place"], row["score"] = END - ago, score
        row["mark"] = score > 0.75
    lane = worst("a", rows, END, 0.5)
    truth, found = [math.nan] * CELLS, [False] * CELLS
    for place, score in zip(rows["place"], rows["score"], strict=True):
        ago = END - float(place)
        if 0 <= ago < DAY and not math.isnan(score):
            cell = CELLS - 1 - int(ago // 1800)
            truth[cell] = max(float(score), -1 if math.isnan(truth[cell]) else truth[cell])
            found[cell] = found[cell] or score > 0.75
    assert lane.anomalous.tolist() == found
    np.testing.assert_array_equal(lane.scores, np.float32(truth))
    for score, place in zip(lane.scores, lane.places, strict=True):
        assert math.isnan(score) == math.isnan(place)
        if not math.isnan(score):
            assert any(it["place"] == place and it["score"] == score for it in rows)


def lane(name: str, threshold: float = 0.5, **cells: float) -> Lane:
    scores = np.zeros(CELLS, np.float32)
    for at, score in cells.items():
        scores[int(at[1:])] = score
    return Lane(name, scores, np.full(CELLS, END), scores > threshold, threshold)


def test_anomalies_lead_to_their_place_and_gaps_show() -> None:
    shown = drawn([lane("a&b", c3=0.75, c4=0.4, c5=math.nan)], 1, END)
    assert shown.count('class="above"') == 2  # the legend's too
    assert shown.count('class="below"') == 2
    assert shown.count('class="none"') == 2
    assert f'href="instance?name=a%26b&amp;at={END:.0f}"' in shown
    assert "<title>a&amp;b, 01-15 08:00 UTC: score 0.75</title>" in shown
    assert "All of them" not in shown


def test_many_lanes_have_one_of_all_and_say_how_many_are_not_there() -> None:
    shown = drawn([lane("a", c3=0.75), lane("b", c3=0.875, c9=0.625)], 40, END)
    assert ", 15 of 40 instances</h2>" in shown
    (top,) = re.findall(r"All of them.*?</li>", shown)
    assert re.findall(r"<title>([^<]*)</title>", top) == ["0.88", "0.62"]
    assert drawn([], 0, END) == ""


def test_each_lane_has_its_own_threshold() -> None:
    shown = drawn([lane("a", 0.8, c3=0.75, c4=0.41), lane("b", 0.3, c3=0.35, c4=0.2)], 2, END)
    rows = re.findall(r"<li>.*?</li>", shown)
    kinds = [re.findall(r'class="(above|below)"', row) for row in rows]
    assert kinds == [["above", "below"], ["below", "below"], ["above", "below"]]
