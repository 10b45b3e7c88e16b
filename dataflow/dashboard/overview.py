"""All instances: a sentence, and a table of which the browser holds one page."""

from __future__ import annotations

import math

import pandas as pd
import panel as pn

from dataflow.dashboard.feed import Feed
from dataflow.dashboard.fleet import Overview
from dataflow.dashboard.page import asset, blank, html, page
from dataflow.dashboard.status import Condition

__all__ = ["overview", "sentence", "table_of"]

PAGE_SIZE = 20

_NUMBER = "x == null || Number.isNaN(x)"
_LINK = """function(cell) {
  const link = document.createElement("a");
  link.textContent = cell.getValue();
  link.href = "instance?name=" + encodeURIComponent(cell.getValue());
  return link;
}"""
_VALUE = f"""function(cell) {{
  const x = cell.getValue();
  return {_NUMBER} ? "-" : DIGITS;
}}"""
_SCORE = f"""function(cell) {{
  const x = cell.getValue();
  if ({_NUMBER}) return '<span class="none" title="no score yet">-</span>';
  return x > THRESHOLD ? '<span class="alarm">' + x.toFixed(2) + "</span>" : x.toFixed(2);
}}"""
_COUNT = f"""function(cell) {{
  const x = cell.getValue();
  if ({_NUMBER}) return "-";
  const tone = x >= 1 ? "alarm" : "none";
  return `<span class="${{tone}}">${{Math.trunc(x)}}</span>`;
}}"""
_TIME = f"""function(cell) {{
  const x = cell.getValue();
  if ({_NUMBER}) return '<span class="none">-</span>';
  return TIMED ? new Date(1000 * x).toISOString().slice(5, 16).replace("T", " ") : "" + x;
}}"""
_SPARK = "function(cell) { return cell.getValue(); }"


def overview(feed: Feed) -> pn.Template:
    """Make the page of all instances."""
    settings = feed.settings
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
    with feed.lock:
        seen_first = feed.fleet.overview()
    table = _table(table_of(seen_first, settings.scale), feed)
    body = pn.Column(lead, search, table, empty, sizing_mode="stretch_width", margin=0)
    shown: list[object] = [None]

    def renew() -> None:
        now = (feed.fleet, feed.fleet.revision, search.value_input, feed.condition)
        if shown[0] == now:
            return
        shown[0] = now
        seen = feed.fleet.overview()
        there = bool(seen.rows)
        lead.object = sentence(seen) if there else ""
        frame = table_of(seen, settings.scale)
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


def sentence(seen: Overview) -> str:
    """Say in one sentence, as HTML, how the fleet is."""
    count = len(seen.rows)
    if seen.clock is None:
        found = sum(row.last_anomaly is not None for row in seen.rows)
        return f'<p class="lead">{found:,} of {count:,} with anomalies</p>'
    hour = sum(bool(row.hour) for row in seen.rows)
    day = sum(bool(row.day) for row in seen.rows)
    if not day:
        return (
            '<p class="lead">No anomaly in the last 24 hours</p>'
            f'<p class="under">All {count:,} instances behave as they did before.</p>'
        )
    return (
        f'<p class="lead">{hour:,} of {count:,} instances with anomalies in the last hour</p>'
        f'<p class="under">{day:,} in the last 24 hours, counted back from the newest readings.</p>'
    )


def table_of(seen: Overview, scale: float | None) -> pd.DataFrame:
    """Return the rows as a table, values in the unit of the input."""
    factor = 1.0 if scale is None else scale
    columns = list(zip(*seen.rows, strict=True)) or [()] * 8
    name, value, score, hour, day, last, place, spark = columns
    scores = pd.Series(score, dtype=float)
    # Of as many anomalies the higher score comes first: counts are shown without their fractions.
    ties = scores.fillna(0.0) / 2
    return pd.DataFrame(
        {
            "instance": pd.Series(name, dtype=object),
            "value": pd.Series(value, dtype=float) * factor,
            "spark": pd.Series(spark, dtype=object),
            "score": scores,
            "hour": pd.Series(hour, dtype=float) + ties,
            "day": pd.Series(day, dtype=float) + ties,
            "last_anomaly": pd.Series(last, dtype=float),
            "last_reading": pd.Series(place, dtype=float),
        }
    )


def _table(frame: pd.DataFrame, feed: Feed) -> pn.widgets.Tabulator:
    settings = feed.settings
    cpu = settings.scale == 100
    digits = "x.toFixed(1)" if cpu else 'x.toLocaleString("en", {maximumSignificantDigits: 4})'
    threshold = repr(feed.fleet.threshold)
    timed = "false" if settings.time_field is None else "true"
    formatters = {
        "instance": _LINK,
        "value": _VALUE.replace("DIGITS", digits),
        "spark": _SPARK,
        "score": _SCORE.replace("THRESHOLD", threshold),
        "hour": _COUNT,
        "day": _COUNT,
        "last_anomaly": _TIME.replace("TIMED", timed),
        "last_reading": _TIME.replace("TIMED", timed),
    }
    titles = {
        "instance": "Instance",
        "value": "CPU %" if cpu and settings.value_field == "value" else settings.value_field,
        "spark": "Last 24 hours" if settings.time_field else "Last readings",
        "score": "Score",
        "hour": "Anomalies 1 h",
        "day": "24 h",
        "last_anomaly": "Last anomaly",
        "last_reading": "Last reading",
    }
    # Where it is narrow, the columns of the highest numbers go first.
    layout = {
        "instance": {"minWidth": 108, "responsive": 0, "widthGrow": 2},
        "value": {"minWidth": 88, "responsive": 0},
        "spark": {"minWidth": 138, "responsive": 4, "widthGrow": 1},
        "score": {"minWidth": 78, "responsive": 1},
        "hour": {"minWidth": 132, "responsive": 3},
        "day": {"minWidth": 70, "responsive": 0},
        "last_anomaly": {"minWidth": 112, "responsive": 5},
        "last_reading": {"minWidth": 112, "responsive": 6},
    }
    numbers = [name for name in titles if name not in ("instance", "spark")]
    return pn.widgets.Tabulator(
        frame,
        pagination="remote",
        page_size=PAGE_SIZE,
        sorters=[{"field": "day", "dir": "desc"}],
        formatters={name: pn.io.JSCode(code) for name, code in formatters.items()},
        titles=titles,
        sortable={"spark": False},
        text_align=dict.fromkeys(numbers, "right"),
        header_align=dict.fromkeys(numbers, "right"),
        show_index=False,
        disabled=True,
        selectable=False,
        theme="simple",
        layout="fit_columns",
        sizing_mode="stretch_width",
        margin=0,
        configuration={
            "responsiveLayout": "hide",
            "columns": [
                {"field": name, **how, **({"cssClass": "number"} if name in numbers else {})}
                for name, how in layout.items()
            ],
            "columnDefaults": {"resizable": False},
        },
        stylesheets=[asset("table.css")],
    )


def _nothing(feed: Feed, wanted: str) -> Condition:
    if wanted and len(feed.fleet):
        return Condition(
            "idle", f"No instance is called {wanted}", "", "Any part of the name will do."
        )
    return feed.condition
