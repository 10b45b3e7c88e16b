"""Notices values from 0 to 1 where those of the scale are awaited, which is mostly 100. Pure.

Anomalies are found all the same, but their values are reported 100 times too small, and incidents
that go by the value never open.
"""

from __future__ import annotations

from collections.abc import Iterable

from dataflow.records import Reading
from dataflow.settings import Settings

__all__ = ["Shares", "shares_warning"]

READINGS = 100
"""Readings after which it is decided: one above 1 decides at once."""


class Shares:
    """Watches the first readings of all instances, but for those of further metrics.

    `found` says that all of them lie from 0 to 1, and some between.

    >>> def reading(value: float) -> Reading:
    ...     return Reading("i-1", None, 0, value, None, 0, 0)
    >>> shares = Shares()
    >>> shares.look([("i-1", [reading(number / 100) for number in range(100)])])
    >>> shares.done, shares.found
    (True, True)
    """

    def __init__(self) -> None:
        self._count = 0
        self._between = False
        self.done = False
        """Whether it is decided, so that no more readings need be looked at."""
        self.found = False

    def look(self, groups: Iterable[tuple[str, list[Reading]]]) -> None:
        """Take the readings of a batch, by instance, before they are normalized."""
        for _, readings in groups:
            if readings[0].metric is not None:  # it has a unit of its own
                continue
            for reading in readings:
                if reading.value > 1.0:
                    self.done = True
                    return
                self._between = self._between or 0.0 < reading.value < 1.0
            self._count += len(readings)
        if self._count >= READINGS:
            self.done, self.found = True, self._between


def shares_warning(settings: Settings) -> str:
    """Return what is said of shares at the scale of the settings.

    >>> shares_warning(Settings(_env_file=None)).partition(":")[0]
    "the first values of 'value' all lie between 0 and 1, and ANOMALY_SCALE is 100"
    """
    return (
        f"the first values of {settings.value_field!r} all lie between 0 and 1, and ANOMALY_SCALE "
        f"is {settings.scale:g}: if they are shares of 1, set ANOMALY_SCALE=1, with a new recovery "
        f"store, or anomalies are reported {settings.scale:g} times too small."
    )
