"""What both pages share: the template, the status line, the notes, and the periodic update."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from html import escape
from importlib import resources

import panel as pn
from bokeh.events import ConnectionLost, DocumentReady
from bokeh.models import CustomJS

from dataflow.dashboard.feed import Feed, Shown
from dataflow.dashboard.status import Condition, clock_text, facts

__all__ = ["BEAT", "argument", "asset", "blank", "dark", "html", "page"]

BEAT = 1000
"""Milliseconds between two updates."""


@cache
def asset(name: str) -> str:
    """Return the text of a file beside this module."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def html(text: str = "", **params: object) -> pn.pane.HTML:
    """Return a pane of HTML in the style of the page."""
    return pn.pane.HTML(
        text, sizing_mode="stretch_width", margin=0, stylesheets=[asset("parts.css")], **params
    )


def dark() -> bool:
    """Return whether this browser wants dark colors: `theme.js` sets a cookie."""
    return bool(pn.state.cookies.get("theme") == "dark")


def argument(name: str) -> str:
    """Return what the address of the page says of `name`; empty if nothing."""
    return bytes(pn.state.session_args.get(name, [b""])[0]).decode("utf-8", "replace")


def blank(condition: Condition) -> str:
    """Return the text shown while there are no readings."""
    return (
        f'<div class="blank"><b>{escape(condition.title)}</b>'
        f"<p>{escape(condition.happening)}</p><p>{escape(condition.to_do)}</p></div>"
    )


def page(
    feed: Feed,
    heading: str,
    main: pn.viewable.Viewable,
    renew: Callable[[], None],
    *,
    back: bool = False,
) -> pn.Template:
    """Return a page. `renew` is called every `BEAT` milliseconds, with the feed's lock held."""
    status, notes = html(), html()
    template = pn.Template(
        asset("page.html"),
        items={"status": status, "main": main, "notes": notes},
    )
    for name, value in (
        ("heading", heading),
        ("back", back),
        ("page_css", asset("page.css")),
        ("theme_js", asset("theme.js")),
        ("page_js", asset("page.js")),
    ):
        template.add_variable(name, value)

    def beat() -> None:
        with feed.lock:
            _set(status, _status(feed, feed.shown()))
            how = escape(f"{_how_scored(feed)}{_how_ruled(feed)}") if feed.fleet.readings else ""
            _set(notes, f'<p class="notes">{how}</p>' if how else "")
            renew()

    def loaded() -> None:
        document = pn.state.curdoc
        if document is not None:
            document.js_on_event(DocumentReady, CustomJS(code="window.pageReady()"))
            document.js_on_event(ConnectionLost, CustomJS(code="window.pageLost()"))

    beat()
    loaded()
    pn.state.add_periodic_callback(beat, period=BEAT)
    return template


def _set(pane: pn.pane.HTML, text: str) -> None:
    if pane.object != text:
        pane.object = text


def _status(feed: Feed, shown: Shown) -> str:
    condition = shown.condition
    tone = condition.tone
    said = escape(f"{condition.happening} {condition.to_do}".strip())
    fleet = feed.fleet
    what = (feed.settings.detector, fleet.threshold, feed.rules.version)
    # Without readings, `blank` shows this text.
    more = f'<p class="say {tone}">{said}</p>' if said and fleet.readings else ""
    return (
        f'<div class="status"><span class="tone {tone}" role="status">{tone.mark} '
        f'{escape(condition.title)}</span><span class="facts">'
        f"{escape(facts(feed.counts(), fleet.clock(), *what))}"
        f"</span>{more}</div>"
    )


def _how_scored(feed: Feed) -> str:
    found = f"The flow has written {feed.fleet.reported:,} of the anomalies here." + (
        ""
        if feed.fleet.reported
        else " (Either it does not run, or this page does not read its ANOMALY_OUTPUT.)"
    )
    times = "All times are those of the readings, in UTC."
    if feed.fleet.whole:
        return (
            "This page computes scores and expected bands with the flow's detector and settings "
            f"from the first reading on, so they equal the flow's. {found} {times}"
        )
    began = (
        f"the topic from {clock_text(feed.since)} on"
        if feed.since is not None
        else "the topic from where it begins now, because its first records are deleted"
    )
    return (
        f"This page reads {began}. Its detector has seen fewer readings than the flow's, so scores "
        "and bands differ from the flow's for weeks. Only anomalies that the flow has written are "
        f"marked, with the flow's score and band. {found} {times}"
    )


def _how_ruled(feed: Feed) -> str:
    """Return which rules the page shows, and where the flow has others; empty without rules."""
    rules, file = feed.rules, feed.settings.rules
    if not file:
        return ""
    said = (
        f" The rules of {file} apply in the version {rules.version or 'none'} to each new reading, "
        "and to those that were there when this page began to read."
    )
    if rules.wrong:
        said += f" The file cannot be used now, and the rules of before still apply: {rules.wrong}."
    flow = feed.rules_of_flow
    if flow is not None and flow != rules.version:
        said += f" The newest anomaly of the flow has the version {flow or 'none'}."
    return said
