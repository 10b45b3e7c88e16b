"""An incident in one sentence."""

from __future__ import annotations

from dataflow.records import Incident

__all__ = ["SEVERITY", "summary"]


SEVERITY = {"anomaly": "warning", "silence": "critical"}


def summary(incident: Incident) -> str:
    """Return one sentence: the instance, what happened, when, and the worst reading."""
    name = incident.instance
    at = "" if incident.updated_at is None else f" at {incident.updated_at:%Y-%m-%d %H:%M:%S} UTC"
    if incident.kind == "silence":
        words = {
            None: f"{name} is silent{at}",
            "returned": f"{name} sends again{at}",
            "gone": f"{name} has been silent for so long that it is taken for gone{at}",
        }
        return words[incident.ended]
    expected = "" if incident.expected is None else f", expected {incident.expected:.3g}"
    worst = f"score {incident.score or 0.0:.2f}, value {incident.value:.3g}{expected}"
    words_of_state = {
        "opened": f"{name} is anomalous{at}: {worst}",
        "updated": f"{name} has become worse{at}: {worst}",
        "resolved": f"{name} is quiet again{at}; at its worst: {worst}",
    }
    if incident.ended == "gone":
        return f"{name} was anomalous and has gone silent{at}; at its worst: {worst}"
    return words_of_state[incident.state]
