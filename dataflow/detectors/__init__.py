"""The detectors, by name. None of them imports Kafka or Bytewax.

A detector is one immutable object for all instances: its parameters, its trees. What it has
learned of one instance is that instance's *state*, small and cheap to copy, which the caller keeps.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

from dataflow.detectors.base import AnyDetector, Detector, Verdict, WindowedDetector
from dataflow.errors import UserError
from dataflow.plugins import Kind, load

__all__ = [
    "KIND",
    "NAMES",
    "AnyDetector",
    "Detector",
    "DetectorClass",
    "Verdict",
    "WindowedDetector",
    "compiled",
    "find",
    "make",
]

KIND = Kind(
    what="detector",
    setting="ANOMALY_DETECTOR",
    group="dataflow.detectors",
    built_in={
        "calibrated": "dataflow.detectors.calibrated.detector:Calibrated",
        "tutorial": "dataflow.detectors.tutorial:Tutorial",
        "zscore": "dataflow.detectors.zscore:ZScore",
        "rcf": "dataflow.detectors.rcf.detector:RandomCutForest",
        "isolation-forest": "dataflow.detectors.isolation_forest:IsolationForest",
    },
)

"""A new built-in detector is a file beside this one and a line here."""

NAMES = tuple(KIND.built_in)
"""The detectors of this package."""


class DetectorClass(Protocol):
    """What `find` returns: a detector's class, or what makes a detector of a River model."""

    @property
    def needs_range(self) -> bool:
        """Whether values must lie in 0 to 1."""
        ...

    @property
    def compilable(self) -> bool:
        """Whether `hatch_build.py` compiles its hot code."""
        ...

    def create(self, *, seed: int, interval: float, threshold: float | None) -> AnyDetector:
        """Return a detector for these settings; see `Detector.create`."""
        ...


_MEMBERS = ("create", "update", "dump", "load", "name", "needs_range", "compilable")


def compiled() -> bool:
    """Return whether the hot code of the detectors runs compiled: faster, with the same results."""
    from dataflow.detectors.calibrated import detector

    return not detector.__file__.endswith(".py")


def find(name: str, setting: str = KIND.setting) -> DetectorClass:
    """Return the class of a detector: built-in, an entry point, or `module:Class`.

    A River model (a class or an object with `score_one` and `learn_one`) becomes a detector.
    `setting` is what gave the name, for messages. Its libraries are imported with a detector.

    Raises `UserError` if nothing has this name, if it is not a detector, or if its libraries are
    not installed.

    >>> find("tutorial").needs_range
    True
    """
    part: Any = load(KIND._replace(setting=setting), name)
    if not hasattr(part, "update") and hasattr(part, "score_one") and hasattr(part, "learn_one"):
        from dataflow.detectors.river import RiverModel

        return RiverModel(name, part)
    if not (isinstance(part, type) and all(hasattr(part, member) for member in _MEMBERS)):
        raise UserError(
            f"{setting} names {name!r}, which is not a detector: subclass "
            "dataflow.detectors.Detector or WindowedDetector, or name a River model with score_one "
            "and learn_one."
        )
    return cast("DetectorClass", part)


def make(
    name: str, *, seed: int = 42, interval: float = 300.0, threshold: float | None = None
) -> AnyDetector:
    """Make a detector by its name.

    `interval` is the usual time between two readings of an instance, in seconds: detectors whose
    constants are times, not counts of readings, scale them by it. `threshold` is the one that
    scores are compared with, None for the detector's own: detectors that hold back repeated alerts
    depend on it.

    Raises `UserError` as `find` does, and ValueError if the detector cannot work with the values.

    >>> make("tutorial").threshold
    0.7
    """
    return find(name).create(seed=seed, interval=interval, threshold=threshold)
