"""The detector of Bytewax's tutorial on anomalies in EC2 metrics, in River's half-space trees."""

from __future__ import annotations

from typing import Any, Final, TypeAlias, cast

from dataflow.detectors.base import Verdict
from dataflow.detectors.halfspace.forest import grow
from dataflow.detectors.halfspace.long import Window
from dataflow.detectors.halfspace.short import ShortWindows
from dataflow.detectors.halfspace.short_step import Step
from dataflow.detectors.halfspace.trees import Seed

__all__ = ["Tutorial"]

State: TypeAlias = bytes | Window
INFINITY: Final = float("inf")
REFUSAL: Final = "A reading's value must be a finite number, not {!r}."


class Tutorial:
    """Half-space trees in the tutorial's order: a reading is learned first, then scored.

    The scores are those of `river.anomaly.HalfSpaceTrees(n_trees, height, window_size, seed=seed)`
    over values from 0 to 1, bit for bit; `expected`, `lower` and `upper` are None. The defaults are
    the tutorial's.

    `update` scores a reading by the state *after* learning it, `score` by the state as it is given
    (River's `score_one`): the two differ for a reading that fills a window.

    >>> detector = Tutorial()
    >>> state = None
    >>> for value in (0.5, 0.45, 0.43, 0.44, 0.445, 0.9):
    ...     state, verdict = detector.update(state, value, None)
    >>> verdict.score
    0.8266666666666667
    """

    name = "tutorial"
    threshold = 0.7

    def __init__(
        self, n_trees: int = 5, height: int = 3, window_size: int = 5, seed: Seed = 42
    ) -> None:
        self._parameters = (n_trees, height, window_size, seed)
        forest: Any = grow(n_trees, height, window_size, (("value", (0.0, 1.0)),), seed)
        self._forest = forest
        # By its own type: what is compiled then calls it without Python.
        self._hot: Step | None = forest.hot if isinstance(forest, ShortWindows) else None

    def __reduce__(self) -> tuple[type[Tutorial], tuple[int, int, int, Seed]]:
        return type(self), self._parameters

    def score(self, state: State | None, value: float, time: float | None = None) -> Verdict:
        """Score a reading by the last full window of a state, leaving the state as it is."""
        if not -INFINITY < value < INFINITY:
            raise ValueError(REFUSAL.format(value))
        forest = self._forest
        if state is None:
            state = forest.start
        return Verdict(forest.score(state, forest.place(state, {"value": value})))

    def update(
        self, state: State | None, value: float, time: float | None = None
    ) -> tuple[State, Verdict]:
        """Learn a reading, then score it; the state after and the verdict."""
        if not -INFINITY < value < INFINITY:
            raise ValueError(REFUSAL.format(value))
        if self._hot is not None:
            return self._hot.take(b"" if state is None else cast("bytes", state), value)
        forest = self._forest
        after: tuple[State, Verdict] = forest.step(forest.start if state is None else state, value)
        return after

    def dump(self, state: State) -> bytes:
        """Return a state as bytes: 7 to 16 of them for the tutorial's parameters."""
        data: bytes = self._forest.dump(state)
        return data

    def load(self, data: bytes) -> State:
        """Read `dump`'s bytes; ValueError if they are another detector's or damaged."""
        state: State = self._forest.load(data)
        return state
