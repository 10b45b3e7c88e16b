"""`notify --test`: one message to each target, to see that it arrives."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

from dataflow.errors import UserError
from dataflow.notify.base import link_to
from dataflow.notify.http import post
from dataflow.notify.targets import targets
from dataflow.records import Incident, Source
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
    """Post one incident to each target, once. Raises `UserError` if any does not accept it."""
    configured = targets(settings)
    incident, now, failed = example(), datetime.now(UTC), []
    for target in configured:
        body = target.body(incident, link_to(settings.notify_link, incident), now)
        answer = post(target.url, body, incident.id, threading.Event())
        print(f"{target}: {'accepted' if answer.accepted else answer.reason}", flush=True)
        failed += [] if answer.accepted else [str(target)]
    if failed or not configured:
        raise UserError(
            f"not delivered to {', '.join(failed)}: correct the address, or look at the target."
            if failed
            else "No notification target is configured: set ANOMALY_NOTIFY_WEBHOOK, "
            "ANOMALY_NOTIFY_SLACK, ANOMALY_NOTIFY_ALERTMANAGER or ANOMALY_NOTIFY_TARGETS."
        )
