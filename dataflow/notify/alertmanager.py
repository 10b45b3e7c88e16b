"""Prometheus Alertmanager, through version 2 of its API."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dataflow.notify.base import Target, label_name, past, runbook_of
from dataflow.notify.summary import severity, summary
from dataflow.records import Incident

__all__ = ["Alertmanager"]

ALERT = {"anomaly": "InstanceAnomalous", "silence": "InstanceSilent"}
"""The label `alertname` of each kind of incident."""

GROUP_ALERT = {"anomaly": "GroupAnomalous", "silence": "GroupSilent"}
"""The same of incidents of groups."""

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
        labels = {
            label_name(name): value for name, value in self.labels_for(incident).items() if value
        }
        if incident.metric != CPU:
            labels["metric"] = incident.metric
        names = ALERT if incident.spread is None else GROUP_ALERT
        alert = {
            # Labels identify the alert: none of them may change while the incident is open.
            "labels": {
                **labels,
                "alertname": names[incident.kind],
                "instance": incident.instance,
                "kind": incident.kind,
                "severity": incident.severity or "warning",
                "topic": incident.source.topic,
            },
            "annotations": annotations,
            "startsAt": _iso(starts),
            "endsAt": _iso(ends),
            **({"generatorURL": link} if link else {}),
        }
        return [alert]


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")
