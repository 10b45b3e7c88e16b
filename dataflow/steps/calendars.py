"""The clocks of instances that the settings ask for."""

from __future__ import annotations

from collections.abc import Callable

from dataflow.calendars import holidays, zones
from dataflow.calendars.clock import Clock, clocks
from dataflow.settings import Settings

__all__ = ["of"]


def of(settings: Settings) -> Callable[[str], Clock | None] | None:
    """Return the function from an instance to its clock; None if all live by UTC."""
    return clocks(zones.parse(settings.time_zone), holidays.parse(settings.holidays))
