"""Slack, through one of its incoming webhooks."""

from __future__ import annotations

from datetime import datetime

from dataflow.notify.base import Target
from dataflow.notify.summary import SEVERITY, summary
from dataflow.records import Incident

__all__ = ["Slack"]


class Slack(Target):
    """Posts the summary as the text of a message, with the link on a line of its own."""

    name = "slack"

    def body(self, incident: Incident, link: str, now: datetime) -> object:
        """Return `{"text": ...}`."""
        text = f"*{incident.state}* ({SEVERITY[incident.kind]}) {_escape(summary(incident))}"
        return {"text": f"{text}\n{link}" if link else text}


def _escape(text: str) -> str:
    """Escape the characters of Slack's markup: an instance may be named `<!channel>`."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
