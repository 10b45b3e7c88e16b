"""What the flow relies on in a broker, shown on the embedded one and on Apache Kafka."""

from __future__ import annotations

import threading

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from conftest import PausableBroker
from kafka_server import ApacheKafka

from dataflow import kafka
from dataflow.errors import UserError
from dataflow.kafka import reading, topics
from dataflow.settings import Settings

OwnBroker = PausableBroker | ApacheKafka


def settings(brokers: str, **librdkafka: str) -> Settings:
    return Settings(_env_file=None, brokers=brokers, kafka=librdkafka)


def write(brokers: str, topic: str, numbers: range, **librdkafka: str) -> None:
    """Write each number, keyed by one of five keys."""
    producer = kafka.producer(settings(brokers, **librdkafka))
    for number in numbers:
        producer.produce(topic, str(number).encode(), f"key-{number % 5}")
    assert producer.flush(60) == 0


def read(brokers: str, topic: str, **librdkafka: str) -> dict[str, list[int]]:
    """What the topic holds: each key's numbers, in order."""
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
def test_keyed_records_come_back_in_order(brokers: str, topic: str) -> None:
    assert topics.create(settings(brokers), [topic], 3) == [topic]
    assert topics.create(settings(brokers), [topic], 3) == []
    write(brokers, topic, range(1000))
    assert read(brokers, topic) == keyed(range(1000))
    assert sum(kafka.end_offsets(settings(brokers), topic).values()) == 1000


@pytest.mark.kafka
def test_keys_lie_where_the_java_clients_put_them(brokers: str, topic: str) -> None:
    topics.create(settings(brokers), [topic], 3)
    write(brokers, topic, range(5))
    places = {it.key(): it.partition() for it in kafka.read_from(settings(brokers), topic, {})}
    # Utils.toPositive(Utils.murmur2(key)) % 3, as Kafka's own Java says.
    assert places == {b"key-0": 1, b"key-1": 0, b"key-2": 2, b"key-3": 2, b"key-4": 0}


@pytest.mark.kafka
def test_a_missing_topic_is_not_made(brokers: str, topic: str) -> None:
    producer = kafka.producer(settings(brokers, message_timeout_ms="1000"))
    errors: list[KafkaError | None] = []
    producer.produce(topic, b"1", on_delivery=lambda error, _: errors.append(error))
    producer.flush(60)
    assert len(errors) == 1
    assert errors[0] is not None
    assert topic not in kafka.metadata(settings(brokers)).topics


@pytest.mark.kafka
def test_offsets_that_are_not_there_are_an_error(brokers: str, topic: str) -> None:
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
    own = settings(brokers, transactional_id=topic)
    first = kafka.producer(own)
    first.init_transactions(20)
    first.begin_transaction()
    first.produce(topic, b"1", "key-1")
    assert first.flush(60) == 0
    second = kafka.producer(own)
    second.init_transactions(20)
    with pytest.raises(KafkaException) as fenced:
        first.commit_transaction(20)
    assert fenced.value.args[0].code() == KafkaError._FENCED
    second.begin_transaction()
    second.produce(topic, b"2", "key-2")
    second.commit_transaction(20)
    second.begin_transaction()
    second.produce(topic, b"3", "key-3")
    assert second.flush(60) == 0
    second.abort_transaction(20)
    assert read(brokers, topic) == {"key-2": [2]}


@pytest.mark.kafka
def test_what_was_acknowledged_outlives_the_broker(
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
            patch.setattr(topics, "TIMEOUT", 0.5)
            with pytest.raises(UserError, match="no answer from the broker"):
                kafka.metadata(settings(address))
        own_broker.start()
        assert own_broker.address == address
        assert read(address, topic) == keyed(range(count))


@pytest.mark.kafka
def test_a_broker_that_hangs_goes_on_where_it_was(own_broker: OwnBroker, topic: str) -> None:
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
def test_a_partition_that_is_not_known_yet_is_asked_for_again(brokers: str, topic: str) -> None:
    """As while a broker that hung has no leader for it: librdkafka then says so by itself."""
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
def test_what_anothers_open_transaction_holds_back_is_waited_for(brokers: str, topic: str) -> None:
    """Or a resumed flow would take what it wrote after it for not written."""
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
def test_a_transaction_that_does_not_end_is_refused_by_its_place(
    brokers: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(_env_file=None, brokers=brokers)
    topics.create(settings, [topic], 1)
    write(brokers, topic, range(3))
    slow = kafka.transactional_producer(settings, f"{topic}-slow")
    slow.begin_transaction()
    slow.produce(topic, b"left open")
    slow.flush()
    monkeypatch.setattr(reading, "HELD_BACK", 10.0)
    try:
        with pytest.raises(
            UserError, match=f"partition 0 of the topic '{topic}' at the offset 3 of"
        ):
            list(kafka.read_from(settings, topic, {}))
    finally:
        slow.abort_transaction()


def test_more_is_read_than_librdkafka_takes_at_once(brokers: str, topic: str) -> None:
    """The embedded broker answers with all that it has: here 117 MB, and the default is 100."""
    options = settings(brokers)
    topics.create(options, [topic], 3)
    producer = kafka.producer(options)
    for number in range(130):
        producer.produce(topic, bytes(900_000), partition=number % 3)
    assert producer.flush(60) == 0
    for _ in range(5):
        assert sum(1 for _ in kafka.read_from(options, topic, {})) == 130


@pytest.mark.kafka
def test_a_broker_that_says_nothing_more_is_refused_as_that(
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
    monkeypatch.setattr(reading, "HELD_BACK", 1.0)
    with pytest.raises(UserError, match=f"hands out nothing of partition 0 of the topic '{topic}'"):
        list(kafka.read_from(options, topic, {}))
