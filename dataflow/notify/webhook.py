"""A webhook: any HTTP server that takes incidents as JSON."""

from __future__ import annotations

from datetime import datetime

from dataflow.notify.base import Target
from dataflow.notify.summary import severity, summary
from dataflow.records import Incident

__all__ = ["Webhook"]


class Webhook(Target):
    """Posts the whole incident, with its severity, a summary and the link.

    `key` stays the same when a record is delivered again.
    """

    name = "webhook"

    def body(self, incident: Incident, link: str, now: datetime) -> object:
        """Return `{"key", "severity", "summary", "link", "incident"}`."""
        return {
            "key": f"{incident.id}-{incident.sequence}",
            "severity": severity(incident),
            "summary": summary(incident),
            "link": link or None,
            "incident": incident,
        }
