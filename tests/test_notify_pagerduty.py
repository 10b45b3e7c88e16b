"""PagerDuty, in whose place a server answers by the rules of its Events API."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from test_notify import NOW, deliver_all, incident, write

from dataflow.errors import UserError
from dataflow.notify import delivery
from dataflow.notify.pagerduty import PagerDuty
from dataflow.notify.test import send
from dataflow.records import Source
from dataflow.settings import Settings, load

KEY = "SECRET7890abcdef0123456789abcdef"


def wrong_in(event: Any) -> list[str]:
    """What PagerDuty says of an event, if anything."""
    found = []
    payload = event.get("payload", {})
    if event["event_action"] not in ("trigger", "acknowledge", "resolve"):
        found.append("'event_action' is not valid")
    if not 0 < len(event["dedup_key"]) <= 255:
        found.append("Length of 'dedup_key' is incorrect")
    if not 0 < len(payload["summary"]) <= 1024:
        found.append("Length of 'payload.summary' is incorrect")
    if not payload["source"].strip():
        found.append("'payload.source' is missing or blank")
    if payload["severity"] not in ("critical", "error", "warning", "info"):
        found.append("'payload.severity' is invalid (must be one of the following: ...)")
    if not isinstance(payload["custom_details"], dict):
        found.append("'payload.custom_details' is not an object")
    if not 1970 <= datetime.fromisoformat(payload["timestamp"]).year <= datetime.now(UTC).year:
        found.append("'payload.timestamp' is wrong")
    if not all(link["href"].startswith("http") for link in event["links"]):
        found.append("'links' is invalid")
    if len(json.dumps(event).encode()) > 512_000:
        found.append("the event is larger than 512 KB")
    return found


class Server:
    """Keeps the events of each alert, and which alerts are open. `refuse` comes first."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.open: dict[str, list[dict[str, Any]]] = {}
        self.alerts = 0
        self.paths: set[str] = set()
        self.refuse: list[tuple[int, list[str]]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                server.paths.add(self.path)
                event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, errors = server.refuse.pop(0) if server.refuse else server.take(event)
                answer = json.dumps({"message": "Event object is invalid", "errors": errors})
                self.send_response(status)
                self.send_header("Content-Length", f"{len(answer)}")
                self.end_headers()
                self.wfile.write(answer.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://{KEY}@127.0.0.1:{self.server.server_address[1]}"

    def take(self, event: dict[str, Any]) -> tuple[int, list[str]]:
        if event["routing_key"] != KEY:
            return 400, ["Invalid routing key"]
        if errors := wrong_in(event):
            return 400, errors
        self.events.append(event)
        if event["event_action"] == "resolve":
            self.open.pop(event["dedup_key"], None)
        else:
            self.alerts += event["dedup_key"] not in self.open
            self.open.setdefault(event["dedup_key"], []).append(event)
        return 202, []


@pytest.fixture
def pagerduty(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(delivery, "FIRST_WAIT", 0.01)
    server = Server()
    yield server
    server.server.shutdown()
    server.server.server_close()


def test_one_alert_an_incident_whatever_pagerduty_answers_first(
    brokers: str, topic: str, pagerduty: Server
) -> None:
    settings = {
        **{"brokers": brokers, "incidents_topic": topic, "notify_pagerduty": pagerduty.address},
        "notify_link": "https://page.example/?id={id}",
        "notify_runbook": "https://wiki.example/{kind}",
        "notify_labels": "team=a",
    }
    write(brokers, topic)
    deliver_all(**settings)
    labels = {"group": "web", "env": "prod"}
    write(brokers, topic, incident(number=1, score=0.6), incident(number=2, kind="silence"))
    pagerduty.refuse = [(500, []), (429, [])]
    err = deliver_all(**settings)
    assert "pagerduty at 127.0.0.1:" in err
    assert "does not accept incidents (status 500)" in err
    write(brokers, topic, incident("updated", 1, number=2, kind="silence"))
    write(brokers, topic, incident("updated", 1, number=1, score=0.9, labels=labels))
    assert deliver_all(**settings) == ""
    assert (pagerduty.alerts, len(pagerduty.open)) == (2, 2)
    event = pagerduty.open[f"{1:024x}"][-1]
    assert event["event_action"] == "trigger"
    assert event["payload"]["severity"] == "critical"
    assert "host-1 has become worse (score 0.90)" in event["payload"]["summary"]
    assert event["payload"]["source"] == "host-1"
    assert event["payload"]["group"] == "web"
    assert event["payload"]["custom_details"]["labels"] == {"team": "a", **labels}
    assert event["payload"]["custom_details"]["sequence"] == 1
    assert event["links"] == [
        {"href": f"https://page.example/?id={1:024x}", "text": "Incident"},
        {"href": "https://wiki.example/anomaly", "text": "Runbook"},
    ]
    assert event["client_url"] == f"https://page.example/?id={1:024x}"
    write(brokers, topic, incident("resolved", 2, number=1))
    assert deliver_all(**settings) == ""
    assert list(pagerduty.open) == [f"{2:024x}"]
    assert pagerduty.events[-1]["event_action"] == "resolve"
    assert pagerduty.alerts == 2
    assert pagerduty.paths == {"/v2/enqueue"}


def test_a_key_that_is_not_known_loses_no_page(brokers: str, topic: str, pagerduty: Server) -> None:
    write(brokers, topic, incident())
    pagerduty.refuse = [(400, ["Invalid routing key"]), (400, ["Length of 'routing_key' is wrong"])]
    err = deliver_all(brokers=brokers, incidents_topic=topic, notify_pagerduty=pagerduty.address)
    assert "does not accept incidents (it does not know the integration key): retrying" in err
    assert "accepts incidents again" in err
    assert len(pagerduty.open) == 1


def test_an_event_that_is_never_taken_is_skipped(
    brokers: str, topic: str, pagerduty: Server
) -> None:
    write(brokers, topic, incident(number=1), incident(number=2))
    pagerduty.refuse = [(400, ["'payload.source' is missing or blank"])]
    err = deliver_all(brokers=brokers, incidents_topic=topic, notify_pagerduty=pagerduty.address)
    assert len(err.splitlines()) == 1
    assert "rejects record 0 of the incident" in err
    assert list(pagerduty.open) == [f"{2:024x}"]


def test_a_test_opens_an_alert_and_resolves_it(
    pagerduty: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(_env_file=None, notify_pagerduty=pagerduty.address)
    send(settings)
    assert [event["event_action"] for event in pagerduty.events] == ["trigger", "resolve"]
    assert (pagerduty.alerts, pagerduty.open) == (1, {})
    pagerduty.refuse = [(400, ["Invalid routing key"])]
    with pytest.raises(UserError, match="not delivered to pagerduty at 127"):
        send(settings)
    said = capsys.readouterr().out
    assert "accepted" in said
    assert "it does not know the integration key" in said
    assert "SECRET" not in said


def test_what_is_long_is_shortened_and_what_is_blank_has_a_name() -> None:
    target = PagerDuty(f"https://{KEY}@events.pagerduty.com")
    long: Any = target.body(incident(instance="\u202e" * 300, why="\u202e" * 300), "", NOW)
    assert len(long["payload"]["summary"]) == 1024
    assert long["payload"]["summary"].endswith("…")
    blank: Any = target.body(incident(instance=" "), "", NOW)
    assert blank["payload"]["source"] == "unknown"
    old: Any = target.body(
        incident(updated_at=datetime(1, 1, 1, tzinfo=UTC), source=Source("cpu", 0, 0)), "", NOW
    )
    assert old["payload"]["timestamp"] == "1970-01-01T00:00:00.000+00:00"
    assert "client_url" not in blank


@pytest.mark.parametrize(
    ("given", "url"),
    [
        (KEY, "https://events.pagerduty.com/v2/enqueue"),
        (f"https://{KEY}@events.eu.pagerduty.com", "https://events.eu.pagerduty.com/v2/enqueue"),
        (f"http://{KEY}@127.0.0.1:80/other/", "http://127.0.0.1:80/other"),
    ],
)
def test_a_key_is_an_address_of_pagerduty(
    monkeypatch: pytest.MonkeyPatch, given: str, url: str
) -> None:
    monkeypatch.setenv("ANOMALY_NOTIFY_PAGERDUTY", given)
    settings = load()
    (address,) = settings.notify_pagerduty
    target = PagerDuty(address.get_secret_value())
    body: Any = target.body(incident(), "", NOW)
    assert (target.url, body["routing_key"]) == (url, KEY)
    assert "SECRET" not in f"{settings!r} {target}"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("SECRET", "must be integration keys of 32 letters and digits, or https://KEY@HOST"),
        (f"{KEY}x", "must be integration keys of 32 letters"),
        ("https://events.eu.pagerduty.com", "must be integration keys of 32 letters"),
        ("https://SECRET@events.eu.pagerduty.com", "must be integration keys of 32 letters"),
        (f"{KEY},{KEY}", "names the same key twice"),
        (f"{KEY},https://{KEY}@events.pagerduty.com", "names the same key twice"),
    ],
)
def test_a_wrong_key_is_one_line(monkeypatch: pytest.MonkeyPatch, given: str, says: str) -> None:
    monkeypatch.setenv("ANOMALY_NOTIFY_PAGERDUTY", given)
    with pytest.raises(UserError, match=f"ANOMALY_NOTIFY_PAGERDUTY {says}") as error:
        load()
    assert "SECRET" not in str(error.value)
