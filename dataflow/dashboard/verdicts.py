"""The part of an instance's page on which people say that an anomaly was fine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from html import escape
from typing import NamedTuple
from urllib.parse import urlencode

import panel as pn

from dataflow.dashboard.feed import Feed
from dataflow.dashboard.page import html
from dataflow.dashboard.status import clock_text
from dataflow.errors import UserError
from dataflow.records import Anomaly
from dataflow.settings import Settings
from dataflow.steps import calendars
from dataflow.verdicts import store
from dataflow.verdicts.effect import DAYS, Loss, Proposal, propose
from dataflow.verdicts.pattern import Pattern, case_of
from dataflow.verdicts.record import Feedback

__all__ = ["Box", "link"]

LISTED = 12

TERMS = {"for ever": None, "for 8 weeks": 56, "for 30 days": 30, "for 7 days": 7}
"""For how many days a verdict holds, by the machine's clock."""

DAY = 86_400


_WIDGETS = """
:host .bk-btn, :host .bk-input { background: var(--ground) !important;
  color: var(--ink) !important; border: 1px solid var(--line) !important;
  box-shadow: none !important; font-size: 13px; }
:host .bk-btn { background: var(--accent) !important; color: var(--ground) !important;
  font-weight: 600; padding: 6px 14px; }
:host label { color: var(--soft); font-size: 13px; }
"""


class _Answer(NamedTuple):
    """What was found: what a verdict would do, or the one in force; or why neither is known."""

    said: str = ""
    proposal: Proposal | None = None
    name: str = ""
    in_force: bool = False
    others: tuple[Feedback, ...] = ()


def link(instance: str, place: float) -> str:
    """Return the address of the page on which the anomaly at a place can be called fine."""
    return "instance?" + urlencode({"name": instance, "fine_at": f"{place:.3f}"})


class Box:
    """Shows what a verdict on one anomaly would keep quiet, and writes it when asked to.

    The anomaly is that with the id `name`, or at the time `at`, in seconds since 1970; `refused`
    says that the address may not ask. `view` is what the page shows; `renew` is called each second.
    All reading and writing is done by a thread.
    """

    def __init__(
        self, feed: Feed, instance: str, name: str, at: float | None, *, refused: bool = False
    ) -> None:
        self._settings = feed.settings
        self._instance = instance
        self._name = name
        self._at = at
        self._answer: _Answer | None = None
        self._shown: object = None
        self._text = html()
        self._term = pn.widgets.Select(
            name="Keep it quiet", options=list(TERMS), width=160, stylesheets=[_WIDGETS]
        )
        self._by = pn.widgets.TextInput(
            name="Your name", width=160, max_length=100, stylesheets=[_WIDGETS]
        )
        self._fine = self._button("This was fine", "fine")
        self._undo = self._button("Undo", "undo")
        self._given = pn.FlexBox(
            *(self._term, self._by, self._fine),
            align_items="end",
            sizing_mode="stretch_width",
            visible=False,
        )
        self.view = pn.Column(
            *(self._text, self._given, self._undo), sizing_mode="stretch_width", margin=0
        )
        if refused:
            self._answer = _Answer(
                "This link is not signed, or was sent more than three days ago: open the last "
                "message of the incident."
            )
        else:
            self._work(self._look)

    def _button(self, name: str, verdict: str) -> pn.widgets.Button:
        button = pn.widgets.Button(
            name=name, visible=False, margin=(4, 8, 4, 0), stylesheets=[_WIDGETS]
        )
        button.on_click(lambda _: self._work(lambda: self._write(verdict)))
        return button

    def _work(self, task: Callable[[], _Answer]) -> None:
        self._answer = None

        def run() -> None:
            try:
                self._answer = task()
            except (UserError, ValueError) as error:
                self._answer = _Answer(f"{error}"[:1].upper() + f"{error}"[1:])

        threading.Thread(target=run, name="verdict", daemon=True).start()

    def _look(self, said: str = "") -> _Answer:
        settings = self._settings
        known = [
            one
            for one in store.in_force(settings).all()
            if one.pattern is not None and one.pattern.instance == self._instance
        ]
        series = store.anomalies_of_instance(settings, self._instance)
        asked = self._asked(series)
        if asked is None:
            raise ValueError(
                "the flow has not written this anomaly, or it is too long ago: there is nothing to "
                "say of it."
            )
        series = [one for one in series if one.metric == asked.metric]
        proposal = propose(
            series, self._name or asked.id, settings.interval, calendars.of(settings)
        )
        names = {name for one in proposal.episode for name in (one.id, one.episode)}
        mine = [one.id for one in known if one.id in names]
        return _Answer(
            said,
            proposal,
            mine[0] if mine else self._name or asked.id,
            bool(mine),
            tuple(one for one in known if one.id not in names),
        )

    def _asked(self, series: list[Anomaly]) -> Anomaly | None:
        for one in series:
            if self._name in (one.id, one.episode) and self._name:
                return one
            case = case_of(one)
            if self._at is not None and case is not None and abs(case.time - self._at) < 0.01:
                return one
        return None

    def _write(self, verdict: str) -> _Answer:
        found = self._look()
        proposal = found.proposal
        assert proposal is not None
        now = datetime.now(UTC).replace(microsecond=0)
        by = (self._by.value or "").strip() or None
        if verdict == "fine":
            days = TERMS[self._term.value]
            until = None if days is None else datetime.fromtimestamp(time.time() + days * DAY, UTC)
            feedback = Feedback(
                id=found.name,
                verdict="fine",
                until=None if until is None else until.replace(microsecond=0),
                by=by,
                at=now,
                why=proposal.alert.why,
                pattern=proposal.pattern,
            )
        else:
            feedback = Feedback(id=found.name, verdict="undo", by=by, at=now)
        store.write(self._settings, feedback)
        done = "Kept quiet" if verdict == "fine" else "Undone"
        return self._look(f"{done}: the flow takes it from the next readings on.")

    def renew(self) -> None:
        """Show what has been found since."""
        answer = self._answer
        if answer is self._shown and answer is not None:
            return
        self._shown = answer
        if answer is None:
            self._text.object = '<h2>Was this fine?</h2><p class="under">Reading the anomalies.</p>'
            self._given.visible = self._undo.visible = False
            return
        self._text.object = _text(answer, self._settings)
        self._given.visible = answer.proposal is not None and not answer.in_force
        self._fine.visible = self._given.visible
        self._undo.visible = answer.proposal is not None and answer.in_force


def _text(answer: _Answer, settings: Settings) -> str:
    proposal = answer.proposal
    if proposal is None:
        return f'<h2>Was this fine?</h2><p class="say trouble">{escape(answer.said)}</p>'
    effect, pattern = proposal.effect, proposal.pattern
    parts = [f"<h2>{'This was fine' if answer.in_force else 'Was this fine?'}</h2>"]
    if answer.said:
        parts.append(f'<p role="status"><b>{escape(answer.said)}</b></p>')
    parts.append(
        f"<p>{_time(proposal.alert)}: {escape(proposal.alert.why)}</p>"
        f'<p class="under">A verdict keeps the same pattern quiet: {_hours(pattern)} UTC and 45 '
        f"minutes around, on the {pattern.direction} side, of about this size.</p>"
    )
    if proposal.lasts and not answer.in_force:
        parts.append(
            '<p class="under">Nothing came after it: if it still lasts, wait until it is over.</p>'
        )
    parts.append(
        f"<p>Of the last {DAYS} days it would have kept quiet <b>{effect.quieted:,} of "
        f"{effect.alerts:,} alerts</b> and {effect.quiet:,} of {effect.anomalies:,} anomalies.</p>"
    )
    parts.append(_losses(effect.lost))
    if answer.others and not settings.verdicts_secret:
        named = ", ".join(
            f'<a href="instance?{escape(urlencode({"name": pattern.instance, "fine": one.id}))}">'
            f"{escape(one.why or one.id)}</a>"
            for one in answer.others
        )
        parts.append(f'<p class="under">Other verdicts on this instance: {named}</p>')
    return "".join(parts)


def _hours(pattern: Pattern) -> str:
    since, until = f"{pattern.since:%H:%M}", f"{pattern.until:%H:%M}"
    return f"at {since}" if since == until else f"{since} to {until}"


def _time(anomaly: Anomaly) -> str:
    case = case_of(anomaly)
    return escape(str(anomaly.timestamp)) if case is None else clock_text(case.time)


def _losses(lost: tuple[Loss, ...]) -> str:
    if not lost:
        return '<p class="under">No other episode is touched.</p>'
    rows = "".join(
        f"<tr><td>{_time(one.first)}</td>"
        f"<td>{one.quieted} of {one.alerts}</td><td>{one.quiet} of {one.anomalies}</td>"
        f"<td class='wide'>{escape(one.first.why)}</td></tr>"
        for one in lost[: -LISTED - 1 : -1]
    )
    more = f", the last {LISTED} of {len(lost):,}" if len(lost) > LISTED else ""
    return (
        f"<p>Other episodes that it touches{more}:</p><table class='lost'><thead><tr><th>Time</th>"
        "<th>Alerts</th><th>Anomalies</th><th class='wide'>Why</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )
