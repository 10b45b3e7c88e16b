"""What a detector is. One module each; none of them knows of Kafka or Bytewax.

A detector is one immutable object for all instances: its parameters, its trees. What it has
learned of one instance is that instance's *state*, small and cheap to copy, which the caller keeps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

from dataflow.refusal import Refusal

__all__ = [
    "COMPILED",
    "NAMES",
    "NEED_RANGE",
    "AnyDetector",
    "Detector",
    "Verdict",
    "WindowedDetector",
    "compiled",
    "make",
]

NAMES = ("calibrated", "tutorial", "zscore", "isolation-forest")
"""The detectors that `make` makes."""

COMPILED = ("tutorial", "calibrated")
"""Detectors whose hot code is compiled where that can be: `hatch_build.py` names the files."""

NEED_RANGE = frozenset({"tutorial"})
"""Detectors whose values must lie in 0 to 1; the others scale for themselves."""

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


def compiled() -> bool:
    """Tell whether the hot code of the detectors runs compiled: faster, with the same results."""
    from dataflow.detectors import calibrated

    return not calibrated.__file__.endswith(".py")


AnyDetector: TypeAlias = Detector[Any] | WindowedDetector[Any]


def make(
    name: str, *, seed: int = 42, interval: float = 300.0, threshold: float | None = None
) -> AnyDetector:
    """Make a detector by its name; ValueError if there is none of that name.

    A Refusal if its library is not installed.

    `interval` is the usual time between two readings of an instance, in seconds: detectors whose
    constants are times (not counts of readings, as the tutorial's) scale them by it. `threshold`
    is the one that its scores will be compared with, if not its own: detectors that hold back
    repeated alerts must know it.

    >>> make("tutorial").threshold
    0.7
    """
    # A detector's libraries are loaded with the detector.
    if name == "calibrated":
        from dataflow.detectors.calibrated import Calibrated

        if threshold is None:
            return Calibrated(seed=seed, interval=interval)
        return Calibrated(seed=seed, interval=interval, threshold=threshold)
    if name == "tutorial":
        from dataflow.detectors.tutorial import Tutorial

        return Tutorial(seed=seed)
    if name == "zscore":
        from dataflow.detectors.zscore import ZScore

        return ZScore()
    if name == "isolation-forest":
        try:
            from dataflow.detectors.isolation import IsolationForest
        except ModuleNotFoundError as missing:
            if (missing.name or "").partition(".")[0] != "sklearn":
                raise
            raise Refusal(
                "the detector isolation-forest needs scikit-learn: "
                "pip install 'ec2-anomaly-dataflow[isolation-forest]'."
            ) from None

        return IsolationForest(seed=seed)
    raise ValueError(f"There is no detector {name!r}; there are: {', '.join(NAMES)}.")
