"""The topics of a cluster: finds, creates and deletes them, and watches their partitions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from confluent_kafka import (
    KafkaError,
    KafkaException,
)
from confluent_kafka.admin import ClusterMetadata, NewPartitions, NewTopic

from dataflow.errors import UserError
from dataflow.kafka.client import TIMEOUT, admin, admin_client, describe
from dataflow.settings import Settings

__all__ = [
    "add_partitions",
    "create",
    "delete",
    "existing_partitions",
    "metadata",
    "partition_ids",
    "partitions",
    "watch_partitions",
]

WATCH = 10.0
"""Seconds between two checks for new partitions."""


def existing_partitions(settings: Settings, topic: str, setting: str) -> list[int]:
    """Ask the cluster for a topic, and return its partitions in ascending order.

    Raises `UserError` if the topic does not exist, with the setting that names it, and if no broker
    answers within 10 s.
    """
    found = partitions(settings, topic)
    if not found:
        raise UserError(
            f"the topic {topic!r} does not exist on {settings.brokers}: create it with "
            f"`python -m dataflow topics`, or set {setting} to an existing topic."
        )
    return found


def partitions(settings: Settings, topic: str) -> list[int]:
    """Ask the cluster for a topic, and return its partitions; empty if it does not exist.

    Raises `UserError` if no broker answers within 10 s.
    """
    return partition_ids(metadata(settings), topic)


def create(settings: Settings, names: Iterable[str], partition_count: int) -> list[str]:
    """Create the topics that do not exist, and return their names.

    Raises `UserError` if one cannot be created.
    """
    present = metadata(settings).topics
    missing = [topic for topic in names if topic not in present]
    if not missing:
        return []
    client = admin(settings)
    created = []
    for topic, future in client.create_topics(
        [NewTopic(topic, num_partitions=partition_count) for topic in missing],
        operation_timeout=TIMEOUT,
        request_timeout=TIMEOUT,
    ).items():
        try:
            future.result()
            created.append(topic)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                continue
            raise UserError(
                f"cannot create the topic {topic!r} ({describe(error)}): create it with Kafka's "
                "tools, or check the permissions of the user in ANOMALY_KAFKA__*."
            ) from None
    return created


def add_partitions(settings: Settings, topic: str, partition_count: int) -> None:
    """Raise the number of a topic's partitions to `partition_count`."""
    client = admin(settings)
    for future in client.create_partitions([NewPartitions(topic, partition_count)]).values():
        future.result()


def delete(settings: Settings, names: Iterable[str]) -> None:
    """Delete topics and their records."""
    client = admin(settings)
    for future in client.delete_topics(list(names)).values():
        future.result()


def watch_partitions(settings: Settings, known: int, report: Callable[[str], None]) -> None:
    """Check every 10 s, in the background, whether the input topic has new partitions.

    Calls `report` once, with a message, if there are more than `known` partitions. Keeps trying
    while no broker answers.
    """
    client = admin(settings)

    def watch() -> None:
        while True:
            time.sleep(WATCH)
            try:
                cluster = client.list_topics(settings.topic, timeout=TIMEOUT)
            except KafkaException:
                continue
            present = len(partition_ids(cluster, settings.topic))
            if present > known:
                report(
                    f"the topic {settings.topic!r} has {present} partitions now and had {known}: "
                    "the flow ends; start it again to read all partitions."
                )
                return

    threading.Thread(target=watch, name="partitions", daemon=True).start()


def metadata(settings: Settings) -> ClusterMetadata:
    """Return the topics of the cluster and their partitions.

    Raises `UserError` if no broker answers within 10 s.
    """
    cluster_admin, client = admin_client(settings)
    try:
        return cluster_admin.list_topics(timeout=TIMEOUT)
    except KafkaException as error:
        cluster_admin.poll(0)
        raise client.no_answer(error) from None


def partition_ids(cluster: ClusterMetadata, topic: str) -> list[int]:
    """Return the partitions of a topic in ascending order; empty if it does not exist."""
    found = cluster.topics.get(topic)
    if found is None or found.error is not None:
        return []
    return sorted(found.partitions)
