"""Refused records, sent again: which of them, and as what. Pure; `resending` reads and writes.

A record that was sent again is marked in the rejected topic by a record of the same `source` whose
reason is `replayed`. It is written in one transaction with the record itself, so that there is
never one without the other.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import msgspec

from dataflow.errors import UserError
from dataflow.records import Raw, Reading, Rejected, Source

__all__ = [
    "FATES",
    "REPLAYED",
    "SEND",
    "Found",
    "Item",
    "Mended",
    "Place",
    "Summary",
    "choose",
    "marker",
    "plan",
    "read_line",
    "read_message",
]

REPLAYED = "replayed"
"""The reason of a mark."""

SEND = "to send"
AGAIN = "refused again"
DONE = "replayed before"
FOREIGN = "of another topic"
LOST = "not replayable"
FATES = (SEND, AGAIN, DONE, FOREIGN, LOST)


class Mended(Rejected, frozen=True):
    """A rejected record to which a person has added the object to send in place of `raw`."""

    mended: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Place(NamedTuple):
    """Where the rejected topic holds a record, and since when (seconds since 1970)."""

    partition: int
    offset: int
    time: float

    def before(self, other: Place) -> bool:
        """Tell whether the other was written later; over partitions, only the times tell."""
        if self.partition == other.partition:
            return self.offset < other.offset
        return self.time <= other.time


class Found(NamedTuple):
    """A refused record, and its place in the rejected topic, None if it stood in a file."""

    rejected: Mended
    place: Place | None


class Item(NamedTuple):
    """What becomes of a refused record: its fate, why, and what to send with which key."""

    found: Found
    fate: str
    why: str
    key: str | None = None
    value: bytes | None = None


_parse = msgspec.json.Decoder(Mended).decode


def read_message(value: bytes | None) -> Mended | None:
    """Read what the rejected topic holds, None if it is no rejected record."""
    try:
        return _parse(value or b"")
    except ValueError:
        return None


def read_line(line: bytes, place: str, *, mended: bool) -> Mended:
    """Read a line of a file; a UserError that names the place if it is no such record."""
    try:
        record = _parse(line)
    except ValueError as wrong:
        raise UserError(f"{place} is no rejected record: {wrong}.") from None
    if not mended:
        return record
    if isinstance(record.mended, msgspec.UnsetType):
        raise UserError(f"{place} has no field 'mended': add the object to send in place of 'raw'.")
    if not isinstance(msgspec.json.decode(record.mended), dict):
        raise UserError(
            f"{place}: the field 'mended' must be an object, as a record of readings is."
        )
    return record


def choose(
    founds: Iterable[Found],
    reasons: frozenset[str] = frozenset(),
    since: float | None = None,
    until: float | None = None,
) -> Iterator[Found]:
    """Keep those of these reasons (none: of any) that were refused from `since` until `until`."""
    for found in founds:
        if reasons and found.rejected.reason not in reasons:
            continue
        if since is not None and (found.place is None or found.place.time < since):
            continue
        if until is not None and (found.place is None or found.place.time >= until):
            continue
        yield found


def plan(
    founds: Iterable[Found],
    marks: dict[Source, list[Place]],
    decode: Callable[[Raw], Reading | Rejected],
    key_of: Callable[[bytes], str | None],
    topic: str,
    *,
    even_if_refused: bool = False,
) -> Iterator[Item]:
    """Decide of each record, and once of each source.

    `marks` are the places of marks in the rejected topic: a record was replayed if one was written
    after it, and one that stood in a file if there is any. What was refused from a topic goes back
    to that topic only; `topic` is the one that is written to.
    """
    seen: set[Source] = set()
    for found in founds:
        rejected = found.rejected
        source = rejected.source
        if source in seen:
            continue
        seen.add(source)
        if source.topic != topic and not source.topic.endswith((".csv", ".jsonl")):
            yield Item(found, FOREIGN, f"it was read from {source.topic}")
            continue
        place = found.place
        if any(place is None or place.before(mark) for mark in marks.get(source, ())):
            yield Item(found, DONE, "there is a mark of it")
            continue
        value, why = _bytes_of(rejected)
        if value is None:
            yield Item(found, LOST, why)
            continue
        record = decode(Raw(source.partition, source.offset, value))
        if isinstance(record, Reading):
            yield Item(found, SEND, "", record.instance, value)
        else:
            yield Item(
                found,
                SEND if even_if_refused else AGAIN,
                record.error,
                key_of(value),
                value,
            )


def _bytes_of(rejected: Mended) -> tuple[bytes | None, str]:
    if not isinstance(rejected.mended, msgspec.UnsetType):
        return bytes(rejected.mended), ""
    if rejected.raw is None:
        return None, rejected.error  # it had no value, or too many bytes to be kept
    try:
        return base64.b64decode(rejected.raw, validate=True), ""
    except ValueError:
        return None, "its raw bytes are no base64"


def marker(source: Source, topic: str) -> Rejected:
    """Return the mark of a record that was sent again."""
    return Rejected(REPLAYED, f"sent again to {topic}", source, None)


class Summary:
    """How many records of each reason have each fate, and the first example of each."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.examples: dict[tuple[str, str], Item] = {}

    def add(self, item: Item) -> None:
        """Count one."""
        kind = (item.found.rejected.reason, item.fate)
        self.counts[kind] += 1
        self.examples.setdefault(kind, item)

    def total(self, fate: str) -> int:
        """Return how many have a fate."""
        return sum(count for (_, other), count in self.counts.items() if other == fate)

    def rows(self) -> list[tuple[str, str, int, str]]:
        """Return reason, fate, number and an example of each kind, in order."""
        return [
            (reason, fate, self.counts[reason, fate], _example(self.examples[reason, fate]))
            for reason, fate in sorted(
                self.counts, key=lambda kind: (kind[0], FATES.index(kind[1]))
            )
        ]


def _example(item: Item) -> str:
    source = item.found.rejected.source
    why = item.why or item.found.rejected.error
    return f"{source.topic} {source.partition}/{source.offset}: {why}"
