"""Writing readings to the input topic, keyed by instance so that each keeps its order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from confluent_kafka import KafkaError, KafkaException, Message

from dataflow import kafka
from dataflow.errors import UserError
from dataflow.formats.files import check_file, read_records
from dataflow.kafka import topics
from dataflow.settings import Settings
from dataflow.steps.decode import key_reader

__all__ = ["count_records", "held_records", "keyed_records", "prepare_topic", "send"]

STEP = 500
"""Records between two looks at the clock and at the deliveries."""


def keyed_records(path: Path, settings: Settings) -> Iterator[tuple[str | None, bytes]]:
    """Return a file's records with their instances; a UserError if it cannot be read.

    A record without an instance has no key; the flow will refuse it and say why.
    """
    if path.suffix not in (".csv", ".jsonl"):
        raise UserError(f"{path} is neither .csv nor .jsonl: give a file of readings.")
    check_file(path, settings.columns)
    key_of = key_reader(settings)
    return ((key_of(record), record) for record in read_records(path))


def count_records(path: Path) -> int:
    """Return how many records a file holds."""
    return sum(1 for _ in read_records(path))


def prepare_topic(settings: Settings, partitions: int) -> bool:
    """Create the input topic if it is not there; whether it was created."""
    return bool(topics.create(settings, [settings.topic], partitions))


def held_records(settings: Settings) -> int:
    """Return how many records have been written to the input topic so far."""
    return sum(kafka.end_offsets(settings, settings.topic).values())


def send(
    settings: Settings,
    records: Iterable[tuple[str | None, bytes]],
    rate: float | None,
    advance: Callable[[int], None],
) -> int:
    """Write the records, `rate` a second, and wait until the broker has all; returns how many.

    A UserError if the broker does not take one.
    """
    client = kafka.producer(settings, **{"linger.ms": 50, "queue.buffering.max.messages": 100_000})
    failed: list[str] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failed.append(error.str())

    sent = 0
    started = time.monotonic()
    step = STEP if rate is None else max(1, min(STEP, int(rate / 10)))
    for key, record in records:
        while True:
            try:
                client.produce(settings.topic, record, key, on_delivery=delivered)
                break
            except BufferError:
                client.poll(0.5)
            except KafkaException as error:
                failed.append(kafka.describe(error))
                break
        sent += 1
        if sent % step == 0:
            client.poll(0)
            advance(step)
            if rate is not None:
                client.flush()
                time.sleep(max(0.0, started + sent / rate - time.monotonic()))
        if failed:
            break
    advance(sent % step)
    left = client.flush()
    if failed or left:
        raise UserError(
            f"{len(failed) + left} of {sent} records did not reach the topic {settings.topic!r}: "
            f"{failed[0] if failed else 'no answer from the broker'}."
        )
    return sent
