"""The output topics and `notify` as CloudEvents, read by CloudEvents' own library."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import Flow, fill_topic, read_topic
from faults import topic_to
from hypothesis import given
from hypothesis import strategies as st
from test_flow import keyed, made_rows
from test_notify import Receiver, deliver_all, incident, receiver

from dataflow import kafka
from dataflow.cloudevents import attributes, headers
from dataflow.notify.cloudevents import CloudEvents
from dataflow.records import Rejected, Source, encode
from dataflow.settings import Settings

reader = pytest.importorskip("cloudevents.core.bindings.kafka", reason="needs the extra `test`")
from cloudevents.core.bindings import http  # noqa: E402

__all__ = ["receiver"]

Run = Callable[..., Any]


def events(brokers: str, topic: str) -> list[Any]:
    """What a topic holds, as events."""
    return [
        reader.from_binary_event(
            reader.KafkaMessage(dict(message.headers() or []), message.key(), message.value())
        )
        for message in kafka.read_from(Settings(_env_file=None, brokers=brokers), topic, {})
    ]


def test_topics_are_events_and_their_values_what_they_were(
    run_flow: Flow,
    run_command: Run,
    brokers: str,
    topic: str,
    store: Path,
    receiver: Receiver,
) -> None:
    rows = made_rows(3, 300)
    plain = topic_to("kafka", brokers, topic, incident_quiet=600, silence=0)
    names = ("anomalies_topic", "incidents_topic", "rejected_topic")
    plain["rejected_topic"] = f"{topic}.bad"
    wrapped = {**plain, "cloudevents": "true", **{name: f"{plain[name]}.ce" for name in names}}
    for settings in (plain, wrapped):
        for name in names:
            fill_topic(brokers, settings[name], [])
    fill_topic(brokers, topic, keyed(rows))
    fill_topic(brokers, topic, [("x", b'{"instance": "x", "timestamp": 1, "index": 1}')])
    notified = {
        **{"brokers": brokers, "incidents_topic": wrapped["incidents_topic"]},
        **{"notify_cloudevents": receiver.address, "notify_max_age": 0},
    }
    deliver_all(**notified)
    assert run_flow(follow="false", **plain).returncode == 0
    done = run_flow("-r", str(store), "-s", "10", "-b", "0", follow="false", **wrapped)
    assert done.returncode == 0, done.stderr
    anomalies, incidents, rejected = (events(brokers, wrapped[name]) for name in names)
    for name in names:
        both = [sorted(map(str, read_topic(brokers, it[name]))) for it in (plain, wrapped)]
        assert both[0] == both[1]
    assert len(anomalies) > 10
    assert len(incidents) > 2
    for event in anomalies:
        data = event.get_data()
        assert event.get_type() == "ec2-anomaly-dataflow.anomaly"
        assert event.get_source() == f"/ec2-anomaly-dataflow/{topic}"
        assert (event.get_id(), event.get_subject()) == (data["id"], data["instance"])
        assert event.get_time() == datetime.fromisoformat(data["timestamp"]).replace(tzinfo=UTC)
    for event in incidents:
        data = event.get_data()
        assert event.get_type() == f"ec2-anomaly-dataflow.incident.{data['state']}"
        assert event.get_id() == f"{data['id']}-{data['sequence']}"
        assert event.get_time() == datetime.fromisoformat(data["updated_at"])
    (bad,) = rejected
    assert (bad.get_type(), bad.get_subject()) == ("ec2-anomaly-dataflow.rejected", "x")
    # The marks of `replay` are events too, and no duplicates.
    done = run_command("replay", "--even-if-refused", "--yes", **wrapped)
    assert done.returncode == 0, done.stderr
    every = [*anomalies, *incidents, *events(brokers, wrapped["rejected_topic"])]
    assert len(every) == len(anomalies) + len(incidents) + 2
    assert len({(event.get_source(), event.get_id()) for event in every}) == len(every)
    # `notify` reads the topic as before.
    assert deliver_all(**notified) == ""
    assert set(receiver.types) == {"application/cloudevents+json"}
    posted = [
        http.from_structured_event(
            http.HTTPMessage(
                {"content-type": "application/cloudevents+json"}, json.dumps(it).encode()
            )
        )
        for it in receiver.accepted
    ]
    sent = {event.get_id(): event.get_data()["incident"] for event in posted}
    assert sent == {
        event.get_id(): event.get_data() for event in incidents if event.get_id() in sent
    }
    assert {event.get_type().rpartition(".")[2] for event in posted} >= {"opened", "resolved"}
    assert {event.get_source() for event in posted} == {f"/ec2-anomaly-dataflow/{topic}/notify"}


TEXT = st.text(st.characters(exclude_categories=("Cs",)))


@given(TEXT, TEXT, TEXT, st.none() | st.floats(-1e12, 1e12), st.integers(0, 3))
def test_attributes_are_such_as_the_specification_allows(
    instance: str, topic: str, reason: str, time: float | None, number: int
) -> None:
    source = Source(topic or "t", 1, 2, number)
    for record in (
        Rejected(reason, "", source, None, instance, time),
        incident(instance=instance, source=source),
    ):
        found = attributes(record)
        assert {"specversion", "id", "source", "type"} <= found.keys()
        for value in found.values():
            assert value
            assert not any(unicodedata.category(it) in ("Cc", "Cs") for it in value)
            assert not any(ord(it) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(it) < 0xFDF0 for it in value)
        assert found["source"].isascii()
        assert found["source"].isprintable()
        message = reader.KafkaMessage(
            {name: f"{value}".encode() for name, value in headers(record).items()},
            None,
            encode(record),
        )
        event = reader.from_binary_event(message)
        assert event.get_id() == found["id"]
        assert event.get_data() == json.loads(encode(record))


def test_an_event_has_the_body_of_a_webhook_and_an_id_of_its_own() -> None:
    target = CloudEvents("http://ops.example/hook")
    bodies: list[Any] = [
        target.body(it, "http://page.example", datetime.now(UTC))
        for it in (incident(), incident(), incident("resolved", 1))
    ]
    assert bodies[0] == bodies[1]
    assert bodies[0]["id"] != bodies[2]["id"]
    assert set(bodies[0]["data"]) == {"key", "severity", "summary", "link", "labels", "incident"}
    assert bodies[0]["id"] == bodies[0]["data"]["key"]
