"""What a detector is. One module each; none of them knows of Kafka or Bytewax.

A detector is one immutable object for all instances: its parameters, its trees. What it has
learned of one instance is that instance's *state*, small and cheap to copy, which the caller keeps.
"""

from __future__ import annotations

from dataflow.detectors.base import AnyDetector, Detector, Verdict, WindowedDetector
from dataflow.errors import UserError

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


def compiled() -> bool:
    """Tell whether the hot code of the detectors runs compiled: faster, with the same results."""
    from dataflow.detectors.calibrated import detector

    return not detector.__file__.endswith(".py")


def make(
    name: str, *, seed: int = 42, interval: float = 300.0, threshold: float | None = None
) -> AnyDetector:
    """Make a detector by its name; ValueError if there is none of that name.

    A UserError if its library is not installed.

    `interval` is the usual time between two readings of an instance, in seconds: detectors whose
    constants are times (not counts of readings, as the tutorial's) scale them by it. `threshold`
    is the one that its scores will be compared with, if not its own: detectors that hold back
    repeated alerts must know it.

    >>> make("tutorial").threshold
    0.7
    """
    # A detector's libraries are loaded with the detector.
    if name == "calibrated":
        from dataflow.detectors.calibrated.detector import Calibrated

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
            from dataflow.detectors.isolation_forest import IsolationForest
        except ModuleNotFoundError as missing:
            if (missing.name or "").partition(".")[0] != "sklearn":
                raise
            raise UserError(
                "the detector isolation-forest needs scikit-learn: "
                "pip install 'ec2-anomaly-dataflow[isolation-forest]'."
            ) from None

        return IsolationForest(seed=seed)
    raise ValueError(f"There is no detector {name!r}; there are: {', '.join(NAMES)}.")
