"""Swim lanes: the worst score of each half hour of the last day, an instance a lane. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from typing import Any, NamedTuple
from urllib.parse import urlencode

import numpy as np
from numpy.typing import NDArray

from dataflow.dashboard.history import Rows

__all__ = ["CELLS", "DAY", "LANES", "Lane", "drawn", "worst"]

DAY = 86_400.0

CELLS = 48
"""Cells of a lane: half hours."""

LANES = 15
"""Lanes at most: those of the highest scores."""

WIDTH = 10
"""Units of a cell in the drawing."""


class Lane(NamedTuple):
    """The worst score of each cell, NaN without a reading, and the place of that reading.

    `anomalous` says which cells hold an anomaly; `threshold` is that of the instance.
    """

    instance: str
    scores: NDArray[Any]
    places: NDArray[Any]
    anomalous: NDArray[Any]
    threshold: float


def worst(instance: str, rows: Rows, end: float, threshold: float) -> Lane:
    """Return the lane of the day before `end`, in seconds since 1970.

    >>> from dataflow.dashboard.history import ROW
    >>> rows = np.zeros(3, ROW)
    >>> rows["place"], rows["score"] = (DAY - 1800, DAY - 60, DAY), (0.25, 0.5, 0.75)
    >>> lane = worst("a", rows, DAY, 0.5)
    >>> lane.scores[-2:].tolist(), float(lane.places[-1]) == DAY
    ([0.25, 0.75], True)
    """
    scores = np.full(CELLS, np.nan, np.float32)
    places = np.full(CELLS, np.nan)
    passed = end - rows["place"]
    rows = rows[(passed >= 0) & (passed < DAY) & np.isfinite(rows["score"])]
    # The worst is written last.
    rows = rows[np.argsort(rows["score"], kind="stable")]
    cells = CELLS - 1 - ((end - rows["place"]) // (DAY / CELLS)).astype(int)
    scores[cells], places[cells] = rows["score"], rows["place"]
    anomalous = np.zeros(CELLS, bool)
    anomalous[cells[rows["mark"] > 0]] = True
    return Lane(instance, scores, places, anomalous, threshold)


def drawn(lanes: list[Lane], found: int, end: float) -> str:
    """Return lanes as HTML; `found` is the number of instances with anomalies in that day."""
    if not lanes:
        return ""
    shown = [_row("<b>All of them</b>", _all(lanes))] if len(lanes) > 1 else []
    for lane in lanes:
        link = f"instance?{urlencode({'name': lane.instance})}"
        name = f'<a href="{escape(link)}">{escape(lane.instance)}</a>'
        shown.append(_row(name, lane))
    hours = "".join(
        f"<span>{datetime.fromtimestamp(end - ago * 3600, UTC):%H:%M}</span>"
        for ago in (24, 18, 12, 6, 0)
    )
    more = f", {LANES} of {found:,} instances" if found > len(lanes) else ""
    return (
        f"<h2>Worst scores of the last 24 hours{more}</h2>"
        f'<ul class="lanes">{"".join(shown)}</ul>'
        f'<div class="hours" aria-hidden="true">{hours}</div>'
        '<div class="legend"><span><i class="below"></i>no anomaly</span>'
        '<span><i class="above"></i>anomaly</span><span><i class="none"></i>no data</span></div>'
    )


def _all(lanes: list[Lane]) -> Lane:
    """Return the worst scores of all lanes; its cells lead to the instance of each."""
    scores = np.array([lane.scores for lane in lanes])
    anomalous = np.logical_or.reduce([lane.anomalous for lane in lanes])
    least = min(lane.threshold for lane in lanes)
    return Lane("", np.fmax.reduce(scores), np.full(CELLS, np.nan), anomalous, least)


def _row(name: str, lane: Lane) -> str:
    cells = []
    for at, (score, place) in enumerate(zip(lane.scores, lane.places, strict=True)):
        x = at * WIDTH
        if np.isnan(score):
            cells.append(f'<rect class="none" x="{x}" y="6" width="{WIDTH}" height="4"/>')
            continue
        if score <= 0.5 * lane.threshold and not lane.anomalous[at]:
            continue
        kind = "above" if lane.anomalous[at] else "below"
        box = (
            f'<rect class="{kind}" x="{x + 0.5}" y="0" width="{WIDTH - 1}" height="16" '
            f'fill-opacity="{0.35 + 0.65 * float(score):.2f}">'
        )
        if np.isnan(place):
            cells.append(f"{box}<title>{score:.2f}</title></rect>")
            continue
        when = f"{datetime.fromtimestamp(float(place), UTC):%m-%d %H:%M} UTC"
        query = urlencode({"name": lane.instance, "at": f"{place:.0f}"})
        said = f"{lane.instance}, {when}: score {score:.2f}"
        cells.append(
            f'<a href="instance?{escape(query)}" aria-label="{escape(said)}">'
            f"{box}<title>{escape(said)}</title></rect></a>"
        )
    return (
        f'<li>{name}<svg viewBox="0 0 {CELLS * WIDTH} 16" preserveAspectRatio="none">'
        f"{''.join(cells)}</svg></li>"
    )
