"""Reads the silences of Alertmanager, and writes what they say to the topic of verdicts."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime

from confluent_kafka import KafkaException

from dataflow import kafka
from dataflow.errors import UserError
from dataflow.notify import silences as rules
from dataflow.notify.alertmanager import Alertmanager, alert_labels
from dataflow.notify.base import Target
from dataflow.notify.decode import decode
from dataflow.notify.http import get
from dataflow.notify.log import log
from dataflow.notify.silences import Alerts, Silence, Verdict
from dataflow.notify.summary import visible
from dataflow.records import Anomaly
from dataflow.settings import Settings
from dataflow.verdicts import store
from dataflow.verdicts.effect import trouble_of
from dataflow.verdicts.pattern import pattern_of
from dataflow.verdicts.record import Feedback
from dataflow.warnings import say, show

__all__ = ["SilenceWatch", "watch_of"]

EVERY = 15.0
"""Seconds between two looks."""

LARGEST = 32 * 1024 * 1024
"""Bytes of an answer at most."""


def watch_of(
    settings: Settings, targets: Sequence[Target], stop: threading.Event
) -> SilenceWatch | None:
    """Return the watch, if ANOMALY_NOTIFY_SILENCES asks for one.

    Raises `UserError` if it cannot work: no Alertmanager or no place for verdicts is set, a topic
    is missing, or a right.
    """
    if not settings.notify_silences:
        return None
    servers = [target for target in targets if isinstance(target, Alertmanager)]
    if not servers:
        raise UserError(
            "ANOMALY_NOTIFY_SILENCES reads silences of Alertmanager: set "
            "ANOMALY_NOTIFY_ALERTMANAGER, or leave it out."
        )
    store.prove(settings, also_read=True)
    store.prove_anomalies(settings)
    return SilenceWatch(settings, servers, stop)


class SilenceWatch:
    """Looks at the silences of all Alertmanagers again and again, in a thread, until `stop` is set.

    `failure` is the error that ended it, or None.
    """

    def __init__(
        self, settings: Settings, servers: Sequence[Alertmanager], stop: threading.Event
    ) -> None:
        self._settings = settings
        self._servers = servers
        self._stop = stop
        self._alerts = Alerts()
        self._next: dict[int, int] = {}
        self._said: dict[str, Feedback] | None = None
        self._seen: set[str] = set()
        self._refused: set[str] = set()
        self._broad: set[str] = set()
        self._silent: set[str] = set()
        self._fails = False
        self.failure: str | None = None

    def run(self) -> None:
        """Look until `stop` is set; with ANOMALY_FOLLOW=false, once."""
        try:
            self._look_and_say(settled=not self._settings.follow)
            while self._settings.follow and not self._stop.wait(EVERY):
                self._look_and_say(settled=False)
        except Exception as error:
            self.failure = (
                f"Reading silences failed ({type(error).__name__}): see the traceback, or leave "
                "ANOMALY_NOTIFY_SILENCES out."
            )
            self._stop.set()
            raise

    def _look_and_say(self, *, settled: bool) -> None:
        try:
            self.look(settled=settled)
        except (UserError, KafkaException) as error:
            text = kafka.describe(error) if isinstance(error, KafkaException) else f"{error}"
            if not self._fails:
                show(f"no silence becomes a verdict, and none ends one: {text}")
            self._fails = True
            return
        if self._fails:
            say("silences are read as verdicts again.")
        self._fails = False

    def look(self, *, settled: bool = False) -> None:
        """Read all silences, and write what has changed.

        An incident counts as over at the second look that finds it so, or at once if `settled`: its
        last anomalies may be written a moment after the record that resolves it. Raises `UserError`
        or `KafkaException` if a topic cannot be read or written.
        """
        silences, complete = self._silences()
        if silences is None:
            return
        if any(one.is_active for one in silences):
            self._read_incidents()
        self._warn_broad(silences)
        all_wanted = rules.wanted(silences, self._alerts)
        wanted = [one for one in all_wanted if settled or one.id in self._seen]
        wanted = [one for one in wanted if one.id not in self._refused]
        self._seen = {one.id for one in all_wanted}
        at = datetime.now(UTC).replace(microsecond=0)
        if self._said is None:
            self._said = store.last(self._settings)
        if not wanted and not rules.given(self._said):
            return
        # The topic is the record: others write to it too.
        self._said = store.last(self._settings)
        found = rules.changes(silences, wanted, self._said, at, complete=complete)
        for record in found.records:
            self._write(record)
        for instance in sorted({one.instance for one in found.new}):
            anomalies = store.anomalies_of_instance(self._settings, instance)
            for one in found.new:
                if one.instance == instance:
                    self._say(one, anomalies, at)

    def _silences(self) -> tuple[list[Silence] | None, bool]:
        """Return those of all that answer, None if none does, and whether all do."""
        found: dict[str, Silence] = {}
        answers = 0
        for server in self._servers:
            answer = get(server.silences, self._stop, read=LARGEST + 1)
            reason = answer.reason
            try:
                if answer.accepted:
                    listed = rules.read(answer.text)
                    reason = ""
            except ValueError:
                reason = "its answer is no list of silences"
            if reason:
                if f"{server}" not in self._silent and not self._stop.is_set():
                    show(f"{server} lists no silences ({reason}): verdicts stay as they are.")
                self._silent.add(f"{server}")
                continue
            if f"{server}" in self._silent:
                say(f"{server} lists silences again.")
            self._silent.discard(f"{server}")
            answers += 1
            for silence in listed:
                # Members of a cluster know the same ones, not all at the same moment.
                if silence.id not in found or silence.is_active:
                    found[silence.id] = silence
        return (list(found.values()) if answers else None), answers == len(self._servers)

    def _read_incidents(self) -> None:
        topic = self._settings.incidents_topic
        if self._is_new(topic):
            self._alerts, self._next = Alerts(), {}
        for message in kafka.read_from(self._settings, topic, self._next):
            self._next[message.partition() or 0] = (message.offset() or 0) + 1
            try:
                incident = decode(message.value())
            except ValueError:
                continue  # the delivery says so
            _, at = message.timestamp()
            labels = alert_labels(incident, self._servers[0].labels_for(incident))
            self._alerts.take(incident, labels, at / 1e3)

    def _is_new(self, topic: str) -> bool:
        """Return whether the topic was created anew since the last look."""
        if not self._next:
            return False
        client = kafka.consumer(self._settings)
        try:
            return any(
                kafka.offset_range(client, topic, partition)[1] < offset
                for partition, offset in self._next.items()
            )
        finally:
            client.close()

    def _warn_broad(self, silences: list[Silence]) -> None:
        counts = rules.broad([one for one in silences if one.id not in self._broad], self._alerts)
        # What was firing when it began is known by now.
        self._broad.update(one.id for one in silences if one.is_active)
        for name, count in counts.items():
            log(
                f"no verdict: the silence {visible(name)} holds {count} alerts and is not of one "
                "instance"
            )

    def _say(self, verdict: Verdict, anomalies: list[Anomaly], at: datetime) -> None:
        name = verdict.incident
        metrics = [one.metric for one in anomalies if name in (one.id, one.episode)]
        series = [one for one in anomalies if one.metric in metrics[:1]]
        episode = trouble_of(series, name, self._settings.interval)
        try:
            if not episode:
                raise ValueError("the flow's anomalies of it are not there")
            pattern = pattern_of(episode)
        except ValueError as error:
            self._refused.add(verdict.id)
            log(
                f"no verdict: the silence {visible(verdict.silence)} is of the incident {name} of "
                f"{visible(verdict.instance)}, which has no pattern: {error}"
            )
            return
        alert = next((one for one in episode if one.alert), episode[0])
        known = Feedback(id=verdict.id, verdict="fine", why=alert.why, pattern=pattern)
        self._write(verdict.record(at, known))

    def _write(self, record: Feedback) -> None:
        store.write(self._settings, record)
        assert self._said is not None
        self._said[record.id] = record
        until = "" if record.until is None else f" until {record.until:%Y-%m-%d %H:%M} UTC"
        log(f"wrote {record.verdict} for {record.id}{until}")
