"""What every notification target has: an address, a name, and the body of its POST."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from datetime import datetime
from typing import ClassVar
from urllib.parse import quote

from dataflow.notify.http import host
from dataflow.records import Incident

__all__ = ["Target", "link_to"]


def link_to(template: str, incident: Incident) -> str:
    """Return the link of an incident: `{instance}` and `{id}` in it stand for those.

    Of a group, the instance is its first member that was affected.

    >>> from dataflow.notify.test import example
    >>> link_to("https://page.example/?instance={instance}", example())
    'https://page.example/?instance=test-of-notify'
    """
    members = () if incident.spread is None else incident.spread.members
    instance = quote(members[0].instance if members else incident.instance, safe="")
    return template.replace("{instance}", instance).replace("{id}", quote(incident.id, safe=""))


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

    batch: ClassVar[int] = 1
    """How many incidents one POST may hold. Above 1, each `body` is a list; lists are joined."""

    repeated_within: float = 60.0
    """Seconds in which an open incident is posted again, if the target `repeats`.

    `notify` sets it before each POST: it grows if there are many incidents or the target is slow.
    """

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
