"""`python -m dataflow notify`."""

from __future__ import annotations

from dataflow import settings
from dataflow.notify.process import run

__all__ = ["notify"]


def notify() -> None:
    """Deliver incidents to webhooks, Slack, Alertmanager and your own targets, until Ctrl-C.

    Set addresses in ANOMALY_NOTIFY_WEBHOOK, ANOMALY_NOTIFY_SLACK, ANOMALY_NOTIFY_ALERTMANAGER and
    ANOMALY_NOTIFY_TARGETS. Each incident is delivered at least once; a restart resumes.
    """
    run(settings.load())
