"""SNS and EventBridge, against moto's server in place of AWS."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from conftest import free_port
from hypothesis import given
from hypothesis import strategies as st
from test_notify import NOW, deliver_all, incident, write

from dataflow.errors import UserError
from dataflow.notify import delivery
from dataflow.notify.base import Target
from dataflow.notify.digest import digest_of, held_back
from dataflow.notify.targets import targets
from dataflow.notify.test import send
from dataflow.records import encode
from dataflow.settings import Settings, load

boto3 = pytest.importorskip("boto3", reason="needs the extra `aws`")
pytest.importorskip("moto.server", reason="needs the extra `test`")
stub = pytest.importorskip("botocore.stub")

from test_cloudwatch import WRONG, aws, wrong  # noqa: E402

__all__ = ["aws", "wrong"]

SNS = "arn:aws:sns:eu-central-1:123456789012:incidents"
EVENTBRIDGE = "arn:aws:events:eu-central-1:123456789012:event-bus/incidents"


def target(**settings: str) -> Any:
    (found,) = targets(Settings(_env_file=None, **settings))
    return found


def attempt(to: Target, record: Any) -> Any:
    return to.send(encode(to.body(record, "", NOW)), "key", threading.Event())


def queue(name: str, **attributes: str) -> tuple[str, str]:
    """The address and the ARN of a queue."""
    sqs = boto3.client("sqs")
    url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    got = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
    return url, got["Attributes"]["QueueArn"]


def received(url: str) -> list[dict[str, Any]]:
    got = boto3.client("sqs").receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
    )
    return list(got.get("Messages", []))


@pytest.mark.usefixtures("aws")
def test_sns_forwards_what_its_filters_select(brokers: str, topic: str) -> None:
    sns = boto3.client("sns")
    arn = sns.create_topic(Name="incidents")["TopicArn"]
    url, queue_arn = queue("web")
    sns.subscribe(
        TopicArn=arn,
        Protocol="sqs",
        Endpoint=queue_arn,
        Attributes={
            "RawMessageDelivery": "true",
            "FilterPolicy": json.dumps({"team": ["web"], "severity": ["critical"]}),
        },
    )
    labels = {"a.b": "\ufffe", **{f"label{number}": "x" for number in range(9)}}
    write(
        brokers,
        topic,
        incident(score=0.9, labels=labels),
        incident(number=2, score=0.6),
        incident(number=3, score=0.9, labels={"team": "db"}),
    )
    settings = {"notify_sns": arn, "notify_labels": "team=web"}
    assert deliver_all(brokers=brokers, incidents_topic=topic, **settings) == ""
    (message,) = received(url)
    body = json.loads(message["Body"])
    assert body["key"] == f"{1:024x}-0"
    assert body["labels"] == {"team": "web", **labels}
    assert body["incident"]["instance"] == "host-1"
    attributes = {
        name: value["StringValue"] for name, value in message["MessageAttributes"].items()
    }
    assert attributes == {
        **{"state": "opened", "severity": "critical", "kind": "anomaly", "instance": "host-1"},
        **{"metric": "cpu", "team": "web", "a_b": "\\ufffe"},
        **{"label0": "x", "label1": "x", "label2": "x"},
    }


@pytest.mark.usefixtures("aws")
def test_a_fifo_topic_keeps_the_order_and_drops_what_comes_again() -> None:
    sns = boto3.client("sns")
    arn = sns.create_topic(Name="incidents.fifo", Attributes={"FifoTopic": "true"})["TopicArn"]
    url, queue_arn = queue("all.fifo", FifoQueue="true")
    sns.subscribe(
        TopicArn=arn, Protocol="sqs", Endpoint=queue_arn, Attributes={"RawMessageDelivery": "true"}
    )
    to = target(notify_sns=arn)
    name = "ein Name mit Blanks \n" * 30
    records = [
        incident(instance=name),
        incident(instance=name),
        incident("resolved", 1, instance=name),
    ]
    for record in records:
        assert attempt(to, record).accepted
    states = [json.loads(message["Body"])["incident"]["state"] for message in received(url)]
    assert states == ["opened", "resolved"]
    one, other = (to.body(incident(number=number), "", NOW) for number in (1, 2))
    assert one["MessageGroupId"] != other["MessageGroupId"]


@pytest.mark.usefixtures("aws")
def test_eventbridge_puts_events_that_rules_match(brokers: str, topic: str) -> None:
    pytest.importorskip("jsonpath_ng", reason="moto's rules need the extra `test`")
    events = boto3.client("events")
    arn = events.create_event_bus(Name="incidents")["EventBusArn"]
    url, queue_arn = queue("critical")
    pattern = {"source": ["ec2-anomaly-dataflow"], "detail": {"severity": ["critical"]}}
    events.put_rule(Name="critical", EventBusName="incidents", EventPattern=json.dumps(pattern))
    events.put_targets(
        Rule="critical", EventBusName="incidents", Targets=[{"Id": "queue", "Arn": queue_arn}]
    )
    write(brokers, topic, incident(score=0.9), incident(number=2, score=0.6))
    assert deliver_all(brokers=brokers, incidents_topic=topic, notify_eventbridge=arn) == ""
    (message,) = received(url)
    event = json.loads(message["Body"])
    assert event["detail-type"] == "Incident opened"
    assert event["detail"]["key"] == f"{1:024x}-0"
    assert event["detail"]["incident"]["instance"] == "host-1"


@pytest.mark.usefixtures("aws")
def test_a_test_message_reaches_a_topic_and_a_bus(capsys: pytest.CaptureFixture[str]) -> None:
    boto3.client("events").create_event_bus(Name="incidents")
    boto3.client("sns").create_topic(Name="incidents")
    both = Settings(_env_file=None, notify_sns=SNS, notify_eventbridge=EVENTBRIDGE)
    send(both)
    assert capsys.readouterr().out.splitlines() == [
        "sns at incidents in eu-central-1: accepted",
        "eventbridge at incidents in eu-central-1: accepted",
    ]
    missing = Settings(_env_file=None, notify_sns=f"{SNS}-none")
    with pytest.raises(UserError, match="not delivered to sns at incidents-none in eu-central-1"):
        send(missing)
    assert "AWS answers NotFound: check the ARN, the cred" in capsys.readouterr().out


def stubbed(to: Any, code: str) -> Any:
    """Let AWS answer once with an error: of the call, or for SNS's sake of the one event in it."""
    answers = stub.Stubber(to.client)
    if to.name == "sns":
        answers.add_client_error("publish", code, http_status_code=400)
    else:
        failed = {"FailedEntryCount": 1, "Entries": [{"ErrorCode": code, "ErrorMessage": "no"}]}
        answers.add_response("put_events", failed)
    return answers


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(
    ("code", "rejected", "says"),
    [
        ("Throttled", False, "AWS answers Throttled"),
        ("ThrottlingException", False, "AWS answers ThrottlingException"),
        ("InternalFailure", False, "AWS answers InternalFailure"),
        ("AccessDeniedException", False, "check the ARN, the credentials and their right"),
        ("InvalidParameter", True, "AWS answers InvalidParameter"),
        ("MalformedDetail", True, "AWS answers MalformedDetail"),
    ],
)
@pytest.mark.parametrize("settings", [{"notify_sns": SNS}, {"notify_eventbridge": EVENTBRIDGE}])
def test_an_error_of_aws_is_retried_unless_the_record_is_wrong(
    settings: dict[str, str], code: str, rejected: bool, says: str
) -> None:
    to = target(**settings)
    with stubbed(to, code):
        answer = attempt(to, incident())
    assert (answer.accepted, answer.rejected) == (False, rejected)
    assert says in answer.reason
    assert "\n" not in answer.reason


def test_an_event_that_fails_is_put_again_and_no_other(
    brokers: str, topic: str, aws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    boto3.client("events").create_event_bus(Name="incidents")
    monkeypatch.setattr(delivery, "FIRST_WAIT", 0.01)
    settings = Settings(
        _env_file=None,
        brokers=brokers,
        incidents_topic=topic,
        follow=False,
        notify_eventbridge=EVENTBRIDGE,
    )
    write(brokers, topic, incident(number=1), incident(number=2))
    to = target(notify_eventbridge=EVENTBRIDGE)
    put: list[str] = []
    call: Callable[..., Any] = to.client.put_events

    def counted(Entries: list[Any]) -> Any:  # noqa: N803
        put.append(json.loads(Entries[0]["Detail"])["key"])
        if len(put) == 1:
            return {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "ThrottlingException"}]}
        return call(Entries=Entries)

    monkeypatch.setattr(to.client, "put_events", counted)
    running = delivery.Delivery(settings, to, threading.Event())
    running.run()
    assert len(put) == 3
    assert put[0] == put[1] != put[2]
    assert (running.counts.failed, running.counts.sent["opened"]) == (1, 2)


def test_what_is_missing_is_one_line(aws: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    assert attempt(target(notify_sns=SNS), incident()).reason == "AWS does not answer"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    reason = attempt(target(notify_sns=SNS), incident()).reason
    assert reason == "Unable to locate credentials: configure AWS credentials"
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv("AWS_PROFILE", "none-such")
    with pytest.raises(UserError, match="sns at incidents in eu-central-1 cannot be used"):
        target(notify_sns=SNS)
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(UserError, match=r"target sns needs an extra: .*'\.\[aws\]'"):
        target(notify_sns=SNS)


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("SNS", "incidents", "ANOMALY_NOTIFY_SNS must be ARNs such as arn:aws:sns:"),
        ("SNS", EVENTBRIDGE, "ANOMALY_NOTIFY_SNS must be ARNs such as arn:aws:sns:"),
        ("SNS", f"{SNS},{SNS}", "ANOMALY_NOTIFY_SNS names the same ARN twice"),
        ("EVENTBRIDGE", SNS, "ANOMALY_NOTIFY_EVENTBRIDGE must be ARNs such as arn:aws:events:"),
    ],
)
def test_a_wrong_arn_is_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, given: str, says: str
) -> None:
    monkeypatch.setenv(f"ANOMALY_NOTIFY_{name}", given)
    with pytest.raises(UserError, match=says):
        load()


@pytest.fixture(scope="module")
def both() -> list[Any]:
    return targets(
        Settings(_env_file=None, notify_sns=f"{SNS}.fifo", notify_eventbridge=EVENTBRIDGE)
    )


TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=300)


@given(TEXT, TEXT, st.dictionaries(TEXT, TEXT, max_size=12))
def test_a_message_is_within_the_limits_of_aws(
    both: list[Any], instance: str, why: str, labels: dict[str, str]
) -> None:
    record = incident(instance=instance, why=why, labels=labels)
    for to in both:
        body = json.loads(encode(to.body(record, "http://page.example", NOW)))
        assert len(json.dumps(body)) < 262_144
        if to.name == "eventbridge":
            assert json.loads(body["Detail"])["incident"]["instance"] == instance
            continue
        message = json.loads(body["Message"])
        assert json.loads(message["default"])["incident"]["instance"] == instance
        assert message["sms"].endswith("http://page.example")
        assert body["Subject"].isascii()
        assert body["Subject"].isprintable()
        assert len(body["Subject"]) < 100
        assert len(body["MessageAttributes"]) <= 10
        for name, value in body["MessageAttributes"].items():
            assert name.replace("_", "a").isalnum()
            assert name.isascii()
            assert value["StringValue"]
        for text in (
            body["Message"],
            *(it["StringValue"] for it in body["MessageAttributes"].values()),
        ):
            assert not set(text) & {"\ufffe", "\uffff"}
        for name in ("MessageGroupId", "MessageDeduplicationId"):
            assert len(body[name]) == 32


def test_a_digest_is_within_the_limits_of_aws(both: list[Any]) -> None:
    name = '"\\é' * 100
    held = [
        held_back(incident(number=number, instance=name, why=name), "http://page.example")
        for number in range(300)
    ]
    digest = digest_of("web", held, 0, 0.0, 1.0)
    for to in both:
        body = json.loads(encode(to.digest(digest, NOW)))
        assert len(json.dumps(body, ensure_ascii=False).encode()) < 262_144
        if to.name == "eventbridge":
            assert body["DetailType"] == "Incident digest"
            assert json.loads(body["Detail"])["digest"]["count"] == 300
            continue
        message = json.loads(body["Message"])
        assert json.loads(message["default"])["digest"]["id"] == digest.id
        assert len(message["sms"]) < 1600
        assert message["email"].splitlines()[-2] == f"and {digest.unnamed} more incidents"
        assert body["MessageAttributes"]["state"]["StringValue"] == "digest"
        assert body["MessageAttributes"]["team"]["StringValue"] == "web"
        assert len(body["MessageDeduplicationId"]) == 32


@pytest.mark.parametrize("wrong", WRONG, indirect=True)
@pytest.mark.parametrize("setting", [{"notify_sns": SNS}, {"notify_eventbridge": EVENTBRIDGE}])
def test_a_wrong_certificate_names_the_setting(
    wrong: tuple[str, list[object]], setting: dict[str, str]
) -> None:
    answer = attempt(target(**setting), incident())
    assert (answer.accepted, answer.rejected) == (False, False)
    assert wrong[0] in answer.reason
    assert "127.0.0.1:" not in answer.reason
    assert len(wrong[1]) <= 1
