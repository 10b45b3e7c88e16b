"""Where anomalies, incidents and rejected records go: a topic, a file, standard output.

With a recovery store, topic and file keep each record once: what a resumed flow computes again is
looked up in what was written since the last snapshot, by the place where it was read, or by an
incident's id and sequence. Standard output cannot be read back: after a crash it may repeat.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from bytewax.outputs import Sink

from dataflow.kafka import topics
from dataflow.records import Anomaly, Incident, Rejected
from dataflow.recovery.store import Store
from dataflow.settings import Settings
from dataflow.sinks.identity import BY_SEQUENCE
from dataflow.sinks.jsonl import JsonLinesSink, StreamSink
from dataflow.sinks.kafka import KafkaSink

__all__ = ["incident_outputs", "outputs", "rejected_output"]

Record = Anomaly | Incident | Rejected


def outputs(settings: Settings, store: Store | None) -> dict[str, Sink[Any]]:
    """Return the sinks for anomalies by the step that they are; a UserError if one is unusable.

    `store` is the recovery store, None if a crash will not be resumed.
    """
    sinks: dict[str, Sink[Any]] = {}
    for output in settings.outputs:
        if output == "stdout":
            sinks["write_stdout"] = StreamSink("stdout")
        elif output == "kafka":
            sinks["write_kafka"] = KafkaSink(
                settings, settings.anomalies_topic, "ANOMALY_ANOMALIES_TOPIC", store
            )
        else:
            sinks["write_jsonl"] = JsonLinesSink(Path(output), store)
    return sinks


def incident_outputs(settings: Settings, store: Store | None) -> dict[str, Sink[Any]]:
    """Return the sinks for incidents, one beside each of the anomalies'."""
    sinks: dict[str, Sink[Any]] = {}
    for output in settings.outputs:
        if output == "stdout":
            sinks["write_incidents_stdout"] = StreamSink("stdout")
        elif output == "kafka":
            sinks["write_incidents_kafka"] = KafkaSink(
                settings, settings.incidents_topic, "ANOMALY_INCIDENTS_TOPIC", store, BY_SEQUENCE
            )
        else:
            path = Path(output).with_suffix(".incidents.jsonl")
            sinks["write_incidents_jsonl"] = JsonLinesSink(path, store, identity=BY_SEQUENCE)
    return sinks


def rejected_output(settings: Settings, store: Store | None) -> Sink[Any]:
    """Return the sink for rejected records.

    Its topic is made if it carries the name that the input's topic gives it, so that reading a
    topic of one's own takes no preparation; one that was named otherwise must be there.
    """
    if settings.input == "kafka":
        if settings.rejected_topic == f"{settings.topic}.rejected":
            for topic in topics.create(settings, [settings.rejected_topic], 1):
                print(f"created the topic {topic} for refused records", file=sys.stderr)
        return KafkaSink(settings, settings.rejected_topic, "ANOMALY_REJECTED_TOPIC", store)
    for output in settings.outputs:
        if output not in ("stdout", "kafka"):
            return JsonLinesSink(Path(output).with_suffix(".rejected.jsonl"), store, lazy=True)
    return StreamSink("stderr")
