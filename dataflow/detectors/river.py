"""River's anomaly detectors, and your own models with the same two methods, as detectors.

    ANOMALY_DETECTOR=river.anomaly:HalfSpaceTrees

River's models keep all they learn in one object, so each instance has a model of its own: expect
kilobytes to megabytes per instance (HalfSpaceTrees with its defaults: 1.5 MB in memory, 170 kB each
time that it is stored), where the detectors of this package take 0.1 to 8 kB.
"""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import dataclass
from inspect import signature
from typing import Any, NamedTuple

from dataflow.detectors.base import PICKLED, Detector, Verdict
from dataflow.detectors.sealing import seal, unseal
from dataflow.errors import missing_river

try:
    from river import __version__ as river_version  # type: ignore[attr-defined]
except ModuleNotFoundError as missing:
    if missing.name != "river":
        raise
    raise missing_river() from None

__all__ = ["RiverDetector", "RiverModel"]


class RiverModel(NamedTuple):
    """A class with `score_one` and `learn_one`, or an object, which is copied for each instance."""

    name: str
    model: Any

    @property
    def needs_range(self) -> bool:
        """Whether values must lie in 0 to 1: where a class takes `limits`, as HalfSpaceTrees."""
        return "limits" in self._parameters()

    @property
    def compilable(self) -> bool:
        """Never."""
        return False

    def create(self, *, seed: int, interval: float, threshold: float | None) -> RiverDetector:
        """Return a detector of this model; a class that takes a seed gets it."""
        seeded = seed if "seed" in self._parameters() else None
        return RiverDetector(self.name, self.model, seeded, self.needs_range)

    def _parameters(self) -> frozenset[str]:
        return frozenset(signature(self.model).parameters if isinstance(self.model, type) else ())


@dataclass(frozen=True)
class RiverDetector(Detector[Any]):
    """Scores a reading with `score_one`, then learns it with `learn_one`, as River documents.

    The features are `{"value": value}`. A supervised model, such as River's GaussianScorer, gets no
    features and the value as its target. `expected`, `lower` and `upper` are None.

    Scores from 0 to 1 are passed on as they are; those below count as 0, those above as 1, NaN as
    0. A model with other scores is to be mapped to that range first. LocalOutlierFactor, for one,
    gives ordinary readings about 1:

        class Lof(LocalOutlierFactor):
            def score_one(self, x):
                return 1 - 1 / max(super().score_one(x), 1)

    The threshold is 0.5 unless another is set, and often has to be: the ordinary readings below
    score 0.75 (`python -m dataflow evaluate --tune` proposes one). A state is stored as a pickle
    of the model, marked with its name, its seed and River's version; others refuse it.

    >>> from river.anomaly import HalfSpaceTrees
    >>> detector = RiverDetector("trees", HalfSpaceTrees, seed=42)
    >>> state = None
    >>> for i in range(300):
    ...     state, verdict = detector.update(state, 0.4 + i % 7 / 100, None)
    >>> round(verdict.score, 2), round(detector.score(state, 0.95, None).score, 2)
    (0.75, 1.0)
    """

    model_name: str
    model: Any
    seed: int | None = None
    needs_range: bool = False  # type: ignore[misc]  # One class for models of both kinds.

    @property
    def name(self) -> str:
        """What `ANOMALY_DETECTOR` calls it."""
        return self.model_name

    def score(self, state: Any, value: float, time: float | None) -> Verdict:
        """Score a reading against a model and leave the model as it is."""
        if not math.isfinite(value):
            raise ValueError(f"A reading's value must be a finite number, not {value!r}.")
        model = self._new() if state is None else state
        return Verdict(_bounded(model.score_one(*_features(model, value))))

    def update(self, state: Any, value: float, time: float | None) -> tuple[Any, Verdict]:
        """Score a reading, then learn it."""
        if not math.isfinite(value):
            raise ValueError(f"A reading's value must be a finite number, not {value!r}.")
        model = self._new() if state is None else state
        features = _features(model, value)
        verdict = Verdict(_bounded(model.score_one(*features)))
        model.learn_one(*features)
        return model, verdict

    def dump(self, state: Any) -> bytes:
        """Return the model as bytes."""
        return seal(self._mark(), pickle.dumps(state))

    def load(self, data: bytes) -> Any:
        """Read the bytes of `dump`; ValueError for another name, seed or version of River."""
        return pickle.loads(unseal(self._mark(), data, self.name))

    def _new(self) -> Any:
        if not isinstance(self.model, type):
            return copy.deepcopy(self.model)
        return self.model() if self.seed is None else self.model(seed=self.seed)

    def _mark(self) -> bytes:
        return PICKLED + f"{self.name} seed={self.seed} River {river_version}\n".encode()


def _features(model: Any, value: float) -> tuple[Any, ...]:
    # River's own flag; a model that is not River's has none.
    return ({}, value) if getattr(model, "_supervised", False) else ({"value": value},)


def _bounded(score: float) -> float:
    if 0 <= score <= 1:
        return score
    return 1.0 if score > 1 else 0.0
