"""An event bus of Amazon EventBridge."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from dataflow.notify.aws import AWSTarget, refusal
from dataflow.notify.base import past
from dataflow.notify.digest import Digest
from dataflow.notify.http import Answer
from dataflow.notify.webhook import content
from dataflow.records import Incident, encode

__all__ = ["EventBridge"]


class EventBridge(AWSTarget):
    """Puts what a webhook gets as the detail of an event, `Incident opened` and so on.

    One event in a call: AWS may accept some events of several, and these would be put again. An
    event may have 256 kB at least; a record has 64 at most.
    """

    name = "eventbridge"
    service = "events"
    right = "events:PutEvents"

    def body(self, incident: Incident, link: str, now: datetime) -> object:
        """Return an entry of `PutEvents`."""
        return {
            "EventBusName": self.address,
            "Source": "ec2-anomaly-dataflow",
            "DetailType": f"Incident {incident.state}",
            "Time": past(incident.updated_at, now),
            "Detail": encode(content(self, incident, link)).decode(),
        }

    def digest(self, digest: Digest, now: datetime) -> object:
        """Return an entry with the detail type `Incident digest`."""
        return {
            "EventBusName": self.address,
            "Source": "ec2-anomaly-dataflow",
            "DetailType": "Incident digest",
            "Time": digest.written_at,
            "Detail": encode(super().digest(digest, now)).decode(),
        }

    def call(self, request: Any) -> Answer:
        """Put it. The call succeeds even if the event fails."""
        done = self.client.put_events(Entries=[request])
        if done["FailedEntryCount"]:
            return refusal(done["Entries"][0].get("ErrorCode", "an error"), self.right)
        return Answer(200, "OK")
