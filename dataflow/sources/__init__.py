"""Where raw records come from: the partitions of a topic, or a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bytewax.inputs import FixedPartitionedSource

from dataflow.kafka.reading import Range
from dataflow.records import Raw
from dataflow.recovery.store import Store
from dataflow.settings import Settings
from dataflow.sources.file import FileSource
from dataflow.sources.kafka import KafkaSource

__all__ = ["source"]


def source(
    settings: Settings, store: Store | None = None, held: Mapping[int, Range] | None = None
) -> FixedPartitionedSource[Raw, int]:
    """Return the source that ANOMALY_INPUT names.

    `store` is the recovery store, None if the flow has none. `held` are the offsets that the
    partitions of a topic hold, if they are known: an input that ends is read up to them.

    Raises `UserError` if it cannot be read.
    """
    if settings.input == "kafka":
        return KafkaSource(settings, store, held)
    return FileSource(Path(settings.input), settings)
