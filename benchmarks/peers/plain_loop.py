"""No framework: confluent-kafka's `consume(1000)` in a loop, River's trees in a dict.

python plain_loop.py BROKERS TOPIC COUNT [--consume-only] [--tuned]
"""

from __future__ import annotations

import sys

from confluent_kafka import Consumer


def main() -> None:
    """Read COUNT records, and end."""
    brokers, topic, count, *flags = sys.argv[1:]
    config = {
        "bootstrap.servers": brokers,
        "group.id": "bench",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
    if "--tuned" in flags:
        config |= {"fetch.queue.backoff.ms": 10, "queued.min.messages": 200_000}
    take = None
    if "--consume-only" not in flags:
        from model import Models

        take = Models().take
    consumer = Consumer(config)
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    from confluent_kafka import OFFSET_BEGINNING, TopicPartition

    consumer.assign([TopicPartition(topic, one, OFFSET_BEGINNING) for one in partitions])
    left = int(count)
    while left > 0:
        for message in consumer.consume(1000, 0.1):
            if message.error() is None:
                left -= 1
                value = message.value()
                if take is not None and value is not None:
                    take(value)
    consumer.close()


if __name__ == "__main__":
    main()
