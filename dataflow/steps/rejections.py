"""Says on standard error which records are rejected, without flooding it.

The first of each reason is a line, with its place and its sentence. Its count follows at 10, 100,
1,000 and so on, at most once a minute, and all counts at the end of the process: a run that could
use none of its records must not end without a word.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable
from typing import Final

from dataflow.metrics import counters
from dataflow.records import Rejected, Source
from dataflow.settings import Settings
from dataflow.warnings import Warnings, show

__all__ = ["Rejections", "summarize_at_exit", "summary"]

PAUSE = 60.0
"""Minimum seconds between two lines of one reason."""

REASON: Final = "rejected"

MAX_ERROR = 300
"""Characters of a sentence that a line shows."""


class Rejections:
    """The rejected records of this process, by reason.

    >>> lines = []
    >>> rejections = Rejections(Settings(_env_file=None, topic="cpu"), Warnings(lines.append))
    >>> for offset in range(3):
    ...     rejections.add(Rejected("not-json", "it is not JSON", Source("cpu", 0, offset), None))
    >>> lines
    ["warning: offset 0 of partition 0 of the topic 'cpu' is rejected (not-json): it is not JSON."]
    """

    def __init__(
        self,
        settings: Settings,
        warnings: Warnings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # Where each record is a line of standard error itself, more lines would only disturb.
        self._quiet = _on_standard_error(settings)
        self._file = settings.input != "kafka"
        self._warnings = warnings
        self._clock = clock
        self._lock = threading.Lock()
        # By reason: the count, the count of the next line, and the earliest time for it.
        self._counts: dict[str, tuple[int, int, float]] = {}

    def add(self, rejected: Rejected) -> None:
        """Count a record that is rejected, and print a line if it is time for one."""
        reason = rejected.reason
        self._warnings.count(REASON)
        if self._quiet:
            return
        with self._lock:
            count, next_line, earliest = self._counts.get(reason, (0, 1, 0.0))
            count += 1
            due = count >= next_line and (count == 1 or self._clock() >= earliest)
            if due:
                next_line, earliest = 10 ** len(str(count)), self._clock() + PAUSE
            self._counts[reason] = count, next_line, earliest
        if due:
            self._warnings.print(self._line(rejected, count))

    def _line(self, rejected: Rejected, count: int) -> str:
        place, error = self._place(rejected.source), rejected.error.rstrip(".")
        if len(error) > MAX_ERROR:
            error = f"{error[:MAX_ERROR]}..."
        if count == 1:
            return f"{place} is rejected ({rejected.reason}): {error}."
        return f"{count:,} records are rejected so far ({rejected.reason}), last {place}: {error}."

    def _place(self, source: Source) -> str:
        offset = source.offset
        if self._file:
            return f"record {offset} (from 0) of {source.topic}"
        return f"offset {offset} of partition {source.partition} of the topic {source.topic!r}"


def summary(settings: Settings) -> str | None:
    """Return a line about all rejected records of this process, None if there are none.

    It is made from the metrics, so it counts what they count.
    """
    if _on_standard_error(settings):
        return None
    rejected = {
        one.labels["reason"]: int(one.value)
        for family in counters.RECORDS_REFUSED.collect()
        for one in family.samples
        if one.value
    }
    if not rejected:
        return None
    read = sum(
        int(one.value) for family in counters.RECORDS_READ.collect() for one in family.samples
    )
    reasons = ", ".join(
        f"{reason}: {count:,}"
        for reason, count in sorted(rejected.items(), key=lambda one: (-one[1], one[0]))
    )
    total = sum(rejected.values())
    return (
        f"{total:,} of {max(read, total):,} records were rejected ({reasons}): see "
        f"{_where(settings)}."
    )


def summarize_at_exit(settings: Settings) -> None:
    """Print the summary when this process ends by itself or after a signal."""

    def print_summary() -> None:
        line = summary(settings)
        if line is not None:
            show(line)

    atexit.register(print_summary)


def _on_standard_error(settings: Settings) -> bool:
    return settings.input != "kafka" and settings.output_file is None


def _where(settings: Settings) -> str:
    if settings.input == "kafka":
        return f"the topic {settings.rejected_topic!r}, or run `python -m dataflow replay`"
    assert settings.output_file is not None
    return f"the file {settings.output_file.with_suffix('.rejected.jsonl')}"
