"""The machine's clock, on which Bytewax waits. Checked with Bytewax `CHECKED_WITH`.

Bytewax compares the times that it is given with the clock of the day. If that is set back by an
hour, no source is asked, no timer fires and no snapshot is taken for an hour, not even to shut
down. Durations of our own are measured by `time.monotonic`, which is never set.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from dataflow.errors import stop_process

__all__ = ["StepBack", "wake", "watch"]

TOLERATED = 5.0
"""Seconds by which the clock may step back: the flow stands still for as long."""

LOOK = 1.0
"""Seconds between two looks at the clock."""


def wake(after: float) -> datetime:
    """Return the time for Bytewax to call again, `after` seconds from now."""
    return datetime.now(UTC) + timedelta(seconds=after)


class StepBack:
    """Compares the clock of the day with one that is never set.

    >>> clock = StepBack(now=1000.0, monotonic=5.0)
    >>> clock.seconds(now=1060.0, monotonic=65.0), clock.seconds(now=9000.0, monotonic=66.0)
    (0.0, 0.0)
    >>> clock.seconds(now=5401.0, monotonic=67.0)
    3600.0
    """

    def __init__(self, now: float, monotonic: float) -> None:
        self._ahead = now - monotonic

    def seconds(self, now: float, monotonic: float) -> float:
        """Return by how many seconds the clock was set back since the last call, 0 if it was not.

        A clock that is slowed down for a while, as NTP does, was not set back.
        """
        ahead, self._ahead = self._ahead, now - monotonic
        return max(0.0, ahead - self._ahead)


def watch(end: Callable[[str], object] = stop_process) -> None:
    """Start a thread that ends the process, without a snapshot, when the clock was set back.

    The flow resumes from its last snapshot, by the new clock.
    """
    clock = StepBack(time.time(), time.monotonic())

    def look() -> None:
        while True:
            time.sleep(LOOK)
            back = clock.seconds(time.time(), time.monotonic())
            if back > TOLERATED:
                end(
                    f"the machine's clock was set back by {back:,.0f} s, and the flow would read "
                    "nothing until it has caught up: start the flow again."
                )
                return

    threading.Thread(target=look, name="clock", daemon=True).start()
