"""Proves that a topic can be used: it exists, its leaders answer, and the user has the rights."""

from __future__ import annotations

import time
from collections.abc import Iterable

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AclOperation, ClusterMetadata, TopicDescription

from dataflow.errors import UserError
from dataflow.kafka.client import (
    TIMEOUT,
    Client,
    admin,
    admin_of_cluster,
    consumer_client,
    no_right,
)
from dataflow.settings import Settings

__all__ = [
    "DESCRIBE",
    "READ",
    "WRITE",
    "prove",
    "prove_group",
    "prove_if_present",
    "unanswered",
]

DESCRIBE = AclOperation.DESCRIBE
READ = AclOperation.READ
WRITE = AclOperation.WRITE


def prove(
    settings: Settings,
    topic: str,
    setting: str,
    needs: Iterable[AclOperation] = (),
) -> list[int]:
    """Prove that a topic can be used, and return its partitions in ascending order.

    `setting` is the setting that names the topic, and `needs` are the rights that are needed. A
    broker that does not say which rights the user has is not asked further. Raises `UserError` if
    the topic does not exist, if a right is missing, or if a leader does not answer within 10 s.
    """
    described = _describe(settings, topic, setting, needs)
    if described is None:
        raise UserError(
            f"the topic {topic!r} does not exist on {settings.brokers}: create it with "
            f"`python -m dataflow topics`, or set {setting} to an existing topic."
        )
    _prove(settings, topic, setting, needs, described)
    return sorted(partition.id for partition in described.partitions)


def prove_if_present(
    settings: Settings,
    topic: str,
    setting: str,
    needs: Iterable[AclOperation] = (),
) -> None:
    """Prove that a topic can be used, as `prove` does, unless it does not exist."""
    described = _describe(settings, topic, setting, needs)
    if described is not None:
        _prove(settings, topic, setting, needs, described)


def _prove(
    settings: Settings,
    topic: str,
    setting: str,
    needs: Iterable[AclOperation],
    described: TopicDescription,
) -> None:
    rights = described.authorized_operations
    missing = [] if rights is None else [it for it in needs if it not in rights]
    if missing:
        raise _no_right(settings, topic, setting, missing)
    _ask_leaders(settings, topic)


def _describe(
    settings: Settings,
    topic: str,
    setting: str,
    needs: Iterable[AclOperation],
) -> TopicDescription | None:
    """Return what the broker says of a topic, None if it does not exist."""
    cluster_admin, client, cluster = admin_of_cluster(settings)
    try:
        (found,) = cluster_admin.describe_topics(
            TopicCollection([topic]),
            include_authorized_operations=True,
            request_timeout=TIMEOUT,
        ).values()
        described: TopicDescription = found.result()
    except KafkaException as error:
        code = error.args[0].code()
        if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise _no_right(settings, topic, setting, needs or [DESCRIBE]) from None
        if code == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return None
        if code == KafkaError.TOPIC_EXCEPTION:
            raise UserError(
                f"{setting} is {topic!r}, which is no name of a topic: use letters, digits, '.', "
                "'_' and '-' only."
            ) from None
        cluster_admin.poll(0)
        raise unanswered(cluster, client, error) from None
    return described


def _no_right(
    settings: Settings, topic: str, setting: str, missing: Iterable[AclOperation]
) -> UserError:
    operations = [right.name.title() for right in missing]
    return no_right(settings, operations, f"the topic {topic!r} ({setting})", f"--topic {topic}")


def prove_group(settings: Settings, group: str) -> None:
    """Prove that the user may commit the offsets of a consumer group.

    A broker that does not say so is not asked further. Raises `UserError`.
    """
    client = admin(settings)  # must live until the answer
    (found,) = client.describe_consumer_groups(
        [group], include_authorized_operations=True, request_timeout=TIMEOUT
    ).values()
    try:
        rights = found.result().authorized_operations
    except KafkaException as error:
        # A group that does not exist yet is an error for some brokers.
        missing = error.args[0].code() == KafkaError.GROUP_AUTHORIZATION_FAILED
    else:
        missing = rights is not None and READ not in rights
    if missing:
        raise no_right(settings, ["Read"], f"the consumer group {group}", f"--group {group}")


def _ask_leaders(settings: Settings, topic: str) -> None:
    """Ask the leader of every partition of a topic.

    Asks again for 10 s, because a new topic has no leaders yet. Raises `UserError`, with the
    address that the broker advertises, if a leader does not answer.
    """
    deadline = time.monotonic() + TIMEOUT
    client, state = consumer_client(settings)
    try:
        asked: set[int] = set()
        while True:
            cluster = client.list_topics(topic, TIMEOUT)
            places = sorted(cluster.topics[topic].partitions.items())
            by_leader = {place.leader: number for number, place in places}
            left = {leader: it for leader, it in by_leader.items() if leader not in asked}
            if not left:
                return
            leader, number = min(left.items())
            try:
                client.get_watermark_offsets(
                    TopicPartition(topic, number),
                    timeout=max(0.1, deadline - time.monotonic()),
                )
                asked.add(leader)
            except KafkaException as error:
                if time.monotonic() < deadline:
                    time.sleep(0.1)
                    continue
                broker = cluster.brokers.get(leader)
                if broker is None:
                    raise UserError(
                        f"partition {number} of the topic {topic!r} has no leader: start the "
                        "broker that holds it."
                    ) from None
                client.poll(0)  # takes the error that says why
                address = f"{broker.host}:{broker.port}"
                raise _unanswered(address, state, error) from None
    except KafkaException as error:
        client.poll(0)
        raise state.no_answer(error) from None
    finally:
        client.close()


def unanswered(cluster: ClusterMetadata, client: Client, error: KafkaException) -> UserError:
    """Return the error to raise if a broker that the cluster names does not answer."""
    addresses = [f"{it.host}:{it.port}" for _, it in sorted(cluster.brokers.items())]
    if not addresses:
        return client.no_answer(error)
    named = (it for it in addresses if f"{it}/" in (client.last_error or ""))
    return _unanswered(next(named, addresses[0]), client, error)


def _unanswered(address: str, client: Client, error: KafkaException) -> UserError:
    return client.no_answer(error) if client.is_given(address) else client.sent_to(address, error)
