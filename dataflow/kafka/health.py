"""Asks the cluster for a topic every few seconds, and says when no broker answers.

A line says once that the broker stopped to answer, and once that it answers again.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable
from typing import TypeAlias

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ClusterMetadata

from dataflow.kafka.client import admin_client, describe
from dataflow.settings import Settings
from dataflow.warnings import say, warn

__all__ = ["PATIENCE", "HealthCheck", "Look"]

SECONDS = 3.0
"""Seconds between two questions."""

PATIENCE = 2.0
"""Seconds to wait for an answer."""

SILENT = 9.0
"""Seconds without an answer before it is said."""

END = 10.0
"""Maximum seconds that the end of the process waits for the thread: those of a few answers."""

Look: TypeAlias = Callable[[AdminClient, ClusterMetadata | None], str | None]
"""Gets a client and what the cluster says of the topic, None if it does not answer; may ask more.

Returns what got no answer, in words; None if all is well.
"""


class HealthCheck:
    """A thread that asks for `topic` until it is ended, and calls `look` with each answer.

    `meaning` says in the warning what it means that the broker does not answer.
    """

    def __init__(self, settings: Settings, topic: str, look: Look, meaning: str) -> None:
        """Prepare the thread; it starts with `start`."""
        self._settings = settings
        self._topic = topic
        self._look = look
        self._meaning = meaning
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)
        self._answered = 0.0
        self._silent = False

    @property
    def silent(self) -> bool:
        """Whether the broker has not answered for `SILENT` seconds."""
        return self._silent

    def start(self) -> None:
        """Start the thread."""
        self._answered = time.monotonic()
        self._thread.start()
        _started.append(self)

    def end(self) -> None:
        """End the thread once it has its present answer. Any thread may call this."""
        self._ended.set()

    def join(self) -> None:
        """Wait for the end of the thread, `END` seconds at most."""
        self._thread.join(END)

    def _run(self) -> None:
        client, state = admin_client(self._settings)
        while not self._ended.wait(SECONDS):
            unanswered = self._ask(client)
            client.poll(0)  # takes the errors that say why, and the lines of the log
            if unanswered is not None:
                self._no_answer(state.reason or unanswered)
                # A client whose cluster had no broker in service for a moment may find none again.
                client, state = admin_client(self._settings)
                continue
            state.last_error = None
            self._answered = time.monotonic()
            if self._silent:
                self._silent = False
                say(f"the broker {self._settings.brokers} answers again.")

    def _ask(self, client: AdminClient) -> str | None:
        """Return what got no answer, in words."""
        try:
            cluster = client.list_topics(self._topic, timeout=PATIENCE)
        except KafkaException as error:
            self._look(client, None)
            return describe(error)
        return self._look(client, cluster)

    def _no_answer(self, reason: str) -> None:
        silent = time.monotonic() - self._answered
        if silent > SILENT and not self._silent and not self._ended.is_set():
            self._silent = True
            warn(
                "no-answer",
                f"no answer from the broker {self._settings.brokers} for {silent:.0f} s "
                f"({reason}): {self._meaning}.",
            )


_started: list[HealthCheck] = []


@atexit.register
def _end_all() -> None:
    """End all threads before the process ends.

    An answer that librdkafka hands over while the interpreter ends can crash the process.
    """
    for check in _started:
        check.end()
    for check in _started:
        check.join()
