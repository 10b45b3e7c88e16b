"""Which time the page shows: the present, or an earlier one because the readings are old. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from dataflow.dashboard.status import Condition, Tone, clock_text, lasting

__all__ = ["Age", "Present", "condition", "present"]


class Age(StrEnum):
    """How the newest readings relate to the machine's clock."""

    LIVE = "live"
    """They are of now."""
    OLD = "old"
    """They arrive now, but their times are past: a replay, or wrong clocks."""
    DEAD = "dead"
    """None arrives."""
    ENDED = "ended"
    """They are those of a file, which is read to its end."""


class Present(NamedTuple):
    """`time` is what the page takes for now, None if readings have no time.

    `quiet` are the seconds since a reading arrived, as far as it is known.
    """

    age: Age
    time: float | None
    quiet: float


def present(
    clock: float | None, now: float, arrived: float | None, patience: float, *, ends: bool
) -> Present:
    """Return which time is the present for readings whose clock is `clock`.

    `now` is the machine's clock, `arrived` when the last reading was written or read, both in
    seconds since 1970. Readings are late after `patience` seconds. `ends`: the input is a file.

    >>> present(1000.0, 1060.0, 1060.0, 900.0, ends=False)
    Present(age=<Age.LIVE: 'live'>, time=1060.0, quiet=0.0)
    >>> present(1000.0, 9e6, 9e6 - 5, 900.0, ends=False)
    Present(age=<Age.OLD: 'old'>, time=1000.0, quiet=5.0)
    >>> present(1000.0, 9e6, 1000.0, 900.0, ends=False).age.value
    'dead'
    """
    quiet = now - (arrived if arrived is not None else now if clock is None else clock)
    quiet = max(0.0, quiet)
    if ends:
        return Present(Age.ENDED, clock, quiet)
    if clock is not None and now - clock <= patience:
        return Present(Age.LIVE, max(now, clock), quiet)
    if arrived is not None and quiet <= patience:
        return Present(Age.LIVE if clock is None else Age.OLD, clock, quiet)
    return Present(Age.DEAD, None if clock is None else now, quiet)


def condition(read: Condition, shown: Present, clock: float | None, now: float) -> Condition:
    """Return what the status line says of a feed that has read everything, as `read` says."""
    newest = ""
    if clock is not None:
        newest = f"{clock_text(clock)}, {lasting(now - clock)} ago"
    if shown.age is Age.ENDED:
        more = f"{read.happening} The newest reading is of {newest}." if newest else read.happening
        return Condition(Tone.IDLE, read.title, more)
    if shown.age is Age.OLD:
        return Condition(
            Tone.IDLE,
            "Old readings",
            f"Readings arrive, but the newest is of {newest}: the page shows that time.",
            "If they are not a replay, check the clocks of the hosts and ANOMALY_TIME_FIELD.",
        )
    if shown.age is Age.DEAD:
        return Condition(
            Tone.TROUBLE,
            f"No data for {lasting(shown.quiet)}",
            f"No reading arrives; the newest is of {newest}." if newest else "No reading arrives.",
            "Check what writes to the topic.",
        )
    return read
