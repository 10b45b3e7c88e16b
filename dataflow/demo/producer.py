"""Writes readings to the input topic, keyed by instance so that each instance keeps its order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from shlex import quote

from confluent_kafka import KafkaError, KafkaException, Message

from dataflow import kafka
from dataflow.errors import UserError
from dataflow.formats.detect import Choice
from dataflow.formats.files import KINDS, check_file, is_file, read_records
from dataflow.kafka import topics
from dataflow.records import BadLine
from dataflow.settings import Settings
from dataflow.steps.decode import choice, chosen, key_reader
from dataflow.warnings import warn_once

__all__ = ["count_records", "keyed_records", "prepare_topic", "send", "stored_records"]

SAMPLE = 100
"""Records by which the format `auto` is chosen."""

BATCH = 500
"""Records at most between two updates of the progress bar and two checks of the deliveries."""


def keyed_records(path: Path, settings: Settings) -> Iterator[tuple[str | None, bytes]]:
    """Return the records of a file, each with its instance as the key.

    A record without an instance, or of several, has no key; what cannot be read, the flow rejects
    with a reason. Warns if nothing is known that looks like the first records. Raises `UserError`
    if the file has another suffix or cannot be read.
    """
    if not is_file(path.name):
        raise UserError(
            f"{path} is not a file of records, a line each: give one whose name ends in {KINDS}."
        )
    check_file(path, settings.columns)
    key_of = key_reader(_found(path, settings))
    return (
        (None if isinstance(raw, BadLine) else key_of(raw.value or b""), raw.value or b"")
        for raw in read_records(path)
    )


def _found(path: Path, settings: Settings) -> Settings:
    """Return the settings with the format that the first records of a file have."""
    if settings.format != "auto":
        return settings
    sample = [raw.value for raw in islice(read_records(path), SAMPLE)]
    found = choice(settings, sample, sure=True)
    if found is None and sample:
        warn_once(
            "unusable",
            f"the first {len(sample):,} records of {path} have no format that is known: see what "
            f"`python -m dataflow inspect {quote(str(path))}` says.",
        )
    return chosen(settings, found or Choice("json"))


def count_records(path: Path) -> int:
    """Return how many records a file holds."""
    return sum(1 for _ in read_records(path))


def prepare_topic(settings: Settings, partitions: int) -> bool:
    """Create the input topic if it does not exist; return whether it was created.

    Raises `UserError` if it cannot be created or written.
    """
    created = topics.create(settings, [settings.topic], partitions)
    topics.existing_partitions(settings, settings.topic, "ANOMALY_TOPIC", [kafka.WRITE])
    return bool(created)


def stored_records(settings: Settings) -> int:
    """Return the sum of the end offsets of the input topic: 0 if nothing was written to it."""
    return sum(kafka.end_offsets(settings, settings.topic).values())


def send(
    settings: Settings,
    records: Iterable[tuple[str | None, bytes]],
    rate: float | None,
    advance: Callable[[int], None],
) -> int:
    """Write records to the input topic, wait for all deliveries, and return the number written.

    `rate` is in records a second; None writes as fast as possible. `advance` is called with the
    number of records written since the last call. Raises `UserError` if the broker does not
    acknowledge a record.
    """
    client = kafka.producer(settings, **{"linger.ms": 50, "queue.buffering.max.messages": 100_000})
    failed: list[str] = []

    def on_delivery(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failed.append(error.str())

    sent = 0
    started = time.monotonic()
    batch = BATCH if rate is None else max(1, min(BATCH, int(rate / 10)))
    for key, record in records:
        while True:
            try:
                client.produce(settings.topic, record, key, on_delivery=on_delivery)
                break
            except BufferError:
                client.poll(0.5)
            except KafkaException as error:
                failed.append(kafka.describe(error))
                break
        sent += 1
        if sent % batch == 0:
            client.poll(0)
            advance(batch)
            if rate is not None:
                client.flush()
                time.sleep(max(0.0, started + sent / rate - time.monotonic()))
        if failed:
            break
    advance(sent % batch)
    unsent = client.flush()
    if failed or unsent:
        raise UserError(
            f"{len(failed) + unsent} of {sent} records did not reach the topic {settings.topic!r} "
            f"({failed[0] if failed else 'no answer from the broker'}): check the broker and retry."
        )
    return sent
