"""What every notification target has: an address, a name, and what it is sent."""

from __future__ import annotations

import hashlib
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import ClassVar
from urllib.parse import quote, urlencode

import msgspec

from dataflow.notify.digest import Digest, content
from dataflow.notify.http import Answer, host, post
from dataflow.records import Incident
from dataflow.verdicts.signature import signed

__all__ = ["Target", "label_name", "labels_of", "link_to", "past", "runbook_of"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def past(moment: datetime | None, now: datetime) -> datetime:
    """Return a time of an incident as other systems take it: from 1970 to now.

    >>> past(datetime(1, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)).year
    1970
    """
    return max(EPOCH, min(moment or now, now))


def link_to(template: str, incident: Incident, key: str = "", now: float = 0.0) -> str:
    """Return the link of an incident: `{instance}`, `{id}` and `{kind}` stand for those.

    Of a group, the instance is its first member that was affected. `{verdict}` stands for what lets
    the live page ask whether the incident, or that of the first member, was fine: signed with
    `key`, if there is one, at `now`, in seconds since 1970.

    >>> from dataflow.notify.test import example
    >>> link_to("https://page.example/?instance={instance}", example())
    'https://page.example/?instance=test-of-notify'
    """
    members = () if incident.spread is None else incident.spread.members
    name = members[0].instance if members else incident.instance
    link = template.replace("{instance}", quote(name, safe="")).replace("{kind}", incident.kind)
    if "{verdict}" in link:
        own = members[0].incident if members else incident.id
        link = link.replace("{verdict}", urlencode(signed(key, name, own, now)))
    return link.replace("{id}", quote(incident.id, safe=""))


def labels_of(incident: Incident) -> dict[str, str]:
    """Return the labels of an incident, and its group and team, if it has them, as labels too.

    >>> from msgspec.structs import replace
    >>> from dataflow.notify.test import example
    >>> labels_of(replace(example(), labels={"team": "web"}))
    {'team': 'web'}
    """
    group = {"group": incident.group} if incident.group else {}
    team = {"team": incident.team} if incident.team else {}
    return {**group, **incident.labels, **team}


def runbook_of(template: str, incident: Incident) -> str:
    """Return the address of the incident's runbook: by the rules, or by the setting; or nothing.

    >>> from msgspec.structs import replace
    >>> from dataflow.notify.test import example
    >>> runbook_of("", replace(example(), runbook="https://wiki.example/{kind}"))
    'https://wiki.example/anomaly'
    """
    return link_to(incident.runbook or template, incident)


def label_name(label: str) -> str:
    """Return the name of a label as other systems take it: letters, digits and underscores.

    >>> label_name("AutoScalingGroupName"), label_name("k8s.pod/name"), label_name("2nd")
    ('AutoScalingGroupName', 'k8s_pod_name', '_2nd')
    """
    return re.sub(r"[^a-zA-Z0-9_]|^(?=[0-9])|^$", "_", label)


class Target(ABC):
    """One place that incidents are delivered to. Subclass it for a target of your own.

    A subclass sets `name` and implements `body`. `python -m dataflow notify` does the rest: it
    follows the topic, posts to `url`, and tries again until the target answers with a status from
    200 to 299. Select a subclass with ANOMALY_NOTIFY_TARGETS=NAME=ADDRESS.

    The address may hold a secret, so a target is shown as its name and the host of its address.
    Do not write the address or the body to a log.

    >>> class Pager(Target):
    ...     name = "pager"
    ...     def body(self, incident: Incident, link: str, now: datetime) -> object:
    ...         return {"text": f"{incident.instance}: {incident.state}"}
    >>> print(Pager("https://pager.example/SECRET"))
    pager at pager.example
    """

    name: ClassVar[str]
    """Shown in messages, and part of the consumer group: a new name begins as a new target."""

    repeats: ClassVar[bool] = False
    """Whether the target forgets an open incident unless it is posted again each minute."""

    needs_opened: ClassVar[bool] = False
    """Whether `resolved` shows nothing without the `opened` of its incident: a test sends both."""

    batch: ClassVar[int] = 1
    """How many incidents one POST may hold. Above 1, each `body` is a list; lists are joined."""

    repeated_within: float = 60.0
    """Seconds in which an open incident is posted again, if the target `repeats`.

    `notify` sets it before each POST: it grows if there are many incidents or the target is slow.
    """

    content_type: ClassVar[str] = "application/json"
    """The type of the body, as the header Content-Type says it."""

    labels: Mapping[str, str] = {}
    """ANOMALY_NOTIFY_LABELS: labels of all incidents."""

    runbook: str = ""
    """ANOMALY_NOTIFY_RUNBOOK: `link_to` makes the link of an incident from it, if it is set."""

    def __init__(self, address: str) -> None:
        self.address = address

    @property
    def url(self) -> str:
        """Where to post: the address, unless a subclass appends a path."""
        return self.address

    @abstractmethod
    def body(self, incident: Incident, link: str, now: datetime) -> object:
        """Return what is posted about an incident, as an object that JSON can hold.

        `link` is ANOMALY_NOTIFY_LINK for this incident, or empty. `now` is the time of this
        attempt, with a time zone. If this raises an exception, the record is skipped for this
        target, with a warning.
        """

    def digest(self, digest: Digest, now: datetime) -> object:
        """Return what is posted about incidents that were held back; `body` says the rest.

        A target of your own posts `{"key", "severity", "summary", "link", "labels", "digest"}`
        unless it overrides this; in a list, if its `batch` is above 1.
        """
        said = content(dict(self.labels), digest)
        return [said] if self.batch > 1 else said

    def labels_for(self, incident: Incident) -> dict[str, str]:
        """Return the labels by which an incident is routed; its own come before those of all."""
        return {**self.labels, **labels_of(incident)}

    def send(self, body: bytes, key: str, stop: threading.Event) -> Answer:
        """Post what `body` returned, as JSON, once; `key` is the same when it is posted again.

        It must end within 10 s, and within a second once `stop` is set. Override it for a target
        that takes something else than a POST.
        """
        return post(self.url, msgspec.Raw(body), key, stop, content_type=self.content_type)

    def group(self, topic: str) -> str:
        """Return the name of the consumer group that keeps the offsets of this target.

        Each address has its own group, so a new address begins as a new target.

        >>> from dataflow.notify.webhook import Webhook
        >>> Webhook("http://ops.example/hook").group("incidents")
        'ec2-anomaly-notify.incidents.webhook.70f0785f'
        """
        mark = hashlib.blake2b(self.address.encode(), digest_size=4).hexdigest()
        return f"ec2-anomaly-notify.{topic}.{self.name}.{mark}"

    def __repr__(self) -> str:
        """Return the name and the host; the rest of the address may be a secret."""
        return f"{self.name} at {host(self.address)}"
