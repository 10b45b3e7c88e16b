"""`python -m dataflow notify`."""

from __future__ import annotations

from dataflow import settings
from dataflow.notify.delivery import run

__all__ = ["notify"]


def notify() -> None:
    """Tell webhooks, Slack and Alertmanager of the incidents that the flow writes, until Ctrl-C.

    Addresses are in ANOMALY_NOTIFY_WEBHOOK, ANOMALY_NOTIFY_SLACK and ANOMALY_NOTIFY_ALERTMANAGER.
    Each is told everything at least once, and goes on where it was when started again.
    """
    run(settings.load())
