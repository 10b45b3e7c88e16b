"""Where anomalies, incidents and rejected records go: topics, files, standard output, plugins.

With a recovery store, topics and files hold each record exactly once: a resumed flow looks up what
was written since the last snapshot, and skips it. Standard output cannot be read back: after a
crash it may repeat records.

A new built-in output is a file in this folder and a line in `OUTPUTS` of `dataflow.settings`.
"""

from __future__ import annotations

import re
from typing import Any

from bytewax.outputs import Sink

from dataflow import plugins
from dataflow.errors import UserError
from dataflow.kafka import topics
from dataflow.recovery.store import Store
from dataflow.settings import OUTPUTS, Settings, is_output_file
from dataflow.sinks.base import BatchOutput, Output
from dataflow.sinks.jsonl import JsonLinesOutput, JsonLinesSink, StandardOutput, StreamSink
from dataflow.sinks.kafka import KafkaSink
from dataflow.warnings import say

__all__ = [
    "BatchOutput",
    "Output",
    "end_outputs",
    "incident_outputs",
    "outputs",
    "rejected_output",
]


def outputs(settings: Settings, store: Store | None) -> dict[str, Sink[Any]]:
    """Return the sinks for anomalies by their step ids.

    `store` is the recovery store, None if the flow has none. Raises `UserError` if an output cannot
    be used.
    """
    return {
        f"write_{name}": output(settings, store).anomalies()
        for name, output in _classes(settings).items()
    }


def incident_outputs(settings: Settings, store: Store | None) -> dict[str, Sink[Any]]:
    """Return the sinks for incidents by their step ids: of each output that takes incidents.

    Raises `UserError` if an output cannot be used.
    """
    sinks = {
        f"write_incidents_{name}": output(settings, store).incidents()
        for name, output in _classes(settings).items()
    }
    return {step_id: sink for step_id, sink in sinks.items() if sink is not None}


def end_outputs(settings: Settings) -> dict[str, Sink[Any]]:
    """Return the sinks for the ends of episodes by their step ids: standard output, if a terminal.

    Where there are incidents, they say the same.
    """
    if "stdout" not in settings.outputs or settings.incidents:
        return {}
    sink = StandardOutput(settings, None).ends()
    return {} if sink is None else {"write_ends_stdout": sink}


def _classes(settings: Settings) -> dict[str, type[Output]]:
    """Return the classes of the outputs by the part of the step id that names them."""
    classes: dict[str, type[Output]] = {}
    for output in settings.outputs:
        found = JsonLinesOutput if is_output_file(output) else plugins.load(OUTPUTS, output)
        if not (isinstance(found, type) and issubclass(found, Output)):
            raise UserError(
                f"ANOMALY_OUTPUT names {output!r}, which is not an output: make it a subclass of "
                "dataflow.sinks.BatchOutput or dataflow.sinks.Output."
            )
        name = _step_name(output)
        if name in classes:
            raise UserError(
                f"ANOMALY_OUTPUT names {output!r} and another output whose step id is also "
                f"write_{name}: give one of them another name."
            )
        classes[name] = found
    return classes


def _step_name(output: str) -> str:
    if is_output_file(output):
        return "jsonl"
    name = re.sub(r"\W+", "_", output, flags=re.ASCII)
    # The ids of these steps are taken.
    reserved = name in ("jsonl", "rejected") or name.startswith(("incidents", "ends"))
    if reserved:
        raise UserError(
            f"ANOMALY_OUTPUT names {output!r}, whose step id write_{name} is taken: give the "
            "output another name."
        )
    return name


def rejected_output(settings: Settings, store: Store | None) -> Sink[Any]:
    """Return the sink for rejected records.

    With input from Kafka, the rejected topic is created if its name is the default,
    `TOPIC.rejected`; a topic that ANOMALY_REJECTED_TOPIC names must exist. Raises `UserError` if
    the sink cannot be used.
    """
    if settings.input == "kafka":
        if settings.rejected_topic == f"{settings.topic}.rejected":
            for topic in topics.create(settings, [settings.rejected_topic], 1):
                say(f"created the topic {topic} for rejected records")
        return KafkaSink(settings, settings.rejected_topic, "ANOMALY_REJECTED_TOPIC", store)
    if settings.output_file is not None:
        path = settings.output_file.with_suffix(".rejected.jsonl")
        return JsonLinesSink(path, store, lazy=True)
    return StreamSink("stderr")
