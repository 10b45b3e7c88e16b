"""What the flow relies on in a broker: on the embedded one and on Apache Kafka."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from conftest import PausableBroker
from kafka_server import ApacheKafka

from dataflow import kafka
from dataflow.errors import UserError
from dataflow.kafka import client, reading, topics
from dataflow.settings import Settings

OwnBroker = PausableBroker | ApacheKafka


def settings(brokers: str, **librdkafka: str) -> Settings:
    return Settings(_env_file=None, brokers=brokers, kafka=librdkafka)


def write(brokers: str, topic: str, numbers: range, **librdkafka: str) -> None:
    """Write each number with one of five keys."""
    producer = kafka.producer(settings(brokers, **librdkafka))
    for number in numbers:
        producer.produce(topic, str(number).encode(), f"key-{number % 5}")
    assert producer.flush(60) == 0


def read(brokers: str, topic: str, **librdkafka: str) -> dict[str, list[int]]:
    """Read the topic: the numbers of each key, in order."""
    found: dict[str, list[int]] = {}
    places: dict[str, set[int | None]] = {}
    for message in kafka.read_from(settings(brokers, **librdkafka), topic, {}):
        key = (message.key() or b"").decode()
        found.setdefault(key, []).append(int(message.value() or b""))
        places.setdefault(key, set()).add(message.partition())
    assert all(len(partitions) == 1 for partitions in places.values())
    return found


def keyed(numbers: range) -> dict[str, list[int]]:
    return {f"key-{first}": [it for it in numbers if it % 5 == first] for first in range(5)}


@pytest.mark.kafka
def test_records_of_a_key_stay_in_order(brokers: str, topic: str) -> None:
    assert topics.create(settings(brokers), [topic], 3) == [topic]
    assert topics.create(settings(brokers), [topic], 3) == []
    write(brokers, topic, range(1000))
    assert read(brokers, topic) == keyed(range(1000))
    assert sum(kafka.end_offsets(settings(brokers), topic).values()) == 1000


@pytest.mark.kafka
def test_keys_have_the_partitions_of_the_java_clients(brokers: str, topic: str) -> None:
    topics.create(settings(brokers), [topic], 3)
    write(brokers, topic, range(5))
    places = {it.key(): it.partition() for it in kafka.read_from(settings(brokers), topic, {})}
    # Utils.toPositive(Utils.murmur2(key)) % 3 in Kafka's Java client.
    assert places == {b"key-0": 1, b"key-1": 0, b"key-2": 2, b"key-3": 2, b"key-4": 0}


@pytest.mark.kafka
def test_a_missing_topic_is_not_created(brokers: str, topic: str) -> None:
    producer = kafka.producer(settings(brokers, message_timeout_ms="1000"))
    errors: list[KafkaError | None] = []
    producer.produce(topic, b"1", on_delivery=lambda error, _: errors.append(error))
    producer.flush(60)
    assert len(errors) == 1
    assert errors[0] is not None
    assert topic not in kafka.metadata(settings(brokers)).topics


@pytest.mark.kafka
def test_an_offset_that_does_not_exist_is_an_error(brokers: str, topic: str) -> None:
    topics.create(settings(brokers), [topic], 1)
    write(brokers, topic, range(10))
    consumer = kafka.consumer(settings(brokers))
    try:
        consumer.assign([TopicPartition(topic, 0, 11)])
        (message,) = consumer.consume(1, 20)
        error = message.error()
        assert error is not None
        assert error.code() == KafkaError._AUTO_OFFSET_RESET
    finally:
        consumer.close()


@pytest.mark.kafka
def test_the_second_producer_of_a_transactional_id_fences_the_first(
    brokers: str, topic: str
) -> None:
    topics.create(settings(brokers), [topic], 1)
    own = settings(brokers)
    first = kafka.producer(own, **{"transactional.id": topic})
    first.init_transactions(60)
    first.begin_transaction()
    first.produce(topic, b"1", "key-1")
    assert first.flush(60) == 0
    second = kafka.producer(own, **{"transactional.id": topic})
    second.init_transactions(60)
    with pytest.raises(KafkaException) as fenced:
        first.commit_transaction(60)
    assert fenced.value.args[0].code() == KafkaError._FENCED
    second.begin_transaction()
    second.produce(topic, b"2", "key-2")
    second.commit_transaction(60)
    second.begin_transaction()
    second.produce(topic, b"3", "key-3")
    assert second.flush(60) == 0
    second.abort_transaction(60)
    assert read(brokers, topic) == {"key-2": [2]}


@pytest.mark.kafka
def test_acknowledged_records_survive_the_broker(
    own_broker: OwnBroker, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = own_broker.address
    topics.create(settings(address), [topic], 3)
    for count, end in ((500, own_broker.stop), (1000, own_broker.kill)):
        write(address, topic, range(count - 500, count))
        if isinstance(own_broker, PausableBroker):
            own_broker.wait_until_kept(topic)
        end()
        with monkeypatch.context() as patch:
            patch.setattr(client, "TIMEOUT", 0.5)
            with pytest.raises(UserError, match="no answer from the broker"):
                kafka.metadata(settings(address))
        own_broker.start()
        assert own_broker.address == address
        assert read(address, topic) == keyed(range(count))


@pytest.mark.kafka
def test_a_broker_that_hung_takes_all_records(own_broker: OwnBroker, topic: str) -> None:
    address = own_broker.address
    topics.create(settings(address), [topic], 3)
    producer = kafka.producer(settings(address))
    producer.produce(topic, b"0", "key-0")
    assert producer.flush(60) == 0
    own_broker.pause()
    for number in range(1, 100):
        producer.produce(topic, str(number).encode(), f"key-{number % 5}")
    assert producer.flush(2) == 99
    own_broker.resume()
    assert producer.flush(60) == 0
    assert read(address, topic) == keyed(range(100))


@pytest.mark.kafka
def test_a_partition_that_is_not_known_yet_is_retried(brokers: str, topic: str) -> None:
    """As while it has no leader, after a broker hung: librdkafka then answers from its cache."""
    options = settings(brokers)
    topics.create(options, [topic], 1)
    client = kafka.consumer(options)
    adding = threading.Timer(1.0, topics.add_partitions, (options, topic, 2))
    adding.start()
    try:
        assert kafka.offset_range(client, topic, 1) == (0, 0)
    finally:
        adding.join()
        client.close()


@pytest.mark.kafka
def test_records_behind_an_open_transaction_are_waited_for(brokers: str, topic: str) -> None:
    """Otherwise a resumed flow would write again what it wrote after the open transaction."""
    settings = Settings(_env_file=None, brokers=brokers)
    topics.create(settings, [topic], 1)
    slow = kafka.transactional_producer(settings, f"{topic}-slow")
    slow.begin_transaction()
    slow.produce(topic, b"aborted")
    slow.flush()
    ours = kafka.transactional_producer(settings, f"{topic}-ours")
    ours.begin_transaction()
    ours.produce(topic, b"ours")
    ours.commit_transaction()
    end = threading.Timer(1.5, slow.abort_transaction)
    end.start()
    try:
        assert [it.value() for it in kafka.read_from(settings, topic, {})] == [b"ours"]
    finally:
        end.join()


@pytest.mark.kafka
def test_a_transaction_that_stays_open_is_an_error_with_its_offset(
    brokers: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(_env_file=None, brokers=brokers)
    topics.create(settings, [topic], 1)
    write(brokers, topic, range(3))
    slow = kafka.transactional_producer(settings, f"{topic}-slow")
    slow.begin_transaction()
    slow.produce(topic, b"left open")
    slow.flush()
    monkeypatch.setattr(reading, "TRANSACTION_WAIT", 10.0)
    try:
        with pytest.raises(UserError, match=f"partition 0 of the topic '{topic}' at offset 3 of"):
            list(kafka.read_from(settings, topic, {}))
    finally:
        slow.abort_transaction()


def test_answers_above_librdkafkas_default_limit_are_read(brokers: str, topic: str) -> None:
    """The embedded broker answers with all that it holds: here 117 MB; the default is 100."""
    options = settings(brokers)
    topics.create(options, [topic], 3)
    producer = kafka.producer(options)
    for number in range(130):
        producer.produce(topic, bytes(900_000), partition=number % 3)
    assert producer.flush(60) == 0
    for _ in range(2):
        assert sum(1 for _ in kafka.read_from(options, topic, {})) == 130


@pytest.mark.kafka
def test_a_broker_that_stops_answering_is_an_error(
    own_broker: OwnBroker, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = settings(own_broker.address)
    topics.create(options, [topic], 1)
    write(own_broker.address, topic, range(3))
    ends = kafka.end_offsets

    def ends_and_no_more(options: Settings, topic: str) -> dict[int, int]:
        found = ends(options, topic)
        own_broker.pause()
        return found

    monkeypatch.setattr(reading, "end_offsets", ends_and_no_more)
    monkeypatch.setattr(reading, "TRANSACTION_WAIT", 1.0)
    with pytest.raises(UserError, match="returns no records of partition 0 of the topic"):
        list(kafka.read_from(options, topic, {}))


def test_a_cluster_that_has_no_controller_is_asked_again(
    tmp_path: Path, kafka_jars: Path, topic: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A client whose first answer names no controller would wait for one without asking again."""
    # The controller takes the broker out of service for a moment before each of its heartbeats.
    config = "broker.session.timeout.ms=1500\nbroker.heartbeat.interval.ms=2000\n"
    with ApacheKafka(tmp_path / "kafka", jars=kafka_jars, config=config) as broker:
        own = settings(broker.address)
        created = False
        while not created:
            with contextlib.suppress(UserError):  # no broker in service at this moment
                created = bool(topics.create(own, [topic], 1))
        said = ""
        while "has no controller yet: asking again for 30 s" not in said:
            assert topics.existing_partitions(own, topic, "ANOMALY_TOPIC") == [0]
            said += capfd.readouterr().err
