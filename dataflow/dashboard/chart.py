"""The live plot of one instance: its values in the expected band, and below them the score."""

from __future__ import annotations

from typing import Any, NamedTuple

import holoviews as hv
import numpy as np
import panel as pn
from bokeh.document import Document
from bokeh.models import DatetimeTickFormatter, HoverTool, Toolbar
from holoviews.streams import Pipe
from numpy.typing import NDArray

from dataflow.track import REPORTED, ROW, Rows

__all__ = ["Chart", "Look", "Measure"]


_PLAIN: dict[str, Any] = {
    # The ranges are set here, for what is followed, and by those who zoom.
    "apply_ranges": False,
    "default_tools": ["xpan", "xbox_zoom", "xwheel_zoom"],
    "active_tools": ["xbox_zoom"],
}


class Look(NamedTuple):
    """The colours of a chart: told apart by people who are colour-blind, light and dark."""

    ground: str
    ink: str
    line: str
    series: str
    alarm: str
    ramp: tuple[str, ...]

    @staticmethod
    def of(dark: bool) -> Look:
        """Return the colours of `page.css`."""
        if dark:
            return Look(
                "#14181c", "#a2abb5", "#2b3138", "#8fbbe6", "#f79257", ("#8fbbe6", "#dcc463")
            )
        return Look("#ffffff", "#5a636d", "#e6e9ed", "#2f5d8a", "#b5450b", ("#2f5d8a", "#c9a227"))


class Measure(NamedTuple):
    """What is measured: its name on the axis, the factor from the flow's values, its unit."""

    label: str
    factor: float
    unit: str
    timed: bool
    bounded: bool


class Chart:
    """Two plots with one axis of time, renewed in place.

    It follows the newest reading until somebody zooms or pans; `follow` makes it follow again.
    """

    def __init__(self, measure: Measure, threshold: float, dark: bool) -> None:
        self.following = True
        self._measure = measure
        self._threshold = threshold
        self._look = Look.of(dark)
        self._setting = False
        self._ranges: dict[str, Any] = {}
        self._shown: tuple[Rows, float | None] = (np.zeros(0, ROW), None)
        self._pipe = Pipe(data=np.zeros(0, ROW))
        self.pane = pn.pane.HoloViews(
            self._plots(),
            sizing_mode="stretch_width",
            margin=0,
            backend="bokeh",
            linked_axes=False,
        )

    def follow(self) -> None:
        """Show the newest again."""
        self.following = True

    @staticmethod
    def trim(document: Document) -> None:
        """Take the maker's mark off the tools: HoloViews merges them, and has no option for it."""
        for toolbar in document.select({"type": Toolbar}):
            toolbar.logo = None

    def show(self, rows: Rows, span: float | None) -> None:
        """Draw these rows, or those of the last `span` of the axis."""
        if len(rows) and span is not None:
            rows = rows[rows["place"] > rows["place"][-1] - span]
        self._shown = (rows, span)
        self._pipe.send(rows)
        self._fit()

    def _fit(self) -> None:
        rows, span = self._shown
        if not (len(rows) and self.following and self._ranges):
            return
        first, last = float(rows["place"][0]), float(rows["place"][-1])
        if span is not None:
            first = last - span
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
        """Return the lowest and the highest that is shown: all values, and of the band a part.

        A band may be far wider than what moves in it.
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
        band = self._element(self._band).opts(
            hv.opts.Area(color=look.series, fill_alpha=0.22, line_alpha=0, **_PLAIN)
        )
        line = self._element(self._line).opts(
            hv.opts.Curve(color=look.series, line_width=1.2, **_PLAIN)
        )
        dots = self._element(self._dots).opts(
            hv.opts.Points(
                color="score",
                cmap=[*look.ramp, look.alarm],
                clim=(0, min(1.0, 2 * self._threshold)),
                size=3.5,
                tools=[self._hover()],
                **_PLAIN,
            )
        )
        values = band * line * dots * self._marks("value", 12)
        score = self._element(self._score).opts(
            hv.opts.Curve(color=look.series, line_width=1.2, **_PLAIN)
        )
        limit = hv.HLine(self._threshold).opts(
            color=look.alarm, line_dash="dashed", line_width=1.3, **_PLAIN
        )
        top = values.opts(self._frame(290, self._measure.label, first=True))
        bottom = (score * limit * self._marks("score", 10)).opts(
            self._frame(150, "score", first=False)
        )
        return (top + bottom).cols(1).opts(merge_tools=True, sizing_mode="stretch_width")

    def _frame(self, height: int, label: str, *, first: bool) -> Any:
        def hook(plot: Any, _element: Any) -> None:
            self._dress(plot, first)

        # The time is said once, below both.
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

    def _element(self, make: Any) -> hv.DynamicMap:
        return hv.DynamicMap(make, streams=[self._pipe])

    def _band(self, data: Rows) -> hv.Area:
        known = data[np.isfinite(data["lower"]) & np.isfinite(data["upper"])]
        factor = self._measure.factor
        return hv.Area(
            (self._x(known), known["lower"] * factor, known["upper"] * factor),
            "time",
            ["lower", "upper"],
        )

    def _line(self, data: Rows) -> hv.Curve:
        return hv.Curve((self._x(data), data["value"] * self._measure.factor), "time", "value")

    def _score(self, data: Rows) -> hv.Curve:
        return hv.Curve((self._x(data), data["score"]), "time", "score")

    def _dots(self, data: Rows) -> hv.Points:
        factor = self._measure.factor
        columns = (
            self._x(data),
            data["value"] * factor,
            data["score"],
            data["expected"] * factor,
            data["lower"] * factor,
            data["upper"] * factor,
        )
        return hv.Points(columns, ["time", "value"], ["score", "expected", "lower", "upper"])

    def _marks(self, field: str, size: int) -> Any:
        def reported(data: Rows) -> hv.Points:
            return self._diamonds(data[(data["mark"] & REPORTED) > 0], field)

        def own(data: Rows) -> hv.Points:
            alone = (data["mark"] > 0) & ((data["mark"] & REPORTED) == 0)
            return self._diamonds(data[alone], field)

        look = self._look
        shape = {"marker": "diamond", "size": size, **_PLAIN}
        return self._element(reported).opts(
            hv.opts.Points(color=look.alarm, line_color=look.ground, line_width=1, **shape)
        ) * self._element(own).opts(
            hv.opts.Points(fill_color=look.ground, line_color=look.alarm, line_width=2, **shape)
        )

    def _diamonds(self, rows: Rows, field: str) -> hv.Points:
        factor = self._measure.factor if field == "value" else 1.0
        return hv.Points((self._x(rows), rows[field] * factor), ["time", field])

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
        # So that both stand exactly below each other, whatever their numbers.
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
            self.following = False
