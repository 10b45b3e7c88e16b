"""Leaves out incidents of readings that were history when the flow read them."""

from __future__ import annotations

import sys
import threading
import time
from datetime import datetime

from dataflow.records import Incident

__all__ = ["History"]

FIRST = 5.0
INTERVAL = 60.0
"""Seconds from the start to the first line, and between two."""


class History:
    """Tells incidents of history from those of now, and counts them. All targets share it.

    An incident is history if its record was written more than `limit` seconds after the time of the
    reading that caused it: a flow that reads an old topic or file writes such records. How late
    `notify` reads them has no effect, so nothing is left out because `notify` was down. A limit of
    0 leaves nothing out, and neither does a record without a time.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._counted: dict[int, int] = {}
        self._count = 0
        self._next = time.monotonic() + FIRST

    def is_history(self, incident: Incident, written: datetime | None) -> bool:
        """Return whether an incident is history; `written` is the time of its record.

        >>> from datetime import timedelta
        >>> from msgspec.structs import replace
        >>> from dataflow.notify.test import example
        >>> incident = example()
        >>> late = incident.updated_at + timedelta(hours=2)
        >>> History(3600.0).is_history(incident, late), History(0.0).is_history(incident, late)
        (True, False)
        """
        if not self._limit or written is None or incident.updated_at is None:
            return False
        return (written - incident.updated_at).total_seconds() > self._limit

    def add(self, place: tuple[int, int]) -> None:
        """Count the record at this partition and offset as left out, once for all targets."""
        partition, offset = place
        with self._lock:
            if offset > self._counted.get(partition, -1):
                self._counted[partition] = offset
                self._count += 1

    def print_count(self, *, last: bool = False) -> None:
        """Print how many were left out since the last line, at most once a minute."""
        with self._lock:
            now = time.monotonic()
            if not self._count or (not last and now < self._next):
                return
            hours = self._limit / 3600
            print(
                f"left out {self._count} records of incidents that were more than {hours:g} h old "
                "when they were written: set ANOMALY_NOTIFY_MAX_AGE=0 to deliver history.",
                file=sys.stderr,
                flush=True,
            )
            self._count, self._next = 0, now + INTERVAL
