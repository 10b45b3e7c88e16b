"""What the live plot of an instance draws."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
import pytest
from bokeh.models import ColumnDataSource, GlyphRenderer, Scatter, VArea

from dataflow.dashboard.chart import Chart, Look, Measure
from dataflow.dashboard.history import REPORTED, ROW, SCORED

hv.extension("bokeh", logo=False)


def test_each_anomaly_is_a_full_or_a_hollow_diamond_in_both_plots() -> None:
    chart = Chart(Measure("CPU %", 100.0, " %", timed=False, bounded=True), 0.5, dark=False)
    root = chart.pane.get_root()
    rows = np.zeros(6, ROW)
    rows["place"] = range(6)
    rows["value"] = np.arange(6) / 8
    rows["score"] = np.arange(6) / 10
    rows["upper"] = [np.nan, 1, 1, 1, 1, 1]
    rows["mark"] = [0, SCORED, REPORTED, SCORED | REPORTED, 0, SCORED]
    chart.show(rows, None)
    diamonds: dict[tuple[str, bool], list[float]] = {}
    for renderer in root.select({"type": GlyphRenderer}):
        if isinstance(renderer.glyph, Scatter) and renderer.glyph.marker == "diamond":
            field = "value" if "value" in renderer.data_source.data else "score"
            full = renderer.glyph.fill_color != Look.of(dark=False).ground
            diamonds[field, full] = renderer.data_source.data["time"].tolist()
    assert diamonds == {
        ("value", True): [2, 3],
        ("value", False): [1, 5],
        ("score", True): [2, 3],
        ("score", False): [1, 5],
    }
    sources: list[Any] = list(root.select({"type": ColumnDataSource}))
    (dots,) = (it.data for it in sources if "expected" in it.data)
    assert dots["value"].tolist() == [0, 12.5, 25, 37.5, 50, 62.5]
    assert dots["upper"].tolist()[1:] == [100] * 5
    (band,) = (it for it in root.select({"type": GlyphRenderer}) if isinstance(it.glyph, VArea))
    assert band.data_source.data is dots
    assert (band.glyph.y1, band.glyph.y2) == ("lower", "upper")
    # A following chart shows the last part of the axis.
    chart.show(rows, 2.0)
    assert [len(it.data["time"]) for it in sources if "expected" in it.data] == [2]


def test_what_is_drawn_is_what_is_shown_and_only_news_are_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[int] = []
    stream = ColumnDataSource.stream

    def count(source: ColumnDataSource, new: Any, rollover: int) -> None:
        sent.append(len(new["time"]))
        stream(source, new, rollover)

    monkeypatch.setattr(ColumnDataSource, "stream", count)
    chart = Chart(Measure("CPU %", 100.0, " %", timed=False, bounded=True), 0.5, dark=False)
    source = chart._source
    chance = np.random.default_rng(7)
    rows = np.zeros(500, ROW)
    rows["place"] = np.arange(500)
    rows["value"] = chance.random(500)
    rows["lower"] = np.nan
    chart.show(rows[:3], None)
    end, before = 3, None
    for _ in range(100):
        more, changed = int(chance.integers(0, 5)), bool(chance.random() < 0.2)
        span = [None, 4.0, 20.0][int(chance.integers(0, 3))]
        if changed:
            rows["score"][end - 1] += 0.25  # a verdict that comes late
        end += more
        sent.clear()
        chart.show(rows[:end], span)
        shown = rows[:end] if span is None else rows[max(0, end - int(span)) : end]
        assert source.data["time"].tolist() == shown["place"].tolist()
        np.testing.assert_array_equal(source.data["value"], shown["value"] * 100)
        np.testing.assert_array_equal(source.data["color"], shown["score"])
        if more and not changed and span == before and len(shown) > more:
            assert sent == [more]
        before = span
