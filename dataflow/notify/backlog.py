"""What a target still has to get, and which of its incidents are open. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from msgspec.structs import replace

from dataflow.notify.base import labels_of
from dataflow.records import Incident

__all__ = ["Backlog", "Batch", "Place", "Record"]

REPEAT = 60.0
"""Seconds after which an open incident is posted again to a target that `repeats`."""

KNOWN = 50_000
"""Incidents of which it is known which records have been read: about 10 MB."""

Place = tuple[int, int]
"""Partition and offset of a record."""

Subject = tuple[str, str, str, str, bool]
"""What has one open incident at a time: the topic, the instance or group, the metric, the
kind, and whether it is a group."""


def _subject(incident: Incident) -> Subject:
    """Return what the incident is about."""
    about = incident.source.topic, incident.instance, incident.metric, incident.kind
    return *about, incident.spread is not None


class Record(NamedTuple):
    """An entry of the queue: `incident` is None if there is nothing to deliver.

    `place` is None if the incident was open when the target was new. `offsets` are what to commit
    once it is done. `written` is when the record was written, in seconds since 1970, if known.
    """

    incident: Incident | None
    place: Place | None
    offsets: dict[int, int]
    written: float | None = None


class Batch(NamedTuple):
    """What to post next: new records, then open incidents that are due.

    `taken` is the number of entries of the queue that are done with it, which includes those that
    need no post.
    """

    taken: int
    new: list[Record]
    repeated: list[Incident]

    @property
    def incidents(self) -> list[Incident]:
        """What to post, in order."""
        return [it.incident for it in self.new if it.incident is not None] + self.repeated


class _Open(NamedTuple):
    incident: Incident
    due: float


class Backlog:
    """The queue of new records, in order, and the open incidents, the next one due first.

    `now` is in seconds of a clock that never steps back.
    """

    def __init__(self, *, repeats: bool) -> None:
        self._repeats = repeats
        self._queue: deque[Record] = deque()
        self._open: dict[Subject, _Open] = {}
        self._last: dict[tuple[str, str], float] = {}
        self._queued: dict[tuple[str, str], int] = {}
        self._labels: dict[tuple[str, str], dict[str, str]] = {}
        self.superseded = 0
        """Updates that were not posted, because a later record of their incident was."""

    def __len__(self) -> int:
        """Return the number of records in the queue."""
        return len(self._queue)

    def oldest(self) -> float | None:
        """Return when the first record that is to be posted was written; None if there is none."""
        waiting = (it.written for it in self._queue if it.incident is not None)
        return next((it for it in waiting if it is not None), None)

    @property
    def open_count(self) -> int:
        """The number of open incidents."""
        return len(self._open)

    def is_repetition(self, incident: Incident) -> bool:
        """Whether this record was read before; it counts as read from now on.

        A later one that says it is resolved is none, whatever its sequence.
        """
        key = _key(incident)
        last = self._last.pop(key, -math.inf)
        sequence = math.inf if incident.state == "resolved" else incident.sequence
        self._last[key] = max(last, sequence)
        if len(self._last) > KNOWN:
            del self._last[next(iter(self._last))]
        return sequence <= last

    def with_first_labels(self, incident: Incident) -> Incident:
        """Return the record with the labels of the first record of its incident.

        To a target that `repeats`, labels identify the alert, and those of an instance may change.
        """
        if not self._repeats:
            return incident
        known = self._labels.pop(_key(incident), None)
        first = labels_of(incident) if known is None else known
        if incident.state != "resolved":
            self._labels[_key(incident)] = first
            if len(self._labels) > KNOWN:
                del self._labels[next(iter(self._labels))]
        return replace(incident, labels=first)

    def remember(self, incident: Incident, now: float) -> None:
        """Keep an incident while it is open; the next post is due after `REPEAT` seconds.

        An instance has one open incident of a kind. Another one takes its place: the flow that
        would have resolved the first has lost its store.
        """
        about = _subject(incident)
        known = self._open.get(about)
        if incident.state != "resolved":
            self._open.pop(about, None)
            self._open[about] = _Open(incident, now + REPEAT)
        elif known is not None and known.incident.id == incident.id:
            del self._open[about]

    def begin(self, offsets: dict[int, int]) -> None:
        """Queue the open incidents for a new target, then the offsets to commit after them."""
        for it in self._open.values():
            self.add(Record(it.incident, None, {}))
        self._open = {}
        self.add(Record(None, None, offsets))

    def open_incidents(self) -> list[Incident]:
        """Return the open incidents."""
        return [it.incident for it in self._open.values()]

    def forget(self, incident: Incident) -> None:
        """Post an open incident no more."""
        self._open.pop(_subject(incident), None)

    def repeat_all(self, now: float) -> None:
        """Let all open incidents be due now."""
        self._open = {about: _Open(it.incident, now) for about, it in self._open.items()}

    def next_due(self) -> float | None:
        """Return when the next open incident is due; None if none is to be posted again."""
        if not self._repeats or not self._open:
            return None
        return next(iter(self._open.values())).due

    def add(self, record: Record) -> None:
        """Append a record to the queue."""
        self._queue.append(record)
        if record.incident is not None:
            self._queued[_key(record.incident)] = record.incident.sequence

    def batch(
        self, size: int, now: float, admits: Callable[[Incident], bool] | None = None
    ) -> Batch:
        """Return at most `size` incidents to post; one of each subject, so that all are seen.

        What `admits` does not admit is left out for good.
        """
        taken = 0
        new: list[Record] = []
        subjects = set()
        for index, record in enumerate(self._queue):
            if record.incident is not None and not self._superseded(record.incident):
                about = _subject(record.incident)
                if len(new) == size or about in subjects:
                    break
                if admits is None or admits(record.incident):
                    new.append(record)
                    subjects.add(about)
                else:
                    self._leave_queue(record.incident)
                    self._queue[index] = record._replace(incident=None)
            taken += 1
        repeated: list[Incident] = []
        for about, it in self._open.items() if self._repeats else ():
            if it.due > now or len(new) + len(repeated) == size:
                break
            if about not in subjects:
                repeated.append(it.incident)
        return Batch(taken, new, repeated)

    def _superseded(self, incident: Incident) -> bool:
        """Whether this is an update, and a later record of the incident is in the queue."""
        return incident.state == "updated" and (
            self._queued.get(_key(incident), 0) > incident.sequence
        )

    def done(self, batch: Batch, now: float) -> dict[int, int]:
        """Take what was posted at `now` from the queue; return the offsets to commit."""
        if self._repeats:
            for incident in batch.incidents:
                self.remember(incident, now)
        return self._take(batch)

    def drop(self, batch: Batch) -> dict[int, int]:
        """Take what will never be posted from the queue; return the offsets to commit."""
        for incident in batch.repeated:
            self._open.pop(_subject(incident), None)
        return self._take(batch)

    def drop_one(self, incident: Incident) -> None:
        """Leave out one incident of the next batch."""
        for index, record in enumerate(self._queue):
            if record.incident is incident:
                self._leave_queue(incident)
                self._queue[index] = record._replace(incident=None)
                return
        self._open.pop(_subject(incident), None)

    def _take(self, batch: Batch) -> dict[int, int]:
        offsets: dict[int, int] = {}
        self.superseded -= len(batch.new)
        for _ in range(batch.taken):
            record = self._queue.popleft()
            self.superseded += record.incident is not None
            offsets |= record.offsets
            if record.incident is not None:
                self._leave_queue(record.incident)
        return offsets

    def _leave_queue(self, incident: Incident) -> None:
        if self._queued.get(_key(incident)) == incident.sequence:
            del self._queued[_key(incident)]


def _key(incident: Incident) -> tuple[str, str]:
    return incident.id, incident.instance
