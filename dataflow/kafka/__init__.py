"""Kafka: creates clients, manages topics, and reads their records."""

from dataflow.kafka.access import READ, WRITE
from dataflow.kafka.client import (
    TIMEOUT,
    TRANSIENT_ERRORS,
    admin,
    consumer,
    describe,
    producer,
    transactional_producer,
)
from dataflow.kafka.reading import end_offsets, offset_range, offset_ranges, read_from, topic_ranges
from dataflow.kafka.topics import metadata, partition_ids

__all__ = [
    "READ",
    "TIMEOUT",
    "TRANSIENT_ERRORS",
    "WRITE",
    "admin",
    "consumer",
    "describe",
    "end_offsets",
    "metadata",
    "offset_range",
    "offset_ranges",
    "partition_ids",
    "producer",
    "read_from",
    "topic_ranges",
    "transactional_producer",
]
