"""What `notify` sends of incidents of groups and of their members."""

from __future__ import annotations

import threading
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME
from test_notify import NOW, incident

from dataflow.alerts.line import line
from dataflow.notify.alertmanager import Alertmanager
from dataflow.notify.backlog import Backlog
from dataflow.notify.base import link_to
from dataflow.notify.delivery import Delivery
from dataflow.notify.summary import summary
from dataflow.notify.webhook import Webhook
from dataflow.records import Incident, Member, Spread, encode
from dataflow.settings import Settings

SINCE = f"{NOW - timedelta(minutes=10):%Y-%m-%d %H:%M} UTC"


def of_group(state: str = "opened", **more: Any) -> Incident:
    members = tuple(Member(f"web-{n}", NOW, f"{n}") for n in (3, 1, 2))
    spread = Spread(12, 40, members)
    about = {"instance": "web", "group": "web", "why": "CPU 95.0%", "duration": 1800.0}
    return incident(state, spread=spread, **{**about, **more})


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (of_group(), "web: 12 of 40 instances are anomalous together, first web-3: CPU 95.0%"),
        (of_group("updated"), "web: 12 of 40 instances are anomalous by now, first web-3"),
        (of_group("resolved"), "web is over after 30 min: 12 of 40 instances, first web-3"),
        (of_group(kind="silence"), "web: 12 of 40 instances are silent together, first web-3"),
        (
            incident("updated", part_of="a", group="web", why="CPU 95.0%"),
            "host-1 goes on after the others of web: CPU 95.0%",
        ),
    ],
)
def test_a_group_in_one_sentence(record: Incident, said: str) -> None:
    assert summary(record).startswith(said)
    assert summary(record).endswith(f" since {SINCE}")


def test_what_is_folded_is_not_sent() -> None:
    delivery = Delivery(
        Settings(_env_file=None), Webhook("http://localhost:1/hook"), threading.Event()
    )

    def read(record: Incident) -> Incident | None:
        at = int(NOW.timestamp() * 1000)
        message: Any = SimpleNamespace(
            value=lambda: encode(record), timestamp=lambda: (TIMESTAMP_CREATE_TIME, at)
        )
        return delivery._decode((0, 0), message, report=True)

    assert read(incident(part_of="a", folded=True)) is None
    assert delivery.counts.held_back == {"folded": 1}
    for record in (of_group(), incident("updated", part_of="a", group="web")):
        assert read(record) == record


def test_a_group_and_an_instance_of_its_name_are_two() -> None:
    backlog = Backlog(repeats=True)
    backlog.remember(of_group(id="group"), 0.0)
    backlog.remember(incident(instance="web", id="instance"), 0.0)
    assert backlog.open_count == 2
    target = Alertmanager("http://localhost")
    group, instance = (
        target.body(it, "", NOW)[0]["labels"]  # type: ignore[index]
        for it in (of_group(), incident(instance="web", group="web"))
    )
    assert group == {**instance, "alertname": "GroupAnomalous"}


def test_the_link_of_a_group_is_that_of_its_first_member() -> None:
    assert link_to("https://a.example/?instance={instance}", of_group()).endswith("=web-3")


def test_a_terminal_shows_a_group_once() -> None:
    at = f"{NOW - timedelta(minutes=5):%Y-%m-%d %H:%M:%S}"
    assert line(of_group()) == f"{at}  web  12 of 40 instances together"
    assert line(incident("resolved", part_of="a", folded=True)) is None
