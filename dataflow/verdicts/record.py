"""The record of what a person says of an anomaly, and what all of them keep quiet. Pure.

A record holds the pattern of the anomaly, so that the flow never has to look for the anomaly
itself. The last record of an id counts, as a compacted topic keeps it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Set
from datetime import datetime
from typing import Literal, NamedTuple

import msgspec

from dataflow.calendars.clock import Clock
from dataflow.records import encode, series_key
from dataflow.verdicts.pattern import Case, Pattern, Same

__all__ = ["Feedback", "Following", "InForce", "Quiet", "decode"]

LONGEST = 100_000
"""Bytes of a record at most."""


class Feedback(msgspec.Struct, frozen=True, kw_only=True):
    """What a person says of an anomaly, or of all of an episode.

    `id` is that of the anomaly or of the incident; by a silence of Alertmanager, it is
    `silence:SILENCE:INCIDENT`. `fine`: it was none, and the same pattern is to be kept quiet, for
    readings before `until`, null for ever. `real` says that it was one, and `undo` says nothing;
    both end what an earlier record of the id has said. `at` is when it was said, `by` whom; `why`
    repeats the sentence of the anomaly. `comment` is what was said besides, and is absent where
    there is none.
    """

    id: str
    verdict: Literal["fine", "real", "undo"]
    until: datetime | None = None
    by: str | None = None
    at: datetime | None = None
    why: str = ""
    pattern: Pattern | None = None
    comment: str | msgspec.UnsetType = msgspec.UNSET


_read = msgspec.json.Decoder(Feedback).decode


def decode(data: bytes) -> Feedback:
    """Read a record. Raises `ValueError`, with a sentence, if it is none.

    >>> decode(b'{"id": "5", "verdict": "ok"}')
    Traceback (most recent call last):
    ValueError: Invalid enum value 'ok' - at `$.verdict`
    >>> decode(b'{"id": "5", "verdict": "fine"}')
    Traceback (most recent call last):
    ValueError: a verdict `fine` needs the pattern of its anomaly: write it with the command verdict
    """
    if len(data) > LONGEST:
        raise ValueError(f"longer than {LONGEST:,} bytes")
    try:
        found = _read(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except msgspec.DecodeError as error:
        raise ValueError(f"{error}") from None
    if not found.id:
        raise ValueError("the id is empty")
    pattern = found.pattern
    if found.verdict == "fine" and pattern is None:
        raise ValueError(
            "a verdict `fine` needs the pattern of its anomaly: write it with the command verdict"
        )
    moments = [found.until, found.at]
    if pattern is not None:
        moments += [pattern.since, pattern.until]
        if not pattern.size > 0:
            raise ValueError("the size of a pattern must be above 0")
    if any(moment is not None and moment.tzinfo is None for moment in moments):
        raise ValueError("a time needs a zone, such as Z for UTC")
    return found


class InForce:
    """The verdicts that are in force: of each id the last record, if it is `fine`.

    >>> kept = InForce()
    >>> kept.take(b"5", None), kept.take(b"5", b"{}"), len(kept), kept.refused
    (True, False, 0, 1)
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._by_id: dict[str, Feedback] = {}
        self.refused = 0
        self.reason = ""
        """Why the last record that was refused is none."""

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._by_id)

    def take(self, key: bytes | None, value: bytes | None) -> bool:
        """Take the next record of the topic; return whether it could be used.

        A record without a value, which removes its key from a compacted topic, undoes a verdict.
        """
        if value is None:
            self._by_id.pop((key or b"").decode("utf-8", "replace"), None)
            return True
        try:
            found = decode(value)
        except ValueError as error:
            self.refused += 1
            self.reason = f"{error}"
            return False
        # The newest is last: so the document is the same, whichever records compaction has left.
        self._by_id.pop(found.id, None)
        if found.verdict == "fine":
            self._by_id[found.id] = found
        return True

    def all(self) -> list[Feedback]:
        """Return them, by their ids."""
        return [self._by_id[name] for name in sorted(self._by_id)]

    def document(self) -> bytes:
        """Return them as bytes, which are equal for the same verdicts; empty for none."""
        return encode(self.all()) if self._by_id else b""


_read_all = msgspec.json.Decoder(list[Feedback]).decode


class Following(NamedTuple):
    """The verdict that has kept a series quiet, and the time of the last reading that it was."""

    id: str
    last: float


class Quiet:
    """What verdicts keep quiet.

    `default` is the name of the metric that is scored by default, `interval` the usual time between
    two readings in seconds. `clocks` gives an instance its clock; None: all live by UTC.
    """

    def __init__(
        self,
        verdicts: Iterable[Feedback],
        default: str,
        interval: float = 300.0,
        clocks: Callable[[str], Clock | None] | None = None,
    ) -> None:
        """Prepare the comparisons."""
        self._series: dict[str, dict[str, tuple[float, Same]]] = {}
        for one in verdicts:
            pattern = one.pattern
            if one.verdict != "fine" or pattern is None:
                continue
            metric = None if pattern.metric == default else pattern.metric
            clock = None if clocks is None else clocks(pattern.instance)
            until = math.inf if one.until is None else one.until.timestamp()
            known = self._series.setdefault(series_key(pattern.instance, metric), {})
            known[one.id] = until, Same(pattern, clock, interval)

    @classmethod
    def read(
        cls,
        document: bytes,
        default: str,
        interval: float = 300.0,
        clocks: Callable[[str], Clock | None] | None = None,
    ) -> Quiet:
        """Return what a document of `InForce` keeps quiet."""
        return cls(_read_all(document) if document else [], default, interval, clocks)

    def __contains__(self, key: str) -> bool:
        """Return whether there is a verdict on a series."""
        return key in self._series

    def take(self, key: str, case: Case, following: Following | None) -> Following | None:
        """Take the next reading of a series, whether it is an anomaly or not.

        Return the verdict that keeps it quiet, with what to give for the next one; None if none
        does. `following` is what this has returned before. A reading that is neither the same nor
        follows it ends nothing: give the former again.
        """
        known = self._series.get(key, {})
        for name, (until, same) in known.items():
            if case.time < until and same.is_itself(case):
                return Following(name, case.time)
        if following is None or following.id not in known:
            return None
        return following if known[following.id][1].follows(case, following.last) else None

    def is_over(self, key: str, case: Case, following: Following) -> bool:
        """Return whether nothing can follow any more what a verdict has kept quiet."""
        known = self._series.get(key, {})
        return following.id not in known or known[following.id][1].is_over(case, following.last)

    @property
    def series(self) -> Set[str]:
        """The keys of the series that have a verdict."""
        return self._series.keys()
