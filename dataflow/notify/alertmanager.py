"""Prometheus Alertmanager, through version 2 of its API."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from dataflow.notify.base import Target, label_name, past, runbook_of
from dataflow.notify.digest import Digest, content, lines
from dataflow.notify.summary import severity, summary
from dataflow.records import Incident

__all__ = ["Alertmanager", "alert_labels"]

ALERT = {"anomaly": "InstanceAnomalous", "silence": "InstanceSilent"}
"""The label `alertname` of each kind of incident."""

GROUP_ALERT = {"anomaly": "GroupAnomalous", "silence": "GroupSilent"}
"""The same of incidents of groups."""

DIGEST = "IncidentsHeldBack"
"""The same of a digest."""

CPU = "cpu"
"""The metric that is not a label: alerts of before go on."""

FIRES = timedelta(minutes=5)
"""How long an alert fires after each post, at least."""

MISSED = 3
"""An alert fires for this many times the seconds to its next post, so that some may fail."""

LONGEST = timedelta(hours=1)
"""How long an alert fires after each post, at most: it outlives `notify` by as much."""


class Alertmanager(Target):
    """Posts alerts that fire for five minutes, again and again while the incidents are open."""

    name = "alertmanager"
    repeats = True
    batch = 500

    @property
    def url(self) -> str:
        """The address of the server, with the path of the API."""
        return self.address.rstrip("/") + "/api/v2/alerts"

    @property
    def silences(self) -> str:
        """The address of all silences that it knows."""
        return self.address.rstrip("/") + "/api/v2/silences"

    def body(self, incident: Incident, link: str, now: datetime) -> object:
        """Return a list of one alert."""
        # It takes the first moment of year 1 for none, and such an alert would fire.
        starts = past(incident.opened_at, now)
        if incident.state == "resolved":
            # An alert that ends in the future still fires.
            ends = max(starts, past(incident.resolved_at, now))
        else:
            fires = timedelta(seconds=MISSED * self.repeated_within)
            ends = now + min(max(fires, FIRES), LONGEST)
        annotations = {
            "summary": summary(incident),
            "id": incident.id,
            "value": f"{incident.value:g}",
            "severity": severity(incident),
        }
        if incident.score is not None:
            annotations["score"] = f"{incident.score:.3f}"
            annotations["anomalies"] = str(incident.anomalies)
        if incident.expected is not None:
            annotations["expected"] = f"{incident.expected:g}"
        if runbook := runbook_of(self.runbook, incident):
            annotations["runbook_url"] = runbook
        alert = {
            "labels": alert_labels(incident, self.labels_for(incident)),
            "annotations": annotations,
            "startsAt": _iso(starts),
            "endsAt": _iso(ends),
            **({"generatorURL": link} if link else {}),
        }
        return [alert]

    def digest(self, digest: Digest, now: datetime) -> object:
        """Return a list of one alert, which fires for an hour."""
        said = content(dict(self.labels), digest)
        labels = {label_name(name): value for name, value in said["labels"].items() if value}
        alert = {
            "labels": {**labels, "alertname": DIGEST, "severity": digest.severity},
            "annotations": {
                "summary": said["summary"],
                "description": "\n".join(lines(digest)),
                "id": digest.id,
                "severity": digest.severity,
            },
            "startsAt": _iso(past(digest.written_at, now)),
            "endsAt": _iso(now + LONGEST),
            **({"generatorURL": said["link"]} if said["link"] else {}),
        }
        return [alert]


def alert_labels(incident: Incident, labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels of the alert of an incident; `labels` are those that it is routed by.

    Labels identify the alert: none of them may change while the incident is open.
    """
    metric = {} if incident.metric == CPU else {"metric": incident.metric}
    names = ALERT if incident.spread is None else GROUP_ALERT
    return {
        **{label_name(name): value for name, value in labels.items() if value},
        **metric,
        "alertname": names[incident.kind],
        "instance": incident.instance,
        "kind": incident.kind,
        "severity": incident.severity or "warning",
        "topic": incident.source.topic,
    }


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")
