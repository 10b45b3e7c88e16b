"""No framework, asyncio: aiokafka's `getmany` in a loop, River's trees in a dict.

python aiokafka_loop.py BROKERS TOPIC COUNT
"""

from __future__ import annotations

import asyncio
import sys

from aiokafka import AIOKafkaConsumer
from model import Models


async def main() -> None:
    """Read COUNT records, and end."""
    brokers, topic, count = sys.argv[1:]
    take = Models().take
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=brokers, auto_offset_reset="earliest")
    await consumer.start()
    left = int(count)
    while left > 0:
        for messages in (await consumer.getmany(timeout_ms=100, max_records=1000)).values():
            for message in messages:
                left -= 1
                take(message.value)
    await consumer.stop()


if __name__ == "__main__":
    asyncio.run(main())
