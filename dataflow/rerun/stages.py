"""Which settings touch which part of the flow, so that two runs share what is the same in both."""

from __future__ import annotations

from collections.abc import Collection

from dataflow.detectors.calibrated.detector import Calibrated
from dataflow.settings import Settings
from dataflow.steps import admit

__all__ = ["AFTER", "SCORING", "same_scores", "shared"]

AFTER = frozenset(
    {
        *("output", "anomalies_topic", "rejected_topic", "cloudevents"),
        *("metrics_port", "metrics_host", "metrics_instances"),
        *("incidents", "incidents_topic", "incident_anomalies", "incident_readings"),
        *("incident_duration", "incident_cooldown", "incident_updates"),
        *("silence", "silence_seconds", "silence_gone", "silence_except", "maintenance"),
        *("verdicts_key", "notify_webhook", "notify_cloudevents", "notify_slack"),
        *("notify_alertmanager", "notify_pagerduty", "notify_sns", "notify_eventbridge"),
        *("notify_targets", "notify_labels", "notify_link", "notify_runbook", "notify_pages"),
        *("notify_store", "notify_silences", "notify_max_age", "notify_metrics_port"),
    }
)
"""The settings that no score and no episode depends on."""

CONTROLLED = ("rules", "verdicts")
"""The settings of what may change while a flow runs."""

JUDGING = frozenset({"threshold", "least", "incident_quiet", *CONTROLLED})
"""The settings that say which scores are anomalies, and which anomalies are an episode."""

SCORING = JUDGING | {
    *("detector", "seed", "interval", "time_zone", "holidays", "first_day", "group_pattern"),
}
"""The settings that only scores, episodes and what comes of them depend on.

Any other one may change what is read, and how. An interval of hours does too: see `admit.period`.
"""

READING = (
    *("read", "check", "key_on", "workers", "address", "hand_over", "open", "reorder"),
    "normalize",
)
"""The steps up to the normalized readings of each instance, but for `decode`: it also notes from
which place on rules and verdicts apply, which each flow needs for itself."""

SCORES = ("score", "score_windows", "by_instance", "score_together", "of_each", "of_all")
"""The steps from there to the scores and episodes."""

ANOMALIES = ("filter", "anomaly", "filter_together", "anomaly_together", "anomalies")
"""The steps from there to the anomalies."""


def shared(before: Settings, after: Settings) -> Collection[str]:
    """Return the ids of the steps that return the same in the flows of both settings.

    Empty if they may read the input in different ways.

    >>> one, other = (Settings(_env_file=None, silence=it) for it in (3, 6))
    >>> "score" in shared(one, other)
    True
    >>> shared(one, Settings(_env_file=None, scale=1.0))
    ()
    """
    differing = _differing(before, after)
    if not differing <= AFTER | SCORING or admit.period(before) != admit.period(after):
        return ()
    controlled = any(getattr(one, name) for one in (before, after) for name in CONTROLLED)
    return READING if controlled or not differing <= AFTER else (*READING, *SCORES, *ANOMALIES)


def same_scores(before: Settings, after: Settings) -> bool:
    """Return whether flows that share what they read have the same scores of each reading.

    So they have where only thresholds and the like differ, on which no score depends.

    >>> one, other = (Settings(_env_file=None, threshold=it) for it in (0.5, 0.6))
    >>> same_scores(one, other), same_scores(one, Settings(_env_file=None, detector="rcf"))
    (True, False)
    """
    same = _differing(before, after) <= AFTER | JUDGING
    return same and before.detector == Calibrated.name and not before.first_day


def _differing(before: Settings, after: Settings) -> set[str]:
    return {name for name in Settings.model_fields if _differs(name, before, after)}


def _differs(name: str, before: Settings, after: Settings) -> bool:
    # Of some settings it counts whether they are set, even to the default.
    given = [name in one.model_fields_set for one in (before, after)]
    return getattr(before, name) != getattr(after, name) or (
        given[0] != given[1] and name not in AFTER | SCORING
    )
