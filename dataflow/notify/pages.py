"""The limit of pages of one target: what its budget decides, kept in the store."""

from __future__ import annotations

import time
from collections.abc import Iterable

from dataflow.notify.base import Target, link_to
from dataflow.notify.budget import Budget
from dataflow.notify.counts import Counts
from dataflow.notify.digest import Digest
from dataflow.notify.store import PageStore
from dataflow.records import Incident

__all__ = ["Pages"]

TEAM = "team"
"""The label that names a team."""


class Pages:
    """Asks the budget, by the time of day, and counts what is held back.

    Call `save` before anything is posted, and before an offset is committed.
    """

    def __init__(
        self, limit: int, store: PageStore, group: str, target: Target, link: str, counts: Counts
    ) -> None:
        """Raises `UserError` if the store cannot be read."""
        self._store = store
        self._group = group
        self._target = target
        self._link = link
        self._counts = counts
        self._budget = Budget(limit, store.rows(group))

    def _team(self, incident: Incident) -> str:
        return self._target.labels_for(incident).get(TEAM, "")

    def begin(self, sent: Iterable[Incident]) -> None:
        """Take incidents that were open before as sent, unless it is known that they were not."""
        for incident in sent:
            self._budget.take_as_sent(incident, self._team(incident), time.time())

    def was_sent(self, incident: Incident) -> bool:
        """Whether the target has accepted the page of an incident."""
        return self._budget.was_sent(incident)

    def waits(self, incident: Incident) -> None:
        """Count an incident among those that wait."""
        self._budget.waits(incident, self._team(incident))

    def admits(self, incident: Incident) -> bool:
        """Whether to post a record now."""
        team = self._team(incident)
        before = self._budget.held_total
        link = link_to(self._link, incident)
        if self._budget.admits(incident, team, link, time.time()):
            return True
        self._counts.held_back["pages"] += 1
        self._counts.hold_back(team, self._budget.held_total - before)
        return False

    def accepted(self, incidents: Iterable[Incident]) -> None:
        """Keep that the target has these records."""
        for incident in incidents:
            self._budget.accepted(incident)

    def rejected(self, incident: Incident) -> None:
        """Name an incident in the next digest that the target will never accept."""
        self._budget.rejected(incident, link_to(self._link, incident), time.time())

    def digest(self) -> Digest | None:
        """Return the digest to post now, if there is one."""
        return self._budget.digest(time.time())

    def digest_done(self, digest: Digest) -> None:
        """Keep that a digest is delivered, or will never be."""
        self._budget.digest_done(digest)

    def save(self) -> None:
        """Write what has changed to the store. Raises `UserError`."""
        if changes := self._budget.changes():
            self._store.save(self._group, changes)
