"""Whether the flow has read all that a partition holds, asked only while it matters.

An instance whose readings are on the broker and not read yet, because the broker was away or the
flow is behind, is not silent. Before the machine's clock decides, the broker is asked for the end
of the instance's partition.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from confluent_kafka import KafkaException, TopicPartition

from dataflow.kafka.client import consumer
from dataflow.records import Raw
from dataflow.settings import Settings

__all__ = ["CaughtUp", "Ends"]

T = TypeVar("T")

LOOK = 2.0
"""Seconds between two questions."""

PATIENCE = 3.0
"""Seconds to wait for an answer."""

SLOW = 1.0
"""Seconds after which an answer says that the broker was away, and has come back."""

ASKED = 150.0
"""Seconds for which a partition is looked at after somebody has asked."""

STILL = 10.0
"""Seconds without a change, of the end and of what was read, after which all was read that can be:
at the end lie marks of transactions, which are no records."""


class _Look(NamedTuple):
    asked: float
    end: int | None
    position: int
    same_since: float


class Ends:
    """What was read of each partition, and where the broker said that it ends. Thread-safe.

    `alone` says that this process reads all partitions; if not, it does not know how far others
    have read, and an answer of the broker is enough. Times are seconds of a monotonic clock.

    >>> ends = Ends(alone=True)
    >>> ends.took([Raw(0, 7, b"")])
    >>> ends.at_end(0, since=1.0)
    >>> ends.answer(0, asked=2.0, end=9)  # one more record
    >>> ends.at_end(0, since=1.0)
    >>> ends.took([Raw(0, 8, b"")])
    >>> ends.at_end(0, since=1.0)
    True
    >>> ends.answer(0, asked=4.0, end=None)
    >>> ends.at_end(0, since=1.0)
    False
    """

    def __init__(self, *, alone: bool) -> None:
        self._alone = alone
        self._positions: dict[int, int] = {}
        self._looks: dict[int, _Look] = {}
        self._away: dict[int, float] = {}

    def took(self, batch: list[Raw]) -> None:
        """Note the records that were read."""
        self._positions.update({raw.partition: raw.offset for raw in batch})

    def answer(
        self, partition: int, asked: float, end: int | None, now: float | None = None
    ) -> None:
        """Note the offset after the last record, None if the broker does not answer.

        It was asked for at `asked`, and answered, or did not, until `now`.
        """
        now = asked if now is None else now
        if end is None or now - asked > SLOW:
            self._away[partition] = now
            end = None
        position = self._positions.get(partition, -1)
        before = self._looks.get(partition)
        same = before is not None and (before.end, before.position) == (end, position)
        since = before.same_since if same and before is not None else asked
        self._looks[partition] = _Look(asked, end, position, since)

    def at_end(self, partition: int, since: float) -> bool | None:
        """Return whether all was read that the partition held at some time after `since`.

        False if the broker did not answer, None if it is not known yet.
        """
        look = self._looks.get(partition)
        if look is None or look.asked < since:
            return None
        if look.end is None:
            return False
        position = self._positions.get(partition)
        if position is None and not self._alone:
            return True
        if position is not None and position + 1 >= look.end:
            return True
        still = look.position == (-1 if position is None else position)
        return True if still and look.asked - look.same_since >= STILL else None

    def away(self, partition: int) -> float:
        """Return when the broker last did not answer for a partition; 0 if it always did."""
        return self._away.get(partition, 0.0)

    def is_away(self, partition: int) -> bool:
        """Return whether the broker did not answer the last time."""
        look = self._looks.get(partition)
        return look is not None and look.end is None


class CaughtUp:
    """Asks the broker, in a thread of its own, for the ends of partitions that matter."""

    def __init__(self, settings: Settings, *, alone: bool) -> None:
        """`alone` says that this process reads all partitions."""
        self._settings = settings
        self._ends = Ends(alone=alone)
        self._asked: dict[int, float] = {}
        self._lock = threading.Lock()
        self._started = False

    def noting(self, step: Callable[[list[Raw]], T]) -> Callable[[list[Raw]], T]:
        """Return a step that takes records, and first notes that they were read."""

        def noted(batch: list[Raw]) -> T:
            self._ends.took(batch)
            return step(batch)

        return noted

    def at_end(self, partition: int, since: float) -> bool | None:
        """Return what `Ends` says, and have the broker asked if nothing else has."""
        with self._lock:
            self._asked[partition] = time.monotonic()
            if not self._started:
                self._started = True
                threading.Thread(target=self._run, name="ends", daemon=True).start()
        return self._ends.at_end(partition, since)

    def away(self, partition: int) -> float:
        """Return when the broker last did not answer for a partition; 0 if it always did."""
        return self._ends.away(partition)

    def _run(self) -> None:
        client = consumer(self._settings, **{"isolation.level": "read_uncommitted"})
        topic = self._settings.topic
        while True:
            with self._lock:
                recent = time.monotonic() - ASKED
                wanted = [
                    each
                    for each, asked in self._asked.items()
                    if asked > recent or self._ends.is_away(each)
                ]
            patience = PATIENCE
            for partition in wanted:
                asked = time.monotonic()
                try:
                    place = TopicPartition(topic, partition)
                    end = client.get_watermark_offsets(place, timeout=patience)[1]
                except KafkaException:
                    end, patience = None, LOOK / 10
                self._ends.answer(partition, asked, end, time.monotonic())
            time.sleep(LOOK)
