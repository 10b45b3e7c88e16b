"""Watches the input topic beside the reading, so that the flow never waits without a line.

Every few seconds a thread asks the cluster for the end of each partition. It says on standard error
when the broker does not answer, and when partitions return no records although they hold some. It
ends the flow when partitions were added, or when the topic was deleted and created again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from confluent_kafka.admin import AdminClient, ClusterMetadata

from dataflow.errors import stop_process
from dataflow.kafka import reading, topics
from dataflow.kafka.caught_up import CaughtUp
from dataflow.kafka.health import PATIENCE, HealthCheck
from dataflow.runtime import shutdown
from dataflow.settings import Settings
from dataflow.sources.stalls import Seen, Stalls, named
from dataflow.warnings import PROCESS, Warnings

__all__ = ["Watch", "Watched"]


class Watched(Protocol):
    """A partition that is read."""

    offset: int
    """The next offset to read."""

    @property
    def waits(self) -> bool:
        """Whether it has asked for records and got none."""

    @property
    def last_error(self) -> str | None:
        """The last error of its reader."""

    def tell_end(self, end: int) -> None:
        """Take the offset of the next record to be written."""


class Watch:
    """Looks at the topic of `settings`, in a thread of its own."""

    def __init__(
        self,
        settings: Settings,
        known: int | None,
        identity: str | None,
        caught_up: CaughtUp,
        warnings: Warnings = PROCESS,
    ) -> None:
        """`known` is the number of partitions if all are read, `identity` the topic's id.

        `caught_up` gets the ends of the partitions that it wants.
        """
        self._settings = settings
        self._topic = settings.topic
        self._known = known
        self._identity = identity
        self._caught_up = caught_up
        self._warnings = warnings
        self._partitions: dict[int, Watched] = {}
        self._stalls = Stalls()
        self._blocked: dict[int, float] = {}
        self._check = HealthCheck(settings, self._topic, self.ask, "the flow waits for it")

    def start(self) -> None:
        """Start the thread. It ends with the last partition."""
        self._check.start()

    def add(self, partition: int, watched: Watched) -> None:
        """Watch a partition too. Workers call this in their threads."""
        self._partitions[partition] = watched

    def remove(self, partition: int) -> None:
        """Watch a partition no longer."""
        self._partitions.pop(partition, None)
        if not self._partitions:
            self._check.end()

    def ask(self, client: AdminClient, cluster: ClusterMetadata | None) -> str | None:
        """Ask for the ends of the partitions; return what got no answer."""
        partitions = dict(self._partitions)
        asked = time.monotonic()
        wanted = self._caught_up.wanted(asked)
        leaderless = set() if cluster is None else _without_leader(cluster, self._topic)
        led = {*partitions, *wanted} - leaderless
        ends: dict[int, int] = {}
        if cluster is not None:
            known = reading.with_leader(cluster, self._topic)
            ends, _ = reading.latest_offsets(client, self._topic, led & known, PATIENCE)
        now = time.monotonic()
        for number in wanted:
            position = partitions[number].offset if number in partitions else None
            self._caught_up.answer(number, asked, now, ends.get(number), position)
        if cluster is None:
            return None
        if led and not ends:
            return "it answers no request for offsets"
        self._check_topic(cluster, topics.topic_id(client, self._topic, PATIENCE))
        behind = [number for number, one in partitions.items() if one.offset < ends.get(number, 0)]
        stable, _ = reading.latest_offsets(client, self._topic, behind, PATIENCE, committed=True)
        self.look(time.monotonic(), partitions, ends, stable, leaderless)
        return None

    def _check_topic(self, cluster: ClusterMetadata, identity: str | None) -> None:
        if None not in (identity, self._identity) and identity != self._identity:
            stop_process(
                f"the topic {self._topic!r} was deleted and created again while the flow read it: "
                "start the flow with a new recovery store."
            )
        present = len(topics.partition_ids(cluster, self._topic))
        if self._known is not None and present > self._known:
            shutdown.ask(
                f"the topic {self._topic!r} has {present} partitions now and had {self._known}: "
                "the flow ends; start it again to read all partitions."
            )

    def look(
        self,
        now: float,
        partitions: Mapping[int, Watched],
        ends: Mapping[int, int],
        stable: Mapping[int, int],
        leaderless: Collection[int] = (),
        stop: Callable[[str], None] = stop_process,
    ) -> None:
        """Compare the partitions with their ends at `now`, in seconds of a monotonic clock.

        `stable` has the ends before open transactions, of the partitions that are behind. No broker
        leads the `leaderless` ones.
        """
        seen = {}
        for number, partition in partitions.items():
            if (end := ends.get(number)) is not None:
                partition.tell_end(end)
            elif number in leaderless:
                end = partition.offset + 1  # it may hold more
            else:
                continue
            seen[number] = Seen(partition.offset, end, partition.waits)
        blocked = {number for number, end in stable.items() if end <= partitions[number].offset}
        stalled, again = self._stalls.update(now, seen)
        groups: dict[str, list[int]] = {}
        for number in stalled:
            reason = self._reason(partitions[number], number in leaderless, number in blocked)
            groups.setdefault(reason, []).append(number)
        for reason, numbers in groups.items():
            first = seen[numbers[0]]
            held = f"it holds the offsets {first.position} to {first.end - 1}"
            if len(numbers) > 1:
                held = "they hold some"
            if numbers[0] in leaderless:
                held = "there may be some"
            returns = "returns" if len(numbers) == 1 else "return"
            self._warnings.each(
                "no-records",
                f"{named(numbers)} of the topic {self._topic!r} {returns} no records, although "
                f"{held} {reason}.",
            )
        if again:
            returns = "returns" if len(again) == 1 else "return"
            self._warnings.say(
                f"{named(again)} of the topic {self._topic!r} {returns} records again."
            )
        if not self._settings.follow:
            self._give_up(now, {number: seen[number] for number in blocked & set(seen)}, stop)

    def _give_up(
        self, now: float, blocked: Mapping[int, Seen], stop: Callable[[str], None]
    ) -> None:
        """End the process for a transaction that stays open, if the input must end."""
        self._blocked = {
            number: self._blocked.get(number, now) for number, one in blocked.items() if one.waits
        }
        for number, since in self._blocked.items():
            if now - since > reading.TRANSACTION_WAIT:
                stop(
                    f"an open transaction blocks partition {number} of the topic {self._topic!r} "
                    f"at offset {blocked[number].position} of {blocked[number].end}: find it with "
                    "Kafka's kafka-transactions.sh find-hanging, and abort it."
                )

    def _reason(self, partition: Watched, leaderless: bool, blocked: bool) -> str:
        """Return why a partition returns no records, and what to do."""
        if leaderless:
            return "(no broker leads them): check the brokers"
        if blocked:
            more = "" if self._settings.follow else f" for {reading.TRANSACTION_WAIT:.0f} s"
            return f"(an open transaction blocks them): the flow waits for its end{more}"
        last = partition.last_error
        why = f"the last error was {last!r}" if last else "the broker sends none"
        return f"({why}): the flow waits for them; read the broker's log"


def _without_leader(cluster: ClusterMetadata, topic: str) -> set[int]:
    found = cluster.topics.get(topic)
    if found is None or found.error is not None:
        return set()
    return {number for number, one in found.partitions.items() if one.leader < 0}
