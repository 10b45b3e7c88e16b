"""What the live plot of an instance draws."""

from __future__ import annotations

from typing import Any

import holoviews as hv
import numpy as np
from bokeh.models import ColumnDataSource, GlyphRenderer, Scatter

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
    (band,) = (it.data for it in sources if "y" in it.data and len(it.data["y"]) == 10)
    assert band["x"].tolist() == [1, 2, 3, 4, 5, 5, 4, 3, 2, 1]
    # A following chart shows the last part of the axis.
    chart.show(rows, 2.0)
    assert [len(it.data["time"]) for it in sources if "expected" in it.data] == [2]
