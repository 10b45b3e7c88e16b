"""The topics of a cluster: finds, creates, describes and deletes them."""

from __future__ import annotations

import time
from collections.abc import Iterable

from confluent_kafka import (
    KafkaError,
    KafkaException,
    TopicCollection,
    Uuid,
)
from confluent_kafka.admin import (
    AclOperation,
    AdminClient,
    ClusterMetadata,
    NewPartitions,
    NewTopic,
)

from dataflow.errors import UserError
from dataflow.kafka.access import prove, unanswered
from dataflow.kafka.client import (
    TIMEOUT,
    TRANSIENT_ERRORS,
    admin,
    admin_of_cluster,
    describe,
    no_right,
)
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

_NOT_ALLOWED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
}
_NO_ID = str(Uuid(0, 0))
"""What a broker without topic ids answers."""


def existing_partitions(
    settings: Settings, topic: str, setting: str, needs: Iterable[AclOperation] = ()
) -> list[int]:
    """Prove that a topic can be used, and return its partitions in ascending order.

    `setting` is the setting that names the topic, and `needs` are the rights that are needed.
    Raises `UserError` if the topic does not exist, if a right is missing, and if the broker or the
    leader of a partition does not answer within 10 s.
    """
    return prove(settings, topic, setting, needs)


def partitions(settings: Settings, topic: str) -> list[int]:
    """Ask the cluster for a topic, and return its partitions; empty if it does not exist.

    Raises `UserError` if no broker answers within 10 s.
    """
    return partition_ids(metadata(settings), topic)


def create(
    settings: Settings,
    names: Iterable[str],
    partition_count: int,
    config: dict[str, str] | None = None,
) -> list[str]:
    """Create the topics that do not exist, and return their names.

    `config` are settings of the topics, such as `cleanup.policy`.

    Raises `UserError` if one cannot be created.
    """
    client, state, cluster = admin_of_cluster(settings)
    missing = [topic for topic in names if topic not in cluster.topics]
    if not missing:
        return []
    created = []
    for topic, future in client.create_topics(
        [NewTopic(topic, partition_count, config=config or {}) for topic in missing],
        operation_timeout=TIMEOUT,
        request_timeout=TIMEOUT,
    ).items():
        try:
            future.result()
            created.append(topic)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                continue
            if error.args[0].code() in _NOT_ALLOWED:
                # Also where it exists: a user without this right does not see it.
                raise no_right(
                    settings, ["Create", "Describe"], f"the topic {topic!r}", f"--topic {topic}"
                ) from None
            if error.args[0].code() in TRANSIENT_ERRORS:
                client.poll(0)  # takes the error that says why
                raise unanswered(cluster, state, error) from None
            raise UserError(
                f"cannot create the topic {topic!r} ({describe(error)}): create it with Kafka's "
                "tools, or check the permissions of the user in ANOMALY_KAFKA__*."
            ) from None
    _await(client, created)
    return created


def _await(client: AdminClient, created: list[str]) -> None:
    """Wait until a broker knows the topics that the controller has created; 10 s at most."""
    deadline = time.monotonic() + TIMEOUT
    while created and time.monotonic() < deadline:
        cluster = client.list_topics(timeout=TIMEOUT)
        if all(partition_ids(cluster, topic) for topic in created):
            return
        time.sleep(0.05)


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
    return admin_of_cluster(settings)[2]


def partition_ids(cluster: ClusterMetadata, topic: str) -> list[int]:
    """Return the partitions of a topic in ascending order; empty if it does not exist."""
    found = cluster.topics.get(topic)
    if found is None or found.error is not None:
        return []
    return sorted(found.partitions)
