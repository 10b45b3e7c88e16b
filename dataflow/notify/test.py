"""`notify --test`: a message to each target, to see that it arrives."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from dataflow.errors import UserError
from dataflow.notify.base import link_to
from dataflow.notify.targets import NONE, targets
from dataflow.records import Incident, Source, encode
from dataflow.settings import Settings

__all__ = ["example", "send"]


def example(now: datetime | None = None) -> Incident:
    """Return an incident of nothing, which has just been resolved.

    >>> example().instance, example().state
    ('test-of-notify', 'resolved')
    """
    now = datetime.now(UTC) if now is None else now
    return Incident(
        instance="test-of-notify",
        kind="anomaly",
        state="resolved",
        id=f"test-{now:%Y%m%d%H%M%S}",
        sequence=1,
        since=now - timedelta(minutes=5),
        opened_at=now - timedelta(minutes=5),
        updated_at=now,
        resolved_at=now,
        ended="recovered",
        score=0.75,
        peak_at=now - timedelta(minutes=5),
        value=0.898,
        expected=0.4,
        anomalies=1,
        source=Source("test", 0, 0),
        duration=300.0,
        why="a test of notify, no trouble",
    )


def send(settings: Settings) -> None:
    """Send one incident to each target, once. Raises `UserError` if any does not accept it."""
    configured = targets(settings)
    if not configured:
        raise UserError(NONE)
    now, failed = datetime.now(UTC), []
    resolved = example(now)
    opened = replace(resolved, state="opened", sequence=0, resolved_at=None, ended=None)
    link = link_to(settings.notify_link, resolved, settings.verdicts_secret, now.timestamp())
    for target in configured:
        for incident in (opened, resolved) if target.needs_opened else (resolved,):
            body = encode(target.body(incident, link, now))
            answer = target.send(body, f"{incident.id}-{incident.sequence}", threading.Event())
            if not answer.accepted:
                break
        print(f"{target}: {'accepted' if answer.accepted else answer.reason}", flush=True)
        failed += [] if answer.accepted else [str(target)]
    if failed:
        raise UserError(
            f"not delivered to {', '.join(failed)}: correct the address, or look at the target."
        )
