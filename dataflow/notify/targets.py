"""Whom to tell of incidents, and in what form. Pure: what is sent, not the sending."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from dataflow.notify.http import host
from dataflow.notify.summary import SEVERITY, summary
from dataflow.records import Incident
from dataflow.settings import Settings

__all__ = ["Target", "message", "targets"]

ALERT = {"anomaly": "InstanceAnomalous", "silence": "InstanceSilent"}

FIRES = timedelta(minutes=5)
"""How long an Alertmanager is told that an alert goes on: it is told again before."""


@dataclass(frozen=True)
class Target:
    """One receiver. Its address may be a secret: it is shown as kind and host."""

    kind: Literal["webhook", "slack", "alertmanager"]
    address: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.kind} at {host(self.address)}"

    @property
    def repeats(self) -> bool:
        """Whether it must be told again and again of what is open."""
        return self.kind == "alertmanager"

    def group(self, topic: str) -> str:
        """Name its consumer group, which keeps its position: another for each address.

        >>> Target("webhook", "http://ops.example/hook").group("incidents")
        'ec2-anomaly-notify.incidents.webhook.70f0785f'
        """
        mark = hashlib.blake2b(self.address.encode(), digest_size=4).hexdigest()
        return f"ec2-anomaly-notify.{topic}.{self.kind}.{mark}"

    @property
    def url(self) -> str:
        """Where to post."""
        if self.kind == "alertmanager":
            return self.address.rstrip("/") + "/api/v2/alerts"
        return self.address


def targets(settings: Settings) -> list[Target]:
    """Return the receivers that the settings name."""
    return [
        *(Target("webhook", it.get_secret_value()) for it in settings.notify_webhook),
        *(Target("slack", it.get_secret_value()) for it in settings.notify_slack),
        *(Target("alertmanager", it.get_secret_value()) for it in settings.notify_alertmanager),
    ]


def message(target: Target, incident: Incident, link: str, now: datetime) -> object:
    """Return what a receiver is posted, before it is made JSON."""
    if target.kind == "slack":
        text = f"*{incident.state}* ({SEVERITY[incident.kind]}) {_escaped(summary(incident))}"
        return {"text": f"{text}\n{link}" if link else text}
    if target.kind == "alertmanager":
        return [_alert(incident, link, now)]
    return {
        "key": f"{incident.id}-{incident.sequence}",
        "severity": SEVERITY[incident.kind],
        "summary": summary(incident),
        "link": link or None,
        "incident": incident,
    }


def _alert(incident: Incident, link: str, now: datetime) -> dict[str, Any]:
    starts = min(incident.opened_at or now, now)
    ends = now + FIRES
    if incident.state == "resolved":
        # An alert that ends in the future would go on.
        ends = max(starts, min(incident.resolved_at or now, now))
    annotations = {"summary": summary(incident), "id": incident.id, "value": f"{incident.value:g}"}
    if incident.score is not None:
        annotations["score"] = f"{incident.score:.3f}"
        annotations["anomalies"] = str(incident.anomalies)
    if incident.expected is not None:
        annotations["expected"] = f"{incident.expected:g}"
    return {
        # They are what the alert is known by: nothing that changes may be among them.
        "labels": {
            "alertname": ALERT[incident.kind],
            "instance": incident.instance,
            "kind": incident.kind,
            "severity": SEVERITY[incident.kind],
        },
        "annotations": annotations,
        "startsAt": _iso(starts),
        "endsAt": _iso(ends),
        **({"generatorURL": link} if link else {}),
    }


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def _escaped(text: str) -> str:
    """Return a text without Slack's marks: an instance may be called `<!channel>`."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
