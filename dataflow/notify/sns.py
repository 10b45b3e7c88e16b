"""A topic of Amazon SNS, which forwards to queues, functions, e-mail and SMS."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from dataflow.notify.aws import AWSTarget
from dataflow.notify.base import label_name
from dataflow.notify.http import Answer
from dataflow.notify.summary import severity, summary, visible
from dataflow.notify.webhook import content
from dataflow.records import Incident, encode

__all__ = ["SNS"]

LONGEST_SUBJECT = 99
"""Characters of the subject of an e-mail, at most."""

MOST_ATTRIBUTES = 10
"""A queue with raw delivery takes no message with more."""


class SNS(AWSTarget):
    """Publishes what a webhook gets; to e-mail and SMS, the summary.

    Attributes of the message, for filter policies, are `state`, `severity`, `kind`, `instance`,
    `metric` and the labels, ten in all. In a FIFO topic, the messages of an instance are a group,
    and a record that is delivered again within five minutes is dropped by SNS.
    """

    name = "sns"
    service = "sns"
    right = "sns:Publish"

    def body(self, incident: Incident, link: str, now: datetime) -> object:
        """Return the parameters of `Publish`."""
        sentence = f"{incident.state} ({severity(incident)}): {summary(incident)}"
        text = f"{sentence}\n{link}" if link else sentence
        messages = {"default": _json(content(self, incident, link)), "email": text, "sms": text}
        return {
            "TopicArn": self.address,
            "Message": _json(messages),
            "MessageStructure": "json",
            "Subject": sentence.encode("ascii", "replace").decode()[:LONGEST_SUBJECT],
            "MessageAttributes": self._attributes(incident),
            **(_order(incident) if self.address.endswith(".fifo") else {}),
        }

    def _attributes(self, incident: Incident) -> dict[str, dict[str, str]]:
        own = {
            "state": incident.state,
            "severity": severity(incident),
            "kind": incident.kind,
            "instance": incident.instance,
            "metric": incident.metric,
        }
        labels = {label_name(name): it for name, it in self.labels_for(incident).items()}
        every = {**own, **labels, **own}
        values = {name: _valid(visible(value)) for name, value in every.items() if value}
        return {
            name: {"DataType": "String", "StringValue": value}
            for name, value in [*values.items()][:MOST_ATTRIBUTES]
        }

    def call(self, request: Any) -> Answer:
        """Publish it."""
        self.client.publish(**request)
        return Answer(200, "OK")


def _order(incident: Incident) -> dict[str, str]:
    """Return the group and the deduplication id, which may not have all characters of a name."""
    record = f"{incident.instance}\n{incident.id}-{incident.sequence}"
    return {
        "MessageGroupId": _hash(incident.instance),
        "MessageDeduplicationId": _hash(record),
    }


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _valid(text: str) -> str:
    # The two characters that JSON may have, and XML, in which SNS answers and forwards, may not.
    return text.replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")


def _json(value: object) -> str:
    return _valid(encode(value).decode())
