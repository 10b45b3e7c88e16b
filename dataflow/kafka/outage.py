"""Says when a broker that is waited for does not answer, and when it answers again."""

from __future__ import annotations

import sys
import threading
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from dataflow.kafka.client import TRANSIENT_ERRORS, Client, consumer_client, describe
from dataflow.settings import Settings

__all__ = ["watch"]

LOOK = 3.0
"""Seconds between two questions to the brokers, of which each answers in milliseconds."""

LOOK_AGAIN = 1.0
"""The same while a broker does not answer."""

PATIENCE = 8.0
"""Seconds without an answer that a restart, an election or a busy machine takes: no line."""

ANSWER = 4.0
"""Seconds to wait for one answer: two in a row that fail are within 12 s of the last that came."""

_AWAY = TRANSIENT_ERRORS | {
    KafkaError._DESTROY_BROKER,
    KafkaError._WAIT_COORD,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
}


def watch(settings: Settings, topic: str) -> None:
    """Ask the leaders of a topic every few seconds, in the background, until the process ends.

    Prints one line on standard error within 15 s after one of them stops to answer, with its
    address, and one when all answer again. A client waits for such a broker without end: librdkafka
    connects again by itself.
    """
    threading.Thread(target=_watch, args=(settings, topic), name="outage", daemon=True).start()


def _watch(settings: Settings, topic: str) -> None:
    client, state = consumer_client(settings)
    answered = time.monotonic()
    reported: str | None = None
    while True:
        time.sleep(LOOK if reported is None else LOOK_AGAIN)
        while (silent := _silent(client, state, settings, topic)) is not None:
            address, reason = silent
            passed = time.monotonic() - answered
            if reported is None and passed > PATIENCE:
                reported = address
                _say(
                    f"warning: the broker {address} has not answered for {passed:.0f} s "
                    f"({reason}): waiting for it."
                )
            time.sleep(LOOK_AGAIN)
        if reported is not None:
            passed = time.monotonic() - answered
            _say(f"the broker {reported} answers again after {passed:.0f} s.")
            reported = None
        answered = time.monotonic()


def _silent(
    client: Consumer, state: Client, settings: Settings, topic: str
) -> tuple[str, str] | None:
    """Return the address of a broker that does not answer, and the reason; None if all do."""
    address = settings.brokers
    state.last_error = None
    try:
        cluster = client.list_topics(topic, ANSWER)
        partitions = cluster.topics[topic].partitions
        for leader, number in {it.leader: number for number, it in partitions.items()}.items():
            broker = cluster.brokers.get(leader)
            address = settings.brokers if broker is None else f"{broker.host}:{broker.port}"
            client.get_watermark_offsets(TopicPartition(topic, number), timeout=ANSWER)
    except KafkaException as error:
        if error.args[0].code() not in _AWAY:
            return None  # whoever reads the topic says what is wrong with it
        client.poll(0)  # takes the error that says why
        return address, state.reason or describe(error)
    return None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
