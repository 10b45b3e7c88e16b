"""The notification targets that the settings name.

A new built-in target is a file beside this one and a line in `BUILT_IN`.
"""

from __future__ import annotations

import inspect

from dataflow import plugins
from dataflow.errors import UserError
from dataflow.notify.base import Target
from dataflow.settings import Settings

__all__ = ["BUILT_IN", "NONE", "targets"]

BUILT_IN = {
    "webhook": "dataflow.notify.webhook:Webhook",
    "cloudevents": "dataflow.notify.cloudevents:CloudEvents",
    "slack": "dataflow.notify.slack:Slack",
    "alertmanager": "dataflow.notify.alertmanager:Alertmanager",
    "pagerduty": "dataflow.notify.pagerduty:PagerDuty",
    "sns": "dataflow.notify.sns:SNS",
    "eventbridge": "dataflow.notify.eventbridge:EventBridge",
}

NONE = (
    "No notification target is configured: set ANOMALY_NOTIFY_WEBHOOK, _CLOUDEVENTS, _SLACK, "
    "_ALERTMANAGER, _PAGERDUTY, _SNS, _EVENTBRIDGE or _TARGETS."
)

KIND = plugins.Kind("notification target", "ANOMALY_NOTIFY_TARGETS", "dataflow.targets", BUILT_IN)


def targets(settings: Settings) -> list[Target]:
    """Return the targets that the settings name.

    Raises `UserError` if a name stands for no target class, or if a target is named twice.
    """
    addresses = [
        *(("webhook", address) for address in settings.notify_webhook),
        *(("cloudevents", address) for address in settings.notify_cloudevents),
        *(("slack", address) for address in settings.notify_slack),
        *(("alertmanager", address) for address in settings.notify_alertmanager),
        *(("pagerduty", address) for address in settings.notify_pagerduty),
        *(("sns", address) for address in settings.notify_sns),
        *(("eventbridge", address) for address in settings.notify_eventbridge),
        *settings.notify_targets,
    ]
    found: list[Target] = []
    for name, address in addresses:
        target = _target_class(name)(address.get_secret_value())
        target.labels = dict(settings.notify_labels)
        target.runbook = settings.notify_runbook
        # Targets with one name and one address would share one consumer group.
        if any((it.name, it.address) == (target.name, target.address) for it in found):
            raise UserError(f"{target} is set twice: remove it from {KIND.setting}.")
        found.append(target)
    return found


def _target_class(name: str) -> type[Target]:
    target = plugins.load(KIND, name)
    if not (isinstance(target, type) and issubclass(target, Target)):
        raise UserError(
            f"{KIND.setting} names {name!r}, which is not a notification target: use one of "
            f"{', '.join(plugins.names(KIND))}, or a subclass of dataflow.notify.base.Target."
        )
    if inspect.isabstract(target) or not isinstance(getattr(target, "name", None), str):
        raise UserError(
            f"{KIND.setting} names {name!r}, an incomplete notification target: its class must set "
            "`name` and implement `body`."
        )
    return target
