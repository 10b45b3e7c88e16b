"""The page of one instance: the latest reading, the live plot, and the last anomalies."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from html import escape
from typing import Any
from urllib.parse import urlencode

import numpy as np
import panel as pn

from dataflow.dashboard.chart import Chart, Measure
from dataflow.dashboard.feed import Feed
from dataflow.dashboard.fleet import DAY, HOUR, Fleet
from dataflow.dashboard.history import REPORTED, Rows
from dataflow.dashboard.overview import now_of
from dataflow.dashboard.page import argument, blank, dark, html, page
from dataflow.dashboard.rules import said_of
from dataflow.dashboard.status import Condition, Tone, clock_text
from dataflow.dashboard.trouble import State
from dataflow.dashboard.verdicts import Box
from dataflow.dashboard.verdicts import link as verdict_link
from dataflow.settings import Settings
from dataflow.verdicts.signature import is_valid

__all__ = ["instance", "measure_of"]

SPANS = {"6 h": 6 * HOUR, "1 d": DAY, "3 d": 3 * DAY, "7 d": 7 * DAY, "All": None}
COUNTS = {"100": 100.0, "300": 300.0, "1000": 1000.0, "All": None}
LISTED = 12

_BUTTONS = """
:host .bk-btn { background: var(--ground) !important; color: var(--ink) !important;
  border: 1px solid var(--line) !important; box-shadow: none !important; font-weight: 500;
  font-size: 13px; padding: 5px 12px; }
:host .bk-btn.bk-active { background: var(--accent) !important; color: var(--ground) !important;
  border-color: var(--accent) !important; }
"""


def measure_of(settings: Settings) -> Measure:
    """Return the metric: CPU in percent, as in the tutorial, or any other field."""
    cpu = settings.scale == 100 and settings.value_field == "value"
    return Measure(
        label="CPU %" if cpu else settings.value_field,
        factor=1.0 if settings.scale is None else settings.scale,
        unit=" %" if cpu else "",
        timed=settings.time_field is not None,
        bounded=settings.scale is not None,
    )


def instance(feed: Feed) -> pn.Template:
    """Return the page of the instance that the address names: `instance?name=3fb07c`.

    In the address, `range` is the range on screen, and `at` a place that the charts show.
    """
    name = argument("name")
    measure = measure_of(feed.settings)
    spans: dict[str, float | None] = SPANS if measure.timed else COUNTS
    chart = Chart(measure, feed.fleet.threshold, dark())
    now, ruled, empty, found = html(), html(visible=False), html(), html()
    legend = html(_legend(measure))
    first = argument("range")
    choice = pn.widgets.RadioButtonGroup(
        options=list(spans),
        value=first if first in spans else list(spans)[1],
        stylesheets=[_BUTTONS],
        margin=(4, 8, 4, 0),
    )
    choice.jscallback(value=_ADDRESS)
    box = _box(feed, name)
    verdicts = feed.verdicts and not feed.settings.verdicts_secret
    at = _place(argument("at"))
    if at is not None:
        chart.go_to(at)
    pause = pn.widgets.Toggle(name="Pause", width=140, stylesheets=[_BUTTONS], margin=(4, 0))
    live = pn.Column(
        now,
        ruled,
        pn.FlexBox(choice, pause, align_items="center", sizing_mode="stretch_width", margin=0),
        chart.pane,
        legend,
        found,
        sizing_mode="stretch_width",
        margin=0,
        visible=False,
    )
    shown: list[Any] = [None, 0]

    def renew() -> None:
        if box is not None:
            box.renew()
        if name not in feed.fleet:
            live.visible = False
            empty.object = blank(_unknown(feed, name))
            empty.visible = True
            return
        fleet = feed.fleet
        judged = feed.shown().judged
        state = now_of(fleet.row(name, judged), measure.timed)
        mark = (fleet, *fleet.total(name), choice.value, state)
        if pause.value:
            missed = fleet.total(name)[0] - shown[1]
            pause.name = f"Resume ({missed:,} new)" if missed else "Resume"
            return
        if shown[0] == mark:
            return
        rows = fleet.rows(name)
        empty.visible = False
        live.visible = True
        now.object = _now(rows, measure, fleet, name, judged)
        ruling = fleet.ruling(name)
        time = max(float(rows["place"][-1]), judged or 0.0) if measure.timed else None
        text = said_of(ruling, time)
        ruled.object = f'<p class="under ruled">{escape(text)}</p>' if text else ""
        ruled.visible = bool(text)
        chart.limit(ruling.threshold)
        found.object = _found(rows, measure, name, choice.value, verdicts=verdicts)
        shown[:] = [mark, fleet.total(name)[0]]
        chart.show(rows, spans[choice.value])

    def again(follow: bool) -> Callable[[object], None]:
        def changed(_event: object) -> None:
            pause.name = "Resume" if pause.value else "Pause"
            if follow:
                chart.follow()
            with feed.lock:
                shown[0] = None
                renew()

        return changed

    choice.param.watch(again(follow=True), "value")
    pause.param.watch(again(follow=False), "value")
    parts = (empty, live) if box is None else (box.view, empty, live)
    body = pn.Column(*parts, sizing_mode="stretch_width", margin=0)
    return page(feed, name or "No instance", body, renew, back=True)


def _box(feed: Feed, name: str) -> Box | None:
    """Return what asks whether an anomaly was fine, if the address asks for it and may."""
    asked, at = argument("fine"), _place(argument("fine_at"))
    if not (feed.verdicts and name):
        return None
    key = feed.settings.verdicts_secret
    if key:
        proof = argument("until"), argument("signature")
        valid = is_valid(key, name, asked, *proof, now=time.time())
        return Box(feed, name, asked, None, refused=not valid) if asked else None
    return Box(feed, name, asked, at) if asked or at is not None else None


_ADDRESS = """
const asked = new URLSearchParams(location.search);
asked.set("range", cb_obj.active === undefined ? cb_obj.value : cb_obj.labels[cb_obj.active]);
asked.delete("at");
history.replaceState(null, "", "?" + asked);
"""
"""Keeps the chosen range in the address, so that a link shows the same."""


def _place(text: str) -> float | None:
    try:
        place = float(text)
    except ValueError:
        return None
    return place if math.isfinite(place) else None


def _unknown(feed: Feed, name: str) -> Condition:
    if len(feed.fleet):
        return Condition(
            Tone.IDLE,
            f"No reading of {name} yet" if name else "No instance is named",
            "It has not sent a reading yet, or it has another name." if name else "",
            "The page updates with its first reading. The link above shows all instances.",
        )
    return feed.condition


def _now(rows: Rows, measure: Measure, fleet: Fleet, name: str, present: float | None) -> str:
    last, clock, threshold = rows[-1], fleet.clock(), fleet.ruling(name).threshold
    row = fleet.row(name, present)
    tone = " trouble" if row.state is State.TROUBLED or row.state is State.GONE else ""
    why = row.trouble.why if row.trouble is not None else ""
    state = f'<p class="lead{tone}" role="status">{now_of(row, measure.timed)}</p>'
    state += f'<p class="under">{escape(why)}</p>' if why else ""
    value = _value(last["value"], measure)
    band = ""
    if np.isfinite(last["lower"]) and np.isfinite(last["upper"]):
        low, high = _value(last["lower"], measure, ""), _value(last["upper"], measure)
        band = f"<small>expected {low} to {high}</small>"
    score = f"{last['score']:.2f}" if np.isfinite(last["score"]) else "-"
    above = ' class="alarm"' if last["score"] > threshold else ""
    places = rows["place"][rows["mark"] > 0]
    parts = [
        f"<div><dt>{escape(measure.label.removesuffix(' %'))}</dt><dd>{value}{band}</dd></div>",
        f"<div><dt>Score</dt><dd{above}>{score}<small>threshold {threshold:g}</small></dd></div>",
    ]
    if clock is not None:
        hour, day = (int((places > clock - span).sum()) for span in (HOUR, DAY))
        alarm = ' class="alarm"' if day else ""
        parts.append(
            f"<div><dt>Anomalies, 24 h</dt><dd{alarm}>{day}"
            f"<small>{hour} in the last hour</small></dd></div>"
        )
    parts.append(
        f"<div><dt>Kept</dt><dd>{len(rows):,}<small>readings, {len(places):,} "
        f"{'anomaly' if len(places) == 1 else 'anomalies'}</small></dd></div>"
    )
    if measure.timed:
        day_text, _, hour_text = clock_text(float(last["place"])).partition(" ")
        parts.append(
            f"<div><dt>Last reading</dt><dd>{hour_text}<small>{day_text}</small></dd></div>"
        )
    return f"{state}<dl>{''.join(parts)}</dl>"


def _found(rows: Rows, measure: Measure, name: str, span: str, *, verdicts: bool = False) -> str:
    marked = rows[rows["mark"] > 0]
    if not len(marked):
        return '<h2>Anomalies</h2><p class="under">No anomaly in the readings that are kept.</p>'
    lines = []
    narrow = " class='wide'" if verdicts else ""
    for row in marked[: -LISTED - 1 : -1]:
        place = float(row["place"])
        when = clock_text(place) if measure.timed else f"{place:g}"
        band = "-"
        if np.isfinite(row["lower"]):
            band = f"{_value(row['lower'], measure, '')} to {_value(row['upper'], measure)}"
        query = urlencode({"name": name, "range": span, "at": f"{place:.0f}"})
        written = "yes" if row["mark"] & REPORTED else "not yet"
        lines.append(
            f'<tr><td><a href="instance?{escape(query)}">{when}</a></td>'
            f"<td>{_value(row['value'], measure)}</td><td>{band}</td>"
            f"<td{narrow}>{row['score']:.2f}</td><td class='wide'>{written}</td>"
            f"{_ask(row, name) if verdicts else ''}</tr>"
        )
    more = f", the last {LISTED} of {len(marked):,}" if len(marked) > LISTED else ""
    return (
        f"<h2>Anomalies{more}</h2><table><thead><tr><th>Time</th>"
        f"<th>{escape(measure.label.removesuffix(' %'))}</th><th>Expected</th>"
        f"<th{narrow}>Score</th>"
        f"<th class='wide'>Written by the flow</th>{'<th></th>' if verdicts else ''}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _ask(row: Any, name: str) -> str:
    """Return the cell from which an anomaly that the flow has written can be called fine."""
    if not row["mark"] & REPORTED:
        return "<td></td>"
    address = escape(verdict_link(name, float(row["place"])))
    return f'<td><a href="{address}">Fine?</a></td>'


def _value(value: float, measure: Measure, unit: str | None = None) -> str:
    number = float(value) * measure.factor
    text = f"{number:.1f}" if measure.unit else f"{number:,.4g}"
    return text + (measure.unit if unit is None else unit)


def _legend(measure: Measure) -> str:
    name = escape(measure.label)
    return (
        f'<div class="legend"><span><i class="line"></i>{name}</span>'
        '<span><i class="band"></i>expected</span>'
        '<span>score low <i class="ramp"></i>high</span>'
        '<span><i class="diamond"></i>anomaly, written by the flow</span>'
        '<span><i class="hollow"></i>anomaly, not written yet</span>'
        '<span><i class="limit"></i>threshold</span></div>'
    )
