"""Decides which rejected records to send again. No I/O; `dataflow.replay.transfer` does it.

A record that was sent again has a mark in the rejected topic: a record of the same `source` with
the reason `replayed`. Record and mark are written in one transaction, so that neither exists
without the other.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import msgspec

from dataflow.errors import UserError
from dataflow.formats.files import is_file
from dataflow.records import Raw, Reading, Rejected, Source

__all__ = [
    "OUTCOMES",
    "REPLAYED",
    "SEND",
    "Candidate",
    "Correctable",
    "Item",
    "Place",
    "Summary",
    "bytes_of",
    "choose",
    "marker",
    "plan",
    "read_line",
    "read_message",
]

REPLAYED = "replayed"
"""The reason of a mark."""

SEND = "to send"
AGAIN = "rejected again"
DONE = "already replayed"
FOREIGN = "from another topic"
LOST = "not replayable"
OUTCOMES = (SEND, AGAIN, DONE, FOREIGN, LOST)


class Correctable(Rejected, frozen=True):
    """A rejected record, to which a field `corrected` may be added: the object to send instead.

    Files that were written for earlier versions call the field `mended`.
    """

    corrected: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    former: msgspec.Raw | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="mended")

    @property
    def correction(self) -> msgspec.Raw | msgspec.UnsetType:
        """The object to send instead, as JSON; unset if there is none."""
        return self.former if self.corrected is msgspec.UNSET else self.corrected


class Place(NamedTuple):
    """Where a record is in the rejected topic, and when it was written, in seconds since 1970."""

    partition: int
    offset: int
    time: float

    def before(self, other: Place) -> bool:
        """Return whether `other` was written later. Different partitions are compared by time."""
        if self.partition == other.partition:
            return self.offset < other.offset
        return self.time <= other.time


class Candidate(NamedTuple):
    """A rejected record, and its place in the rejected topic; None if it is from a file."""

    rejected: Correctable
    place: Place | None


class Item(NamedTuple):
    """The outcome of a candidate, the reason for it, and the key and value to send."""

    candidate: Candidate
    outcome: str
    why: str
    key: str | None = None
    value: bytes | None = None


_parse = msgspec.json.Decoder(Correctable).decode


def read_message(value: bytes | None) -> Correctable | None:
    """Parse a record of the rejected topic; None if it is not a rejected record."""
    try:
        return _parse(value or b"")
    except ValueError:
        return None


def read_line(line: bytes, place: str, *, corrected: bool) -> Correctable:
    """Parse a line of a file. Raises `UserError`, with the place, if it is not a rejected record.

    `corrected` says that the line must have the field `corrected`.
    """
    try:
        record = _parse(line)
    except ValueError as error:
        raise UserError(
            f"{place} is not a rejected record ({error}): give a file of rejected records, one "
            "JSON object on each line."
        ) from None
    if not corrected:
        return record
    if isinstance(record.correction, msgspec.UnsetType):
        raise UserError(
            f"{place} has no field 'corrected': add the object to send in place of 'raw'."
        )
    if not isinstance(msgspec.json.decode(record.correction), dict):
        raise UserError(
            f"the correction in {place} is not an object: make the field 'corrected' a JSON "
            "object, as records of the input topic are."
        )
    return record


def choose(
    candidates: Iterable[Candidate],
    reasons: frozenset[str] = frozenset(),
    since: float | None = None,
    until: float | None = None,
) -> Iterator[Candidate]:
    """Yield the candidates with these reasons that were rejected from `since` to before `until`.

    No reasons: all of them. Times are in seconds since 1970; a candidate from a file has none.
    """
    for candidate in candidates:
        if reasons and candidate.rejected.reason not in reasons:
            continue
        if since is not None and (candidate.place is None or candidate.place.time < since):
            continue
        if until is not None and (candidate.place is None or candidate.place.time >= until):
            continue
        yield candidate


def plan(
    candidates: Iterable[Candidate],
    marks: dict[Source, list[Place]],
    decode: Callable[[list[Raw]], list[Reading | Rejected]],
    key_of: Callable[[bytes], str | None],
    topic: str,
    *,
    even_if_rejected: bool = False,
) -> Iterator[Item]:
    """Decide the outcome of each candidate, once for each source.

    `marks` holds the places of marks in the rejected topic. A record was replayed if a mark was
    written after it; a record from a file, if there is any mark. A record that was read from a
    topic is only sent to the same topic; `topic` is the topic to write to.
    """
    seen: set[Source] = set()
    for candidate in candidates:
        rejected = candidate.rejected
        source = rejected.source
        if source in seen:
            continue
        seen.add(source)
        if source.topic != topic and not is_file(source.topic):
            yield Item(candidate, FOREIGN, f"it was read from {source.topic}")
            continue
        place = candidate.place
        if any(place is None or place.before(mark) for mark in marks.get(source, ())):
            yield Item(candidate, DONE, "it has a mark")
            continue
        value, why = bytes_of(rejected)
        if value is None:
            yield Item(candidate, LOST, why)
            continue
        records = decode([Raw(source.partition, source.offset, value)])
        wrong = next((one for one in records if isinstance(one, Rejected)), None)
        if wrong is not None:
            outcome = SEND if even_if_rejected else AGAIN
            yield Item(candidate, outcome, wrong.error, key_of(value), value)
        elif not records:
            outcome = SEND if even_if_rejected else AGAIN
            yield Item(candidate, outcome, "it holds no reading that is asked for", None, value)
        else:
            yield Item(candidate, SEND, "", key_of(value), value)


def bytes_of(rejected: Correctable) -> tuple[bytes | None, str]:
    """Return the bytes to send for a rejected record; None, and why, if there are none."""
    if not isinstance(rejected.correction, msgspec.UnsetType):
        return bytes(rejected.correction), ""
    if rejected.raw is None:
        if rejected.source.number:
            return None, "the bytes of its record are kept with another reading of it"
        return None, rejected.error  # no value, or too many bytes to keep
    try:
        return base64.b64decode(rejected.raw, validate=True), ""
    except ValueError:
        return None, "its raw bytes are not base64"


def marker(source: Source, topic: str) -> Rejected:
    """Return the mark of a record that was sent again."""
    return Rejected(REPLAYED, f"sent again to {topic}", source, None)


class Summary:
    """Counts records by reason and outcome, with the first example of each."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.examples: dict[tuple[str, str], Item] = {}

    def add(self, item: Item) -> None:
        """Count an item."""
        kind = (item.candidate.rejected.reason, item.outcome)
        self.counts[kind] += 1
        self.examples.setdefault(kind, item)

    def total(self, outcome: str) -> int:
        """Return the number of records with an outcome."""
        return sum(count for (_, other), count in self.counts.items() if other == outcome)

    def rows(self) -> list[tuple[str, str, int, str]]:
        """Return reason, outcome, number and example of each kind, sorted."""
        return [
            (*kind, self.counts[kind], _example(self.examples[kind]))
            for kind in sorted(self.counts, key=lambda kind: (kind[0], OUTCOMES.index(kind[1])))
        ]


def _example(item: Item) -> str:
    source = item.candidate.rejected.source
    why = item.why or item.candidate.rejected.error
    number = f" reading {source.number}" if source.number else ""
    return f"{source.topic} {source.partition}/{source.offset}{number}: {why}"
