"""PagerDuty, through version 2 of its Events API."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import msgspec
from msgspec import UNSET
from msgspec.structs import asdict

from dataflow.notify.base import Target, past, runbook_of
from dataflow.notify.http import Answer, host, post
from dataflow.notify.summary import severity, summary, visible
from dataflow.records import Incident

__all__ = ["PagerDuty"]

PATH = "/v2/enqueue"

LONGEST_SUMMARY = 1024
"""Characters of a summary at most. A whole event may have 512 kB; a record has 64 at most."""

ERROR = 4096
"""Bytes of the body of an error that are read."""


class PagerDuty(Target):
    """Triggers an alert when an incident opens or becomes worse, and resolves it with the incident.

    The address is `https://KEY@HOST`: the integration key of a service, and
    `events.pagerduty.com`, or `events.eu.pagerduty.com` in the EU. The id of the incident is the
    deduplication key, so a record that is delivered again opens no second alert.

    >>> PagerDuty("https://0123456789abcdef0123456789abcdef@events.eu.pagerduty.com").url
    'https://events.eu.pagerduty.com/v2/enqueue'
    """

    name = "pagerduty"
    needs_opened = True

    @property
    def url(self) -> str:
        """The address without the key, with the path of the API unless it has one."""
        parts = urlsplit(self.address)
        path = parts.path.rstrip("/") or PATH
        return urlunsplit(parts._replace(netloc=host(self.address), path=path))

    def body(self, incident: Incident, link: str, now: datetime) -> object:
        """Return an event: `trigger`, or `resolve` for an incident that is resolved."""
        text = summary(incident)
        if len(text) > LONGEST_SUMMARY:
            text = text[: LONGEST_SUMMARY - 1] + "…"
        labels = self.labels_for(incident)
        known = {name: one for name, one in asdict(incident).items() if one is not UNSET}
        links = [(link, "Incident"), (runbook_of(self.runbook, incident), "Runbook")]
        event: dict[str, Any] = {
            "routing_key": unquote(urlsplit(self.address).username or ""),
            "event_action": "resolve" if incident.state == "resolved" else "trigger",
            "dedup_key": incident.id,
            "payload": {
                "summary": text,
                # It must not be blank.
                "source": visible(incident.instance).strip() or "unknown",
                "severity": severity(incident),
                "timestamp": past(incident.updated_at, now).isoformat(timespec="milliseconds"),
                "component": visible(incident.metric),
                "class": incident.kind,
                **({"group": visible(labels["group"])} if labels.get("group") else {}),
                "custom_details": {**known, "labels": labels},
            },
            "client": "ec2-anomaly-dataflow",
            "links": [{"href": href, "text": words} for href, words in links if href],
        }
        return {**event, "client_url": link} if link else event

    def send(self, body: bytes, key: str, stop: threading.Event) -> Answer:
        """Post an event, once.

        PagerDuty answers with status 400 for a key that it does not know, as for a wrong event. The
        key can be corrected, so the record must not be skipped.
        """
        answer = post(self.url, msgspec.Raw(body), key, stop, read=ERROR)
        said = answer.text.lower()
        if answer.rejected and ("routing_key" in said or "routing key" in said):
            return Answer(None, "it does not know the integration key")
        return answer
