"""Half-space trees that take bytes where River's take kilobytes, equal to River's to the bit.

The trees depend on nothing that is learned: they are drawn once (`trees`) and shared. A
key keeps which cells its last full window and its present window hit: a few immutable bytes for
short windows (`short`), sorted arrays for long ones (`long`).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import lru_cache
from random import SystemRandom
from typing import Any, cast

from river.base import AnomalyDetector

from dataflow.detectors.halfspace.long import LongWindows, WideWindows
from dataflow.detectors.halfspace.short import ShortWindows
from dataflow.detectors.halfspace.trees import Limits, Seed, draw

__all__ = ["HalfSpaceTrees", "grow", "grow_wide"]


# typed: 1e100 and int(1e100) are equal, and seed random.Random differently.
@lru_cache(maxsize=64, typed=True)
def grow(
    n_trees: int, height: int, window_size: int, limits: Limits, seed: Seed
) -> ShortWindows | LongWindows | WideWindows:
    """Return the forest for these parameters, the same object each time, in its cheapest form.

    All forms have `start`, `place(state, x)`, `learn(state, place)`, `score(state, place)`,
    `dump(state)` and `load(data)`. A state that was given to `learn` may be changed in place.

    >>> forest = grow(5, 3, 5, (("x", (0.0, 1.0)),), 42)
    >>> state = forest.start
    >>> for x in (0.5, 0.45, 0.43, 0.44, 0.445):
    ...     state = forest.learn(state, forest.place(state, {"x": x}))
    >>> forest.score(state, forest.place(state, {"x": 0.9}))
    0.8266666666666667
    >>> len(forest.dump(state))
    12
    """
    if len(limits) == 1:
        forest = draw(n_trees, height, window_size, limits, seed)
        form = ShortWindows if ShortWindows.fits(forest) else LongWindows
        return form(forest, limits[0][0])
    return grow_wide(n_trees, height, window_size, limits, seed)


@lru_cache(maxsize=64, typed=True)
def grow_wide(
    n_trees: int, height: int, window_size: int, limits: Limits, seed: Seed
) -> WideWindows:
    """Return the forest in the form that bears readings which lack a feature, even the only one."""
    return WideWindows(draw(n_trees, height, window_size, limits, seed))


class HalfSpaceTrees(AnomalyDetector):
    """River's `anomaly.HalfSpaceTrees` in a compact form: the same scores, bits and types.

    Use it where River's is used. A key of one feature costs a few bytes for a window of up to 10
    readings, two numbers for each reading of longer ones, and copies in a microsecond; with several
    features, or when the only one is ever missing, it keeps a number for each tree and reading.

    It differs in what is not a score: an error leaves the state as it was, the trees are not
    attributes, and limits that are not ascending, or counts that are not integers, are refused.

    Parameters
    ----------
    n_trees
        Number of trees.
    height
        Height of each tree: it has 2^height leaves.
    window_size
        Number of readings in a window: a score counts those of the last full one.
    limits
        Range of each feature, in which its cuts are drawn; (0, 1) where it is not given. Values
        outside are no error.
    seed
        Seed of the trees; None draws one.

    Examples
    --------
    >>> detector = HalfSpaceTrees(n_trees=5, height=3, window_size=3, seed=42)
    >>> for x in (0.5, 0.45, 0.43):
    ...     detector.learn_one({"x": x})
    >>> for x in (0.5, 0.44, 0.0):
    ...     print(f"{detector.score_one({'x': x}):.3f}")
    0.107
    0.107
    0.853

    References
    ----------
    Tan, Ting and Liu, "Fast Anomaly Detection for Streaming Data", IJCAI 2011; River 0.26.1,
    `river/anomaly/hst.py`.
    """

    def __init__(
        self,
        n_trees: int = 10,
        height: int = 8,
        window_size: int = 250,
        limits: Mapping[Hashable, tuple[float, float]] | None = None,
        seed: Seed | None = None,
    ) -> None:
        self.n_trees = n_trees
        self.height = height
        self.window_size = window_size
        self.limits = dict(limits or {})
        self.seed = seed
        # Known with the first reading: what `grow` takes; then the forest and the state.
        self._drawn: tuple[int, int, int, Limits, Seed] | None = None
        self._forest: Any = None
        self._state: Any = None

    def learn_one(self, x: Mapping[Hashable, float]) -> None:
        """Count a reading in; its features are the trees' if it is the first."""
        if self._forest is None:
            self._plant(x)
        place = self._place(x)
        self._state = self._forest.learn(self._state, place)

    def score_one(self, x: Mapping[Hashable, float]) -> float:
        """Score a reading from 0 to 1 (anomalous) by the last full window; 0 if there is none."""
        if self._forest is None:
            return 0
        place = self._place(x)
        score: float = self._forest.score(self._state, place)
        return score

    def _plant(self, x: Mapping[Hashable, float]) -> None:
        features: list[Any] = sorted(cast("Mapping[Any, float]", x))
        limits: Limits = tuple((name, self._limits_of(name)) for name in features)
        seed = SystemRandom().getrandbits(64) if self.seed is None else self.seed
        drawn = (self.n_trees, self.height, self.window_size, limits, seed)
        self._forest = grow(*drawn)
        self._drawn = drawn
        self._state = self._forest.start

    def _limits_of(self, feature: Hashable) -> tuple[float, float]:
        low, high = self.limits.get(feature, (0.0, 1.0))
        return low, high

    def _place(self, x: Mapping[Hashable, float]) -> Any:
        try:
            return self._forest.place(self._state, x)
        except KeyError:
            # The only feature is missing: each tree goes its own way, and cells no longer tell.
            assert self._drawn is not None
            wide = grow_wide(*self._drawn)
            last, present = self._forest.cells(self._state)
            self._state = wide.widen(self._forest.line, last, present)
            self._forest = wide
            return wide.place(self._state, x)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_forest": isinstance(self._forest, WideWindows)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._drawn is None:
            self._forest = None
        else:
            self._forest = (grow_wide if state["_forest"] else grow)(*self._drawn)
