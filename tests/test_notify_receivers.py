"""Receivers that misbehave, and brokers that go away, while `notify` delivers."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import PausableBroker, fill_topic, free_port
from faults import wait_for
from test_notify import (
    Receiver,
    deliver_all,
    incident,
    listed_alerts,
    notifying,
    receiver,
    running_alertmanager,
    write,
)
from test_notify_records import written

from dataflow.kafka import health
from dataflow.notify import alertmanager, backlog, delivery, http, process
from dataflow.notify.base import Target
from dataflow.notify.targets import targets
from dataflow.records import Incident
from dataflow.settings import Settings

__all__ = ["receiver"]

OK = b"HTTP/1.1 200 OK\r\n"


@contextmanager
def serving(misbehave: Callable[[socket.socket, threading.Event], None]) -> Iterator[str]:
    """The address of a server that does this with each connection, until the test ends."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve(client: socket.socket) -> None:
            with client:
                try:
                    client.recv(65_536)
                    misbehave(client, over)
                except OSError:
                    pass  # the other side has closed it

        def accept() -> None:
            while True:
                try:
                    client = server.accept()[0]
                except OSError:
                    return
                threading.Thread(target=serve, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/services/SECRET"
        finally:
            over.set()
            server.shutdown(socket.SHUT_RDWR)


def send_slowly(parts: Iterator[bytes] | list[bytes]) -> Callable[..., None]:
    def misbehave(client: socket.socket, over: threading.Event) -> None:
        for part in parts:
            client.sendall(part)
            if over.wait(0.05):
                return
        over.wait()

    return misbehave


def forever(part: bytes) -> Callable[..., None]:
    def misbehave(client: socket.socket, over: threading.Event) -> None:
        while not over.wait(0.05):
            client.sendall(part)

    return misbehave


def reset(client: socket.socket, _: threading.Event) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def endless_body(client: socket.socket, over: threading.Event) -> None:
    client.sendall(OK + b"Content-Length: 1000000000000\r\n\r\n")
    while not over.is_set():
        client.sendall(b"x" * 65_536)


RECEIVERS: dict[str, Callable[..., None]] = {
    "silent": lambda _, over: over.wait(),
    "a byte now and then": forever(b"H"),
    "a header now and then": send_slowly([OK, *(bytes([it]) for it in b"X: " + b"y" * 10_000)]),
    "100 again and again": forever(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "closes": lambda *_: None,
    "resets": reset,
    "no HTTP": forever(b"220 mail.example ESMTP\r\n"),
    "endless header": lambda client, _: client.sendall(OK + b"X: " + b"y" * 1_000_000),
}


@pytest.mark.parametrize("behavior", RECEIVERS)
def test_a_request_ends_in_time(behavior: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TIMEOUT", 1.0)
    with serving(RECEIVERS[behavior]) as address:
        answer = http.post(address, {}, "key")  # the limit of a test ends one that waits for ever
        assert answer.status is None
        assert answer.reason in {
            "no answer in time",
            "it closes the connection without an answer",
            "Connection reset by peer",
            "its answer is not HTTP",
        }
        wait_for(lambda: all(it.name != "post" for it in threading.enumerate()))


@pytest.mark.parametrize(
    ("behavior", "status"),
    [
        (endless_body, 200),
        (lambda client, _: client.sendall(OK + b"Content-Length: 5\r\n\r\n"), 200),
        (lambda client, _: client.sendall(b"HTTP/1.1 307 No\r\nLocation: /\r\n\r\n"), 307),
        (
            lambda client, _: client.sendall(
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\n\r\n"
            ),
            201,
        ),
    ],
)
def test_the_status_is_the_answer(behavior: Callable[..., None], status: int) -> None:
    with serving(behavior) as address:
        assert http.post(address, {}, "key").status == status


PATIENT = """
from dataflow.cli import main
from dataflow.notify import http
http.TIMEOUT = 3600.0
main()
"""
"""The command with so much time for an answer that only a signal ends it."""


@pytest.mark.parametrize("behavior", ["silent", "a byte now and then"])
def test_sigterm_ends_it_whatever_a_receiver_does(
    behavior: str, brokers: str, topic: str, tmp_path: Path
) -> None:
    write(brokers, topic, incident())
    connected = threading.Event()

    def misbehave(client: socket.socket, over: threading.Event) -> None:
        connected.set()
        RECEIVERS[behavior](client, over)

    with (
        serving(misbehave) as address,
        notifying(
            tmp_path,
            ("-c", PATIENT),
            brokers=brokers,
            incidents_topic=topic,
            notify_webhook=address,
        ) as process_,
    ):
        assert connected.wait(120)
        process_.terminate()
        out, err = process_.communicate(timeout=120)
        assert process_.returncode == 0, err
        assert "delivered" not in out


@pytest.mark.kafka
def test_foreign_records_do_not_stop_it(brokers: str, topic: str, receiver: Receiver) -> None:
    fill_topic(brokers, topic, [("a", b"{}")], partitions=1)
    settings = {
        "brokers": brokers,
        "incidents_topic": topic,
        "notify_webhook": receiver.address,
        "notify_slack": receiver.address.replace("services", "slack"),
    }
    deliver_all(**settings)
    foreign = [
        written(since="2024-01-01T00:00:00"),
        written(id="a\nb"),
        b"\xff",
        *(40 * [b"{}"]),
        None,
        written(kind="silence", state="resolved", ended="quiet", id="odd"),
        written(id="good"),
    ]
    fill_topic(brokers, topic, [("a", it) for it in foreign], partitions=1)
    err = deliver_all(**settings)
    assert sorted(receiver.keys, key=str) == ["good-0", "good-0", "odd-0", "odd-0"]
    lines = err.splitlines()
    assert len(lines) == 6, err
    assert "partition 0, offset 1 of" in lines[0]
    assert "'since' is a time without a time zone" in lines[0]
    assert lines[5].startswith("warning: 39 more records of the topic ")


def test_repeated_records_are_delivered_once(brokers: str, topic: str, receiver: Receiver) -> None:
    settings = {"brokers": brokers, "incidents_topic": topic, "notify_webhook": receiver.address}
    write(brokers, topic)
    deliver_all(**settings)
    write(brokers, topic, incident(), incident(), incident("resolved", 1))
    write(brokers, topic, incident("resolved", 1, ended="gone"), incident())
    deliver_all(**settings)
    assert receiver.delivered() == [("host-1", "opened", 0), ("host-1", "resolved", 1)]
    # Another process knows them from the topic.
    write(brokers, topic, incident(), incident("resolved", 1), incident(number=2))
    assert deliver_all(**settings) == ""
    assert receiver.delivered()[2:] == [("host-2", "opened", 0)]


# In this process, with times of the test


def settings_of(brokers: str, topic: str, **more: Any) -> Settings:
    return Settings(_env_file=None, brokers=brokers, incidents_topic=topic, **more)


@contextmanager
def delivering(settings: Settings, target: Target | None = None) -> Iterator[delivery.Delivery]:
    stop = threading.Event()
    running = delivery.Delivery(settings, target or targets(settings)[0], stop)
    thread = threading.Thread(target=running.run)
    thread.start()
    try:
        yield running
    finally:
        stop.set()
        thread.join()
        assert running.failure is None


def test_a_slow_alertmanager_gets_all_in_time_and_new_ones_first(
    brokers: str, topic: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One by one, the 350 would take 35 s, and each alert would lapse after 20."""
    monkeypatch.setattr(backlog, "REPEAT", 0.5)
    monkeypatch.setattr(delivery, "REPEAT", 0.5)
    monkeypatch.setattr(alertmanager, "FIRES", alertmanager.FIRES / 15)
    monkeypatch.setattr(alertmanager.Alertmanager, "batch", 50)
    receiver.delay = 0.1
    posts: list[list[str]] = []
    lapses: dict[str, datetime] = {}
    lapsed: list[str] = []

    def take(alerts: list[dict[str, Any]]) -> int:
        for alert in alerts:
            name = alert["labels"]["instance"]
            if lapses.get(name, datetime.max.replace(tzinfo=UTC)) < datetime.now(UTC):
                lapsed.append(name)
            lapses[name] = datetime.fromisoformat(alert["endsAt"])
        posts.append([alert["labels"]["instance"] for alert in alerts])
        return 200

    receiver.status_of = take
    write(brokers, topic, *(incident(number=number) for number in range(350)))
    with delivering(settings_of(brokers, topic, notify_alertmanager=receiver.address)):
        wait_for(lambda: sum(map(len, posts)) >= 3 * 350)
        assert all(len(post) <= 50 for post in posts)
        # What is new stands first, in a request before the next round of all is over.
        write(brokers, topic, incident(number=999))
        known = len(posts)
        wait_for(lambda: any("host-999" in post for post in posts[known:]))
        assert next(post for post in posts[known:] if "host-999" in post)[0] == "host-999"
    assert not lapsed
    assert len(lapses) == 351


def test_one_alert_that_is_rejected_does_not_keep_the_others(
    brokers: str,
    topic: str,
    receiver: Receiver,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def status(alerts: Any) -> int:
        return 400 if any(it["labels"]["instance"] == "host-7" for it in alerts) else 200

    receiver.status_of = status
    write(brokers, topic)
    settings = settings_of(brokers, topic, notify_alertmanager=receiver.address)
    with delivering(settings) as running:
        wait_for(lambda: bool(running._begins))
        write(brokers, topic, *(incident(number=number) for number in range(20)))
        wait_for(
            lambda: len({it["labels"]["instance"] for p in receiver.accepted for it in p}) == 19
        )
        wait_for(lambda: not running._backlog)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert f"rejects record 0 of the incident {7:024x} of host-7 (status 400): skipped" in lines[0]


def test_a_target_that_was_down_gets_what_it_missed_whatever_the_group_is_set_to(
    brokers: str, topic: str, receiver: Receiver
) -> None:
    """With one group for both, the second one would go on where the first one is."""
    down = free_port()
    both = settings_of(
        brokers, topic, notify_webhook=f"http://127.0.0.1:{down}/,{receiver.address}"
    ).model_copy(update={"kafka": {"group.id": "one", "enable.auto.commit": "true"}})
    first, second = targets(both)
    write(brokers, topic)
    with delivering(both, first) as one, delivering(both, second) as two:
        wait_for(lambda: all(it._begins and not it._uncommitted for it in (one, two)))
        write(brokers, topic, *(incident(number=number) for number in range(10)))
        wait_for(lambda: len(receiver.accepted) == 10)
    late = Receiver(down)
    try:
        with delivering(both, first), delivering(both, second):
            wait_for(lambda: len(late.accepted) == 10)
    finally:
        late.close()
    assert len(receiver.accepted) == 10


class Picky(Target):
    """A target of one's own with a defect."""

    name = "picky"

    def body(self, incident: Incident, link: str, now: datetime) -> object:
        return {"key": {"host-1": 1}[incident.instance]}


def test_a_target_of_ones_own_that_fails_for_a_record(
    brokers: str, topic: str, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    write(brokers, topic, incident(number=2), incident(number=1), incident(number=3))
    delivery.Delivery(
        settings_of(brokers, topic, follow=False), Picky(receiver.address), threading.Event()
    ).run()
    assert receiver.accepted == [{"key": 1}]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("picky at 127.0.0.1:" in line and "(KeyError at " in line for line in lines)
    assert "SECRET" not in "".join(lines)


def test_a_broker_that_hangs_is_named_and_alerts_go_on(
    own_broker: PausableBroker,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(health, "SECONDS", 0.5)
    monkeypatch.setattr(health, "SILENT", 2.0)
    monkeypatch.setattr(backlog, "REPEAT", 0.2)
    settings = settings_of(own_broker.address, "incidents", notify_alertmanager=receiver.address)
    write(own_broker.address, "incidents", incident())
    said = ""

    def says(words: str) -> bool:
        nonlocal said
        said += capsys.readouterr().err
        return words in said

    with delivering(settings) as running:
        check = process.health_check(settings, [running])
        check.start()
        try:
            wait_for(lambda: len(receiver.accepted) > 2)
            own_broker.pause()
            wait_for(lambda: says(f"warning: no answer from the broker {own_broker.address} for "))
            before = len(receiver.accepted)
            wait_for(lambda: len(receiver.accepted) > before + 10)
            own_broker.resume()
            wait_for(lambda: says(f"the broker {own_broker.address} answers again."))
            write(own_broker.address, "incidents", incident(number=2))
            wait_for(lambda: "host-2" in str(receiver.accepted[-1]))
        finally:
            check.end()


def test_a_real_alertmanager_lists_hundreds(
    brokers: str, topic: str, tmp_path: Path, receiver: Receiver
) -> None:
    names = {f"host-{number}" for number in range(700)} | {'a\n"b" {c="d"} é 😀'}
    records = [incident(number=i, instance=name) for i, name in enumerate(sorted(names))]
    with running_alertmanager(tmp_path, receiver) as address:
        write(brokers, topic, *records)
        with delivering(settings_of(brokers, topic, notify_alertmanager=address)):
            wait_for(lambda: {it["labels"]["instance"] for it in listed_alerts(address)} == names)
            write(
                brokers,
                topic,
                *(
                    incident("resolved", 1, number=i, instance=name)
                    for i, name in enumerate(sorted(names))
                    if i < 400
                ),
            )
            wait_for(lambda: len(listed_alerts(address)) == 301)
