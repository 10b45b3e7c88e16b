"""The pages of a day, through the whole command: what each target gets, and what a kill changes."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import fill_topic
from faults import wait_for
from test_notify import (
    NOW,
    Receiver,
    deliver_all,
    ended,
    incident,
    notifying,
    receiver,
    wait_for_group,
)
from test_notify_pagerduty import KEY, wrong_in

from dataflow.errors import UserError
from dataflow.notify import pages
from dataflow.notify.delivery import Delivery
from dataflow.notify.digest import digest_of, held_back
from dataflow.notify.metrics import _Deliveries
from dataflow.notify.slack import Slack
from dataflow.notify.store import PageStore
from dataflow.notify.webhook import Webhook
from dataflow.records import Incident, encode
from dataflow.settings import Settings

__all__ = ["receiver"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The clock of the budget, with `ahead` seconds to add."""

    class Clock:
        ahead = 0.0

        @staticmethod
        def time() -> float:
            return time.time() + Clock.ahead

    monkeypatch.setattr(pages, "time", Clock)
    return Clock


def write(brokers: str, topic: str, *incidents: Incident) -> None:
    """Write all to one partition, so that they are read in this order."""
    fill_topic(brokers, topic, [("one", encode(it)) for it in incidents])


def lives(number: int, **more: Any) -> list[Any]:
    return [incident(number=number, **more), incident("resolved", 1, number=number, **more)]


FORMS = {
    "key": "webhook",
    "specversion": "cloudevents",
    "text": "slack",
    "labels": "alertmanager",
    "routing_key": "pagerduty",
}


def form(posted: Any) -> str:
    """Return which target a body is for."""
    fields = posted[0] if isinstance(posted, list) else posted
    return next(name for field, name in FORMS.items() if field in fields)


def test_each_target_gets_its_pages_and_a_digest_in_its_form(
    brokers: str, topic: str, tmp_path: Path, receiver: Receiver, clock: Any
) -> None:
    paged, held = (
        lives(1, score=0.9, labels={"team": "web"}),
        [it for n in (2, 3) for it in lives(n, labels={"team": "web"})],
    )
    at = receiver.address.removesuffix("services/SECRET")
    settings: dict[str, Any] = {
        "brokers": brokers,
        "incidents_topic": topic,
        "notify_webhook": f"{at}webhook/SECRET",
        "notify_cloudevents": f"{at}cloudevents/SECRET",
        "notify_slack": f"{at}slack/SECRET",
        "notify_alertmanager": f"{at}alertmanager/SECRET",
        "notify_pagerduty": f"http://{KEY}@{at.removeprefix('http://')}pagerduty/SECRET",
        "notify_link": "http://page.example/{instance}",
        "notify_pages": 2,
        "notify_store": tmp_path / "pages.sqlite3",
    }
    write(brokers, topic, incident("resolved", 9, number=9))
    deliver_all(**settings)  # the targets are not new any more
    receiver.accepted.clear()
    write(brokers, topic, *paged, *held)
    assert deliver_all(**settings) == ""
    assert Counter(map(form, receiver.accepted)) == dict.fromkeys(FORMS.values(), 2)
    receiver.accepted.clear()
    clock.ahead = 3700.0
    deliver_all(**settings)
    found = {form(it): it for it in receiver.accepted}
    assert len(receiver.accepted) == len(found) == 5
    digest = found["webhook"]["digest"]
    assert digest["count"] == 2
    assert [it["instance"] for it in digest["incidents"]] == ["host-2", "host-3"]
    assert {it["state"] for it in digest["incidents"]} == {"resolved"}
    assert found["webhook"]["labels"] == {"team": "web"}
    assert found["webhook"]["link"] == "http://page.example/host-2"
    event = found["cloudevents"]
    assert (event["type"], event["subject"]) == ("ec2-anomaly-dataflow.notification.digest", "web")
    assert event["id"] == event["data"]["key"]
    said = found["slack"]["text"].splitlines()
    assert said[0].startswith("*digest* (warning) 2 incidents of team web held back since ")
    assert said[1].startswith("• host-2 has recovered")
    assert said[3:] == ["http://page.example/host-2"]
    (alert,) = found["alertmanager"]
    assert alert["labels"] == {
        **{"alertname": "IncidentsHeldBack", "severity": "warning", "team": "web"}
    }
    assert datetime.fromisoformat(alert["endsAt"]) > datetime.now(UTC)
    assert wrong_in(found["pagerduty"]) == []
    assert found["pagerduty"]["event_action"] == "trigger"
    assert found["pagerduty"]["payload"]["custom_details"]["count"] == 2
    receiver.accepted.clear()
    clock.ahead *= 3
    deliver_all(**settings)
    assert receiver.accepted == []


def test_what_was_open_before_there_was_a_limit_is_resolved(
    brokers: str, topic: str, tmp_path: Path, receiver: Receiver
) -> None:
    settings: dict[str, Any] = {
        **{"brokers": brokers, "incidents_topic": topic, "notify_webhook": receiver.address},
        "notify_store": tmp_path / "pages.sqlite3",
    }
    before, others = [lives(n) for n in (1, 2, 3)], [lives(n) for n in (4, 5)]
    write(brokers, topic, *(opened for opened, _ in before))
    deliver_all(**settings)
    assert not (tmp_path / "pages.sqlite3").exists()
    write(brokers, topic, *(resolved for _, resolved in before), *others[0], *others[1])
    receiver.accepted.clear()
    deliver_all(notify_pages=2, **settings)
    sent = [it[:2] for it in receiver.delivered()]
    assert sent[:3] == [(f"host-{n}", "resolved") for n in (1, 2, 3)]
    assert sent[3:] == [("host-4", "opened"), ("host-4", "resolved")]


FAST = """
import sys
from dataflow.notify import budget
from dataflow.cli import main
budget.HOUR = 1.0
sys.argv[0] = "dataflow"
main()
"""


def test_kills_lose_nothing_and_add_no_page(
    brokers: str, topic: str, tmp_path: Path, receiver: Receiver
) -> None:
    """Killed while a page is on its way, and while the digest is: both come again, as the same."""
    settings: dict[str, object] = {
        **{"brokers": brokers, "incidents_topic": topic, "notify_webhook": receiver.address},
        **{"notify_pages": 3, "follow": "true"},
    }
    program = ("-c", FAST)
    write(brokers, topic)
    with notifying(tmp_path, program, **settings):
        wait_for_group(brokers, topic, Webhook(receiver.address))
        receiver.delay = 1.0
        write(brokers, topic, *(incident(number=n) for n in range(1, 9)))
        wait_for(lambda: len(receiver.tries) == 2)  # the second is on its way
    wait_for(lambda: len(receiver.accepted) == 2)
    # It would take the place of the one on its way, if that had none.
    write(brokers, topic, incident(number=10, score=0.95))
    with notifying(tmp_path, program, **settings):
        wait_for(lambda: bool(receiver.accepted) and len(receiver.tries) >= 4)  # the digest is
    with notifying(tmp_path, program, **settings) as process:
        wait_for(lambda: sum("digest" in it for it in receiver.accepted) >= 2)
        first = int(one(receiver.accepted[0])[0].removeprefix("host-"))
        write(brokers, topic, incident(number=9), incident("resolved", 1, number=first))
        wait_for(lambda: (f"host-{first}", "resolved") in map(one, receiver.accepted))
        ended(process)
    keys = [it["key"] for it in receiver.accepted if one(it)[1] != "resolved"]
    assert len(set(keys)) == 3  # two incidents and a digest
    (digest,) = {json.dumps(it["digest"]) for it in receiver.accepted if "digest" in it}
    named = [it["instance"] for it in json.loads(digest)["incidents"]]
    sent = {one(it)[0] for it in receiver.accepted} - {"digest"}
    rows = PageStore(tmp_path / "notify.sqlite3").rows(Webhook(receiver.address).group(topic))
    left = [json.loads(row)[6] for (kind, _), row in rows.items() if kind == "incident"]
    next_time = [it["instance"] for it in left if it is not None]
    assert sorted([*sent, *named, *next_time]) == sorted(f"host-{n}" for n in range(1, 11))


def one(posted: Any) -> tuple[str, str]:
    found = posted.get("incident", {"instance": "digest", "state": "digest"})
    return found["instance"], found["state"]


def test_an_alert_that_is_held_back_does_not_fire_after_a_restart(
    brokers: str, topic: str, tmp_path: Path, receiver: Receiver
) -> None:
    settings: dict[str, Any] = {
        **{"brokers": brokers, "incidents_topic": topic, "notify_alertmanager": receiver.address},
        **{"notify_pages": 2, "notify_store": tmp_path / "pages.sqlite3"},
    }
    # A new target gets what is open: the most surprising.
    write(brokers, topic, *(incident(number=n, score=0.6 + n / 10) for n in (1, 2, 3)))
    for _ in range(2):
        deliver_all(**settings)
        posted = [alert["labels"]["instance"] for alerts in receiver.accepted for alert in alerts]
        assert set(posted) == {"host-3"}
        receiver.accepted.clear()


def test_what_is_held_back_is_counted_by_team(receiver: Receiver, tmp_path: Path) -> None:
    store = PageStore(tmp_path / "pages.sqlite3")
    settings = Settings(_env_file=None, notify_pages=2)
    delivery = Delivery(settings, Webhook(receiver.address), threading.Event(), store=store)
    assert delivery._pages is not None
    for number in range(200):
        delivery._pages.admits(incident(number=number, labels={"team": f"t{number // 2}"}))
    assert delivery.counts.by_team.total() == delivery.counts.held_back["pages"] == 100
    assert (len(delivery.counts.by_team), delivery.counts.by_team["(others)"]) == (51, 50)
    found = _Deliveries([delivery], lambda: False).collect()
    (samples,) = (it.samples for it in found if it.name == "anomaly_notify_incidents_held_back")
    assert ("t7", 1.0) in [(it.labels["team"], it.value) for it in samples]
    store.close()


def test_a_store_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be kept in .*none/a \(unable to open"):
        PageStore(tmp_path / "none" / "a")
    (tmp_path / "text").write_text("This is no database. " * 100)
    with pytest.raises(UserError, match=r"cannot be kept in .*text \(file is not a database\)"):
        PageStore(tmp_path / "text")
    with contextlib.closing(sqlite3.connect(tmp_path / "newer")) as database:
        database.execute("PRAGMA user_version = 2")
    with pytest.raises(UserError, match="has the format 2, which this version cannot read"):
        PageStore(tmp_path / "newer")
    first = PageStore(tmp_path / "pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dataflow.notify.store.ANOTHER", 0.05)
        with pytest.raises(UserError, match="is in use by another process of notify"):
            PageStore(tmp_path / "pages")
    first.save("a", {("page", "b"): b"1", ("page", "c"): b"2"})
    first.save("a", {("page", "b"): None})
    first.close()
    again = PageStore(tmp_path / "pages")
    assert again.rows("a") == {("page", "c"): b"2"}
    assert again.rows("b") == {}
    again.close()


def test_names_take_no_part_in_a_digest() -> None:
    held = [held_back(incident(instance="<!channel>", why="@here"), "")]
    text = Slack("http://a").digest(digest_of("<!here>", held, 0, 0.0, 0.0), NOW)
    assert "<!" not in str(text)
    assert "@here" not in str(text)
