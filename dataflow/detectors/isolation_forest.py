"""scikit-learn's isolation forest over windows of readings: each is judged by its own window."""

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
# scikit-learn holds readings in single precision, and refuses what that cannot hold.
_LARGEST = float(np.finfo(np.float32).max)
_JUST_ABOVE = math.nextafter(0.5, 1)


class Windows:
    """The last full window of one instance (empty at first) and the present one.

    `judged` readings of the present window have their verdicts already: the input ended after
    them, and went on.
    """

    __slots__ = ("held", "judged", "last")

    def __init__(self, last: array[float], held: array[float], judged: int) -> None:
        self.last = last
        self.held = held
        self.judged = judged


@dataclass(frozen=True)
class IsolationForest(WindowedDetector[Windows]):
    """Gathers a window of readings, fits a forest on it, and judges the window by it.

    The forest is `sklearn.ensemble.IsolationForest(contamination=..., random_state=seed)` on the
    values alone. Its cut is set so that a share of `contamination` of the window lies beyond: it
    finds that share in every window, whether there is anything to find or not, and what is rare
    without being extreme as readily as what is extreme. Verdicts come when the window is full.
    Where the input ends before, they are the last full window's forest's; if there was none, that
    of a forest fitted on what there is.

    The score is (1 - d) / 2, where d is scikit-learn's `decision_function`, from -1 to 1: it lies
    above the threshold of 0.5 exactly where scikit-learn's `predict` says -1.

    A forest costs a fifth of a second and a megabyte, so none is kept: the state holds values, of
    at most two windows, and a forest is fitted when there is something to judge. Readings beyond
    3.4e38 are taken for that, and a seed for its remainder by 2^32.

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
        """Where scikit-learn's `predict` cuts."""
        return 0.5

    @classmethod
    def create(cls, *, seed: int, interval: float, threshold: float | None) -> IsolationForest:
        """Return a detector with this seed; it uses neither interval nor threshold."""
        return cls(seed=seed)

    def update(
        self, state: Windows | None, value: float, time: float | None
    ) -> tuple[Windows, list[Verdict]]:
        """Take a reading; the verdicts on a window's readings when it is full, else none."""
        if not math.isfinite(value):
            raise ValueError(f"A reading must be a finite number, not {value}.")
        if state is None:
            state = Windows(array("d"), array("d"), 0)
        state.held.append(value)
        if len(state.held) < self.window:
            return state, []
        verdicts = self._judge(state.held, state.held[state.judged :])
        return Windows(state.held, array("d"), 0), verdicts

    def finish(self, state: Windows) -> tuple[Windows, list[Verdict]]:
        """Judge the readings of a window that will not be filled; they stay in it, judged."""
        waiting = state.held[state.judged :]
        if not waiting:
            return state, []
        verdicts = self._judge(state.last or state.held, waiting)
        state.judged = len(state.held)
        return state, verdicts

    def _judge(self, learned: array[float], judged: array[float]) -> list[Verdict]:
        """Fit a forest on some values and judge others by it."""
        forest = Forest(contamination=self.contamination, random_state=self.seed % 2**32)
        forest.fit(_column(learned))
        verdicts = []
        for decision in forest.decision_function(_column(judged)).tolist():
            score = (1 - decision) / 2
            # Rounding must not take a reading back from beyond the cut.
            verdicts.append(Verdict(max(score, _JUST_ABOVE) if decision < 0 else score))
        return verdicts

    def dump(self, state: Windows) -> bytes:
        """Return the state as bytes that name their version: 8 for each value, and 45."""
        values = np.array([*state.last, *state.held], "<f8")
        seed = self.seed % 2**32
        head = _HEAD.pack(self.window, len(state.last), state.judged, self.contamination, seed)
        body = head + values.tobytes()
        return seal(_MARK, body)

    def load(self, data: bytes) -> Windows:
        """Read `dump`'s bytes; ValueError if they are another detector's or damaged."""
        body = unseal(_MARK, data, self.name)
        if len(body) < _HEAD.size:
            raise damaged(data, self.name)
        window, last, judged, contamination, seed = _HEAD.unpack_from(body)
        if (window, contamination, seed) != (self.window, self.contamination, self.seed % 2**32):
            raise ValueError(
                f"A state of isolation-forest with the window {window}, contamination "
                f"{contamination} and seed {seed}: this one has other ones."
            )
        values = array("d", np.frombuffer(body, "<f8", offset=_HEAD.size).tolist())
        return Windows(values[:last], values[last:], judged)


def _column(values: array[float]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    column = np.array(values).reshape(-1, 1)
    return column.clip(-_LARGEST, _LARGEST)
