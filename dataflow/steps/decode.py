"""The steps `decode` and `check`: a raw record becomes a reading, or is rejected with a reason."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TypeGuard

from dataflow import formats, plugins
from dataflow.errors import UserError
from dataflow.formats import Fields, Format
from dataflow.records import BadLine, Raw, Reading, Rejected, Source
from dataflow.settings import Settings

__all__ = ["decoder", "is_reading", "key_reader", "origin", "reject"]

MAX_RAW = 700_000
"""Bytes of a rejected record that are kept: as base64 they fit into Kafka's megabyte."""


def record_format(settings: Settings) -> Format:
    """Return the format that the settings name. Raises `UserError` if it is none."""
    kind = plugins.load(formats.KIND, settings.format)
    if not (isinstance(kind, type) and issubclass(kind, Format)):
        raise UserError(
            f"ANOMALY_FORMAT names {settings.format!r}, which is not a format: use one of "
            f"{', '.join(plugins.names(formats.KIND))}, or a subclass of dataflow.formats.Format."
        )
    return kind(
        Fields(
            key=settings.key_field,
            time=settings.time_field,
            index=settings.index_field,
            value=settings.value_field,
            only_instance=settings.only_instance,
            scale=settings.scale,
        )
    )


def decoder(settings: Settings) -> Callable[[Raw], Reading | Rejected]:
    """Return the function that reads a record. It never raises: what is wrong is `Rejected`."""
    read = record_format(settings).decoder(
        lambda raw, reason, error: reject(settings, raw, reason, error)
    )
    if settings.input == "kafka":
        return read

    def read_file(raw: Raw) -> Reading | Rejected:
        if isinstance(raw, BadLine):
            return reject(settings, raw, "bad-record", raw.error)
        return read(raw)

    return read_file


def key_reader(settings: Settings) -> Callable[[bytes], str | None]:
    """Return the function that reads a record's instance, None if it has none."""
    if settings.key_field is None:
        # Without a key, records of the one instance would be spread over the partitions.
        return lambda record: settings.topic
    return record_format(settings).key


def reject(settings: Settings, raw: Raw, reason: str, error: str) -> Rejected:
    """Return the rejected record: `reason` is its kind, `error` a sentence."""
    kept = raw.value
    if kept is not None and len(kept) > MAX_RAW:
        error = f"{error}; its {len(kept):,} bytes are too many to keep"
        kept = None
    return Rejected(
        reason=reason,
        error=error,
        source=Source(settings.source_name, raw.partition, raw.offset),
        raw=None if kept is None else base64.b64encode(kept).decode(),
    )


def is_reading(record: Reading | Rejected) -> TypeGuard[Reading]:
    """Return whether a record is a reading: if not, it is a rejected record."""
    return isinstance(record, Reading)


def origin(rejected: Rejected) -> str:
    """Return the key of a rejected record: its partition, as it may name no instance."""
    return str(rejected.source.partition)
