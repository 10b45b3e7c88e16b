"""Notification targets: real servers, which fail, hang, ask for time, go away and come back."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import environment, fill_topic, free_port
from faults import wait_for

from dataflow.commands.notify import notify as command
from dataflow.errors import UserError
from dataflow.notify import http, process
from dataflow.notify.alertmanager import Alertmanager
from dataflow.notify.base import Target
from dataflow.notify.slack import Slack
from dataflow.notify.summary import severity, summary
from dataflow.notify.targets import targets
from dataflow.notify.webhook import Webhook
from dataflow.records import Incident, Source, encode
from dataflow.settings import Settings

NOW = datetime.now(UTC).replace(microsecond=0)


def incident(state: str = "opened", sequence: int = 0, number: int = 1, **more: Any) -> Incident:
    resolved = state == "resolved"
    fields: dict[str, Any] = {
        "instance": f"host-{number}",
        "kind": "anomaly",
        "state": state,
        "id": f"{number:024x}",
        "sequence": sequence,
        "since": NOW - timedelta(minutes=10),
        "opened_at": NOW - timedelta(minutes=10),
        "updated_at": NOW - timedelta(minutes=5),
        "resolved_at": NOW - timedelta(minutes=1) if resolved else None,
        "ended": "recovered" if resolved else None,
        "score": 0.75,
        "peak_at": NOW - timedelta(minutes=10),
        "value": 0.9,
        "expected": 0.25,
        "anomalies": 3,
        "source": Source("cpu", 0, 5),
    }
    return Incident(**{**fields, **more})


class Receiver:
    """A web server that answers as it is set to, and keeps what it accepted."""

    def __init__(self, port: int = 0) -> None:
        self.accepted: list[Any] = []
        self.keys: list[str | None] = []
        self.posted: list[tuple[str, Any]] = []  # the paths of what was accepted, and it
        self.paths: list[str] = []
        self.types: list[str | None] = []
        self.tries: list[float] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.always: tuple[int, dict[str, str]] = (200, {})
        self.delay = 0.0
        self.status_of: Callable[[Any], int] = lambda _: self.always[0]
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.tries.append(time.monotonic())
                receiver.paths.append(self.path)
                receiver.types.append(self.headers["Content-Type"])
                status, headers = receiver.status_of(json.loads(body)), receiver.always[1]
                if receiver.answers:
                    status, headers = receiver.answers.pop(0)
                time.sleep(receiver.delay)
                if status < 300:
                    receiver.accepted.append(json.loads(body))
                    receiver.posted.append((self.path, json.loads(body)))
                    receiver.keys.append(self.headers["Idempotency-Key"])
                self.send_response(status)
                for name, value in {**headers, "Content-Length": "0"}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port: int = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/services/SECRET"

    def delivered(self) -> list[tuple[str, str, int]]:
        return [
            (it["incident"]["instance"], it["incident"]["state"], it["incident"]["sequence"])
            for it in self.accepted
        ]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@contextmanager
def notifying(
    folder: Path, program: tuple[str, ...] = ("-m", "dataflow"), **settings: object
) -> Iterator[subprocess.Popen[str]]:
    """The command, as its users run it; killed at last if it still runs."""
    process = subprocess.Popen(
        [sys.executable, *program, "notify"],
        cwd=folder,
        env=environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        print(*process.communicate())  # shown if the test fails


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Ask it to end; what it said."""
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "SECRET" not in out + err
    return out, err


def deliver_all(**settings: Any) -> str:
    """Run the command here, to the end of the topic; return its standard error."""
    err = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(err):
        patch.setattr(signal, "signal", lambda *_: None)
        process.run(Settings(_env_file=None, follow=False, **settings))
    assert "SECRET" not in err.getvalue()
    return err.getvalue()


def write(brokers: str, topic: str, *incidents: Incident) -> None:
    fill_topic(brokers, topic, [(it.instance, encode(it)) for it in incidents])


# The whole command


@pytest.mark.kafka
def test_each_opened_and_resolved_arrives_whatever_the_receiver_does(
    brokers: str, topic: str, tmp_path: Path, receiver: Receiver
) -> None:
    """It fails, asks for time, and dies; another is never reached and delays no other."""
    write(brokers, topic)
    dead = f"http://127.0.0.1:{free_port()}/services/SECRET"
    slack_address = receiver.address.replace("services", "slack")
    settings: dict[str, object] = {
        "brokers": brokers,
        "incidents_topic": topic,
        "notify_webhook": f"{dead},{receiver.address}",
        "notify_slack": slack_address,
    }
    receiver.answers = [(500, {}), (429, {"Retry-After": "2"})]
    with notifying(tmp_path, **settings) as process:
        assert process.stdout is not None
        for _ in range(3):  # it has begun
            assert process.stdout.readline().startswith("delivering the topic ")
        for target in (Webhook(dead), Webhook(receiver.address), Slack(slack_address)):
            wait_for_group(brokers, topic, target)
        write(brokers, topic, incident())
        wait_for(lambda: len(receiver.accepted) == 2)
        write(brokers, topic, incident("resolved", 1))
        wait_for(lambda: len(receiver.accepted) == 4)
        out, err = ended(process)
    webhook = [it for it in receiver.accepted if "incident" in it]
    assert [it["key"] for it in webhook] == [f"{1:024x}-0", f"{1:024x}-1"]
    assert sorted(key or "" for key in receiver.keys) == 2 * [f"{1:024x}-0"] + 2 * [f"{1:024x}-1"]
    slack = [it["text"] for it in receiver.accepted if "text" in it]
    assert slack[0].startswith("*opened* (warning) host-1: value 0.9, expected 0.25 since ")
    assert f"warning: webhook at {dead.split('/')[2]} does not accept incidents" in err
    assert "status 500" in err
    assert "accepts incidents again" in err
    assert out.count("delivered to ") == 4
    # Started again, it goes on where it was; the third receiver is there at last.
    late = Receiver(int(dead.split("/")[2].split(":")[1]))
    try:
        with notifying(tmp_path, **settings) as process:
            wait_for(lambda: len(late.delivered()) == 2)
            write(brokers, topic, incident(number=2))
            wait_for(lambda: len(receiver.accepted) == 6 and len(late.delivered()) == 3)
            ended(process)
        assert late.delivered() == [
            ("host-1", "opened", 0),
            ("host-1", "resolved", 1),
            ("host-2", "opened", 0),
        ]
        assert len(receiver.accepted) == 6
    finally:
        late.close()


def wait_for_group(brokers: str, topic: str, target: Target) -> None:
    """Wait until a receiver's position is kept: what is written from now on is not the past."""
    from confluent_kafka import KafkaException, TopicPartition

    from dataflow import kafka

    client = kafka.consumer(
        Settings(_env_file=None, brokers=brokers), **{"group.id": target.group(topic)}
    )

    def is_kept() -> bool:
        try:
            return bool(client.committed([TopicPartition(topic, 0)], 10)[0].offset >= 0)
        except KafkaException:
            return False  # a broker that has just started has no coordinator yet

    wait_for(is_kept)
    client.close()


@pytest.mark.kafka
def test_killed_while_a_receiver_hangs(
    brokers: str, topic: str, tmp_path: Path, receiver: Receiver
) -> None:
    """An offset is kept only after delivery."""
    settings = {"brokers": brokers, "incidents_topic": topic, "notify_webhook": receiver.address}
    write(brokers, topic)
    with notifying(tmp_path, **settings):
        wait_for_group(brokers, topic, Webhook(receiver.address))
        receiver.delay = 3.0
        receiver.always = (503, {})
        write(brokers, topic, incident(), incident("updated", 1), incident("updated", 2))
        write(brokers, topic, incident("resolved", 3))
        wait_for(lambda: bool(receiver.tries))
    receiver.delay, receiver.always = 0.0, (200, {})
    deliver_all(**settings)
    # Updates in between are left out when a later record is known.
    assert receiver.delivered() == [("host-1", "opened", 0), ("host-1", "resolved", 3)]


def test_a_new_receiver_gets_what_is_open_and_not_the_past(
    brokers: str, topic: str, receiver: Receiver
) -> None:
    write(brokers, topic, incident(number=1), incident("resolved", 1, number=1))
    write(brokers, topic, incident(number=2), incident("updated", 1, number=2))
    fill_topic(brokers, topic, [("stranger", b"{}")])
    for _ in range(2):
        deliver_all(brokers=brokers, incidents_topic=topic, notify_webhook=receiver.address)
    assert receiver.delivered() == [("host-2", "updated", 1)]


def test_a_record_that_is_never_taken_is_left_out_and_said(
    brokers: str, topic: str, receiver: Receiver
) -> None:
    write(brokers, topic, incident(number=1), incident(number=2))
    receiver.answers = [(400, {})]
    settings = {"brokers": brokers, "incidents_topic": topic, "notify_webhook": receiver.address}
    err = deliver_all(**settings)
    assert len(receiver.accepted) == 1
    assert len(err.splitlines()) == 1
    assert "rejects record 0 of the incident" in err
    assert "status 400" in err


PAGER = """
from dataflow.notify.base import Target

class Pager(Target):
    name = "pager"

    @property
    def url(self):
        return self.address + "/v2/enqueue"

    def body(self, incident, link, now):
        return {"text": f"{incident.instance}: {incident.state}", "link": link}

class Nameless(Target):
    def body(self, incident, link, now):
        return {}

class Empty(Target):
    name = "empty"
"""


def test_a_target_of_ones_own_beside_a_built_in(
    brokers: str,
    topic: str,
    tmp_path: Path,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "oncall.py").write_text(PAGER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "oncall", raising=False)
    write(brokers, topic, incident())
    err = deliver_all(
        brokers=brokers,
        incidents_topic=topic,
        notify_targets=f"oncall:Pager={receiver.address}, webhook={receiver.address}",
        notify_link="http://wiki.example/incidents",
    )
    assert err == ""
    posted = dict(receiver.posted)
    assert posted["/services/SECRET/v2/enqueue"] == {
        "text": "host-1: opened",
        "link": "http://wiki.example/incidents",
    }
    assert posted["/services/SECRET"]["incident"]["instance"] == "host-1"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            "pagerr=http://h/SECRET",
            "'pagerr', which does not exist: use one of webhook, cloudevents, slack, ",
        ),
        ("oncall:Missing=http://h/SECRET", "has no attribute 'Missing'"),
        ("oncall:PAGER=http://h/SECRET", "'oncall:PAGER', which is not a notification target"),
        ("oncall:Nameless=http://h/SECRET", "an incomplete notification target: its class must"),
        ("oncall:Empty=http://h/SECRET", "an incomplete notification target: its class must"),
        ("slack=http://h/SECRET", "slack at h is set twice: remove it from"),
        ("sns=http://h/SECRET", "must be an ARN: set it in ANOMALY_NOTIFY_SNS"),
    ],
)
def test_a_wrong_target_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, says: str
) -> None:
    (tmp_path / "oncall.py").write_text(f"{PAGER}\nPAGER = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "oncall", raising=False)
    settings = Settings(_env_file=None, notify_slack="http://h/SECRET", notify_targets=given)
    with pytest.raises(UserError) as error:
        targets(settings)
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert "SECRET" not in str(error.value) + repr(settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "No notification target is configured"),
        ({"notify_slack": "hooks.slack.com/services/SECRET"}, "ANOMALY_NOTIFY_SLACK must be addr"),
        ({"notify_webhook": "http://h:x/SECRET"}, "ANOMALY_NOTIFY_WEBHOOK must be addresses"),
        ({"notify_link": "SECRET"}, "ANOMALY_NOTIFY_LINK must be an address"),
        ({"notify_targets": "http://h/SECRET"}, "ANOMALY_NOTIFY_TARGETS must be NAME=https://"),
        ({"notify_targets": "slack=h/SECRET"}, "ANOMALY_NOTIFY_TARGETS must be NAME=https://"),
        (
            {"notify_targets": "slack=http://h/SECRET,slack=http://h/SECRET"},
            "ANOMALY_NOTIFY_TARGETS names the same target twice",
        ),
        ({"notify_labels": "team"}, "ANOMALY_NOTIFY_LABELS must be NAME=VALUE"),
        ({"notify_labels": "team=a,my-team=b"}, "ANOMALY_NOTIFY_LABELS must be NAME=VALUE"),
        ({"notify_labels": "team=a,team=b"}, "ANOMALY_NOTIFY_LABELS names the same label twice"),
        ({"notify_labels": "kind=a"}, "names the label 'kind', which every alert has already"),
        (
            {"notify_webhook": "http://h/SECRET", "incidents_topic": "none-such"},
            "the topic 'none-such' does not exist on",
        ),
        (
            {"notify_webhook": "http://h/SECRET", "brokers": "127.0.0.1:1"},
            "no answer from the broker 127.0.0.1:1",
        ),
    ],
)
def test_refusals(
    monkeypatch: pytest.MonkeyPatch, brokers: str, settings: dict[str, str], said: str
) -> None:
    for name, value in {"brokers": brokers, **settings}.items():
        monkeypatch.setenv(f"ANOMALY_{name.upper()}", value)
    with pytest.raises(UserError) as refusal:
        command()
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert "SECRET" not in str(refusal.value)


def test_a_refusal_of_the_command_is_one_line(run_command: Callable[..., Any]) -> None:
    done = run_command("notify")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: No notification target is configured")
    assert len(done.stderr.splitlines()) == 1


# Alertmanager


@contextmanager
def running_alertmanager(folder: Path, receiver: Receiver, matchers: str = "") -> Iterator[str]:
    """Yield the address of a real Alertmanager: it notifies the receiver, of some at `/team`."""
    if shutil.which("prometheus-alertmanager") is None:
        pytest.skip("prometheus-alertmanager is not installed")
    config = folder / "alertmanager.yml"
    config.write_text(
        "route: {receiver: r, group_wait: 0s, group_interval: 1s, group_by: [...],"
        f" routes: [{{receiver: team, matchers: [{matchers or 'alertname=none'}]}}]}}\n"
        "receivers: [{name: r, webhook_configs: [{url: '"
        f"{receiver.address}', send_resolved: true}}]}}, {{name: team, webhook_configs: [{{url: "
        f"'{receiver.address}/team', send_resolved: true}}]}}]\n"
    )
    port = free_port()
    with (folder / "alertmanager.log").open("w") as log:
        server = subprocess.Popen(
            [
                "prometheus-alertmanager",
                f"--config.file={config}",
                f"--storage.path={folder / 'alertmanager'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(lambda: listening(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


def listed_alerts(address: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{address}/api/v2/alerts") as answer:
        return list(json.load(answer))


@pytest.mark.kafka
def test_alertmanager_lists_it_and_then_no_more(
    brokers: str, topic: str, tmp_path: Path, receiver: Receiver
) -> None:
    def statuses() -> list[str]:
        return [alert["status"] for group in receiver.accepted for alert in group["alerts"]]

    with running_alertmanager(tmp_path, receiver) as address:
        write(brokers, topic, incident(), incident(number=2, kind="silence", score=None))
        with notifying(
            tmp_path,
            brokers=brokers,
            incidents_topic=topic,
            notify_alertmanager=f"{address}/",
            notify_link="http://wiki.example/{instance}",
        ) as process:
            wait_for(lambda: len(listed_alerts(address)) == 2)
            alert = next(
                it for it in listed_alerts(address) if it["labels"]["instance"] == "host-1"
            )
            assert alert["labels"] == {
                "alertname": "InstanceAnomalous",
                "instance": "host-1",
                "kind": "anomaly",
                "severity": "warning",
                "topic": "cpu",
            }
            assert alert["status"]["state"] in ("unprocessed", "active")
            assert datetime.fromisoformat(alert["startsAt"]) == incident().opened_at
            assert datetime.fromisoformat(alert["endsAt"]) > datetime.now(UTC)
            assert alert["generatorURL"] == "http://wiki.example/host-1"
            assert "host-1: value 0.9, expected 0.25" in alert["annotations"]["summary"]
            wait_for(lambda: statuses().count("firing") >= 2)
            write(brokers, topic, incident("resolved", 1))
            wait_for(
                lambda: [it["labels"]["instance"] for it in listed_alerts(address)] == ["host-2"]
            )
            wait_for(lambda: "resolved" in statuses())
            ended(process)


def test_alertmanager_routes_by_labels_and_they_last_as_long_as_the_incident(
    brokers: str, topic: str, tmp_path: Path, receiver: Receiver
) -> None:
    """The labels of the setting, those of the incident, and names as Alertmanager takes them."""

    def sent(status: str) -> dict[str, dict[str, str]]:
        return {
            alert["labels"]["instance"]: alert["labels"]
            for path, group in receiver.posted
            for alert in group["alerts"]
            if alert["status"] == status and path.endswith("/team")
        }

    own = {"env": "prod", "k8s.pod/name": "a", "severity": "mine", "empty": ""}
    with running_alertmanager(tmp_path, receiver, "team=web, env=prod") as address:
        write(brokers, topic, incident(labels=own), incident(number=2))
        with notifying(
            tmp_path,
            brokers=brokers,
            incidents_topic=topic,
            notify_alertmanager=address,
            notify_labels="team=web, env=test",
        ) as process:
            wait_for(lambda: len(listed_alerts(address)) == 2)
            wait_for(lambda: "host-1" in sent("firing"))
            # The last reading has other labels: the alert must end all the same.
            write(brokers, topic, incident("resolved", 1, labels={"env": "other"}))
            wait_for(lambda: "host-1" in sent("resolved"))
            ended(process)
    assert set(sent("firing")) == {"host-1"}  # the other one is of another environment
    labels = sent("firing")["host-1"]
    assert labels == sent("resolved")["host-1"]
    assert labels == {
        **{"alertname": "InstanceAnomalous", "kind": "anomaly", "topic": "cpu"},
        **{"instance": "host-1", "severity": "warning"},
        **{"team": "web", "env": "prod", "k8s_pod_name": "a"},
    }


def listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_what_is_open_is_repeated_to_an_alertmanager(
    brokers: str,
    topic: str,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also by a process that was started since, and until it is resolved."""
    from dataflow.notify import backlog, delivery

    monkeypatch.setattr(backlog, "REPEAT", 0.2)
    settings = Settings(
        _env_file=None, brokers=brokers, incidents_topic=topic, notify_alertmanager=receiver.address
    )
    (target,) = targets(settings)

    @contextmanager
    def delivering() -> Iterator[None]:
        stop = threading.Event()
        thread = threading.Thread(target=delivery.Delivery(settings, target, stop).run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def ends(alerts: Any) -> bool:
        return bool(datetime.fromisoformat(alerts[0]["endsAt"]) < datetime.now(UTC))

    write(brokers, topic, incident())
    for _ in range(2):
        seen = len(receiver.accepted)
        with delivering():
            wait_for(lambda seen=seen: len(receiver.accepted) >= seen + 3)  # type: ignore[misc]
    assert set(receiver.paths) == {"/services/SECRET/api/v2/alerts"}
    with delivering():
        write(brokers, topic, incident("resolved", 1))
        wait_for(lambda: any(map(ends, receiver.accepted)))
        last = len(receiver.accepted)
        time.sleep(1)
    assert len(receiver.accepted) == last
    assert ends(receiver.accepted[-1])


# The parts


def test_consumer_groups_keep_their_names() -> None:
    """Another name would lose the offsets that the broker keeps."""
    groups = [it("http://ops.example/hook").group("t") for it in (Webhook, Slack, Alertmanager)]
    assert groups == [
        f"ec2-anomaly-notify.t.{name}.70f0785f" for name in ("webhook", "slack", "alertmanager")
    ]


def test_what_is_posted_and_what_comes_back(receiver: Receiver) -> None:
    receiver.answers = [
        (204, {}),
        (302, {"Location": "/elsewhere"}),
        (404, {}),
        (413, {}),
        (429, {"Retry-After": "120"}),
        (503, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}),
        (503, {"Retry-After": "soon"}),
        (503, {"Retry-After": "9999999"}),
    ]
    answers = [http.post(receiver.address, {"a": 1}, "key") for _ in range(8)]
    assert [answer.accepted for answer in answers] == [True] + 7 * [False]
    assert [answer.rejected for answer in answers] == 3 * [False] + [True] + 4 * [False]
    assert [answer.wait for answer in answers] == [0, 0, 0, 0, 120, 0, 0, 3600]
    assert receiver.accepted == [{"a": 1}]
    assert set(receiver.paths) == {"/services/SECRET"}  # nothing went elsewhere


def test_errors_do_not_show_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TIMEOUT", 0.3)
    with socket.socket() as hanging:
        hanging.bind(("127.0.0.1", 0))
        hanging.listen()
        port = hanging.getsockname()[1]
        for address in (
            f"http://127.0.0.1:{port}/SECRET",
            f"http://127.0.0.1:{free_port()}/SECRET",
            f"https://127.0.0.1:{port}/SECRET",
            "http://no-such-host.invalid/SECRET",
            "http://127.0.0.1/SE CRET",
            "http://user:SECRET@127.0.0.1:1/",
        ):
            answer = http.post(address, {}, "key")
            assert answer.status is None
            assert answer.reason
            assert "CRET" not in repr(answer), address
    assert "SECRET" not in repr(Slack("https://hooks.slack.com/SECRET"))
    assert str(Slack("https://u:SECRET@h/SECRET")) == "slack at h"


def test_passwords_in_an_address_become_a_header(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    open_ = http._opener.open
    monkeypatch.setattr(
        http._opener,
        "open",
        lambda request, **more: asked.append(request) or open_(request, **more),
    )
    address = receiver.address.replace("http://", "http://me:p%40ss@")
    assert http.post(address, {}, "key").accepted
    assert asked[0].get_header("Authorization") == "Basic bWU6cEBzcw=="
    assert "me" not in asked[0].host


def test_slack_takes_no_orders_from_the_name_of_an_instance() -> None:
    text = Slack("http://h").body(incident(instance="<!channel> & co"), "", NOW)
    assert "&lt;!channel&gt; &amp; co" in str(text)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "host-1: value 0.9, expected 0.25 since 20"),
        ({"why": "CPU 89.8%; highest in 4 weeks"}, "host-1: CPU 89.8%; highest in 4 weeks since "),
        ({"state": "updated"}, "has become worse (score 0.75): value 0.9"),
        ({"state": "resolved", "duration": 45_900.0}, "has recovered after 12 h 45 min: it began"),
        ({"state": "resolved", "ended": "adapted"}, "that counts as ordinary now"),
        ({"state": "resolved", "ended": "gone"}, "has gone silent in trouble: "),
        ({"kind": "silence"}, "host-1 is silent since "),
        ({"kind": "silence", "state": "resolved", "ended": "returned"}, "sends again"),
        ({"kind": "silence", "state": "resolved", "ended": "gone"}, "counts as gone: "),
        ({"since": None, "expected": None}, "host-1: value 0.9"),
    ],
)
def test_what_is_said(changed: dict[str, Any], said: str) -> None:
    record = incident(**{"state": "opened", **changed})
    assert said in summary(record)
    for target in (Webhook, Slack, Alertmanager):
        assert encode(target("http://h").body(record, "", NOW))


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"duration": 0.0}, "warning"),
        ({"duration": 3600.0}, "critical"),
        ({"score": 0.8}, "critical"),
        ({"kind": "silence", "score": None, "duration": 9e9}, "warning"),
    ],
)
def test_severity_is_by_score_and_duration(changed: dict[str, Any], expected: str) -> None:
    record = incident(**changed)
    assert severity(record) == expected
    # Alertmanager would take another label for another alert.
    (alert,) = Alertmanager("http://h").body(record, "", NOW)  # type: ignore[misc]
    assert (alert["labels"]["severity"], alert["annotations"]["severity"]) == ("warning", expected)


def test_history_is_left_out_and_counted(
    brokers: str, topic: str, receiver: Receiver, tmp_path: Path
) -> None:
    """Incidents of readings that were 20 months old when the flow read them."""
    old = NOW - timedelta(days=600)
    times = {"since": old, "opened_at": old, "updated_at": old, "peak_at": old}
    settings: dict[str, Any] = {
        **{"brokers": brokers, "incidents_topic": topic, "follow": "false"},
        "notify_webhook": receiver.address,
    }
    write(brokers, topic)
    with notifying(tmp_path, **settings) as process:
        process.communicate(timeout=60)
    write(brokers, topic, *(incident(number=number, **times) for number in range(9)), incident())
    with notifying(tmp_path, **settings) as process:
        _, said = process.communicate(timeout=60)
    assert receiver.delivered() == [("host-1", "opened", 0)]
    assert "left out 9 records of incidents that were more than 1 h old" in said
    write(brokers, topic, incident(number=77, **times))
    with notifying(tmp_path, **settings, notify_max_age=0) as process:
        process.communicate(timeout=60)
    assert receiver.delivered()[1:] == [("host-77", "opened", 0)]


def test_a_test_message_reaches_every_target(receiver: Receiver, tmp_path: Path) -> None:
    def test(**settings: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dataflow", "notify", "--test"],
            cwd=tmp_path,
            env=environment(**settings),
            capture_output=True,
            text=True,
            check=False,
        )

    settings = {
        "notify_webhook": receiver.address,
        "notify_link": "http://page.example/?i={instance}",
    }
    done = test(**settings)
    assert (done.returncode, done.stdout) == (
        0,
        f"webhook at 127.0.0.1:{receiver.port}: accepted\n",
    )
    (posted,) = receiver.accepted
    assert posted["link"] == "http://page.example/?i=test-of-notify"
    assert "a test of notify" in posted["summary"]
    receiver.always = (403, {})
    failed = test(**settings)
    assert (failed.returncode, len(failed.stderr.splitlines())) == (1, 1)
    assert f"not delivered to webhook at 127.0.0.1:{receiver.port}:" in failed.stderr
    assert "No notification target" in test().stderr


def test_an_alert_never_ends_before_it_starts_nor_in_the_future_once_resolved() -> None:
    ahead = NOW + timedelta(hours=1)
    for record in (
        incident("resolved", 1, opened_at=ahead, resolved_at=ahead),
        incident("resolved", 1, opened_at=None, resolved_at=None),
        incident("resolved", 1),
    ):
        (alert,) = Alertmanager("http://h").body(record, "", NOW)  # type: ignore[misc]
        starts, ends = (datetime.fromisoformat(alert[name]) for name in ("startsAt", "endsAt"))
        assert starts <= ends <= NOW
