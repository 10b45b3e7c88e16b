"""Metrics and health of `notify`: `/metrics`, `/healthz` and `/readyz`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dataflow.notify.counts import HELD_BACK
from dataflow.notify.delivery import Delivery

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["application"]

HANGS = 120.0
"""Seconds without a turn after which a delivery hangs: a post takes 10 s at most."""

STATES = ("opened", "updated", "resolved")


class _Deliveries(Collector):
    """The counts of all targets. A label is the name of a target and its host, never a secret."""

    def __init__(self, deliveries: Sequence[Delivery], silent: Callable[[], bool]) -> None:
        self._deliveries = _named(deliveries)
        self._silent = silent

    def collect(self) -> Iterator[Metric]:
        """Yield each metric with a sample for each target."""
        sent = CounterMetricFamily(
            "anomaly_notify_records_sent",
            "Records that a target has accepted, by state.",
            labels=["target", "state"],
        )
        failed = CounterMetricFamily(
            "anomaly_notify_posts_failed", "Posts without success.", labels=["target"]
        )
        rejected = CounterMetricFamily(
            "anomaly_notify_records_rejected",
            "Records that a target will never accept.",
            labels=["target"],
        )
        held = CounterMetricFamily(
            "anomaly_notify_records_held_back",
            "Records that are not sent, by reason.",
            labels=["target", "reason"],
        )
        by_team = CounterMetricFamily(
            "anomaly_notify_incidents_held_back",
            "Incidents over the pages of a day, by team.",
            labels=["target", "team"],
        )
        digests = CounterMetricFamily(
            "anomaly_notify_digests_sent", "Digests that a target has accepted.", labels=["target"]
        )
        gauges = {
            name: GaugeMetricFamily(f"anomaly_notify_{name}", about, labels=["target"])
            for name, about in (
                ("backlog_records", "Records that wait to be sent."),
                ("backlog_age_seconds", "Since the oldest of them was written; 0 if none waits."),
                ("incidents_open", "Open incidents that are posted again each minute."),
                ("target_accepting", "1 if the target accepts records, 0 if it does not."),
                ("last_sent_timestamp_seconds", "When a target last accepted a record."),
            )
        }
        now = time.time()
        for target, delivery in self._deliveries:
            counts = delivery.counts
            for state in STATES:
                sent.add_metric([target, state], counts.sent[state])
            failed.add_metric([target], counts.failed)
            rejected.add_metric([target], counts.rejected)
            for reason in HELD_BACK:
                held.add_metric([target, reason], counts.held_back[reason])
            for team, count in list(counts.by_team.items()):
                by_team.add_metric([target, team], count)
            digests.add_metric([target], counts.digests)
            age = 0.0 if counts.oldest is None else max(0.0, now - counts.oldest)
            for name, value in (
                ("backlog_records", counts.waiting),
                ("backlog_age_seconds", age),
                ("incidents_open", counts.open),
                ("target_accepting", counts.accepting),
                ("last_sent_timestamp_seconds", counts.last_sent),
            ):
                if value is not None:
                    gauges[name].add_metric([target], value)
        yield from (sent, failed, rejected, held, by_team, digests, *gauges.values())
        yield GaugeMetricFamily(
            "anomaly_notify_broker_answering",
            "1 if the broker answers, 0 if it does not.",
            0 if self._silent() else 1,
        )


def _named(deliveries: Sequence[Delivery]) -> list[tuple[str, Delivery]]:
    """Return the deliveries with names that differ: several targets may have one host."""
    named: dict[str, Delivery] = {}
    for delivery in deliveries:
        name, number = f"{delivery.target}", 1
        while name in named:
            number += 1
            name = f"{delivery.target} #{number}"
        named[name] = delivery
    return list(named.items())


def application(deliveries: Sequence[Delivery], silent: Callable[[], bool]) -> WSGIApplication:
    """Return what answers requests. `silent` says whether the broker does not answer.

    `/healthz` is 503 if a delivery has ended or hangs, `/readyz` also while the broker or a target
    does not answer: a restart would not help then.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Deliveries(deliveries, silent))
    metrics = make_wsgi_app(registry)

    def broken() -> list[str]:
        now = time.monotonic()
        said = [it.failure for it in deliveries if it.failure is not None]
        for delivery in deliveries:
            hangs = now - delivery.counts.turned
            if delivery.failure is None and hangs > HANGS:
                said.append(f"Delivery to {delivery.target} has done nothing for {hangs:.0f} s.")
        return said

    def waiting() -> list[str]:
        said = ["The broker does not answer."] if silent() else []
        down = [it.target for it in deliveries if not it.counts.accepting]
        return said + [f"{target} does not accept incidents." for target in down]

    def answer(request: WSGIEnvironment, respond: StartResponse) -> Iterable[bytes]:
        match request["PATH_INFO"]:
            case "/metrics":
                shown: Iterable[bytes] = metrics(request, respond)
                return shown
            case "/healthz":
                problems, well = broken(), "alive"
            case "/readyz":
                problems, well = broken() + waiting(), "ready"
            case _:
                respond("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
                return [b"not found: use /metrics, /healthz or /readyz\n"]
        status = "503 Service Unavailable" if problems else "200 OK"
        respond(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{' '.join(problems) or well}\n".encode()]

    return answer
