"""ANOMALY_FIRST_DAY: a new member of a group begins with the habit of the group's median member.

Members lend their states once they have learned two days of readings, then each week. `score` asks
for one at an instance's first reading; `recovery/habits.py` repeats the answer after a restart.
"""

from __future__ import annotations

from typing import Any

from dataflow.detectors import AnyDetector
from dataflow.detectors.base import Lender
from dataflow.detectors.first_day import Newcomer
from dataflow.errors import UserError
from dataflow.groups import Groups
from dataflow.records import Reading, key_of
from dataflow.recovery.habits import MEMBERS, Habits, Place
from dataflow.recovery.store import Store
from dataflow.settings import Settings

__all__ = ["FirstDay", "Member", "of"]

LEARNED_DAYS = 2
EVERY_DAYS = 7
"""Days of readings after which a member lends its state, and again."""

WARM_UPS = 2
"""The least before it lends its state, in warm-ups, where readings come rarely."""


class Member:
    """What is kept of an instance for its own first day, and for that of others.

    `newcomer` is None but in the warm-up of a member that began with another's state. At `due`
    readings of `learned`, the member lends its state.
    """

    __slots__ = ("due", "learned", "newcomer")

    def __init__(self, due: int, newcomer: Newcomer | None = None) -> None:
        self.newcomer = newcomer
        self.learned = 0
        self.due = due


class FirstDay:
    """Lends the states of members of groups to new members of them."""

    def __init__(self, detector: Lender[Any], groups: Groups, interval: float, habits: Habits):
        self._detector = detector
        self._groups = groups
        self._habits = habits
        day = 86_400 / interval
        self._first = max(round(LEARNED_DAYS * day), WARM_UPS * detector.warm_up)
        self._every = max(round(EVERY_DAYS * day), 1)

    def begin(self, readings: list[Reading]) -> Member:
        """Return the member whose first readings these are."""
        first = readings[0]
        group = self._groups.of(first.instance, first.labels)
        # Hours are known by the readings' times only.
        if group is None or first.time is None:
            return Member(self._first)
        # A batch may be sorted by time, and the next run may have other batches: the first reading
        # in the partition begins all of them.
        place = min(Place(one.partition, one.offset, one.number) for one in readings)
        state = self._habits.begin(key_of(first), place, group, first.metric)
        if state is None:
            return Member(self._first)
        return Member(self._first, Newcomer(self._detector, self._detector.load(state)))

    def resumed(self, newcomer: bytes) -> Member:
        """Return a member from the recovery store; `newcomer` is empty after its warm-up."""
        found = Newcomer.load(self._detector, newcomer) if newcomer else None
        return Member(0, found)

    def lend(self, member: Member, state: Any, reading: Reading) -> None:
        """Lend a member's state, if it has learned enough; set when it is due again."""
        learned, level = self._detector.habit(state)
        resumed = member.due == 0
        member.learned = learned
        past = learned - self._first
        member.due = self._first if past < 0 else learned + self._every - past % self._every
        group = self._groups.of(reading.instance, reading.labels)
        if past < 0 or group is None or reading.time is None:
            return
        if resumed and self._habits.lends(group, reading.metric) >= MEMBERS:
            return
        data = self._detector.dump(state)
        self._habits.lend(group, reading.metric, key_of(reading), level, data)


def of(settings: Settings, detector: AnyDetector, store: Store | None) -> FirstDay | None:
    """Return what new members of groups begin with; None where ANOMALY_FIRST_DAY is off.

    Raises `UserError` if the detector's states cannot be lent, or a file of the store is damaged.
    """
    if not settings.first_day:
        return None
    if not isinstance(detector, Lender):
        raise UserError(
            f"ANOMALY_FIRST_DAY does not work with the detector {settings.detector}, whose states "
            "cannot be lent to another instance: leave it out, or use calibrated."
        )
    return FirstDay(detector, settings.groups, settings.interval, Habits(store))
