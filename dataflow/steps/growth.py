"""Notices a value that only grows: a counter, such as bytes received, in place of its rate. Pure.

No detector finds an anomaly in such values, and with a scale all but the first are out of range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dataflow.records import Reading, series_parts
from dataflow.settings import Settings
from dataflow.warnings import Warnings

__all__ = ["OnlyGrows", "grown_warning"]

READINGS = 50
"""Readings of an instance after which it is decided, if its values have no bounds."""

BOUNDED = 300
"""The same for values of a scale: CPU may rise for half a day."""

AT_ONCE = 16
"""Instances that are watched at the same time."""

MOST = 1000
"""Instances that are watched at all: most are done after two or three readings."""


class _Values:
    """The values of one instance so far."""

    __slots__ = ("count", "last", "rises")

    def __init__(self) -> None:
        self.count = 0
        self.rises = 0
        self.last = float("-inf")


class OnlyGrows:
    """Watches the values of a few instances until they fall, which most do soon.

    `found` is called once, with the first instance whose values never fell in `readings` readings,
    and rose more often than not.

    >>> found = []
    >>> grows = OnlyGrows(found.append, readings=50)
    >>> for value in range(50):
    ...     grows.add("a-counter", value)
    ...     grows.add("a-load", value * 7 % 10)
    >>> found
    ['a-counter']
    """

    def __init__(self, found: Callable[[str], object], readings: int) -> None:
        self._found = found
        self._readings = readings
        self._watched: dict[str, _Values] = {}
        self._seen: set[str] = set()
        self.done = False
        """Whether nothing more will be found, so that nothing need be added."""

    def look(self, groups: Iterable[tuple[str, list[Reading]]]) -> None:
        """Take the readings of a batch, by instance."""
        watched = self._watched
        for instance, readings in groups:
            # As a rule, as many are watched as may be, and this one is not.
            if instance in watched or (len(watched) < AT_ONCE and self._begins(instance)):
                for reading in readings:
                    self.add(instance, reading.value)
                if self.done:
                    return

    def add(self, instance: str, value: float) -> None:
        """Take the next value of an instance."""
        if self.done:
            return
        values = self._watched.get(instance)
        if values is None:
            if not self._begins(instance):
                return
            values = self._watched[instance]
        values.count += 1
        values.rises += value > values.last
        if value < values.last:
            self._end(instance)
        elif values.count >= self._readings:
            self._end(instance)
            if 2 * values.rises > values.count:
                self.done = True
                self._found(instance)
        values.last = value

    def _begins(self, instance: str) -> bool:
        if len(self._watched) >= AT_ONCE or instance in self._seen or len(self._seen) >= MOST:
            return False
        self._seen.add(instance)
        self._watched[instance] = _Values()
        return True

    def _end(self, instance: str) -> None:
        self._watched.pop(instance, None)
        if not self._watched and len(self._seen) >= MOST:
            self.done = True


def grown_warning(settings: Settings, warnings: Warnings) -> Callable[[str], None]:
    """Return what `OnlyGrows` calls: it warns once."""

    def warn(key: str) -> None:
        instance, metric = series_parts(key)
        warnings.once(
            "only-grows",
            f"the values of {metric or settings.value_field!r} of the instance {instance!r} only "
            "grow: this looks like a counter; send its rate instead, the difference per second.",
        )

    return warn
