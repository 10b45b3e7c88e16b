"""A topic of Amazon SNS, which forwards to queues, functions, e-mail and SMS."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from dataflow.notify.aws import AWSTarget
from dataflow.notify.base import label_name
from dataflow.notify.digest import Digest, lines, title
from dataflow.notify.digest import content as digest_content
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
        own = {
            "state": incident.state,
            "severity": severity(incident),
            "kind": incident.kind,
            "instance": incident.instance,
            "metric": incident.metric,
        }
        return {
            **self._message(sentence, text, text, content(self, incident, link)),
            "MessageAttributes": _attributes(own, self.labels_for(incident)),
            **(_order(incident) if self.address.endswith(".fifo") else {}),
        }

    def digest(self, digest: Digest, now: datetime) -> object:
        """Return the parameters of `Publish`; the attribute `state` is `digest`."""
        said = digest_content(dict(self.labels), digest)
        sentence = f"digest ({digest.severity}): {title(digest)}"
        link = [said["link"]] if said["link"] else []
        text = "\n".join([sentence, *lines(digest), *link])
        sms = "\n".join([sentence, *link])  # it has 1600 characters at most
        order = {"MessageGroupId": _hash("digest"), "MessageDeduplicationId": _hash(digest.id)}
        own = {"state": "digest", "severity": digest.severity}
        return {
            **self._message(sentence, text, sms, said),
            "MessageAttributes": _attributes(own, said["labels"]),
            **(order if self.address.endswith(".fifo") else {}),
        }

    def _message(
        self, sentence: str, email: str, sms: str, said: dict[str, object]
    ) -> dict[str, object]:
        messages = {"default": _json(said), "email": email, "sms": sms}
        return {
            "TopicArn": self.address,
            "Message": _json(messages),
            "MessageStructure": "json",
            "Subject": sentence.encode("ascii", "replace").decode()[:LONGEST_SUBJECT],
        }

    def call(self, request: Any) -> Answer:
        """Publish it."""
        self.client.publish(**request)
        return Answer(200, "OK")


def _attributes(own: dict[str, str], labels: dict[str, str]) -> dict[str, dict[str, str]]:
    """Return the attributes for filter policies; a label does not change those of the record."""
    every = {**own, **{label_name(name): it for name, it in labels.items()}, **own}
    values = {name: _valid(visible(value)) for name, value in every.items() if value}
    return {
        name: {"DataType": "String", "StringValue": value}
        for name, value in [*values.items()][:MOST_ATTRIBUTES]
    }


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
