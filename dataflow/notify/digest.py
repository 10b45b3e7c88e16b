"""A digest: the incidents that were held back, by instance, the worst first."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Literal, get_args

import msgspec

from dataflow.notify.summary import severity, summary, visible
from dataflow.records import Incident, Severity, encode

__all__ = [
    *("Digest", "HeldBack", "content", "digest_of"),
    *("held_back", "lines", "surprise", "title"),
]

LARGEST = 48 * 1024
"""Bytes of the incidents that a digest names, about 150: no target takes less in a message."""

SILENT = 0.5
"""What a silence, which has no score, counts as: an anomaly at the default threshold."""

CRITICAL = 0.8
"""What a critical incident counts as, at least: it may be critical because it lasts."""

URGENT: tuple[Severity, ...] = get_args(Severity)
"""The most urgent first."""

MOST_LINES = 10
"""Instances that the text of a digest names."""


class HeldBack(msgspec.Struct, frozen=True):
    """An incident that a digest names, as its latest record says.

    `id` is that of the incident in the topic. `severity`, `summary` and `link` are what a message
    of its own would have said; `link` is null without ANOMALY_NOTIFY_LINK.
    """

    id: str
    instance: str
    kind: Literal["anomaly", "silence"]
    metric: str
    state: Literal["opened", "updated", "resolved"]
    severity: Severity
    score: float | None
    since: datetime | None
    summary: str
    link: str | None


class Digest(msgspec.Struct, frozen=True):
    """The incidents of one team that were held back since the digest before.

    `id` stays the same when the digest is delivered again. `team` is null for the incidents without
    the label `team`. `held_since` is when the first of them was held back, `written_at` when the
    digest was made, by the clock of `notify`, in UTC. `count` is the number of incidents;
    `incidents` names them by instance, the worst first, in 48 kB at most; `unnamed` is how many
    more there are.
    """

    id: str
    team: str | None
    severity: Severity
    held_since: datetime
    written_at: datetime
    count: int
    unnamed: int
    incidents: tuple[HeldBack, ...]


def surprise(incident: Incident | HeldBack) -> float:
    """Return how surprising an incident is, to compare incidents: in general its score.

    >>> from dataflow.notify.test import example
    >>> surprise(example())
    0.75
    """
    if incident.score is None:
        return SILENT
    own = incident.severity if isinstance(incident, HeldBack) else severity(incident)
    return max(incident.score, CRITICAL if own == "critical" else 0.0)


def held_back(incident: Incident, link: str) -> HeldBack:
    """Return what a digest says about an incident."""
    return HeldBack(
        incident.id,
        visible(incident.instance),
        incident.kind,
        visible(incident.metric),
        incident.state,
        severity(incident),
        incident.score,
        incident.since,
        summary(incident),
        link or None,
    )


def digest_of(
    team: str, held: Iterable[HeldBack], more: int, held_since: float, now: float
) -> Digest:
    """Return the digest of incidents that were held back, and of `more` that are not known.

    Times are in seconds since 1970.
    """
    found = list(held)
    worst: dict[str, float] = {}
    for it in found:
        worst[it.instance] = max(surprise(it), worst.get(it.instance, 0.0))
    found.sort(key=lambda it: (-worst[it.instance], it.instance, -surprise(it), it.id))
    size, named = 0, 0
    for it in found:
        size += len(encode(it))
        if size > LARGEST and named:
            break
        named += 1
    written = datetime.fromtimestamp(now, UTC)
    mark = encode([team, now, *(it.id for it in found)])
    return Digest(
        id=hashlib.blake2b(mark, digest_size=12).hexdigest(),
        team=team or None,
        severity=min((it.severity for it in found), key=URGENT.index, default="warning"),
        held_since=datetime.fromtimestamp(held_since, UTC),
        written_at=written,
        count=len(found) + more,
        unnamed=len(found) - named + more,
        incidents=tuple(found[:named]),
    )


def title(digest: Digest) -> str:
    """Return one sentence: how many incidents, of which team, since when."""
    count = "1 incident" if digest.count == 1 else f"{digest.count} incidents"
    team = "" if digest.team is None else f" of team {visible(digest.team)}"
    return (
        f"{count}{team} held back since {digest.held_since:%Y-%m-%d %H:%M} UTC, over the limit "
        "of pages a day"
    )


def lines(digest: Digest) -> list[str]:
    """Return a line for each of the worst instances, and one that counts the other incidents."""
    said, rest = [], digest.unnamed
    for number, (_, each) in enumerate(groupby(digest.incidents, key=lambda it: it.instance)):
        first, *others = each
        if number >= MOST_LINES:
            rest += 1 + len(others)
            continue
        more = f" (and {len(others)} more of this instance)" if others else ""
        over = "" if first.state == "resolved" else ", still open"
        said.append(f"{first.summary} ({first.severity}{over}){more}")
    return [*said, f"and {rest} more incidents"] if rest else said


def content(labels: dict[str, str], digest: Digest) -> dict[str, Any]:
    """Return what a program needs of a digest, in the form of what it gets of an incident."""
    team = {} if digest.team is None else {"team": digest.team}
    return {
        "key": digest.id,
        "severity": digest.severity,
        "summary": title(digest),
        "link": digest.incidents[0].link if digest.incidents else None,
        "labels": {**labels, **team},
        "digest": digest,
    }
