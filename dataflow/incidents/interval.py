"""Notices that readings come at another interval than the setting says. Pure."""

from __future__ import annotations

from statistics import median

from dataflow.records import Reading

__all__ = ["IntervalCheck"]

FEW = 20
"""Steps between readings of one instance whose median is compared: a gap does not change it."""

APART = 2.0
"""Factor between the median and the setting from which the setting is taken to be wrong."""


class IntervalCheck:
    """Compares the steps between readings with the interval of the settings, in seconds.

    It takes the first steps of all instances together, until there are `FEW`.

    >>> check = IntervalCheck(300.0)
    >>> readings = [Reading("host-a", None, at, 0.5, 3600.0 * at, 0, at) for at in range(30)]
    >>> said = [check.add(*pair) for pair in zip(readings, readings[1:])]
    >>> [step for step in said if step is not None]
    [3600.0]
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._steps: list[float] | None = []

    @property
    def done(self) -> bool:
        """Whether nothing more is to be compared."""
        return self._steps is None

    def add(self, last: Reading | None, reading: Reading) -> float | None:
        """Take a reading and the one before it.

        Returns, once, the usual step if it disagrees with the setting by more than `APART`.
        """
        steps = self._steps
        if steps is None or last is None or last.time is None or reading.time is None:
            return None
        step = reading.time - last.time
        if step <= 0:
            return None
        steps.append(step)
        if len(steps) < FEW:
            return None
        self._steps = None
        usual = median(steps)
        agrees = self._interval / APART <= usual <= self._interval * APART
        return None if agrees else usual
