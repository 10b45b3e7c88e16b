"""A broker that sends its clients to an address which does not answer: one line names it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, KafkaException
from conftest import Flow, fill_topic
from kafka_server import ApacheKafka
from test_errors import refused

from dataflow.commands.dashboard import feed_of
from dataflow.demo import producer
from dataflow.errors import UserError
from dataflow.kafka import access, client, topics
from dataflow.notify import process
from dataflow.replay import transfer
from dataflow.settings import Settings

SAID = {"127.0.0.1:1": "Connection refused", "no-such-host.invalid:9092": "Failed to resolve"}


def check_topics(settings: Settings) -> None:
    transfer.check_topics(settings, from_topic=True, write=False)


STARTS: dict[str, Callable[[Settings], object]] = {
    "dashboard": lambda settings: feed_of(settings, 100, None),
    "notify": process.run,
    "replay": check_topics,
    "produce": lambda settings: producer.prepare_topic(settings, 1),
    "topics": lambda settings: topics.create(settings, [f"{settings.topic}.new"], 1),
}


@pytest.fixture(params=SAID)
def astray(request: pytest.FixtureRequest, apache_kafka: ApacheKafka, topic: str) -> Settings:
    """Settings whose broker answers and sends its clients to the address of `incidents_topic`."""
    for name in ("", ".incidents", ".rejected"):
        fill_topic(apache_kafka.address, topic + name, [], 1)
    return Settings(
        _env_file=None,
        brokers=apache_kafka.astray[request.param],
        topic=topic,
        incidents_topic=f"{topic}.incidents",
        notify_webhook="http://127.0.0.1:1/",
        notify_link=f"http://{request.param}/",
    )


@pytest.mark.parametrize("command", STARTS)
def test_a_command_names_the_address(
    astray: Settings, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (access, client, topics):
        monkeypatch.setattr(module, "TIMEOUT", 3.0)
    address = astray.notify_link.removeprefix("http://").removesuffix("/")
    with pytest.raises(UserError) as error:
        STARTS[command](astray)
    line = str(error.value)
    assert f"the broker {astray.brokers} sends its clients to {address}" in line
    assert SAID[address] in line
    assert "advertised.listeners" in line
    assert "\n" not in line


def test_the_flow_names_it(run_flow: Flow, apache_kafka: ApacheKafka, topic: str) -> None:
    fill_topic(apache_kafka.address, topic, [], 1)
    address, brokers = next(iter(apache_kafka.astray.items()))
    done = run_flow(brokers=brokers, topic=topic)
    refused(done, f"sends its clients to {address}", "Connection refused")


def test_transactions_wait_for_their_coordinator_and_not_for_ever(
    apache_kafka: ApacheKafka, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client, "TIMEOUT", 1.0)
    monkeypatch.setattr(client, "COORDINATOR_WAIT", 2.0)
    settings = Settings(_env_file=None, brokers=next(iter(apache_kafka.astray.values())))
    started = time.monotonic()
    with pytest.raises(UserError, match="has no coordinator for transactions"):
        client.transactional_producer(settings, "mine")
    assert time.monotonic() - started > 2
    assert capsys.readouterr().err.count("asking again") == 1


def test_a_coordinator_that_moves_is_asked_again(
    brokers: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = client.producer
    errors = [KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_LOAD_IN_PROGRESS]

    class Moving:
        def init_transactions(self, timeout: float) -> None:
            raise KafkaException(KafkaError(errors.pop(0)))

    monkeypatch.setattr(
        client, "producer", lambda *given, **config: Moving() if errors else real(*given, **config)
    )
    made = client.transactional_producer(Settings(_env_file=None, brokers=brokers), topic)
    made.begin_transaction()
    made.abort_transaction(60)
