"""Creates every Kafka client of this package, from the settings."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable
from typing import Any

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
)
from confluent_kafka.admin import AdminClient, ClusterMetadata

from dataflow import librdkafka
from dataflow.errors import UserError
from dataflow.settings import Settings
from dataflow.warnings import warn

__all__ = [
    "TIMEOUT",
    "TRANSIENT_ERRORS",
    "AdvertisedAddressError",
    "admin",
    "admin_client",
    "admin_of_cluster",
    "consumer",
    "consumer_client",
    "describe",
    "no_right",
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
    KafkaError.GROUP_AUTHORIZATION_FAILED,
}
"""Errors that do not end a reader.

While a broker cannot be reached, librdkafka keeps trying. It also looks for the coordinator of the
consumer group, which a user without the right to the group may not; only commits need it.
"""

COORDINATOR_WAIT = 30.0
"""Seconds to wait for the coordinator of transactions: a new cluster creates its topic first."""

CONTROLLER_WAIT = 30.0
"""Seconds to wait for a controller: a cluster that starts, or whose brokers were paused, has none
until a broker has registered with it."""

_NO_COORDINATOR_YET = {
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.CONCURRENT_TRANSACTIONS,
    KafkaError._TIMED_OUT,
}


class AdvertisedAddressError(UserError):
    """The broker answers, and sends its clients to an address that does not."""


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
            **librdkafka.passed_on(settings.kafka),
        }

    def _keep_error(self, error: KafkaError) -> None:
        # "0/2 brokers are down" may follow the error that says why: keep the earlier one.
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self.last_error = error.str()

    @property
    def reason(self) -> str | None:
        """Why a broker cannot be reached, as librdkafka reported it last."""
        # Keep the middle of "HOST:1/bootstrap: Connect to ... failed (after 0ms in state CONNECT)".
        text = self.last_error
        return text and re.sub(r"^\S+/(bootstrap|\d+): ", "", text).split(" (after ")[0]

    def rejected(self, error: KafkaException | TypeError | ValueError) -> UserError:
        """Return the error to raise if librdkafka rejects the settings."""
        return UserError(
            f"librdkafka rejects the settings ANOMALY_KAFKA__* ({_text(error)}): correct them."
        )

    def no_answer(self, error: KafkaException) -> UserError:
        """Return the error to raise if no broker answers."""
        # The address of a broker that the cluster names ends in its number, not in "bootstrap".
        named = re.match(r"(?:\w+://)?(\S+)/\d+: ", self.last_error or "")
        if named and not self.is_given(named[1]):
            return self.sent_to(named[1], error)
        reason = self.reason or _text(error)
        if self.last_error is None and error.args[0].code() == KafkaError._TRANSPORT:
            # librdkafka only logs the usual cause: the broker expects another protocol.
            reason = (
                "it closes the connection; if it needs TLS or a password, set "
                "ANOMALY_KAFKA__SECURITY_PROTOCOL"
            )
        return UserError(
            f"no answer from the broker {self.brokers} ({reason}): "
            "check that it runs, and check ANOMALY_BROKERS and ANOMALY_KAFKA__*."
        )

    def is_given(self, address: str) -> bool:
        """Return whether an address is one of those in the settings."""
        return address in map(str.strip, self.brokers.split(","))

    def sent_to(self, address: str, error: KafkaException) -> AdvertisedAddressError:
        """Return the error to raise if an address that the cluster advertises does not answer."""
        return AdvertisedAddressError(
            f"the broker {self.brokers} sends its clients to {address}, which does not answer "
            f"({self.reason or _text(error)}): correct advertised.listeners of the broker, or "
            "check that this machine can reach that address; with Kafka in a container see "
            "docs/operations.md."
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
    except (KafkaException, TypeError, ValueError) as error:
        raise client.rejected(error) from None


def admin(settings: Settings) -> AdminClient:
    """Create a client that creates and deletes topics.

    Raises `UserError` if librdkafka rejects its settings.
    """
    return admin_client(settings)[0]


def admin_of_cluster(settings: Settings) -> tuple[AdminClient, Client, ClusterMetadata]:
    """Create an admin client that knows the controller, and return the cluster's topics too.

    Waits up to 30 s until the cluster has a controller: a client that learned of none waits for
    one without asking again. Raises `UserError` if no broker answers within 10 s, and if there is
    no controller.
    """
    deadline = time.monotonic() + CONTROLLER_WAIT
    seen = False  # a cluster without a controller: it may also close connections
    while True:
        # A new one each time: after an answer without brokers, a client may find none again.
        created, client = admin_client(settings)
        try:
            cluster = created.list_topics(timeout=TIMEOUT)
        except KafkaException as error:
            if not seen and error.args[0].code() != KafkaError._PARTIAL:
                created.poll(0)  # takes the error that says why
                raise client.no_answer(error) from None
        else:
            if cluster.controller_id >= 0:
                return created, client, cluster
        if time.monotonic() > deadline:
            raise UserError(
                f"the cluster {settings.brokers} has no controller: check that its brokers run and "
                "reach each other, and read their logs."
            )
        if not seen:
            seen = True
            warn(
                "no-controller",
                f"the cluster {settings.brokers} has no controller yet: asking again for "
                f"{CONTROLLER_WAIT:.0f} s.",
            )
        time.sleep(0.2)


def consumer(settings: Settings, **config: Any) -> Consumer:
    """Create a consumer that is assigned its offsets, commits none, and never skips silently.

    Raises `UserError` if librdkafka rejects its settings.
    """
    return consumer_client(settings, **config)[0]


def consumer_client(settings: Settings, **config: Any) -> tuple[Consumer, Client]:
    """Create a consumer, and return it with its `Client`, which keeps the last error."""
    client = Client(
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
    )
    try:
        return Consumer(client.config), client
    except (KafkaException, TypeError, ValueError) as error:
        raise client.rejected(error) from None


def transactional_producer(settings: Settings, name: str) -> Producer:
    """Create a producer that fences every earlier producer of the same name.

    Waits up to 30 s for the coordinator of transactions. Raises `UserError` if there is none, or if
    the broker does not allow transactions.
    """
    deadline = time.monotonic() + COORDINATOR_WAIT
    warned = False
    while True:
        # A transaction that a crash leaves open blocks its readers no longer than this.
        client = producer(settings, **{"transactional.id": name, "transaction.timeout.ms": 15_000})
        try:
            client.init_transactions(min(TIMEOUT, max(0.1, deadline - time.monotonic())))
        except KafkaException as error:
            if error.args[0].code() not in _NO_COORDINATOR_YET or time.monotonic() > deadline:
                raise _no_transactions(settings, name, error) from None
            if error.args[0].code() == KafkaError._TIMED_OUT and not warned:
                warned = True
                warn(
                    "no-coordinator",
                    f"the broker {settings.brokers} has no coordinator for transactions yet: "
                    f"asking again for {COORDINATOR_WAIT:.0f} s.",
                )
            time.sleep(0.2)
        else:
            return client


def _no_transactions(settings: Settings, name: str, error: KafkaException) -> UserError:
    code = error.args[0].code()
    if code == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
        return no_right(
            settings, ["Write"], f"the transactional id {name}", f"--transactional-id {name}"
        )
    if code in _NO_COORDINATOR_YET:
        return UserError(
            f"the broker {settings.brokers} has no coordinator for transactions ({_text(error)}): "
            "check that its topic __transaction_state can be created "
            "(transaction.state.log.replication.factor must not exceed the number of brokers), "
            "and that this machine can reach every broker."
        )
    return UserError(
        f"the broker {settings.brokers} does not allow transactions with the id {name} "
        f"({_text(error)}): check the permissions of the user in ANOMALY_KAFKA__*."
    )


def no_right(settings: Settings, operations: Iterable[str], what: str, resource: str) -> UserError:
    """Return the error to raise if the user lacks rights, with the command that grants them."""
    rights = " and ".join(operation.upper() for operation in operations)
    grants = " ".join(f"--operation {operation}" for operation in operations)
    return UserError(
        f"the user has no right to {rights} on {what}: grant it with `kafka-acls.sh "
        f"--bootstrap-server {settings.brokers} --add --allow-principal User:NAME {grants} "
        f"{resource}`."
    )


def producer(settings: Settings, **config: Any) -> Producer:
    """Create a producer whose retries neither repeat nor reorder records.

    Raises `UserError` if librdkafka rejects its settings.
    """
    client = Client(
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
    )
    try:
        return Producer(client.config)
    except (KafkaException, TypeError, ValueError) as error:
        raise client.rejected(error) from None


def describe(error: KafkaError | KafkaException) -> str:
    """Return the text of a Kafka error."""
    return _text(error) if isinstance(error, KafkaException) else error.str()
