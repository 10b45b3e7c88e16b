"""The tutorial's flow, its logic rewritten for the benchmark: stock parts, one model per key."""

from __future__ import annotations

import json
import os
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.connectors.stdio import StdOutSink
from bytewax.dataflow import Dataflow
from river.anomaly import HalfSpaceTrees


def read(message: KafkaSourceMessage[Any, Any]) -> tuple[str, dict[str, Any]]:
    """Decode a record, and key it by its instance."""
    reading = json.loads(message.value)
    reading["value"] = float(reading["value"]) / 100
    return reading["instance"], reading


def score(model: HalfSpaceTrees | None, reading: dict[str, Any]) -> tuple[HalfSpaceTrees, Any]:
    """Learn a reading, then score it."""
    if model is None:
        model = HalfSpaceTrees(n_trees=5, height=3, window_size=5, seed=42)
    features = {"value": reading["value"]}
    model.learn_one(features)
    reading["score"] = model.score_one(features)
    return model, reading


def is_anomaly(keyed: tuple[str, dict[str, Any]]) -> bool:
    """Return whether a score lies above the tutorial's threshold."""
    return bool(keyed[1]["score"] > 0.7)


def line(keyed: tuple[str, dict[str, Any]]) -> str:
    """Write an anomaly as a line."""
    instance, reading = keyed
    return (
        f"{instance}: time = {reading['timestamp']}, value = {reading['value']:.3f}, "
        f"score = {reading['score']:.2f}"
    )


flow = Dataflow("tutorial")
stream: Any = op.input(
    "in", flow, KafkaSource([os.environ["BENCH_BROKERS"]], [os.environ["BENCH_TOPIC"]], tail=False)
)
stream = op.map("read", stream, read)
stream = op.stateful_map("score", stream, score)
stream = op.filter("filter", stream, is_anomaly)
stream = op.map("line", stream, line)
op.output("out", stream, StdOutSink())
