"""Reads the verdicts in force, and goes on reading them while the flow runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import KafkaException, TopicPartition

from dataflow import kafka
from dataflow.errors import UserError
from dataflow.kafka import access, topics
from dataflow.rules.watch import Watch, read
from dataflow.settings import Settings, is_output_file
from dataflow.verdicts.record import InForce
from dataflow.warnings import say, warn_once

__all__ = ["begin"]

WAIT = 1.0
"""Seconds to wait for a record, and for what else comes with it."""

AGAIN = 15.0
"""Seconds between two looks for a topic that does not exist, or a broker that is away."""

Changed = Callable[[InForce], None]


def begin(settings: Settings, changed: Changed) -> InForce:
    """Return the verdicts that are in force now; a thread calls `changed` with those to come.

    A topic or a file that is not there holds none; a line says so. Raises `UserError` if it cannot
    be read.
    """
    where = settings.verdicts
    if is_output_file(where):
        return _File(Path(where), changed).begin()
    return _Topic(settings, where, changed).begin()


class _File:
    """A file of JSON lines, read again from its beginning when it changes."""

    def __init__(self, path: Path, changed: Changed) -> None:
        self._path = path
        self._changed = changed

    def begin(self) -> InForce:
        content: bytes | str = ""
        if not self._path.exists():
            say(f"{self._path} does not exist: no verdict is in force until it does")
        else:
            try:
                content = read(self._path)
            except ValueError as error:
                raise UserError(
                    f"the verdicts in {self._path} cannot be read: {error}: check ANOMALY_VERDICTS."
                ) from None
        Watch(self._path, self._take, content).start()
        return self._kept(content)

    def _kept(self, content: bytes | str) -> InForce:
        kept = InForce()
        for line in content.splitlines() if isinstance(content, bytes) else ():
            if line.strip():
                kept.take(None, line)
        return kept

    def _take(self, content: bytes | str) -> None:
        if isinstance(content, bytes):
            self._changed(self._kept(content))
        elif self._path.exists():
            warn_once(
                "verdicts",
                f"the verdicts in {self._path} cannot be read: {content}; those of before apply.",
            )
        else:
            self._changed(InForce())


class _Topic:
    """A topic, read to its end at first, then record by record."""

    def __init__(self, settings: Settings, topic: str, changed: Changed) -> None:
        self._settings = settings
        self._topic = topic
        self._changed = changed
        self._kept = InForce()
        self._next: dict[int, int] = {}

    def begin(self) -> InForce:
        if self._read():
            access.prove_if_present(self._settings, self._topic, "ANOMALY_VERDICTS", [kafka.READ])
        else:
            say(
                f"the topic {self._topic} does not exist: no verdict is in force until "
                "`python -m dataflow topics` creates it"
            )
        threading.Thread(target=self._run, name="verdicts", daemon=True).start()
        return self._kept

    def _read(self) -> bool:
        """Read the topic to its present end; return whether it exists."""
        ends = topics.partitions(self._settings, self._topic)
        for message in kafka.read_from(self._settings, self._topic, {}) if ends else ():
            self._kept.take(message.key(), message.value())
            self._next[message.partition() or 0] = (message.offset() or 0) + 1
        for partition in ends:
            self._next.setdefault(partition, 0)
        return bool(ends)

    def _run(self) -> None:
        wait = threading.Event()
        while True:
            try:
                if self._next:
                    self._follow()
                elif self._read():
                    self._changed(self._kept)
                    continue
            except (UserError, KafkaException) as error:
                text = kafka.describe(error) if isinstance(error, KafkaException) else f"{error}"
                warn_once(
                    "verdicts",
                    f"the topic {self._topic} cannot be read, and the verdicts of before apply: "
                    f"{text}",
                )
            wait.wait(AGAIN)

    def _follow(self) -> None:
        """Read on until an error. A topic that was created anew begins with no verdict."""
        client = kafka.consumer(self._settings, **{"queued.min.messages": 1})
        try:
            client.assign([TopicPartition(self._topic, *place) for place in self._next.items()])
            while True:
                news = False
                for message in client.consume(1000, WAIT):
                    error = message.error()
                    if error is None:
                        self._kept.take(message.key(), message.value())
                        self._next[message.partition() or 0] = (message.offset() or 0) + 1
                        news = True
                    elif not error.retriable() and error.code() not in kafka.TRANSIENT_ERRORS:
                        self._kept, self._next = InForce(), {}
                        raise KafkaException(error)
                if news:
                    self._changed(self._kept)
        finally:
            client.close()
