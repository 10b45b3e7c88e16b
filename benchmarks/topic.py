"""Fills a topic of the embedded broker with readings, as the tutorial's producer writes them."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta

from dataflow import kafka, topics
from dataflow.settings import Settings

__all__ = ["PARTITIONS", "fill"]

PARTITIONS = 4
START = datetime(2024, 3, 1, tzinfo=UTC)


def fill(brokers: str, topic: str, records: int, instances: int) -> None:
    """Write readings of all instances in turn, by instance to a partition."""
    settings = Settings(_env_file=None, brokers=brokers)
    topics.create(settings, [topic], PARTITIONS)
    # What is refused goes to a topic of its own, made once and not in a row's time.
    topics.create(settings, ["ec2_metrics.rejected", f"{topic}.rejected"], 1)
    rng = random.Random(1)
    levels = [rng.uniform(5, 60) for _ in range(instances)]
    producer = kafka.producer(settings, **{"linger.ms": 50})
    for number in range(records):
        index, instance = divmod(number, instances)
        if rng.random() < 0.01:
            value = rng.uniform(0, 100)
        else:
            value = min(max(rng.gauss(levels[instance], 3), 0), 100)
        reading = {
            "index": str(index),
            "timestamp": f"{START + timedelta(minutes=5 * index):%Y-%m-%d %H:%M:%S}",
            "value": f"{value:.3f}",
            "instance": f"i-{instance:06x}",
        }
        key = reading["instance"]
        producer.produce(topic, json.dumps(reading), key, partition=instance % PARTITIONS)
        if number % 20_000 == 0:
            producer.flush()
    if producer.flush(60):
        raise SystemExit("error: the embedded broker did not take all records")
