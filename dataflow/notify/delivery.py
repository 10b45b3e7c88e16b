"""Follows the topic of incidents and delivers them to one target, in a thread of its own.

Each notification target has its own thread, consumer and consumer group, so one that is down does
not delay the others. Its offset is committed only after delivery, so each record is delivered at
least once. Nothing here waits for a broker without an end: an open alert must be posted again even
while the broker is away.
"""

from __future__ import annotations

import hashlib
import math
import random
import threading
import time
import traceback
from datetime import UTC, datetime

from confluent_kafka import (
    OFFSET_BEGINNING,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from dataflow import kafka
from dataflow.errors import UserError
from dataflow.kafka import topics
from dataflow.notify.backlog import REPEAT, Backlog, Batch, Place, Record
from dataflow.notify.base import Target, link_to
from dataflow.notify.counts import Counts
from dataflow.notify.decode import decode
from dataflow.notify.history import History
from dataflow.notify.http import Answer
from dataflow.notify.log import log
from dataflow.notify.pages import Pages
from dataflow.notify.skipped import SkippedRecords
from dataflow.notify.store import PageStore
from dataflow.notify.summary import visible
from dataflow.records import Incident, encode
from dataflow.settings import Settings
from dataflow.warnings import say, show

__all__ = ["OWN_KAFKA_SETTINGS", "Delivery"]

FIRST_WAIT = 1.0
LONGEST_WAIT = 60.0
"""Seconds between two attempts: doubled each time, then shortened at random by up to half."""

AHEAD = 10_000
"""Records read ahead at most while a target is down."""

READ_BACK = 5_000
"""Records of a partition before the offset that are read again, to know repetitions of them."""

COMMIT_AGAIN = 5.0
"""Seconds until offsets are committed again after an error."""

NO_COORDINATOR = {
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError._WAIT_COORD,
}
"""Errors of a broker that has just started, or just created its topic of offsets."""

COORDINATOR_WAIT = 30.0
"""Seconds to wait until such an error is over."""

IDLE = 0.5
"""Maximum seconds of waiting for records."""

OWN_KAFKA_SETTINGS = frozenset(
    {
        "auto.offset.reset",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.partition.eof",
        "group.id",
        "group.instance.id",
    }
)
"""What ANOMALY_KAFKA__* cannot change here: each target needs an offset of its own."""


class Delivery:
    """Delivers the incidents of a topic to one target, in order, until `stop` is set.

    A new target gets the incidents that are open, not the earlier ones. `failure` is the error that
    ended the delivery, or None.
    """

    def __init__(
        self,
        settings: Settings,
        target: Target,
        stop: threading.Event,
        skipped: SkippedRecords | None = None,
        history: History | None = None,
        store: PageStore | None = None,
    ) -> None:
        """Raises `UserError` if the pages of a day cannot be read from `store`."""
        own = {k: v for k, v in settings.kafka.items() if k not in OWN_KAFKA_SETTINGS}
        self._settings = settings.model_copy(update={"kafka": own})
        self._topic = settings.incidents_topic
        self._target = target
        self._stop = stop
        self._skipped = skipped or SkippedRecords(self._topic)
        self._history = history or History(settings.notify_max_age)
        self._backlog = Backlog(repeats=target.repeats)
        self._begins: dict[int, int] = {}
        self._added: set[int] = set()
        self._ended: set[int] = set()
        self._paused = False
        self._uncommitted: dict[int, int] = {}
        self._commit_at = math.inf
        self._commit_failed = False
        self._size = target.batch
        self._failures = 0
        self._retry_at = 0.0
        self._accepts_since = time.monotonic()
        self._took = 0.0
        self.failure: str | None = None
        self.counts = Counts()
        self._digest_failed = False
        self._pages = None
        if store is not None and settings.notify_pages is not None:
            group, link = target.group(self._topic), settings.notify_link
            self._pages = Pages(settings.notify_pages, store, group, target, link, self.counts)

    @property
    def target(self) -> Target:
        """The target that it delivers to."""
        return self._target

    def run(self) -> None:
        """Deliver until `stop` is set; with ANOMALY_FOLLOW=false, to the end of the topic."""
        consumer = kafka.consumer(
            self._settings,
            **{
                "group.id": self._target.group(self._topic),
                "enable.partition.eof": True,
                "on_commit": self._committed,
            },
        )
        try:
            self._begin(consumer)
            while not self._stop.is_set() and not self._finished():
                self._count()
                self._assign_added(consumer)
                self._fetch(consumer)
                if time.monotonic() >= self._retry_at:
                    self._deliver_next(consumer)
                if time.monotonic() >= self._commit_at:
                    self._commit(consumer, {})
            self._commit(consumer, {}, wait=True)
        except KafkaException as error:
            self.failure = (
                f"Cannot read the topic {self._topic!r} ({kafka.describe(error)}): check the "
                "broker and the rights of the user, then start again."
            )
        except UserError as error:
            self.failure = str(error)
        except Exception as error:
            self.failure = (
                f"Delivery to {self._target} failed ({type(error).__name__}): see the traceback."
            )
            raise
        finally:
            # Before `close`, which may wait for the broker: the others end at once.
            if self.failure is not None:
                self._stop.set()
            consumer.close()

    def _count(self) -> None:
        backlog, counts = self._backlog, self.counts
        counts.turned = time.monotonic()
        counts.waiting, counts.oldest = len(backlog), backlog.oldest()
        counts.open = backlog.open_count if self._target.repeats else 0
        counts.accepting = not self._failures
        counts.held_back["superseded"] = backlog.superseded

    def partitions_found(self, present: set[int]) -> None:
        """Read partitions that were added, from their first record. Any thread may call this."""
        self._added = present

    def _begin(self, consumer: Consumer) -> None:
        """Find the offsets to resume at and the open incidents, and start to read."""
        partitions = topics.partitions(self._settings, self._topic)
        known = self._committed_offsets(consumer, partitions)
        begins = {partition: known.get(partition, 0) for partition in partitions}
        firsts = dict.fromkeys(partitions, 0)
        for partition, offset in begins.items():
            first, end = kafka.offset_range(consumer, self._topic, partition)
            firsts[partition] = first
            if not first <= offset <= end:
                if offset:  # at 0 nothing is lost
                    show(
                        f"{self._target} is at offset {offset} of partition {partition} "
                        f"of the topic {self._topic!r}, which now has offsets {first} to {end}: "
                        f"resuming at {first}."
                    )
                begins[partition] = first
        is_new = not known
        if is_new or self._target.repeats or self._pages is not None:
            self._read_earlier(begins, is_new=is_new)
            starts = begins
        else:
            starts = {p: max(firsts[p], offset - READ_BACK) for p, offset in begins.items()}
        if self._pages is not None:
            self._begin_pages(self._pages, begins, is_new=is_new)
        elif self._target.repeats:
            # All open incidents are due. They are found in the topic again by the next process,
            # so the offsets need not wait for them, nor do new incidents.
            self._backlog.repeat_all(time.monotonic())
            self._commit(consumer, begins if is_new else {})
        elif is_new:
            self._backlog.begin(begins)
        consumer.assign([TopicPartition(self._topic, p, offset) for p, offset in starts.items()])
        self._begins = begins

    def _begin_pages(self, pages: Pages, begins: dict[int, int], *, is_new: bool) -> None:
        """Take the open incidents as pages to send, if the target is new, or as sent."""
        if is_new:
            for incident in self._backlog.open_incidents():
                pages.waits(incident)
            self._backlog.begin(begins)
            return
        pages.begin(self._backlog.open_incidents())
        pages.save()
        for incident in self._backlog.open_incidents():
            if not (self._target.repeats and pages.was_sent(incident)):
                self._backlog.forget(incident)
        self._backlog.repeat_all(time.monotonic())

    def _committed_offsets(self, consumer: Consumer, partitions: list[int]) -> dict[int, int]:
        places = [TopicPartition(self._topic, partition) for partition in partitions]
        deadline = time.monotonic() + COORDINATOR_WAIT
        while True:
            try:
                committed = consumer.committed(places, kafka.TIMEOUT)
            except KafkaException as error:
                if error.args[0].code() not in NO_COORDINATOR or time.monotonic() > deadline:
                    raise
                if self._stop.wait(IDLE):
                    raise
            else:
                return {it.partition: it.offset for it in committed if it.offset >= 0}

    def _read_earlier(self, begins: dict[int, int], *, is_new: bool) -> None:
        """Find the open incidents before `begins`, which a new target puts at the present end."""
        for record in kafka.read_from(self._settings, self._topic, {}):
            place = (record.partition() or 0, record.offset() or 0)
            if is_new:
                begins[place[0]] = place[1] + 1
            elif place[1] >= begins[place[0]]:
                continue
            incident = self._decode(place, record, report=is_new)
            if incident is not None and not self._backlog.is_repetition(incident):
                self._backlog.remember(self._backlog.with_first_labels(incident), 0.0)

    def _finished(self) -> bool:
        due = self._backlog.next_due()
        return (
            not self._settings.follow
            and not self._backlog
            and not self._digest_failed
            and self._ended == set(self._begins)
            and (due is None or due > time.monotonic())
        )

    def _assign_added(self, consumer: Consumer) -> None:
        added = self._added - set(self._begins)
        if added:
            consumer.incremental_assign(
                [TopicPartition(self._topic, partition, OFFSET_BEGINNING) for partition in added]
            )
            self._begins |= dict.fromkeys(added, 0)

    def _fetch(self, consumer: Consumer) -> None:
        """Read what there is; wait for it if there is nothing to do."""
        full = len(self._backlog) >= AHEAD
        if full != self._paused:
            places = [TopicPartition(self._topic, partition) for partition in self._begins]
            (consumer.pause if full else consumer.resume)(places)
            self._paused = full
        # `consume` waits until it has as many records as it is asked for.
        records = consumer.consume(1, self._idle_time())
        for record in records + (consumer.consume(499, 0) if records else []):
            error = record.error()
            partition = record.partition() or 0
            if error is None:
                self._add((partition, record.offset() or 0), record)
                self._ended.discard(partition)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._ended.add(partition)
            elif error.code() not in kafka.TRANSIENT_ERRORS | NO_COORDINATOR:
                raise KafkaException(error)

    def _idle_time(self) -> float:
        now = time.monotonic()
        if now < self._retry_at:
            return min(IDLE, self._retry_at - now)
        if self._backlog:
            return 0.0
        due = self._backlog.next_due()
        return IDLE if due is None else min(IDLE, max(0.0, due - now))

    def _add(self, place: Place, record: Message) -> None:
        partition, offset = place
        is_earlier = offset < self._begins[partition]
        incident = self._decode(place, record, report=not is_earlier)
        if incident is not None and self._backlog.is_repetition(incident):
            self.counts.held_back["repeated"] += not is_earlier
            incident = None
        if incident is not None:
            incident = self._backlog.with_first_labels(incident)
        if not is_earlier:
            kind, at = record.timestamp()
            written = None if kind == TIMESTAMP_NOT_AVAILABLE else at / 1e3
            if incident is not None and self._pages is not None:
                self._pages.waits(incident)
            self._backlog.add(Record(incident, place, {partition: offset + 1}, written))

    def _decode(self, place: Place, record: Message, *, report: bool) -> Incident | None:
        try:
            incident = decode(record.value())
        except ValueError as reason:
            if report:
                self._skipped.add(place, str(reason))
                self.counts.held_back["invalid"] += 1
            return None
        kind, at = record.timestamp()
        written = None if kind == TIMESTAMP_NOT_AVAILABLE else datetime.fromtimestamp(at / 1e3, UTC)
        if self._history.is_history(incident, written):
            if report:
                self._history.add(place)
                self.counts.held_back["history"] += 1
            return None
        if incident.folded:
            self.counts.held_back["folded"] += report
            return None
        return incident

    def _deliver_next(self, consumer: Consumer) -> None:
        """Post the next incidents, if there are any, once."""
        if self._pages is not None and self._deliver_digest(self._pages):
            return
        started = time.monotonic()
        batch, bodies = self._next_batch(started)
        if self._pages is not None:
            self._pages.save()
        if not bodies:
            self._commit(consumer, self._backlog.done(batch, started))
            return
        body = bodies[0] if self._target.batch == 1 else _joined(bodies)
        answer = self._target.send(body, _post_key(batch.incidents), self._stop)
        if answer.accepted:
            self._took = max(time.monotonic() - started, self._took / 2)
            self._size = min(2 * self._size, self._target.batch)
            self._has_accepted(started)
            if self._pages is not None:
                self._pages.accepted(it.incident for it in batch.new if it.incident is not None)
                self._pages.save()
            for record in batch.new:
                if record.incident is not None:
                    self.counts.sent[record.incident.state] += 1
                    self.counts.last_sent = time.time()
                    log(
                        f"delivered to {self._target}: {record.incident.state} "
                        f"{record.incident.id} {visible(record.incident.instance)}"
                    )
            self._commit(consumer, self._backlog.done(batch, started))
            return
        self.counts.failed += 1
        # The target may not take as many at once, or not one of them: find out which.
        self._size = max(1, len(bodies) // 2)
        if not answer.rejected:
            self._wait_after(answer)
        elif len(bodies) == 1:
            self._warn_rejected(batch, answer.reason)
            self._never_sent(batch.incidents[0])
            self._commit(consumer, self._backlog.drop(batch))

    def _has_accepted(self, started: float) -> None:
        if self._failures:
            say(f"{self._target} accepts incidents again.")
            self._accepts_since = started
        self._failures = 0

    def _never_sent(self, incident: Incident) -> None:
        if self._pages is not None:
            self._pages.rejected(incident)
            self._pages.save()

    def _deliver_digest(self, pages: Pages) -> bool:
        """Post the next digest once, if there is one; return whether there was."""
        started = time.monotonic()
        digest = pages.digest()
        if digest is None:
            return False
        pages.save()
        try:
            body = encode(self._target.digest(digest, datetime.now(UTC)))
        except Exception as error:
            self._warn_no_body(f"the digest {digest.id}", error, "Its incidents stay")
            pages.digest_done(digest)
            return True
        answer = self._target.send(body, digest.id, self._stop)
        self._digest_failed = not (answer.accepted or answer.rejected)
        if answer.accepted:
            self._has_accepted(started)
            self.counts.digests += 1
            self.counts.last_sent = time.time()
            log(f"delivered to {self._target}: digest {digest.id} of {digest.count} incidents")
            pages.digest_done(digest)
        elif answer.rejected:
            self.counts.failed += 1
            self.counts.rejected += 1
            show(
                f"{self._target} rejects the digest {digest.id} of {digest.count} incidents "
                f"({answer.reason}): skipped. They stay in the topic {self._topic!r}."
            )
            pages.digest_done(digest)
        else:
            self.counts.failed += 1
            self._wait_after(answer)
        pages.save()
        return True

    def _next_batch(self, now: float) -> tuple[Batch, list[bytes]]:
        """Return what to post, and the body of each incident in it."""
        due = self._backlog.next_due()
        late = 0.0 if due is None else max(0.0, now - max(due, self._accepts_since))
        self._target.repeated_within = REPEAT + max(
            late, self._took * self._backlog.open_count / self._size
        )
        while True:
            admits = None if self._pages is None else self._pages.admits
            batch = self._backlog.batch(self._size, now, admits)
            bodies = []
            for incident in batch.incidents:
                body = self._body(incident)
                if body is None:
                    self._never_sent(incident)
                    self._backlog.drop_one(incident)
                    break
                bodies.append(body)
            else:
                return batch, bodies

    def _body(self, incident: Incident) -> bytes | None:
        settings, now = self._settings, datetime.now(UTC)
        key = settings.verdicts_secret
        link = link_to(settings.notify_link, incident, key, now.timestamp())
        try:
            return encode(self._target.body(incident, link, now))
        except Exception as error:
            about = (
                f"record {incident.sequence} of the incident {incident.id} of "
                f"{visible(incident.instance)}"
            )
            self._warn_no_body(about, error, "It stays")
            return None

    def _warn_no_body(self, about: str, error: Exception, stays: str) -> None:
        # The text of the error may hold the address.
        place = traceback.extract_tb(error.__traceback__)[-1]
        show(
            f"{self._target} has no body for {about} "
            f"({type(error).__name__} at {place.filename}:{place.lineno}): skipped. "
            f"{stays} in the topic {self._topic!r}."
        )

    def _wait_after(self, answer: Answer) -> None:
        if self._stop.is_set():
            return
        if not self._failures:
            show(
                f"{self._target} does not accept incidents ({answer.reason}): "
                "retrying until it does."
            )
        wait = min(FIRST_WAIT * 2**self._failures, LONGEST_WAIT) * random.uniform(0.5, 1)
        self._failures = min(self._failures + 1, 10)
        # Alerts that are not posted again for long would end.
        asked = min(answer.wait, LONGEST_WAIT) if self._target.repeats else answer.wait
        self._retry_at = time.monotonic() + max(wait, asked)

    def _warn_rejected(self, batch: Batch, reason: str) -> None:
        (incident,) = batch.incidents
        self.counts.rejected += 1
        place = batch.new[0].place if batch.new else None
        where = "" if place is None else f" at partition {place[0]}, offset {place[1]}"
        show(
            f"{self._target} rejects record {incident.sequence} of the incident "
            f"{incident.id} of {visible(incident.instance)} ({reason}): skipped. "
            f"It stays in the topic {self._topic!r}{where}."
        )

    def _commit(self, consumer: Consumer, offsets: dict[int, int], *, wait: bool = False) -> None:
        """Commit these offsets and those that could not be committed before."""
        self._uncommitted |= offsets
        if not offsets and not wait and time.monotonic() < self._commit_at:
            return
        self._commit_at = math.inf
        places = [TopicPartition(self._topic, p, offset) for p, offset in self._uncommitted.items()]
        if not places:
            return
        try:
            if wait:
                consumer.commit(offsets=places, asynchronous=False)
            else:
                consumer.commit(offsets=places)
        except KafkaException as error:
            self._committed(error.args[0], [])

    def _committed(self, error: KafkaError | None, places: list[TopicPartition]) -> None:
        """Take the broker's answer to a commit."""
        failed = error or next((it.error for it in places if it.error is not None), None)
        if failed is None:
            self._commit_failed = False
            for place in places:
                if self._uncommitted.get(place.partition) == place.offset:
                    del self._uncommitted[place.partition]
            return
        # Until a later commit succeeds, a restart delivers again.
        self._commit_at = time.monotonic() + COMMIT_AGAIN
        if not self._commit_failed:
            self._commit_failed = True
            show(
                f"cannot commit the offset of {self._target} ({kafka.describe(failed)}): "
                "a restart would deliver again."
            )


def _joined(bodies: list[bytes]) -> bytes:
    """Return one JSON list of the entries of several."""
    entries = (body.strip()[1:-1] for body in bodies)
    return b"[" + b",".join(entry for entry in entries if entry) + b"]"


def _post_key(incidents: list[Incident]) -> str:
    """Return a key that is the same when the same records are posted again."""
    keys = [f"{it.id}-{it.sequence}" for it in incidents]
    if len(keys) == 1:
        return keys[0]
    return hashlib.blake2b("\n".join(keys).encode(), digest_size=16).hexdigest()
