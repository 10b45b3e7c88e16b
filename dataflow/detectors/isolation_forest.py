"""scikit-learn's isolation forest over windows of readings, each scored by its own window."""

from __future__ import annotations

import math
import struct
from array import array
from dataclasses import dataclass

import numpy as np

from dataflow.detectors.base import Verdict, WindowedDetector
from dataflow.detectors.sealing import damaged, seal, unseal
from dataflow.errors import missing_extra

try:
    from sklearn.ensemble import IsolationForest as Forest
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] != "sklearn":
        raise
    raise missing_extra("The detector isolation-forest", "isolation-forest") from None

__all__ = ["IsolationForest", "Windows"]

_MARK = b"isolation-forest\x01"
_HEAD = struct.Struct("<IIIdI")
# scikit-learn holds values in single precision, and raises for larger ones.
_LARGEST = float(np.finfo(np.float32).max)
_JUST_ABOVE = math.nextafter(0.5, 1)


class Windows:
    """The last full window of one instance (empty at first) and the present one.

    The first `judged` readings of the present window have their verdicts already: the input ended
    after them, and was continued later.
    """

    __slots__ = ("held", "judged", "last")

    def __init__(self, last: array[float], held: array[float], judged: int) -> None:
        self.last = last
        self.held = held
        self.judged = judged


@dataclass(frozen=True)
class IsolationForest(WindowedDetector[Windows]):
    """Gathers a window of readings, fits a forest on it, and scores the window with it.

    The forest is `sklearn.ensemble.IsolationForest(contamination=..., random_state=seed)` on the
    values alone. Its cut is set so that a share of `contamination` of the window lies beyond: it
    flags that share of every window, anomalous or not, and flags rare values as readily as extreme
    ones. Verdicts come when the window is full. If the input ends before, the rest is scored by the
    forest of the last full window or, if there was none, by one fitted on the rest itself.

    The score is (1 - d) / 2, where d is scikit-learn's `decision_function`, from -1 to 1: it lies
    above the threshold of 0.5 exactly where scikit-learn's `predict` says -1.

    A forest costs a fifth of a second and a megabyte, so none is stored: the state holds the values
    of at most two windows, and a forest is fitted when readings are scored. Values beyond 3.4e38
    count as 3.4e38, and a seed as its remainder by 2^32.

    >>> detector = IsolationForest(window=200)
    >>> state = None
    >>> for i in range(200):
    ...     state, verdicts = detector.update(state, 5.0 if i == 70 else math.sin(i / 10), None)
    >>> len(verdicts), verdicts[70].score > detector.threshold, verdicts[71].score > 0.5
    (200, True, False)

    References
    ----------
    Liu, Ting and Zhou, "Isolation Forest", ICDM 2008.
    """

    window: int = 1000
    contamination: float = 0.01
    seed: int = 42

    @property
    def name(self) -> str:
        """What `ANOMALY_DETECTOR` calls it."""
        return "isolation-forest"

    @property
    def threshold(self) -> float:
        """The score at which scikit-learn's `predict` cuts."""
        return 0.5

    @classmethod
    def create(cls, *, seed: int, interval: float, threshold: float | None) -> IsolationForest:
        """Return a detector with this seed; it uses neither interval nor threshold."""
        return cls(seed=seed)

    def update(
        self, state: Windows | None, value: float, time: float | None
    ) -> tuple[Windows, list[Verdict]]:
        """Take a reading; return the verdicts of a window when it is full, else none."""
        if not math.isfinite(value):
            raise ValueError(f"A reading's value must be a finite number, not {value!r}.")
        if state is None:
            state = Windows(array("d"), array("d"), 0)
        state.held.append(value)
        if len(state.held) < self.window:
            return state, []
        verdicts = self._judge(state.held, state.held[state.judged :])
        return Windows(state.held, array("d"), 0), verdicts

    def finish(self, state: Windows) -> tuple[Windows, list[Verdict]]:
        """Score the readings of a window that is not full; they stay in it, marked as judged."""
        waiting = state.held[state.judged :]
        if not waiting:
            return state, []
        verdicts = self._judge(state.last or state.held, waiting)
        state.judged = len(state.held)
        return state, verdicts

    def _judge(self, learned: array[float], judged: array[float]) -> list[Verdict]:
        """Fit a forest on some values and score others with it."""
        forest = Forest(contamination=self.contamination, random_state=self.seed % 2**32)
        forest.fit(_column(learned))
        verdicts = []
        for decision in forest.decision_function(_column(judged)).tolist():
            score = (1 - decision) / 2
            # Rounding must not bring an anomaly back to the threshold.
            verdicts.append(Verdict(max(score, _JUST_ABOVE) if decision < 0 else score))
        return verdicts

    def dump(self, state: Windows) -> bytes:
        """Return the state as bytes: 8 for each value, and 45."""
        values = np.array([*state.last, *state.held], "<f8")
        seed = self.seed % 2**32
        head = _HEAD.pack(self.window, len(state.last), state.judged, self.contamination, seed)
        body = head + values.tobytes()
        return seal(_MARK, body)

    def load(self, data: bytes) -> Windows:
        """Read the bytes of `dump`; raises ValueError if they are another detector's or damaged."""
        body = unseal(_MARK, data, self.name)
        if len(body) < _HEAD.size:
            raise damaged(data, self.name)
        window, last, judged, contamination, seed = _HEAD.unpack_from(body)
        if (window, contamination, seed) != (self.window, self.contamination, self.seed % 2**32):
            raise ValueError(
                f"This state of detector 'isolation-forest' has window {window}, contamination "
                f"{contamination} and seed {seed}, this detector has {self.window}, "
                f"{self.contamination} and {self.seed % 2**32}: set them as they were, or start "
                "with an empty recovery store."
            )
        values = array("d", np.frombuffer(body, "<f8", offset=_HEAD.size).tolist())
        return Windows(values[:last], values[last:], judged)


def _column(values: array[float]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    column = np.array(values).reshape(-1, 1)
    return column.clip(-_LARGEST, _LARGEST)
