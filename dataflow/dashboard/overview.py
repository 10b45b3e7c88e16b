"""The page of all instances: a sentence, and a table of which the browser holds one page."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from html import escape
from typing import Any

import panel as pn

from dataflow.dashboard.feed import Feed, Shown
from dataflow.dashboard.fleet import Overview, Row
from dataflow.dashboard.page import argument, blank, html, page
from dataflow.dashboard.present import Age
from dataflow.dashboard.status import clock_text, maintenance_text
from dataflow.dashboard.table import Table
from dataflow.dashboard.trouble import State, said
from dataflow.dashboard.view import Column, Rhythm, View
from dataflow.settings import Settings

__all__ = ["columns_of", "now_of", "overview", "sentence"]

LANES = 30.0
"""Seconds between two drawings of the swim lanes."""

_TONES = {
    State.TROUBLED: "trouble",
    State.MAINTAINED: "gone",
    State.GONE: "gone",
    State.ORDINARY: "",
}


def columns_of(settings: Settings) -> list[Column]:
    """Return the columns from left to right. A further column is one more entry."""
    factor = 1.0 if settings.scale is None else settings.scale
    percent = settings.scale == 100
    value = "CPU %" if percent and settings.value_field == "value" else settings.value_field
    timed = settings.time_field is not None
    number = _percent if percent else _digits
    spark = "Last 24 hours" if timed else "Last readings"

    def at(place: float | None) -> str:
        return _moment(place) if timed else "-" if place is None else f"{place:g}"

    return [
        Column(
            "instance", "Instance", lambda it: it.instance, lambda it: it.instance, number=False
        ),
        Column(
            "state",
            "Now",
            lambda it: now_of(it, timed),
            _newest_trouble,
            hint="Sort by the newest trouble",
            descending=True,
            number=False,
        ),
        Column(
            "value",
            value,
            lambda it: number(it.value * factor),
            lambda it: it.value,
            hint="The newest reading",
        ),
        Column("spark", spark, lambda _: "", number=False, hide=2),
        Column(
            "score",
            "Score",
            lambda it: "-" if math.isnan(it.score) else f"{it.score:.2f}",
            lambda it: None if math.isnan(it.score) else it.score,
            hide=1,
            hint="Of the newest reading, from 0 to 1",
        ),
        Column(
            "day",
            "Anomalies 24 h",
            lambda it: "-" if it.day is None else str(it.day),
            lambda it: it.day,
            hide=3,
            hint="Readings whose score was above the threshold",
        ),
        Column(
            "last_anomaly",
            "Last anomaly",
            lambda it: at(it.last_anomaly),
            lambda it: it.last_anomaly,
            hide=4,
            hint="In UTC",
        ),
        Column(
            "last_reading",
            "Last reading",
            lambda it: at(it.place),
            lambda it: it.place,
            hide=4,
            hint="In UTC",
        ),
    ]


def now_of(row: Row, timed: bool) -> str:
    """Return the state of an instance in a few words."""
    wrong = said(row.silent, row.trouble, row.place, timed)
    if row.maintained is None:
        return wrong or "Ordinary"
    return f"{wrong}, {maintenance_text(row.maintained)}"


def _newest_trouble(row: Row) -> tuple[int, float, float]:
    """Return what the table is sorted by: trouble, then what is ordinary, then what is gone."""
    since = -math.inf if row.since is None else row.since
    last = -math.inf if row.last_anomaly is None else row.last_anomaly
    return row.state, since, last


def _hidden_columns(timed: bool) -> list[Column]:
    """Return what stands in cells of other columns."""

    def why(row: Row) -> str:
        trouble = row.trouble
        if trouble is None:
            return ""
        peak = f"peak {trouble.score:.2f}"
        if timed:
            peak = f"since {_moment(trouble.since)}, {peak} at {_moment(trouble.peak)}"
        return f"{trouble.why}; {peak}" if trouble.why else peak

    return [
        Column("tone", "", lambda it: _TONES[it.state]),
        Column("why", "", why),
        Column("at", "", lambda it: "" if it.trouble is None else f"{it.trouble.peak:.0f}"),
    ]


def _percent(value: float) -> str:
    return f"{value:.1f}"


def _digits(value: float) -> str:
    return f"{value:,.4g}"


def _moment(place: float | None) -> str:
    return "-" if place is None else f"{datetime.fromtimestamp(place, UTC):%m-%d %H:%M}"


def overview(feed: Feed) -> pn.Template:
    """Return the page of all instances."""
    timed = feed.settings.time_field is not None
    columns = columns_of(feed.settings)
    asked = {name: argument(name) for name in ("sort", "find", "page")}
    view = View([*columns, *_hidden_columns(timed)], asked)
    lead, lanes, empty = html(), html(), html(visible=False)
    ready = [False]
    last: list[object] = [None]
    drawn: list[object] = [None]
    rhythm = Rhythm(LANES)

    def do(wish: dict[str, Any]) -> None:
        match wish:
            case {"ready": True}:
                ready[0] = True
                view.forget()
            case {"sort": str(field)}:
                view.sort_by(field)
            case {"find": str(text)}:
                view.search(text)
            case {"page": int(number)}:
                view.turn_to(number)
            case {"held": bool(held)}:
                view.held = held
                return
            case _:
                return
        with feed.lock:
            renew()

    table = Table(columns, do)

    def renew() -> None:
        shown = feed.shown()
        seen = feed.fleet.overview(shown.judged)
        there = bool(seen.rows)
        for part, visible in ((table, there), (lead, there), (lanes, there), (empty, not there)):
            if part.visible != visible:
                part.visible = visible
        if not there:
            empty.object = blank(feed.condition)
            return
        if last[0] != (seen, shown):
            last[0] = (seen, shown)
            text = sentence(seen, shown)
            if lead.object != text:
                lead.object = text
        now, generation = time.monotonic(), feed.generation
        mark = (feed.fleet, feed.fleet.revision, shown.time)
        if drawn[0] != mark and rhythm.is_due(now, generation):
            drawn[0] = mark
            rhythm.drawn(now, generation)
            lanes.object = feed.fleet.lanes(shown.time)
        if ready[0]:
            message = view.message(seen.rows, now, feed.fleet.spark, generation)
            if message is not None:
                table.send(message)

    body = pn.Column(lead, table, lanes, empty, sizing_mode="stretch_width", margin=0)
    return page(feed, f"Anomalies in {feed.source}", body, renew)


def sentence(seen: Overview, shown: Shown) -> str:
    """Return one sentence on the fleet, as HTML."""
    count = len(seen.rows)
    silent = sum(row.silent is not None and row.state is State.TROUBLED for row in seen.rows)
    gone = sum(row.state is State.GONE for row in seen.rows)
    maintained = sum(row.state is State.MAINTAINED for row in seen.rows)
    anomalous = sum(row.silent is None and row.state is State.TROUBLED for row in seen.rows)
    parts = [f"{anomalous:,} anomalous"] if anomalous else []
    parts += [f"{silent:,} silent"] if silent else []
    if gone and gone == count:
        said = f"No data from {'the instance' if count == 1 else f'all {count:,} instances'}"
    elif parts:
        said = f"{' and '.join(parts)} of {count:,} instance{'' if count == 1 else 's'}"
    else:
        said = f"None of {count:,} instance{'' if count == 1 else 's'} is anomalous or silent"
    if count == 1 and not (parts or gone):
        said = "The instance is neither anomalous nor silent"
    more = []
    if gone and gone != count:
        more.append(f"{gone:,} without data for so long that they count as switched off")
    if maintained:
        more.append(f"{maintained:,} in maintenance")
    if seen.clock is not None:
        day = sum(bool(row.day) for row in seen.rows)
        more.append(f"{day:,} with anomalies in the last 24 hours of the readings")
    when = ""
    if shown.time is not None and shown.age in (Age.OLD, Age.ENDED):
        when = f" at {clock_text(shown.time)}"
    tone = " trouble" if parts or gone == count else ""
    return (
        f'<p class="lead{tone}" role="status">{escape(said + when)}</p>'
        f'<p class="under">{escape("; ".join(more))}</p>'
    )
