"""Warns of records that are not incidents: one line for the first of each reason, then counts."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from dataflow.warnings import show

__all__ = ["SkippedRecords"]

INTERVAL = 60.0
"""Seconds between two lines for one reason."""


@dataclass
class _Reason:
    printed: float
    more: int = 0
    place: tuple[int, int] = (0, 0)


class SkippedRecords:
    """Counts the records that all targets skip. They share it: a record is counted once."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._lock = threading.Lock()
        self._reasons: dict[str, _Reason] = {}
        self._counted: dict[int, int] = {}

    def add(self, place: tuple[int, int], reason: str) -> None:
        """Count the record at this partition and offset; print a line if it is the first."""
        partition, offset = place
        with self._lock:
            if offset <= self._counted.get(partition, -1):
                return
            self._counted[partition] = offset
            known = self._reasons.get(reason)
            if known is not None:
                known.more += 1
                known.place = place
                return
            self._reasons[reason] = _Reason(time.monotonic())
            show(
                f"the record at partition {partition}, offset {offset} of the topic "
                f"{self._topic!r} is not an incident ({reason}): skipped."
            )

    def print_counts(self, *, last: bool = False) -> None:
        """Print what was counted since the last line of each reason, at most once a minute."""
        now = time.monotonic()
        with self._lock:
            for reason, known in self._reasons.items():
                if known.more and (last or now - known.printed >= INTERVAL):
                    partition, offset = known.place
                    show(
                        f"{known.more} more records of the topic {self._topic!r} are not "
                        f"incidents ({reason}): skipped. The last is at partition {partition}, "
                        f"offset {offset}."
                    )
                    known.printed, known.more = now, 0
