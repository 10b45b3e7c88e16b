"""Quix Streams with River's trees; the models in a dict, as its own state would pickle them.

python quix_flow.py BROKERS TOPIC COUNT FOLDER
"""

from __future__ import annotations

import sys
import uuid
from typing import Any

from model import Models
from quixstreams import Application


def main() -> None:
    """Read COUNT records, and end."""
    brokers, topic, count, folder = sys.argv[1:]
    score = Models().score

    def take(reading: Any) -> None:
        score(reading["instance"], reading)

    app = Application(
        broker_address=brokers,
        consumer_group=f"bench-{uuid.uuid4()}",
        auto_offset_reset="earliest",
        state_dir=folder,
        loglevel="ERROR",
    )
    app.dataframe(app.topic(topic, value_deserializer="json")).update(take)
    app.run(count=int(count))


if __name__ == "__main__":
    main()
