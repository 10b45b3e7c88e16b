"""Where verdicts and anomalies lie: a topic, or a file of JSON lines. Reads and writes them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message

from dataflow import kafka
from dataflow.errors import UserError
from dataflow.kafka import topics
from dataflow.records import Anomaly, encode
from dataflow.settings import Settings, is_output_file
from dataflow.verdicts.record import Feedback, InForce, decode

__all__ = [
    "anomalies_of",
    "anomalies_of_instance",
    "in_force",
    "last",
    "place",
    "prove",
    "prove_anomalies",
    "write",
]

SETTING = "ANOMALY_VERDICTS"


class _About(msgspec.Struct):
    """What says of an anomaly which one it is."""

    id: str
    instance: str
    episode: str = ""
    metric: str = "cpu"


_about = msgspec.json.Decoder(_About).decode
_anomaly = msgspec.json.Decoder(Anomaly).decode


def place(settings: Settings) -> str:
    """Return the topic or the file of verdicts. Raises `UserError` if none is set."""
    if not settings.verdicts:
        raise UserError(
            f"no verdicts are kept: set {SETTING}, for example {SETTING}=verdicts, and "
            "`python -m dataflow topics` creates the topic."
        )
    return settings.verdicts


def in_force(settings: Settings) -> InForce:
    """Return the verdicts in force. Raises `UserError` if they cannot be read."""
    kept = InForce()
    for key, value in _said(settings):
        kept.take(key, value)
    return kept


def last(settings: Settings) -> dict[str, Feedback]:
    """Return the last record of each id, whatever it says. Raises `UserError` if unreadable."""
    found: dict[str, Feedback] = {}
    for key, value in _said(settings):
        try:
            feedback = None if value is None else decode(value)
        except ValueError:
            continue  # no verdict
        if feedback is None:
            found.pop((key or b"").decode("utf-8", "replace"), None)
        else:
            found[feedback.id] = feedback
    return found


def _said(settings: Settings) -> Iterator[tuple[bytes | None, bytes | None]]:
    where = place(settings)
    if is_output_file(where):
        for line in _lines(Path(where)):
            yield None, line
    elif topics.partitions(settings, where):
        for message in kafka.read_from(settings, where, {}):
            yield message.key(), message.value()


def _lines(path: Path) -> Iterator[bytes]:
    if not path.exists():
        return
    try:
        with path.open("rb") as lines:
            yield from (line for line in lines if line.strip())
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): check its permissions.") from None


def prove(settings: Settings, *, also_read: bool = False) -> None:
    """Raise `UserError` if a verdict cannot be written: the topic is missing, or the right."""
    where = place(settings)
    if is_output_file(where):
        folder = Path(where).absolute().parent
        if not os.access(folder, os.W_OK):
            raise UserError(f"cannot write {where}: its folder is missing, or not writable.")
    else:
        needs = [kafka.READ, kafka.WRITE] if also_read else [kafka.WRITE]
        topics.existing_partitions(settings, where, SETTING, needs)


def write(settings: Settings, feedback: Feedback) -> None:
    """Write a verdict; it is kept when this returns. Raises `UserError` if it cannot be."""
    where, data = place(settings), encode(feedback)
    if is_output_file(where):
        try:
            with Path(where).open("ab") as file:
                file.write(data + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(
                f"cannot write {where} ({error.strerror}): check its folder and permissions."
            ) from None
        return
    wrong: list[KafkaError] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        wrong.extend([] if error is None else [error])

    producer = kafka.producer(settings)
    try:
        producer.produce(where, data, feedback.id, on_delivery=delivered)
        left = producer.flush(2 * kafka.TIMEOUT)
    except KafkaException as error:
        raise _not_written(where, kafka.describe(error)) from None
    if wrong or left:
        raise _not_written(where, kafka.describe(wrong[0]) if wrong else "the broker is silent")


def _not_written(where: str, reason: str) -> UserError:
    return UserError(
        f"cannot write to the topic {where!r} ({reason}): check the broker, and that the topic "
        "exists."
    )


def anomalies_of(settings: Settings, name: str) -> list[Anomaly]:
    """Return all anomalies of the series of the anomaly or incident with an id, in their order.

    They come from the topic of anomalies if the flow writes it, or else from its file. Empty if
    there is none with this id. Raises `UserError` if they cannot be read.
    """
    series = next(
        (
            (about.instance, about.metric)
            for about, _ in _abouts(settings)
            if name in (about.id, about.episode)
        ),
        None,
    )
    if series is None:
        return []
    instance, metric = series
    return [one for one in anomalies_of_instance(settings, instance) if one.metric == metric]


def anomalies_of_instance(settings: Settings, instance: str) -> list[Anomaly]:
    """Return all anomalies of all metrics of an instance. Raises `UserError` as above."""
    found = []
    for about, line in _abouts(settings):
        if about.instance == instance:
            try:
                found.append(_anomaly(line))
            except ValueError:
                continue  # another program's
    return found


def _abouts(settings: Settings) -> Iterator[tuple[_About, bytes]]:
    for line in _written(settings):
        try:
            yield _about(line), line
        except ValueError:
            continue  # an incident on standard output, or another program's


def prove_anomalies(settings: Settings) -> None:
    """Raise `UserError` if the anomalies that the flow writes cannot be read back."""
    if _in_topic(settings):
        topics.existing_partitions(
            settings, settings.anomalies_topic, "ANOMALY_ANOMALIES_TOPIC", [kafka.READ]
        )
    elif settings.output_file is None:
        raise UserError(
            f"anomalies go to {settings.output}, which cannot be read back: set ANOMALY_OUTPUT to "
            "`kafka` or to the file that the flow writes."
        )
    elif not settings.output_file.exists():
        raise UserError(f"{settings.output_file} does not exist: run the flow first.")


def _in_topic(settings: Settings) -> bool:
    return "kafka" in settings.outputs or (
        settings.output_file is None and settings.input == "kafka"
    )


def _written(settings: Settings) -> Iterator[bytes]:
    prove_anomalies(settings)
    if _in_topic(settings):
        for message in kafka.read_from(settings, settings.anomalies_topic, {}):
            yield message.value() or b""
    elif settings.output_file is not None:
        yield from _lines(settings.output_file)
