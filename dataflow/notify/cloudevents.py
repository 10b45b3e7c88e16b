"""A webhook that takes CloudEvents, such as a broker of Knative or Azure Event Grid."""

from __future__ import annotations

from datetime import datetime

from dataflow import cloudevents
from dataflow.notify.base import Target
from dataflow.notify.digest import Digest
from dataflow.notify.webhook import content
from dataflow.records import Incident

__all__ = ["CloudEvents"]


class CloudEvents(Target):
    """Posts what a webhook gets as the data of a CloudEvent, in structured mode.

    `source` and `id` stay the same when a record is delivered again.
    """

    name = "cloudevents"
    content_type = "application/cloudevents+json"

    def body(self, incident: Incident, link: str, now: datetime) -> object:
        """Return a CloudEvent of the type `ec2-anomaly-dataflow.notification.STATE`."""
        found = cloudevents.attributes(incident)
        return {
            **found,
            # Not those of the event in the topic of incidents, whose data is the incident alone.
            "source": f"{found['source']}/notify",
            "type": f"{cloudevents.NAME}.notification.{incident.state}",
            "data": content(self, incident, link),
        }

    def digest(self, digest: Digest, now: datetime) -> object:
        """Return a CloudEvent of the type `ec2-anomaly-dataflow.notification.digest`."""
        team = {} if digest.team is None else {"subject": cloudevents.text(digest.team)}
        return {
            "specversion": "1.0",
            "id": digest.id,
            "source": f"/{cloudevents.NAME}/notify",
            "type": f"{cloudevents.NAME}.notification.digest",
            "datacontenttype": "application/json",
            **team,
            "time": digest.written_at.isoformat().replace("+00:00", "Z"),
            "data": super().digest(digest, now),
        }
