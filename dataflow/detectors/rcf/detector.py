"""The random cut forest, in deviations of what is usual for the instance."""

from __future__ import annotations

import struct
from array import array
from math import sqrt
from typing import ClassVar, Final

from librt.vecs import vec
from mypy_extensions import i64

from dataflow.detectors.base import Explanation, Verdict
from dataflow.detectors.rcf.draws import key
from dataflow.detectors.rcf.tree import Tree
from dataflow.detectors.sealing import LITTLE_CRC32, damaged, seal, unseal

__all__ = ["Forest", "RandomCutForest"]

MARK: Final = b"rcf/1 "
HEAD: Final = struct.Struct("<Qdq3d")
TREES: Final = 4
POINTS: Final = 64
BYTES: Final = HEAD.size + TREES * (8 + 3 * 8 * POINTS)

LARGEST: Final = 1e300
"""Values beyond it count as this one, so that no sum overflows."""

FLOOR: Final = 1.5
"""Points of deviation that are added for every instance."""

HALF: Final = 3.0
"""Deviations that give a score of one half."""

PLACES: Final = 4
"""Numbers drawn for each tree."""


class Forest:
    """What is known of one instance: its trees, and how much its readings usually displace.

    It is stored as the bytes of `dump` only: compiled, it cannot be pickled or deep-copied.
    """

    __slots__ = ("displaced", "mean", "seen", "trees", "variance")

    def __init__(
        self, seen: i64, displaced: float, mean: float, variance: float, trees: list[Tree]
    ) -> None:
        self.seen: i64 = seen
        self.displaced = displaced
        self.mean = mean
        self.variance = variance
        self.trees = trees


class RandomCutForest:
    """A random cut forest over the values of an instance, with one threshold for all instances.

    Each of 4 trees holds a sample of 64 earlier readings that favors those of the last two weeks,
    and cuts their range at random, again and again, until each point is alone. A reading that an
    early cut would set apart displaces many of them. The score is the mean displacement of the last
    6 readings in standard deviations of what is usual for the instance.

    It knows neither the hour nor the order of the readings before. It expects no value, so
    verdicts have no bounds. Values need no range: only their distances count, in relation to each
    other. `docs/detectors.md` has the formulas and figures.

    Parameters
    ----------
    seed
        Draws the samples and the cuts, together with the number of the reading.
    interval
        Usual seconds between two readings of an instance. The constants are times at 300 s: for
        shorter intervals they become more readings. The readings whose displacement is averaged
        change with the square root, for longer intervals too.

    Raises ValueError for an interval out of range.

    >>> detector = RandomCutForest()
    >>> state = None
    >>> for i in range(600):
    ...     state, verdict = detector.update(state, 0.3 + i * 7 % 10 / 100, None)
    >>> verdict.score > detector.threshold
    False
    >>> detector.score(state, 0.9, None).score > detector.threshold
    True

    References
    ----------
    Guha, Mishra, Roy and Schrijvers, "Robust Random Cut Forest Based Anomaly Detection on Streams",
    ICML 2016.
    """

    name: ClassVar[str] = "rcf"
    needs_range: ClassVar[bool] = False
    compilable: ClassVar[bool] = True

    def __init__(self, seed: int = 42, interval: float = 300.0) -> None:
        if not 0 < interval < float("inf"):
            raise ValueError(f"The interval must be a number of seconds above 0, not {interval!r}.")
        self.seed = seed
        self.interval = float(interval)
        self.threshold = 0.5
        ratio = min(300.0 / self.interval, 30.0)
        scale = max(1.0, ratio)
        self._smooth = 1 / max(6 * sqrt(ratio), 1.0)
        self._window = 4032 * scale
        self._calibrate: i64 = round(100 * scale)
        self._start: i64 = round(200 * scale)
        self._stored_seed = seed & (1 << 64) - 1
        self._seed: i64 = (self._stored_seed ^ self._stored_seed >> 32) & 0xFFFFFFFF

    @classmethod
    def create(cls, *, seed: int, interval: float, threshold: float | None) -> RandomCutForest:
        """Return a detector with this seed and interval; scores do not depend on a threshold."""
        return cls(seed, interval)

    def __reduce__(self) -> tuple[type[RandomCutForest], tuple[int, float]]:
        return type(self), (self.seed, self.interval)

    def score(self, state: Forest | None, value: float, time: float | None = None) -> Verdict:
        """Score a reading against a state, leaving the state as it is."""
        value = bounded(value)
        if state is None or state.seen < self._start:
            return Verdict(0.0)
        displaced = self._displaced(state, value)
        return Verdict(strangeness(displaced - state.mean, state.variance))

    def update(
        self, state: Forest | None, value: float, time: float | None = None
    ) -> tuple[Forest, Verdict]:
        """Score a reading, then learn it. The given state is changed in place."""
        value = bounded(value)
        forest = begin() if state is None else state
        seen = forest.seen
        forest.displaced = self._displaced(forest, value)
        excess = forest.displaced - forest.mean
        found = strangeness(excess, forest.variance) if seen >= self._start else 0.0
        if seen >= self._calibrate:
            counted = float(seen + 1 - self._calibrate)
            rate = 1.0 / (counted if counted < self._window else self._window)
            forest.mean += rate * excess
            forest.variance += rate * (excess * excess * (1.0 - rate) - forest.variance)
        age = float(seen) / self._window
        drawn = key(self._seed, seen)
        place: i64 = 0
        for tree in forest.trees:
            tree.learn(value, age, drawn, place)
            place += PLACES
        forest.seen = seen + 1
        # What Verdict(...) returns, without the call in Python.
        return forest, tuple.__new__(Verdict, (found, None, None, None, False))

    def _displaced(self, forest: Forest, value: float) -> float:
        """Return the mean displacement of the last readings, this one among them."""
        total = 0.0
        for tree in forest.trees:
            total += tree.displacement(value)
        return forest.displaced + self._smooth * (total / TREES - forest.displaced)

    def explain_from(self, score: float) -> None:
        """Change nothing: no reading is explained."""

    def before(self, state: Forest) -> Forest | None:
        """Return None: it does not keep the state before an anomaly."""
        return None

    def explain(
        self, before: Forest, value: float, time: float | None, ordinary: bool
    ) -> Explanation | None:
        """Return None: its only reason is that the value is rare."""
        return None

    def dump(self, state: Forest) -> bytes:
        """Return the state as bytes, 6.2 kB."""
        parts: list[bytes | memoryview] = [
            HEAD.pack(
                self._stored_seed,
                self.interval,
                state.seen,
                state.displaced,
                state.mean,
                state.variance,
            )
        ]
        for tree in state.trees:
            parts.append(int(tree.count).to_bytes(8, "little"))
            parts.append(memoryview(tree.points))
            parts.append(memoryview(tree.weights))
            parts.append(memoryview(tree.times))
        data: bytes = seal(MARK, b"".join(parts), LITTLE_CRC32)
        return data

    def load(self, data: bytes) -> Forest:
        """Read the bytes of `dump`.

        Raises ValueError if another detector, version, seed or interval wrote them, or if they are
        damaged.
        """
        body = unseal(MARK, data, "rcf", LITTLE_CRC32)
        if len(body) != BYTES:
            raise damaged(data, "rcf")
        seed, interval, seen, displaced, mean, variance = HEAD.unpack_from(body)
        if (seed, interval) != (self._stored_seed, self.interval):
            raise ValueError(
                f"This state of detector 'rcf' was learned with seed {seed} and interval "
                f"{interval:g} s; this detector has seed {self._stored_seed} and interval "
                f"{self.interval:g} s. Set ANOMALY_SEED and ANOMALY_INTERVAL as they were, or "
                "start with an empty recovery store."
            )
        trees = []
        start = HEAD.size
        for _ in range(TREES):
            count = int.from_bytes(body[start : start + 8], "little")
            numbers = array("d", body[start + 8 : start + 8 + 3 * 8 * POINTS])
            trees.append(
                Tree(
                    count,
                    vec[float](numbers[:POINTS]),
                    vec[float](numbers[POINTS : 2 * POINTS]),
                    vec[float](numbers[2 * POINTS :]),
                )
            )
            start += 8 + 3 * 8 * POINTS
        return Forest(seen, displaced, mean, variance, trees)


def begin() -> Forest:
    """Return the state before the first reading."""
    none = [0.0] * POINTS
    trees = [Tree(0, vec[float](none), vec[float](none), vec[float](none)) for _ in range(TREES)]
    return Forest(0, 0.0, 0.0, 0.0, trees)


def bounded(value: float) -> float:
    """Return the value as a float of at most `LARGEST`; ValueError if it is not finite."""
    if not -LARGEST <= value <= LARGEST:
        if not abs(value) < float("inf"):
            raise ValueError(f"A reading's value must be a finite number, not {value!r}.")
        return LARGEST if value > 0 else -LARGEST
    return float(value)


def strangeness(excess: float, variance: float) -> float:
    """Return the score for displacing more than usual: 0 for no more, .5 for `HALF` deviations."""
    if excess <= 0.0:
        return 0.0
    deviations = excess / sqrt(variance + FLOOR * FLOOR)
    return deviations / (deviations + HALF)
