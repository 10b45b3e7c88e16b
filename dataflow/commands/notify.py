"""`python -m dataflow notify`."""

from __future__ import annotations

from typing import Annotated

import typer

from dataflow import settings
from dataflow.notify.process import run
from dataflow.notify.test import send

__all__ = ["notify"]


def notify(
    test: Annotated[
        bool, typer.Option("--test", help="Send one test message to each target, and exit.")
    ] = False,
) -> None:
    """Deliver incidents to webhooks, Slack, Alertmanager, PagerDuty, AWS and others, until Ctrl-C.

    Set addresses in ANOMALY_NOTIFY_WEBHOOK, _CLOUDEVENTS, _SLACK, _ALERTMANAGER, _PAGERDUTY, _SNS,
    _EVENTBRIDGE and _TARGETS. Each incident is delivered at least once; a restart resumes.
    """
    if test:
        send(settings.load())
    else:
        run(settings.load())
