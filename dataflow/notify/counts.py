"""What one target was sent, and what it was not."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

__all__ = ["HELD_BACK", "Counts"]

HELD_BACK = ("history", "superseded", "repeated", "folded", "pages", "invalid")
"""Why records are not sent: too old when written, followed by a later record of the incident, in
the topic twice, part of a group's incident, over the pages of a day, or no incident."""

MOST_TEAMS = 50
"""Teams that are counted by name."""

OTHER_TEAMS = "(others)"


@dataclass
class Counts:
    """The counts of one target since the start, which its thread changes; any thread may read.

    `sent` counts records by state, `failed` the posts without success, `rejected` the records that
    the target will never accept, `held_back` the records that are not sent, by reason. `by_team`
    counts the incidents over the pages of a day, and `digests` what names them. `waiting`
    records are in the queue; `oldest` and `last_sent` are seconds since 1970. `accepting` is False
    while the target does not accept records. `turned` is when the thread was last at work, by
    `time.monotonic`.
    """

    sent: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    rejected: int = 0
    held_back: Counter[str] = field(default_factory=Counter)
    by_team: Counter[str] = field(default_factory=Counter)
    digests: int = 0
    waiting: int = 0
    oldest: float | None = None
    open: int = 0
    last_sent: float | None = None
    accepting: bool = True
    turned: float = field(default_factory=time.monotonic)

    def hold_back(self, team: str, incidents: int) -> None:
        """Count incidents of a team; teams after the first 50 are one."""
        known = team in self.by_team or len(self.by_team) < MOST_TEAMS
        self.by_team[team if known else OTHER_TEAMS] += incidents
