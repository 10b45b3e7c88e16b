"""The page of all instances: a sentence, and a table of which the browser holds one page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import pandas as pd
import panel as pn

from dataflow.dashboard.feed import Feed
from dataflow.dashboard.fleet import Overview, Row
from dataflow.dashboard.page import asset, blank, html, page
from dataflow.dashboard.status import Condition, Tone
from dataflow.settings import Settings

__all__ = ["Column", "columns_of", "overview", "sentence", "table_of"]

PAGE_SIZE = 20

_UNKNOWN = "x == null || Number.isNaN(x)"
_LINK = """function(cell) {
  const link = document.createElement("a");
  link.textContent = cell.getValue();
  link.href = "instance?name=" + encodeURIComponent(cell.getValue());
  return link;
}"""
_COUNT = f"""function(cell) {{
  const x = cell.getValue();
  if ({_UNKNOWN}) return "-";
  const tone = x >= 1 ? "alarm" : "none";
  return `<span class="${{tone}}">${{Math.trunc(x)}}</span>`;
}}"""
_SPARK = "function(cell) { return cell.getValue(); }"


class Column(NamedTuple):
    """One column of the table.

    `values` computes it from the instances' rows, a data frame with the fields of `Row`; by default
    it is the field of that name. `format` is a JavaScript function that draws a cell. `width` is
    its least width in pixels, and `grow` its share of the space that is left. On a narrow screen
    the columns with the highest `hide` are hidden first. Numbers are aligned to the right.
    """

    field: str
    title: str
    format: str
    width: int
    hide: int
    values: Callable[[pd.DataFrame], pd.Series[Any]] | None = None
    grow: int | None = None
    number: bool = True
    sortable: bool = True


def columns_of(settings: Settings, threshold: float) -> list[Column]:
    """Return the columns from left to right. A further column is one more entry."""
    factor = 1.0 if settings.scale is None else settings.scale
    percent = settings.scale == 100
    value = "CPU %" if percent and settings.value_field == "value" else settings.value_field
    timed = settings.time_field is not None
    spark = "Last 24 hours" if timed else "Last readings"
    place = _place_format(timed)
    return [
        Column("instance", "Instance", _LINK, width=108, hide=0, grow=2, number=False),
        Column(
            "value",
            value,
            _value_format(percent),
            width=88,
            hide=0,
            values=lambda rows: rows["value"] * factor,
        ),
        Column("spark", spark, _SPARK, width=138, hide=4, grow=1, number=False, sortable=False),
        Column("score", "Score", _score_format(threshold), width=78, hide=1),
        Column("hour", "Anomalies 1 h", _COUNT, width=132, hide=3, values=_counts("hour")),
        Column("day", "24 h", _COUNT, width=70, hide=0, values=_counts("day")),
        Column("last_anomaly", "Last anomaly", place, width=112, hide=5),
        Column(
            "last_reading",
            "Last reading",
            place,
            width=112,
            hide=6,
            values=lambda rows: rows["place"],
        ),
    ]


def _counts(field: str) -> Callable[[pd.DataFrame], pd.Series[Any]]:
    # Among equal counts the higher score comes first. The page shows counts without the fraction.
    return lambda rows: rows[field] + rows["score"].fillna(0.0) / 2


def _value_format(percent: bool) -> str:
    digits = "x.toFixed(1)" if percent else 'x.toLocaleString("en", {maximumSignificantDigits: 4})'
    return f"""function(cell) {{
  const x = cell.getValue();
  return {_UNKNOWN} ? "-" : {digits};
}}"""


def _score_format(threshold: float) -> str:
    return f"""function(cell) {{
  const x = cell.getValue();
  if ({_UNKNOWN}) return '<span class="none" title="no score yet">-</span>';
  return x > {threshold!r} ? '<span class="alarm">' + x.toFixed(2) + "</span>" : x.toFixed(2);
}}"""


def _place_format(timed: bool) -> str:
    text = 'new Date(1000 * x).toISOString().slice(5, 16).replace("T", " ")' if timed else '"" + x'
    return f"""function(cell) {{
  const x = cell.getValue();
  return {_UNKNOWN} ? '<span class="none">-</span>' : {text};
}}"""


def overview(feed: Feed) -> pn.Template:
    """Return the page of all instances."""
    lead = html()
    empty = html(visible=False)
    search = pn.widgets.TextInput(
        placeholder="Find an instance",
        name="",
        width=260,
        margin=(10, 0, 8, 0),
        stylesheets=[
            ":host input.bk-input{background:var(--ground);color:var(--ink);"
            "border-color:var(--line);font:inherit;font-size:15px}"
        ],
    )
    columns = columns_of(feed.settings, feed.fleet.threshold)
    with feed.lock:
        table = _table(_shared_parts(feed, columns)[0], columns)
    body = pn.Column(lead, search, table, empty, sizing_mode="stretch_width", margin=0)
    shown: list[object] = [None]

    def renew() -> None:
        now = (feed.fleet, feed.fleet.revision, search.value_input, feed.condition)
        if shown[0] == now:
            return
        shown[0] = now
        frame, said = _shared_parts(feed, columns)
        there = bool(len(frame))
        lead.object = said if there else ""
        wanted = (search.value_input or "").strip().lower()
        if wanted:
            frame = frame[frame["instance"].str.lower().str.contains(wanted, regex=False)]
        for part, visible in (
            (search, there),
            (table, bool(len(frame))),
            (empty, not len(frame)),
        ):
            if part.visible != visible:
                part.visible = visible
        if len(frame):
            last = math.ceil(len(frame) / PAGE_SIZE)
            with pn.io.hold():
                if table.page > last:
                    table.page = last
                if table.value is not frame:
                    table.value = frame
                table.css_classes = ["single"] if last == 1 else []
        else:
            empty.object = blank(_nothing(feed, wanted))

    def find(_event: object) -> None:
        with feed.lock:
            table.page = 1
            renew()

    search.param.watch(find, "value_input")
    return page(feed, f"Anomalies in {feed.source}", body, renew)


_shared: WeakKeyDictionary[Feed, tuple[Overview, pd.DataFrame, str]] = WeakKeyDictionary()


def _shared_parts(feed: Feed, columns: Sequence[Column]) -> tuple[pd.DataFrame, str]:
    """Return the table and the sentence that all viewers share until a reading arrives.

    The caller holds the feed's lock.
    """
    seen = feed.fleet.overview()
    kept = _shared.get(feed)
    if kept is None or kept[0] is not seen:
        kept = _shared[feed] = (seen, table_of(seen, columns), sentence(seen))
    return kept[1:]


def sentence(seen: Overview) -> str:
    """Return one sentence on the fleet, as HTML."""
    count = len(seen.rows)
    if seen.clock is None:
        found = sum(row.last_anomaly is not None for row in seen.rows)
        return f'<p class="lead">{found:,} of {count:,} with anomalies</p>'
    hour = sum(bool(row.hour) for row in seen.rows)
    day = sum(bool(row.day) for row in seen.rows)
    if not day:
        return (
            '<p class="lead">No anomaly in the last 24 hours</p>'
            f'<p class="under">{count:,} instances, counted back from the newest readings.</p>'
        )
    return (
        f'<p class="lead">{hour:,} of {count:,} instances with anomalies in the last hour</p>'
        f'<p class="under">{day:,} in the last 24 hours, counted back from the newest readings.</p>'
    )


def table_of(seen: Overview, columns: Sequence[Column]) -> pd.DataFrame:
    """Return the rows as a table, values in the unit of the input."""
    texts = ("instance", "spark")
    rows = pd.DataFrame(seen.rows, columns=Row._fields).astype(
        {field: object if field in texts else float for field in Row._fields}
    )
    return pd.DataFrame(
        {
            column.field: column.values(rows) if column.values else rows[column.field]
            for column in columns
        }
    )


def _table(frame: pd.DataFrame, columns: Sequence[Column]) -> pn.widgets.Tabulator:
    right = {column.field: "right" for column in columns if column.number}
    layout = [
        {
            "field": column.field,
            "minWidth": column.width,
            "responsive": column.hide,
            **({} if column.grow is None else {"widthGrow": column.grow}),
            **({"cssClass": "number"} if column.number else {}),
        }
        for column in columns
    ]
    return pn.widgets.Tabulator(
        frame,
        pagination="remote",
        page_size=PAGE_SIZE,
        sorters=[{"field": "day", "dir": "desc"}],
        formatters={column.field: pn.io.JSCode(column.format) for column in columns},
        titles={column.field: column.title for column in columns},
        sortable={column.field: False for column in columns if not column.sortable},
        text_align=right,
        header_align=right,
        show_index=False,
        disabled=True,
        selectable=False,
        theme="simple",
        layout="fit_columns",
        sizing_mode="stretch_width",
        margin=0,
        configuration={
            "responsiveLayout": "hide",
            "columns": layout,
            "columnDefaults": {"resizable": False},
        },
        stylesheets=[asset("table.css")],
    )


def _nothing(feed: Feed, wanted: str) -> Condition:
    if wanted and len(feed.fleet):
        return Condition(
            Tone.IDLE, f"No instance matches {wanted}", "", "Enter any part of a name."
        )
    return feed.condition
