"""The live plot of one instance: its values in the expected band, and below them the score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import holoviews as hv
import numpy as np
import panel as pn
from bokeh.models import CDSView, ColumnDataSource, DatetimeTickFormatter, HoverTool, VArea
from bokeh.themes import Theme
from numpy.typing import NDArray

from dataflow.dashboard.history import REPORTED, ROW, Rows

__all__ = ["Chart", "Look", "Measure"]


_PLAIN: dict[str, Any] = {
    # The ranges are set here while the chart follows, and by the user who zooms.
    "apply_ranges": False,
    "default_tools": ["xpan", "xbox_zoom", "xwheel_zoom"],
    "active_tools": ["xbox_zoom"],
}


class Look(NamedTuple):
    """The colors of a chart, light or dark, which color-blind people can distinguish."""

    ground: str
    ink: str
    line: str
    series: str
    alarm: str
    ramp: tuple[str, ...]

    @staticmethod
    def of(dark: bool) -> Look:
        """Return the colors of `page.css`."""
        if dark:
            return Look(
                "#14181c", "#a2abb5", "#2b3138", "#8fbbe6", "#f79257", ("#8fbbe6", "#dcc463")
            )
        return Look("#ffffff", "#5a636d", "#e6e9ed", "#2f5d8a", "#b5450b", ("#2f5d8a", "#c9a227"))


class Measure(NamedTuple):
    """The metric: its label, the factor from the flow's values to it, and its unit."""

    label: str
    factor: float
    unit: str
    timed: bool
    bounded: bool


SHOWN = ("place", "value", "score", "expected", "lower", "upper")
"""The fields of a row that the lines and points show."""

Columns = dict[str, NDArray[Any]]

ColumnsOf = Callable[[Rows], Columns]


@dataclass
class _Marks:
    """The marks of some rows: the rows, the columns that are shown, and Bokeh's data source."""

    chosen: Callable[[Rows], Rows]
    columns: ColumnsOf
    source: Any = None
    shown: Rows | None = None

    def fill(self, rows: Rows) -> None:
        """Show the chosen ones of these rows, if they are others than before."""
        marks = self.chosen(rows)
        if self.source is None or (self.shown is not None and _equal(marks, self.shown)):
            return
        self.shown = marks
        self.source.data = self.columns(marks)


def _equal(one: Rows, other: Rows) -> bool:
    # Bytes: NaN equals NaN.
    return one.tobytes() == other.tobytes()


def _overlap(old: Rows, new: Rows) -> int | None:
    """Return how many rows the end of `old` and the beginning of `new` share; None if none does.

    What comes after them in `new` is all that a browser lacks, which has `old`.
    """
    if not (len(old) and len(new)):
        return None
    for first in np.flatnonzero(old["place"] == new["place"][0]):
        shared = len(old) - int(first)
        if shared <= len(new) and all(
            _equal(old[name][first:], new[name][:shared]) for name in SHOWN
        ):
            return shared
    return None


def _reddest(threshold: float) -> float:
    """Return the score from which on a point has the last color."""
    return min(1.0, 2 * threshold)


def _written(rows: Rows) -> Rows:
    """Return the anomalies that the flow has written."""
    reported: Rows = rows[(rows["mark"] & REPORTED) > 0]
    return reported


def _not_written(rows: Rows) -> Rows:
    """Return the anomalies that only this page has computed."""
    computed: Rows = rows[(rows["mark"] > 0) & ((rows["mark"] & REPORTED) == 0)]
    return computed


class Chart:
    """Two plots with a shared time axis, updated in place.

    HoloViews composes them once; after that, updates write columns straight into Bokeh's data
    sources. A `DynamicMap` for each of the elements takes a hundred times as long for an update,
    while all sessions wait. Lines, points and band share one data source, which gets only the rows
    that are new.

    The chart follows the newest reading until the user zooms or pans; `follow` resumes it.
    """

    def __init__(self, measure: Measure, threshold: float, dark: bool) -> None:
        self.following = True
        self._at: float | None = None
        self._measure = measure
        self._threshold = threshold
        self._look = Look.of(dark)
        self._setting = False
        self._ranges: dict[str, Any] = {}
        self._limits: list[Callable[[float], None]] = []
        self._marks: list[_Marks] = []
        self._source: Any = ColumnDataSource()
        self._drawn: Rows | None = None
        # Bokeh wants each column that a glyph shows, before there are rows too.
        self._draw(np.zeros(0, ROW))
        self._shown: tuple[Rows, float | None] = (np.zeros(0, ROW), None)
        self.pane = pn.pane.HoloViews(
            self._plots(),
            sizing_mode="stretch_width",
            margin=0,
            backend="bokeh",
            linked_axes=False,
            # HoloViews merges the toolbars of both plots and has no option to hide the logo.
            theme=Theme(json={"attrs": {"Toolbar": {"logo": None}}}),
        )

    def follow(self) -> None:
        """Follow the newest reading again."""
        self.following = True
        self._at = None

    def limit(self, threshold: float) -> None:
        """Draw this threshold."""
        if threshold != self._threshold:
            self._threshold = threshold
            for move in self._limits:
                move(threshold)

    def go_to(self, place: float) -> None:
        """Show the readings around a place, and stay there."""
        self.following = False
        self._at = place

    def show(self, rows: Rows, span: float | None) -> None:
        """Draw the rows of the last `span` of the axis, in its unit; None draws all rows.

        After `go_to`, those of the `span` around that place are drawn instead.
        """
        if len(rows) and span is not None and self._at is not None:
            rows = rows[np.abs(rows["place"] - self._at) <= span / 2]
        elif len(rows) and span is not None:
            rows = rows[rows["place"] > rows["place"][-1] - span]
        self._shown = (rows, span)
        self._draw(rows)
        for marks in self._marks:
            marks.fill(rows)
        self._fit()

    def _draw(self, rows: Rows) -> None:
        shared = None if self._drawn is None else _overlap(self._drawn, rows)
        if shared is None:
            self._source.data = self._dots(rows)
        elif shared < len(rows):
            self._source.stream(self._dots(rows[shared:]), rollover=len(rows))
        elif self._drawn is not None and len(self._drawn) > shared:
            self._source.data = self._dots(rows)
        self._drawn = rows.copy()

    # The columns of each data source have the names that HoloViews gave them.

    def _values(self, rows: Rows) -> Columns:
        return {"time": self._x(rows), "value": rows["value"] * self._measure.factor}

    def _scores(self, rows: Rows) -> Columns:
        return {"time": self._x(rows), "score": rows["score"]}

    def _dots(self, rows: Rows) -> Columns:
        columns = {**self._values(rows), "score": rows["score"], "color": rows["score"]}
        for bound in ("expected", "lower", "upper"):
            columns[bound] = rows[bound] * self._measure.factor
        return columns

    def _fit(self) -> None:
        rows, span = self._shown
        if not (len(rows) and self._ranges and (self.following or self._at is not None)):
            return
        first, last = float(rows["place"][0]), float(rows["place"][-1])
        if span is not None:
            first = last - span
        if self._at is not None:
            half = (last - first) / 2 if span is None else span / 2
            first, last = self._at - half, self._at + half
        last += max(last - first, 1.0) / 100
        factor = 1000.0 if self._measure.timed else 1.0
        low, high = self._heights(rows)
        self._setting = True
        try:
            self._ranges["x_range"].update(start=first * factor, end=last * factor)
            self._ranges["y_range"].update(start=low, end=high)
        finally:
            self._setting = False

    def _heights(self, rows: Rows) -> tuple[float, float]:
        """Return the range of the axis: all values, and a limited part of the band.

        A band may be far wider than the values in it.
        """
        values = rows["value"] * self._measure.factor
        low, high = float(values.min()), float(values.max())
        most = max(0.4 * (high - low), 0.005 * self._measure.factor, abs(high) * 1e-3)
        least = most / 5
        bounds = [rows[name][np.isfinite(rows[name])] for name in ("lower", "upper")]
        if len(bounds[0]) and len(bounds[1]):
            lower, upper = (bound * self._measure.factor for bound in bounds)
            low = max(min(low, float(lower.min())), low - most)
            high = min(max(high, float(upper.max())), high + most)
        return low - least, high + least

    def _x(self, rows: Rows) -> NDArray[Any]:
        places = rows["place"]
        return (places * 1000).astype("datetime64[ms]") if self._measure.timed else places

    def _plots(self) -> Any:
        look = self._look
        # Two placeholder readings, until the first update.
        rows = np.zeros(2, ROW)
        rows["place"] = (0, 1)
        x = self._x(rows)
        values, bounds = rows["value"], ["score", "expected", "lower", "upper"]
        line = hv.Curve((x, values), "time", "value").opts(
            color=look.series, line_width=1.2, **_PLAIN, hooks=[self._banded]
        )
        dots = hv.Points((x, *[values] * 5), ["time", "value"], bounds).opts(
            color="score",
            cmap=[*look.ramp, look.alarm],
            clim=(0, _reddest(self._threshold)),
            size=3.5,
            tools=[self._hover()],
            **_PLAIN,
            hooks=[self._colored],
        )
        score = hv.Curve((x, values), "time", "score").opts(
            color=look.series, line_width=1.2, **_PLAIN, hooks=[self._shares]
        )
        limit = hv.HLine(self._threshold).opts(
            color=look.alarm, line_dash="dashed", line_width=1.3, **_PLAIN, hooks=[self._limited]
        )
        above = line * dots * self._diamonds(self._values, "value", x, 16)
        below = score * limit * self._diamonds(self._scores, "score", x, 13)
        top = above.opts(self._frame(290, self._measure.label, first=True))
        bottom = below.opts(self._frame(150, "score", first=False))
        return (top + bottom).cols(1).opts(merge_tools=True, sizing_mode="stretch_width")

    def _diamonds(self, columns: ColumnsOf, field: str, x: NDArray[Any], size: int) -> Any:
        """Return the marks of anomalies: full if the flow has written them, hollow if not."""
        look = self._look
        full = {"color": look.alarm, "line_color": look.ground, "line_width": 1}
        hollow = {"fill_color": look.ground, "line_color": look.alarm, "line_width": 2}

        def points(chosen: Callable[[Rows], Rows], style: dict[str, Any]) -> Any:
            marks = _Marks(chosen, columns)
            self._marks.append(marks)

            def catch(plot: Any, _element: Any) -> None:
                marks.source = plot.handles["source"]
                marks.fill(self._shown[0])

            return hv.Points((x, np.zeros(2)), ["time", field]).opts(
                marker="diamond", size=size, **style, **_PLAIN, hooks=[catch]
            )

        return points(_written, full) * points(_not_written, hollow)

    def _shares(self, plot: Any, _element: Any) -> None:
        """Let an element show the data source that all share."""
        renderer = plot.handles["glyph_renderer"]
        renderer.data_source = self._source
        renderer.view = CDSView()

    def _colored(self, plot: Any, element: Any) -> None:
        """As `_shares`, and let the colors of scores follow the threshold."""
        self._shares(plot, element)
        mapper = plot.handles["color_color_mapper"]
        self._follow_limit(lambda threshold: mapper.update(high=_reddest(threshold)))

    def _limited(self, plot: Any, _element: Any) -> None:
        """Let the line of the threshold follow it."""
        line = plot.handles["glyph"]
        self._follow_limit(lambda threshold: line.update(location=threshold))

    def _follow_limit(self, move: Callable[[float], None]) -> None:
        # Models are made at the first look at the page, when the threshold may be another.
        move(self._threshold)
        self._limits.append(move)

    def _banded(self, plot: Any, element: Any) -> None:
        """As `_shares`, and draw the band below the line."""
        self._shares(plot, element)
        band = VArea(
            x="time", y1="lower", y2="upper", fill_color=self._look.series, fill_alpha=0.22
        )
        renderer = plot.state.add_glyph(self._source, band)
        renderer.level = "underlay"

    def _frame(self, height: int, label: str, *, first: bool) -> Any:
        def hook(plot: Any, _element: Any) -> None:
            self._dress(plot, first)

        # Only the lower plot shows the time axis.
        return hv.opts.Overlay(
            responsive=True,
            height=height,
            show_legend=False,
            xlabel="time (UTC)" if self._measure.timed else "",
            ylabel=label,
            show_grid=True,
            toolbar="above",
            hooks=[hook],
            **_PLAIN,
            **({} if first else {"ylim": (-0.03, 1.04)}),
        )

    def _hover(self) -> HoverTool:
        time = "@time{%F %H:%M} UTC" if self._measure.timed else "@time{0}"
        unit = self._measure.unit
        digits = "{0.0}" if unit else "{0.[000]}"
        return HoverTool(
            tooltips=[
                ("time", time),
                (self._measure.label.removesuffix(" %"), f"@value{digits}{unit}"),
                ("expected", f"@expected{digits}{unit}"),
                ("band", f"@lower{digits} to @upper{digits}{unit}"),
                ("score", "@score{0.000}"),
            ],
            formatters={"@time": "datetime"},
        )

    def _dress(self, plot: Any, first: bool) -> None:
        look = self._look
        figure = plot.state
        figure.update(
            background_fill_color=look.ground,
            border_fill_color=look.ground,
            outline_line_color=None,
            output_backend="canvas",
        )
        figure.grid.grid_line_color = look.line
        figure.xgrid.grid_line_color = None
        for axis in figure.axis:
            axis.update(
                axis_label_text_color=look.ink,
                axis_label_text_font_style="normal",
                axis_label_text_font_size="13px",
                major_label_text_color=look.ink,
                major_label_text_font_size="12px",
                axis_line_color=look.line,
                major_tick_line_color=look.line,
                minor_tick_line_color=None,
            )
        # Align both plots, however wide their labels are.
        figure.min_border_left = 62
        figure.min_border_right = 12
        if self._measure.timed:
            figure.xaxis.formatter = DatetimeTickFormatter(
                minutes="%H:%M", hourmin="%H:%M", hours="%H:%M", days="%d %b", months="%b %Y"
            )
        if first and not self._ranges:
            self._ranges = {name: plot.handles[name] for name in ("x_range", "y_range")}
            figure.xaxis.visible = False
            self._fit()
            self._ranges["x_range"].on_change("start", self._moved)

    def _moved(self, _name: str, _old: object, _new: object) -> None:
        if not self._setting:
            self.following, self._at = False, None
