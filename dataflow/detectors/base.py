"""What a detector is: the classes to subclass for your own, and the verdict on a reading."""

from __future__ import annotations

import copy
import pickle
from abc import abstractmethod
from collections.abc import Sequence
from typing import (
    Any,
    ClassVar,
    NamedTuple,
    Protocol,
    Self,
    TypeAlias,
    TypeVar,
    runtime_checkable,
)

from dataflow.detectors.sealing import seal, unseal
from dataflow.records import Explanation, Kind, Reason

__all__ = [
    "PICKLED",
    "AnyDetector",
    "Detector",
    "Explanation",
    "Habit",
    "Kind",
    "Lender",
    "Reason",
    "State",
    "Verdict",
    "WindowedDetector",
]


State = TypeVar("State")

PICKLED = b"pickled/1 "
"""Begins the bytes of a state that is stored as a pickle; a line that names the class follows."""


class Verdict(NamedTuple):
    """What a detector says of one reading.

    `score` runs from 0 (ordinary) to 1 (never seen before). `expected`, `lower` and `upper` are
    the ordinary level and range of the reading, in the unit of its value (0 to 1 for CPU), or None
    where the detector has none. `near`: the value itself is as expected, so that it is no alert,
    however rare the readings just before it were.
    """

    score: float
    expected: float | None = None
    lower: float | None = None
    upper: float | None = None
    near: bool = False


class _Base(Protocol[State]):
    """What both kinds of detector have in common."""

    needs_range: ClassVar[bool] = False
    """Whether values must lie in 0 to 1; if not, the detector scales them itself."""

    compilable: ClassVar[bool] = False
    """Whether `hatch_build.py` compiles the hot code of this detector."""

    @property
    def name(self) -> str:
        """The name that anomalies carry; by default that of the class."""
        return type(self).__name__

    @property
    def threshold(self) -> float:
        """The threshold that is used if no other is set: a score above it is an anomaly."""
        return 0.5

    @classmethod
    def create(cls, *, seed: int, interval: float, threshold: float | None) -> Self:
        """Return a detector for these settings; by default `cls()`, which uses none of them.

        `seed` draws what is random, `interval` is the usual time between two readings of an
        instance in seconds, `threshold` the one that scores are compared with, None for the
        detector's own. Raises ValueError if the detector cannot work with them.
        """
        return cls()

    def dump(self, state: State) -> bytes:
        """Return the state as bytes that name their version.

        By default a pickle with a checksum. Override `dump` and `load` for fewer bytes, or for
        bytes that stay readable when the class of the state changes.
        """
        return seal(_pickle_mark(self), pickle.dumps(state))

    def load(self, data: bytes) -> State:
        """Read the bytes of `dump`; ValueError if they are another detector's or damaged."""
        state: State = pickle.loads(unseal(_pickle_mark(self), data, self.name))
        return state


@runtime_checkable
class Detector(_Base[State], Protocol[State]):
    """Scores the readings of an instance, one after the other. Subclass it and write `update`.

    One detector serves all instances; what it has learned of one instance is that instance's
    state, which the caller keeps. The state before the first reading is None.

    `value` is finite (0 to 1 where the flow normalizes). `time` is in seconds since 1970, UTC, as
    the reading says, or None where readings carry no time. With ANOMALY_TIME_ZONE it is as if the
    local time were UTC, and with ANOMALY_HOLIDAYS a holiday has the date of another day, a Sunday.
    A value that is NaN or infinite raises ValueError and changes nothing.

    >>> class Jump(Detector[float]):
    ...     def update(self, state, value, time):
    ...         return value, Verdict(0.0 if state is None else min(abs(value - state), 1.0))
    >>> jump = Jump.create(seed=42, interval=300.0, threshold=None)
    >>> state, _ = jump.update(None, 0.25, None)
    >>> jump.score(state, 1.0, None).score
    0.75
    >>> jump.name, jump.threshold, jump.load(jump.dump(state))
    ('Jump', 0.5, 0.25)
    """

    @abstractmethod
    def update(
        self, state: State | None, value: float, time: float | None
    ) -> tuple[State, Verdict]:
        """Score and learn a reading, in the detector's own order; return state and verdict.

        The given state may be changed in place: continue with the returned one.
        """
        ...

    def explain_from(self, score: float) -> None:
        """Let `before` also return the states before readings with a score above this one.

        It is called where rules have a lower threshold than the settings. What the detector learns
        must not depend on it. Nothing, by default.
        """
        return

    def before(self, state: State) -> State | None:
        """Return the state before the last reading if that was an anomaly, for `explain`.

        None, the default, if the detector does not keep it. It is given once.
        """
        return None

    def explain(
        self, before: State, value: float, time: float | None, ordinary: bool
    ) -> Explanation | None:
        """Return why a reading is an anomaly to the state before it, which stays as it is.

        None, the default, if the detector cannot say. `ordinary` asks for the range of ordinary
        values too, which takes longer.
        """
        return None

    def score(self, state: State | None, value: float, time: float | None) -> Verdict:
        """Score a reading against a state and leave the state as it is.

        The flow calls `update` only. This is for asking a state what it would say of other values,
        as a search for the range of ordinary ones does. By default it updates a deep copy.
        """
        return self.update(copy.deepcopy(state), value, time)[1]


class Habit(NamedTuple):
    """What a state holds: how many readings it has learned, and the level of their values."""

    readings: int
    level: float


@runtime_checkable
class Lender(Detector[State], Protocol[State]):
    """A detector whose states can judge the first readings of another instance of the same group.

    Write both of these beside `update`, for ANOMALY_FIRST_DAY. Scores of another instance need the
    expected value and its bounds in each verdict.
    """

    @property
    @abstractmethod
    def warm_up(self) -> int:
        """The readings of a new instance that are never anomalies."""
        ...

    @abstractmethod
    def habit(self, state: State) -> Habit:
        """Return what a state has learned; the level changes little in the course of a day."""
        ...


@runtime_checkable
class WindowedDetector(_Base[State], Protocol[State]):
    """Gathers readings of an instance and scores many at once, late.

    Subclass it and write `update` and `finish`. Values, times, thresholds and states are as with
    `Detector`. Verdicts come in the order of the readings, one for each: those that `update` or
    `finish` returns are for all the readings that had none, the oldest first. The caller keeps
    these readings beside the state.
    """

    @abstractmethod
    def update(
        self, state: State | None, value: float, time: float | None
    ) -> tuple[State, Sequence[Verdict]]:
        """Take a reading; return the state after it, and no verdict or all that are missing.

        The given state may be changed in place: continue with the returned one.
        """
        ...

    @abstractmethod
    def finish(self, state: State) -> tuple[State, Sequence[Verdict]]:
        """Score what has no verdict yet, because the input ended.

        The returned state can take further readings.
        """
        ...


AnyDetector: TypeAlias = Detector[Any] | WindowedDetector[Any]


def _pickle_mark(detector: _Base[Any]) -> bytes:
    kind = type(detector)
    return PICKLED + f"{kind.__module__}.{kind.__qualname__}\n".encode()
