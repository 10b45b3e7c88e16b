"""Draws a series with a detector's expected range, alerts and scores. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

from dataflow.detectors.base import Verdict
from dataflow.evaluation.alarms import count
from dataflow.evaluation.instances import Scored, held
from dataflow.evaluation.nab import Floats, Series

__all__ = ["draw"]

_VALUE = "#2f5d8a"
_BAND = "#b9d3ea"
_EXPECTED = "#7ea9cf"
_WINDOW = "#f5c04a"
_HIT = "#1a8f4c"
_FALSE = "#d1302f"
_QUIET = "#8c8c8c"


def draw(
    path: Path,
    series: Series,
    verdicts: Sequence[Verdict],
    detector: str,
    threshold: float,
    interval: float = 300.0,
) -> None:
    """Write a PNG of 1400 x 700 pixels; raises OSError if it cannot be written.

    The upper part shows the values with the expected band, if the detector has one, the labeled
    windows and the alerts; the lower part the scores and the threshold. Readings that are
    skipped are gray: neither their alerts nor their labels count.
    """
    table = np.array(verdicts, dtype=float).reshape(-1, 5)
    score, expected, lower, upper, near = table.T
    alerts = held(Scored(score, near > 0), threshold, interval) > threshold
    start = series.start
    counts = count(series, alerts)
    # NumPy's times have no zone; on the axis they appear as UTC.
    when = (series.times * 1e6).astype("datetime64[us]")

    figure = Figure(figsize=(14, 7), dpi=100, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1.2])
    for axes in (above, below):
        _ground(axes, when, series, start)

    entries: list[object] = []
    if np.isfinite(lower).any():
        above.fill_between(when, lower, upper, color=_BAND, alpha=0.55, lw=0, zorder=1)
        above.plot(when, expected, color=_EXPECTED, lw=1, zorder=1.5)
        entries.append(Patch(color=_BAND, alpha=0.55, label="expected"))
    entries += above.plot(when, series.values, color=_VALUE, lw=0.9, label="value", zorder=2)
    _limit(above, series.values)
    entries += _mark(above, when, series, alerts, start)
    if series.windows:
        entries.append(Patch(color=_WINDOW, alpha=0.4, label="labeled window"))
    if start:
        entries.append(Patch(color=_QUIET, alpha=0.15, label="not counted"))
    above.set_ylabel("value")
    if np.abs(series.values).max(initial=0) >= 1e4:
        above.yaxis.set_major_formatter(EngFormatter(sep=""))
    figure.legend(handles=entries, loc="outside lower center", ncols=len(entries), frameon=False)
    name = series.instance if len(series.instance) <= 100 else f"{series.instance[:99]}…"
    title = " · ".join(filter(None, (name, series.metric, detector)))
    found = f"{counts.tp} found (tp), {counts.fn} missed (fn), {counts.fp} false alarms (fp)"
    above.set_title(f"{title}\n{found}", loc="left", fontsize=12, parse_math=False)

    below.plot(when, score, color=_VALUE, lw=0.8, zorder=2)
    below.axhline(threshold, color=_FALSE, lw=1.1, ls=(0, (5, 3)), zorder=3)
    below.text(
        1.004,
        threshold,
        f"threshold\n{threshold:.4g}",
        color=_FALSE,
        fontsize=9,
        va="center",
        transform=below.get_yaxis_transform(),
    )
    below.set_ylim(-0.03, max(1.05, threshold * 1.05))
    below.set_ylabel("score")
    locator = AutoDateLocator()
    below.xaxis.set_major_locator(locator)
    below.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    if len(when):
        below.set_xlim(when.min(), when.max())
    figure.savefig(path)


def _ground(axes: Axes, when: NDArray[np.datetime64], series: Series, start: int) -> None:
    for begin, end in series.windows:
        edges = (np.array([begin, end]) * 1e6).astype("datetime64[us]")
        axes.axvspan(edges[0], edges[1], color=_WINDOW, alpha=0.4, lw=0, zorder=1.2)
    if start:
        axes.axvspan(
            when[0], when[min(start, len(when) - 1)], color=_QUIET, alpha=0.15, lw=0, zorder=0
        )
    axes.grid(axis="y", color="#e6e6e6", lw=0.7, zorder=-1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#b0b0b0")
    axes.tick_params(color="#b0b0b0")


def _limit(axes: Axes, values: Floats) -> None:
    """Fit the axis to the values: the band may be far wider."""
    low, high = float(values.min()), float(values.max())
    margin = 0.07 * (high - low) or 0.05 * abs(high) or 1.0
    axes.set_ylim(low - margin, high + margin)


def _mark(
    axes: Axes, when: NDArray[np.datetime64], series: Series, alerts: NDArray[np.bool_], start: int
) -> list[object]:
    inside = np.zeros(len(alerts), bool)
    for left, right in series.spans().values():
        inside[left : right + 1] = True
    counted = alerts & (np.arange(len(alerts)) >= start)
    entries: list[object] = []
    for chosen, color, marker, size, label in (
        (counted & inside, _HIT, "o", 46, "alert in a window"),
        (counted & ~inside, _FALSE, "X", 46, "alert outside"),
        (alerts & ~counted, _QUIET, "o", 20, ""),
    ):
        if chosen.any():
            dots = axes.scatter(
                when[chosen],
                series.values[chosen],
                s=size,
                c=color,
                marker=marker,
                label=label,
                edgecolors="white",
                linewidths=0.7,
                zorder=4,
            )
            entries += [dots] if label else []
    return entries
