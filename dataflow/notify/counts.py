"""What one target was sent, and what it was not."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

__all__ = ["HELD_BACK", "Counts"]

HELD_BACK = ("history", "superseded", "repeated", "folded", "invalid")
"""Why records are not sent: too old when written, followed by a later record of the incident, in
the topic twice, part of a group's incident, or no incident."""


@dataclass
class Counts:
    """The counts of one target since the start, which its thread changes; any thread may read.

    `sent` counts records by state, `failed` the posts without success, `rejected` the records that
    the target will never accept, `held_back` the records that are not sent, by reason. `waiting`
    records are in the queue; `oldest` and `last_sent` are seconds since 1970. `accepting` is False
    while the target does not accept records. `turned` is when the thread was last at work, by
    `time.monotonic`.
    """

    sent: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    rejected: int = 0
    held_back: Counter[str] = field(default_factory=Counter)
    waiting: int = 0
    oldest: float | None = None
    open: int = 0
    last_sent: float | None = None
    accepting: bool = True
    turned: float = field(default_factory=time.monotonic)
