"""What a detector is: the interfaces, and the verdict on a reading."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

__all__ = ["AnyDetector", "Detector", "State", "Verdict", "WindowedDetector"]


State = TypeVar("State")


class Verdict(NamedTuple):
    """What a detector says of one reading.

    `score` runs from 0 (as ever) to 1 (never seen the like). `expected`, `lower` and `upper` are
    what the detector thought normal, in the unit of the reading's value (0 to 1 for CPU), or None
    where it has no such thing.
    """

    score: float
    expected: float | None = None
    lower: float | None = None
    upper: float | None = None


class Detector(Protocol[State]):
    """Scores the readings of an instance, one after the other.

    `value` is finite (0 to 1 where the flow normalizes); `time` is in seconds since 1970, UTC, as
    the reading says, or None where readings carry no time. A value that is NaN or infinite raises
    ValueError and changes nothing. The state before the first reading is None.
    """

    @property
    def name(self) -> str:
        """What `ANOMALY_DETECTOR` calls it."""
        ...

    @property
    def threshold(self) -> float:
        """The threshold it ships with: a reading is an anomaly if its score lies above."""
        ...

    def score(self, state: State | None, value: float, time: float | None) -> Verdict:
        """Score a reading against a state, leaving the state as it is."""
        ...

    def update(
        self, state: State | None, value: float, time: float | None
    ) -> tuple[State, Verdict]:
        """Score a reading and learn it, in the detector's own order; the state after and verdict.

        The state that was given may be changed in place: use the one that comes back.
        """
        ...

    def dump(self, state: State) -> bytes:
        """Return the state as bytes that name their version."""
        ...

    def load(self, data: bytes) -> State:
        """Read `dump`'s bytes; ValueError if they are of another version or detector."""
        ...


@runtime_checkable
class WindowedDetector(Protocol[State]):
    """Gathers the readings of an instance and judges many at once, late.

    Values, times, thresholds and states are as with `Detector`. Verdicts come in the order of the
    readings, one for each: those that `update` or `finish` returns are for all the readings that
    had none, the oldest first. Whoever keeps the state keeps those readings beside it.
    """

    @property
    def name(self) -> str:
        """What `ANOMALY_DETECTOR` calls it."""
        ...

    @property
    def threshold(self) -> float:
        """The threshold it ships with: a reading is an anomaly if its score lies above."""
        ...

    def update(
        self, state: State | None, value: float, time: float | None
    ) -> tuple[State, Sequence[Verdict]]:
        """Take a reading; the state after, and no verdict or all that are due.

        The state that was given may be changed in place: use the one that comes back.
        """
        ...

    def finish(self, state: State) -> tuple[State, Sequence[Verdict]]:
        """Judge what has no verdict yet, because the input ended; the state after can go on."""
        ...

    def dump(self, state: State) -> bytes:
        """Return the state as bytes that name their version."""
        ...

    def load(self, data: bytes) -> State:
        """Read `dump`'s bytes; ValueError if they are of another version or detector."""
        ...


AnyDetector: TypeAlias = Detector[Any] | WindowedDetector[Any]
