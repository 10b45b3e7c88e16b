"""Creates every Kafka client of this package, from the settings."""

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
"""Seconds to wait for an answer of a broker."""

_SILENT = logging.Logger("librdkafka", level=logging.CRITICAL + 1)


TRANSIENT_ERRORS = {
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._RESOLVE,
}
"""Errors of a broker that cannot be reached: librdkafka keeps trying, and so do its readers."""


class Client:
    """The configuration of a client, and the last error that librdkafka reported."""

    def __init__(self, settings: Settings, **config: Any) -> None:
        self.brokers = settings.brokers
        self.last_error: str | None = None
        self.config = {
            "bootstrap.servers": settings.brokers,
            "client.id": "ec2-anomaly-dataflow",
            # A misspelled topic must not be created.
            "allow.auto.create.topics": False,
            # librdkafka logs each failed connection to standard error; we print one error.
            "logger": _SILENT,
            "error_cb": self._keep_error,
            # Reconnect within 2 s after a broker returns; the default is up to 10 s.
            "reconnect.backoff.max.ms": 2000,
            **config,
            **settings.kafka,
        }

    def _keep_error(self, error: KafkaError) -> None:
        # "0/2 brokers are down" may follow the error that says why: keep the earlier one.
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self.last_error = error.str()

    def no_answer(self, error: KafkaException) -> UserError:
        """Return the error to raise if no broker answers."""
        reason = self.last_error or _text(error)
        if self.last_error is None and error.args[0].code() == KafkaError._TRANSPORT:
            # librdkafka only logs the usual cause: the broker expects another protocol.
            reason = (
                "it closes the connection; if it needs TLS or a password, set "
                "ANOMALY_KAFKA__SECURITY_PROTOCOL"
            )
        # Keep the middle of "HOST:1/bootstrap: Connect to ... failed (after 0ms in state CONNECT)".
        reason = reason.split("/bootstrap: ")[-1].split(" (after ")[0]
        return UserError(
            f"no answer from the broker {self.brokers} ({reason}): "
            "check that it runs, and check ANOMALY_BROKERS and ANOMALY_KAFKA__*."
        )


def _text(error: Exception) -> str:
    if isinstance(error, KafkaException) and error.args and isinstance(error.args[0], KafkaError):
        return error.args[0].str()
    return str(error)


def admin_client(settings: Settings) -> tuple[AdminClient, Client]:
    """Create an admin client, and return it with its `Client`, which keeps the last error."""
    client = Client(settings)
    try:
        return AdminClient(client.config), client
    except KafkaException as error:
        raise UserError(
            f"librdkafka rejects the settings ANOMALY_KAFKA__* ({_text(error)}): correct them."
        ) from None


def admin(settings: Settings) -> AdminClient:
    """Create a client that creates and deletes topics.

    Raises `UserError` if librdkafka rejects its settings.
    """
    return admin_client(settings)[0]


def consumer(settings: Settings, **config: Any) -> Consumer:
    """Create a consumer that is assigned its offsets, commits none, and never skips silently."""
    return Consumer(
        Client(
            settings,
            **{
                # Required by librdkafka, though the flow keeps its offsets itself.
                "group.id": "ec2-anomaly-dataflow",
                "enable.auto.commit": False,
                # An offset that no longer exists is an error, not a jump to the end.
                "auto.offset.reset": "error",
                # The default, 1 s, halves the throughput when catching up.
                "fetch.queue.backoff.ms": 10,
                # A tenth of the default, per partition: takes less memory, and is no slower.
                "queued.min.messages": 10_000,
                # The embedded broker answers with all that it holds. Above the default, 100 MB,
                # librdkafka drops the answer and asks again, forever and without an error.
                "receive.message.max.bytes": 2_000_000_000,
                **config,
            },
        ).config
    )


def transactional_producer(settings: Settings, name: str) -> Producer:
    """Create a producer that fences every earlier producer of the same name.

    Raises `UserError` if the broker does not allow it.
    """
    # A transaction that a crash leaves open blocks its readers no longer than this.
    client = producer(settings, **{"transactional.id": name, "transaction.timeout.ms": 15_000})
    try:
        client.init_transactions(TIMEOUT)
    except KafkaException as error:
        raise UserError(
            f"the broker {settings.brokers} does not allow transactions with the id {name} "
            f"({_text(error)}): check the permissions of the user in ANOMALY_KAFKA__*."
        ) from None
    return client


def producer(settings: Settings, **config: Any) -> Producer:
    """Create a producer whose retries neither repeat nor reorder records."""
    return Producer(
        Client(
            settings,
            **{
                "enable.idempotence": True,
                # As in the Java clients: an instance has one partition, whichever client writes.
                "partitioner": "murmur2_random",
                "linger.ms": 5,
                # Fail before a supervisor gives up: a restart then writes the records again.
                "message.timeout.ms": 10_000,
                **config,
            },
        ).config
    )


def describe(error: KafkaError | KafkaException) -> str:
    """Return the text of a Kafka error."""
    return _text(error) if isinstance(error, KafkaException) else error.str()
