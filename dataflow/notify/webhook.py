"""A webhook: any HTTP server that takes incidents as JSON."""

from __future__ import annotations

from datetime import datetime

from dataflow.notify.base import Target
from dataflow.notify.summary import severity, summary
from dataflow.records import Incident

__all__ = ["Webhook", "content"]


def content(target: Target, incident: Incident, link: str) -> dict[str, object]:
    """Return what a program needs: the incident, its severity, a summary, the link and the labels.

    `key` stays the same when a record is delivered again.
    """
    return {
        "key": f"{incident.id}-{incident.sequence}",
        "severity": severity(incident),
        "summary": summary(incident),
        "link": link or None,
        "labels": target.labels_for(incident),
        "incident": incident,
    }


class Webhook(Target):
    """Posts the whole incident, with its severity, a summary, the link and the labels."""

    name = "webhook"

    def body(self, incident: Incident, link: str, now: datetime) -> object:
        """Return `{"key", "severity", "summary", "link", "labels", "incident"}`."""
        return content(self, incident, link)
