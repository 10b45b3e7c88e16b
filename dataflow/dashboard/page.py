"""What both pages share: the template, the status line, the notes, the beat that renews them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from html import escape
from importlib import resources

import panel as pn
from bokeh.events import ConnectionLost, DocumentReady
from bokeh.models import CustomJS

from dataflow.dashboard.feed import Feed
from dataflow.dashboard.status import Condition, clock_text, facts

__all__ = ["BEAT", "asset", "blank", "dark", "html", "page"]

BEAT = 1000
"""Milliseconds between two looks at what is new."""


@cache
def asset(name: str) -> str:
    """Return the text of a file beside this module."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def html(text: str = "", **params: object) -> pn.pane.HTML:
    """Make a pane of HTML in the page's own style."""
    return pn.pane.HTML(
        text, sizing_mode="stretch_width", margin=0, stylesheets=[asset("parts.css")], **params
    )


def dark() -> bool:
    """Tell whether this browser wants it dark: the page's script says so in a cookie."""
    return bool(pn.state.cookies.get("theme") == "dark")


def blank(condition: Condition) -> str:
    """Return what stands in the place of readings while there are none."""
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
    """Put a page together; `renew` is called every beat, with the lock of the feed held."""
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
            _set(status, _status(feed))
            how = escape(_how_scored(feed)) if feed.fleet.readings else ""
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


def _status(feed: Feed) -> str:
    condition = feed.condition
    tone = condition.tone
    said = escape(f"{condition.happening} {condition.to_do}".strip())
    fleet = feed.fleet
    # Without any reading it stands in their place.
    more = f'<p class="say {tone}">{said}</p>' if said and fleet.readings else ""
    return (
        f'<div class="status" role="status"><span class="tone {tone}">{tone.mark} '
        f'{escape(condition.title)}</span><span class="facts">'
        f"{escape(facts(feed.counts(), fleet.clock(), feed.settings.detector, fleet.threshold))}"
        f"</span>{more}</div>"
    )


def _how_scored(feed: Feed) -> str:
    found = f"The flow has written {feed.fleet.reported:,} of the anomalies here." + (
        ""
        if feed.fleet.reported
        else " (None: it does not run, or its ANOMALY_OUTPUT is not one that this page reads.)"
    )
    times = "All times are UTC, as the readings say them."
    if feed.fleet.whole:
        return (
            "Scores and expected bands are computed here, by the flow's detector with the flow's "
            f"settings, from the first reading on: they are the flow's own. {found} {times}"
        )
    began = (
        f"since {clock_text(feed.since)}"
        if feed.since is not None
        else "where the topic begins, which is not with its first record any more"
    )
    return (
        f"Reading began {began}: scores and bands here were learned from less than the flow has "
        "seen and differ from its own, for weeks. Only what the flow itself has written is shown "
        f"as an anomaly, with the flow's score and band. {found} {times}"
    )
