"""Fills a topic with readings, as the tutorial's producer writes them."""

from __future__ import annotations

import contextlib
import json
import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from dataflow import kafka
from dataflow.kafka import topics
from dataflow.settings import Settings

__all__ = ["PARTITIONS", "filled"]

PARTITIONS = 4
START = datetime(2024, 3, 1, tzinfo=UTC)


@contextlib.contextmanager
def filled(
    brokers: str, records: int, instances: int, partitions: int = PARTITIONS
) -> Iterator[str]:
    """Create a topic of readings, partitioned by instance, and yield its name.

    At the end it is deleted.
    """
    settings = Settings(_env_file=None, brokers=brokers)
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    rejected = f"{topic}.rejected"
    try:
        topics.create(settings, [topic], partitions)
        topics.create(settings, [rejected], 1)
        fill(settings, topic, records, instances, partitions)
        yield topic
    finally:
        topics.delete(settings, [topic, rejected])


def fill(settings: Settings, topic: str, records: int, instances: int, partitions: int) -> None:
    """Write readings of all instances in turn, partitioned by instance."""
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
        producer.produce(topic, json.dumps(reading), key, partition=instance % partitions)
        if number % 20_000 == 0:
            producer.flush()
    if producer.flush(60):
        raise SystemExit(
            f"error: The broker {settings.brokers} did not take all records: check that it is up."
        )
