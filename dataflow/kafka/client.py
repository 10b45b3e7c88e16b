"""The one place that makes Kafka clients, and what is asked of a topic's offsets."""

from __future__ import annotations

import logging
from typing import Any

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
)
from confluent_kafka.admin import AdminClient

from dataflow.errors import UserError
from dataflow.settings import Settings

__all__ = [
    "TIMEOUT",
    "TRANSIENT_ERRORS",
    "admin",
    "consumer",
    "describe",
    "producer",
    "transactional_producer",
]

TIMEOUT = 10.0
"""Seconds to wait for a broker's answer."""

_SILENT = logging.Logger("librdkafka", level=logging.CRITICAL + 1)


TRANSIENT_ERRORS = {
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._RESOLVE,
}
"""Errors of a broker that cannot be reached: librdkafka keeps trying, and so do its readers."""


class Client:
    """The settings of a client, and the last thing that librdkafka complained of."""

    def __init__(self, settings: Settings, **config: Any) -> None:
        self.brokers = settings.brokers
        self.complaint: str | None = None
        self.config = {
            "bootstrap.servers": settings.brokers,
            "client.id": "ec2-anomaly-dataflow",
            # A typing error in a topic's name must not make a topic.
            "allow.auto.create.topics": False,
            # librdkafka repeats every failed connection on standard error; we say it once.
            "logger": _SILENT,
            "error_cb": self._complain,
            # A broker that comes back is found within two seconds; the default may wait for ten.
            "reconnect.backoff.max.ms": 2000,
            **config,
            **settings.kafka,
        }

    def _complain(self, error: KafkaError) -> None:
        # "0/2 brokers are down" says less than the reason why, which may precede it.
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self.complaint = error.str()

    def refusal(self, error: KafkaException) -> UserError:
        reason = self.complaint or _sentence(error)
        if self.complaint is None and error.args[0].code() == KafkaError._TRANSPORT:
            # librdkafka keeps this to its log, though a wrong protocol is the usual cause.
            reason = (
                "it closes the connection: if it wants TLS or a password, say so in "
                "ANOMALY_KAFKA__SECURITY_PROTOCOL"
            )
        # "127.0.0.1:1/bootstrap: Connect to ... failed: refused (after 0ms in state CONNECT)"
        reason = reason.split("/bootstrap: ")[-1].split(" (after ")[0]
        return UserError(
            f"no answer from the broker {self.brokers} ({reason}): "
            "check that it runs, and ANOMALY_BROKERS and ANOMALY_KAFKA__*."
        )


def _sentence(error: Exception) -> str:
    if isinstance(error, KafkaException) and error.args and isinstance(error.args[0], KafkaError):
        return error.args[0].str()
    return str(error)


def admin_client(settings: Settings) -> tuple[AdminClient, Client]:
    client = Client(settings)
    try:
        return AdminClient(client.config), client
    except KafkaException as wrong:
        raise UserError(f"ANOMALY_KAFKA__*: {_sentence(wrong)}.") from None


def admin(settings: Settings) -> AdminClient:
    """Make a client that makes and deletes topics; a UserError if its settings are wrong."""
    return admin_client(settings)[0]


def consumer(settings: Settings, **config: Any) -> Consumer:
    """Make a consumer that is told where to read, keeps no group, and never skips in silence."""
    return Consumer(
        Client(
            settings,
            **{
                # We keep the offsets ourselves; librdkafka insists on a name.
                "group.id": "ec2-anomaly-dataflow",
                "enable.auto.commit": False,
                # Offsets that are gone are an error, and not a jump to the end.
                "auto.offset.reset": "error",
                # The default of a second halves the speed of a backfill.
                "fetch.queue.backoff.ms": 10,
                # A tenth of the default, for each partition: less memory, and nothing waits.
                "queued.min.messages": 10_000,
                # The embedded broker answers with all that it has, and of more than the default of
                # 100 MB librdkafka takes nothing, again and again, without a word.
                "receive.message.max.bytes": 2_000_000_000,
                **config,
            },
        ).config
    )


def transactional_producer(settings: Settings, name: str) -> Producer:
    """Make a producer that shuts out every other of its name; a UserError if it cannot."""
    # A transaction that a crash leaves open holds back its readers no longer than this.
    client = producer(settings, **{"transactional.id": name, "transaction.timeout.ms": 15_000})
    try:
        client.init_transactions(TIMEOUT)
    except KafkaException as error:
        raise UserError(
            f"{settings.brokers} does not give leave to write in transactions as {name} "
            f"({_sentence(error)}): check the rights of the user in ANOMALY_KAFKA__*."
        ) from None
    return client


def producer(settings: Settings, **config: Any) -> Producer:
    """Make a producer whose retries neither repeat nor reorder."""
    return Producer(
        Client(
            settings,
            **{
                "enable.idempotence": True,
                # As the Java clients do, so that one instance has one partition whoever writes.
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                # Fail, and let a resume repeat, while a supervisor still waits.
                "message.timeout.ms": 10_000,
                **config,
            },
        ).config
    )


def describe(error: KafkaError | KafkaException) -> str:
    """Return a Kafka error as words."""
    return _sentence(error) if isinstance(error, KafkaException) else error.str()
