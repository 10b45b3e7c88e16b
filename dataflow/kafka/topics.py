"""The topics of a cluster: finds, creates, describes and deletes them."""

from __future__ import annotations

from collections.abc import Iterable

from confluent_kafka import (
    KafkaError,
    KafkaException,
    TopicCollection,
    Uuid,
)
from confluent_kafka.admin import AdminClient, ClusterMetadata, NewPartitions, NewTopic

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
    "topic_id",
]

_NO_ID = str(Uuid(0, 0))
"""What a broker without topic ids answers."""


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


def topic_id(client: AdminClient, topic: str, timeout: float = TIMEOUT) -> str | None:
    """Return the id that the cluster gave a topic when it was created.

    None if the cluster gives topics no ids, or if the topic cannot be described within `timeout`
    seconds.
    """
    described = client.describe_topics(TopicCollection([topic]), request_timeout=timeout)
    try:
        found = described[topic].result().topic_id
    except KafkaException:
        return None
    return None if str(found) == _NO_ID else str(found)


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
