"""The last readings of one instance with their scores, in few bytes."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataflow.alerts.episode import Watched
from dataflow.dashboard.trouble import Trouble
from dataflow.records import Reading

__all__ = ["REPORTED", "ROW", "SCORED", "History", "Rows"]

ROW = np.dtype(
    [
        ("place", "f8"),
        ("value", "f4"),
        ("score", "f4"),
        ("expected", "f4"),
        ("lower", "f4"),
        ("upper", "f4"),
        ("mark", "u1"),
    ]
)
"""One reading: 29 bytes. NaN means that there is no score or no bound."""

Rows = NDArray[Any]

SCORED = 1
"""A mark: the score computed here is above the threshold."""

REPORTED = 2
"""A mark: the flow has written this anomaly."""

STEPS = 5
"""Steps between readings of which the median is the usual one."""

FIRST = 64
SPARKS = 48


class History:
    """The last `keep` readings of one instance, the oldest dropped first.

    `place` is the position of a reading on the axis: seconds since 1970, or its index if readings
    have no time. `total` counts all readings, also dropped ones. `state` is the state of the
    instance's detector, `waiting` the readings that it has not scored yet. `trouble` is the episode
    of anomalies that has not ended. `newest` is the reading that came last.

    >>> track = History(keep=3)
    >>> for number in range(5):
    ...     track.add(float(number), number / 10)
    >>> track.total, track.rows()["place"].tolist()
    (5, [2.0, 3.0, 4.0])
    """

    __slots__ = (
        *("_drawn", "_rows", "_spark", "keep", "marked", "newest", "state", "total", "trouble"),
        *("waiting", "watched"),
    )

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self.total = 0
        self.newest: Reading | None = None
        self.state: Any = None
        self.waiting: list[Reading] = []
        self.watched: Watched | None = None
        self.trouble: Trouble | None = None
        self.marked: deque[float] = deque(maxlen=keep)
        """The places of the anomalies of the last day, possibly also of older ones."""
        self._rows: Rows = np.zeros(min(FIRST, keep), ROW)
        self._drawn: object = None
        self._spark = ""

    def add(self, place: float, value: float) -> None:
        """Append a reading without a score."""
        rows = self._rows
        if self.total == len(rows) < self.keep:
            grown = np.zeros(min(2 * len(rows), self.keep), ROW)
            grown[: len(rows)] = rows
            self._rows = rows = grown
        nan = np.nan
        rows[self.total % len(rows)] = (place, value, nan, nan, nan, nan, 0)
        self.total += 1

    def judge(
        self,
        number: int,
        score: float,
        expected: float | None,
        lower: float | None,
        upper: float | None,
    ) -> None:
        """Set the score and the band of reading `number`, counted from 0, if it is still kept."""
        if self.holds(number):
            row = self._rows[number % len(self._rows)]
            row["score"] = score
            if expected is not None:
                row["expected"] = expected
            if lower is not None:
                row["lower"] = lower
            if upper is not None:
                row["upper"] = upper

    def mark(self, number: int, mark: int) -> None:
        """Mark a reading as an anomaly, if it is still kept; it counts once."""
        if self.holds(number):
            row = self._rows[number % len(self._rows)]
            if not row["mark"]:
                self.marked.append(float(row["place"]))
            row["mark"] |= mark

    def holds(self, number: int) -> bool:
        """Return whether a reading is still kept."""
        return max(0, self.total - len(self._rows)) <= number < self.total

    def find(self, place: float, value: float) -> int | None:
        """Return the number of the latest reading of this place and value, None if there is none.

        Values are compared in single precision, as they are kept.
        """
        held = min(self.total, len(self._rows))
        rows = self._rows[:held]
        hits = np.flatnonzero((rows["place"] == place) & (rows["value"] == np.float32(value)))
        if not len(hits):
            return None
        first = self.total - held
        # Slot s holds the latest number that is s modulo the ring's length.
        return int(max(first + (int(hit) - first) % len(self._rows) for hit in hits))

    def last(self) -> Any:
        """Return the row of the latest reading."""
        return self._rows[(self.total - 1) % len(self._rows)]

    def row(self, number: int) -> Any:
        """Return the row of reading `number`, which must still be kept."""
        return self._rows[number % len(self._rows)]

    def step(self) -> float:
        """Return the usual step between readings, on the axis: the median of the last five."""
        size = len(self._rows)
        numbers = range(max(0, self.total - min(STEPS + 1, size)), self.total)
        places = self._rows["place"][[number % size for number in numbers]]
        return float(np.median(np.abs(np.diff(places)))) if len(places) > 1 else 0.0

    def rows(self) -> Rows:
        """Return a copy of all rows, in order of arrival."""
        size = len(self._rows)
        if self.total <= size:
            return self._rows[: self.total].copy()
        return np.roll(self._rows, -(self.total % size))

    def spark(self, span: float, scale: float) -> str:
        """Return the values of the last `span` of the axis as an SVG, anomalies as dots.

        `scale` is the smallest range of values that fills the height, so small changes look flat.
        The SVG is cached until a reading or an anomaly is added.
        """
        state = (self.total, len(self.marked), span, scale)
        if self._drawn != state:
            self._spark = _draw(self.rows(), span, scale)
            self._drawn = state
        return self._spark


def _draw(rows: Rows, span: float, scale: float) -> str:
    if len(rows):
        rows = rows[rows["place"] > rows["place"].max() - span]
        rows = rows[np.argsort(rows["place"], kind="stable")]
    if len(rows) < 2:
        return ""
    places = rows["place"]
    width, height, edge = 120.0, 26.0, 3.0
    low, high = float(rows["value"].min()), float(rows["value"].max())
    middle, half = (low + high) / 2, max(high - low, scale) / 2 or 1.0
    across = edge + (width - 2 * edge) * (places - places[0]) / (float(np.ptp(places)) or 1.0)
    up = height / 2 - (height / 2 - edge) * (rows["value"] - middle) / half
    # Draw the highest and the lowest value of each step: a mean would hide a spike.
    step = max(1, 2 * len(rows) // SPARKS)
    drawn: list[int] = []
    for start in range(0, len(rows), step):
        piece = up[start : start + step]
        drawn += sorted({start + int(piece.argmin()), start + int(piece.argmax())})
    line = " ".join(f"{across[at]:.1f},{up[at]:.1f}" for at in drawn)
    dots = "".join(
        f'<circle cx="{across[at]:.1f}" cy="{up[at]:.1f}" r="2.6"/>'
        for at in np.flatnonzero(rows["mark"])[-SPARKS:]
    )
    return (
        f'<svg class="spark" viewBox="0 0 {width:.0f} {height:.0f}" aria-hidden="true">'
        f'<polyline points="{line}"/>{dots}</svg>'
    )
