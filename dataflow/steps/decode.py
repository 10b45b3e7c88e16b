"""The steps `decode` and `check`: raw records become readings, or are rejected with a reason."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterable, Mapping
from shlex import quote
from typing import Any, TypeAlias, TypeGuard

from dataflow import formats, plugins
from dataflow.errors import UserError
from dataflow.formats import Fields, Format
from dataflow.formats.base import Decode, Skip
from dataflow.formats.detect import Choice, choose
from dataflow.metrics import counters
from dataflow.records import BadLine, Raw, Reading, Rejected, Source
from dataflow.recovery.store import FORMAT, Store
from dataflow.settings import PREFIX, Settings
from dataflow.warnings import say, warn_once

__all__ = [
    "choice",
    "chosen",
    "decoder",
    "fields",
    "format_decoder",
    "in_percent",
    "is_reading",
    "key_reader",
    "origin",
    "reject",
    "shown",
    "variables",
]

KeyReader: TypeAlias = Callable[[bytes], str | None]

MAX_RAW = 700_000
"""Bytes of a rejected record that are kept: as base64 they fit into Kafka's megabyte."""


def fields(settings: Settings) -> Fields:
    """Return what the settings say about records."""
    return Fields(
        key=settings.key_field,
        time=settings.time_field,
        index=settings.index_field,
        value=settings.value_field,
        only_instance=settings.only_instance,
        scale=settings.scale,
        where=settings.where,
        each=settings.each,
        invert=settings.invert,
        renamed="key_field" in settings.model_fields_set,
        metrics=settings.metrics,
        metric=settings.metric_field,
        labels=settings.carried_fields,
    )


def record_format(settings: Settings) -> Format:
    """Return the format that the settings name. Raises `UserError` if it is none."""
    kind = plugins.load(formats.KIND, settings.format)
    if not (isinstance(kind, type) and issubclass(kind, Format)):
        raise UserError(
            f"ANOMALY_FORMAT names {settings.format!r}, which is not a format: use one of "
            f"{', '.join(plugins.names(formats.KIND))}, or a subclass of dataflow.formats.Format."
        )
    return kind(fields(settings))


def chosen(settings: Settings, choice: Choice) -> Settings:
    """Return the settings with what `auto` has chosen."""
    return settings.model_copy(update={"format": choice.format, **choice.settings})


def choice(settings: Settings, values: Iterable[bytes | None], *, sure: bool) -> Choice | None:
    """Return what the format `auto` chooses for these records, None if none can be used.

    Where the settings name fields, only these are looked for, and whether there is an index.
    """
    found = choose(values, fields(settings), sure=sure)
    if found is None or not settings.names_fields:
        return found
    own = settings.model_fields_set | {"where", "each", "invert"}
    return found if found.format == "json" and own.isdisjoint(found.settings) else None


def decoder(settings: Settings, store: Store | None = None) -> Decode:
    """Return the function that reads a batch of records. It never raises: see `Rejected`.

    What the format `auto` chooses is kept in the recovery store.
    """
    if settings.format == "auto":
        return _Auto(settings, store)
    note_format(settings.format)
    return format_decoder(settings)


def note_format(name: str) -> None:
    """Show the format among the figures for Prometheus."""
    counters.FORMAT.clear()
    counters.FORMAT.labels(name).set(1)


def format_decoder(settings: Settings, skip: Skip = counters.SKIPPED.inc) -> Decode:
    """Return the function that reads with the format that the settings name.

    `skip` counts the readings that are not selected.
    """
    read = record_format(settings).decoder(
        lambda raw, reason, error: reject(settings, raw, reason, error), skip
    )
    if settings.input == "kafka":
        return read

    def read_file(batch: list[Raw]) -> list[Reading | Rejected]:
        if not any(isinstance(raw, BadLine) for raw in batch):
            return read(batch)
        out: list[Reading | Rejected] = []
        for raw in batch:
            if isinstance(raw, BadLine):
                out.append(reject(settings, raw, "bad-record", raw.error))
            else:
                out += read([raw])
        return out

    return read_file


def in_percent(settings: Settings, decode: Decode) -> bool:
    """Return whether what `decoder` has returned reads percentages, whatever the scale is."""
    if isinstance(decode, _Auto):
        return decode.percent
    return settings.format != "auto" and record_format(settings).percent


class _Auto:
    """Reads with the format that the first usable records have, from then on."""

    def __init__(self, settings: Settings, store: Store | None) -> None:
        self._settings = settings
        self._store = store
        self._lock = threading.Lock()
        # Until it is known: as it was before there were other formats.
        self._json = format_decoder(settings.model_copy(update={"format": "json"}))
        self._decode: Decode | None = None
        self.percent = False
        kept = None if store is None else store.kept(FORMAT)
        if kept is not None:
            self._take(_restored(kept))

    def __call__(self, batch: list[Raw]) -> list[Reading | Rejected]:
        decode = self._decode
        if decode is None:
            decode = self._choose(batch) or self._json
        return decode(batch)

    def _choose(self, batch: list[Raw]) -> Decode | None:
        with self._lock:  # several workers
            if self._decode is None:
                values = [raw.value for raw in batch if not isinstance(raw, BadLine)]
                found = choice(self._settings, values, sure=True)
                if found is None:
                    return None
                if self._store is not None:
                    # Another process may have been earlier.
                    kept = {"format": found.format, **found.settings}
                    found = _restored(self._store.began(FORMAT, lambda: kept))
                self._take(found)
                if found.format != "json" or found.settings:
                    say(f"the records have the format {shown(found)}")
            return self._decode

    def _take(self, found: Choice) -> None:
        settings = chosen(self._settings, found)
        if found.format == "json" and settings.several_metrics and settings.metric_field is None:
            warn_once(
                "unusable",
                "the records are JSON, and ANOMALY_METRICS selects none of them: all are scored as "
                "one metric; name the field with the name of the metric in ANOMALY_METRIC_FIELD.",
                key="metric-field",
            )
        self.percent = record_format(settings).percent
        self._decode = format_decoder(settings)
        note_format(found.format)


def _restored(kept: dict[str, Any]) -> Choice:
    settings = {name: value for name, value in kept.items() if name != "format"}
    if "where" in settings:
        settings["where"] = tuple((field, wanted) for field, wanted in settings["where"])
    return Choice(kept["format"], settings)


def shown(choice: Choice) -> str:
    """Return a choice as the settings that say the same.

    >>> shown(Choice("json", {"index_field": None, "where": (("/name", "cpu"),), "invert": True}))
    'json, with ANOMALY_INDEX_FIELD=none ANOMALY_WHERE=/name=cpu ANOMALY_INVERT=true'
    """
    pairs = " ".join(f"{name}={quote(value)}" for name, value in variables(choice.settings).items())
    return f"{choice.format}, with {pairs}" if pairs else choice.format


def variables(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return settings as the variables of the environment that set them.

    >>> variables({"key_field": None, "where": (("/name", "cpu"), ("/cpu", "all"))})
    {'ANOMALY_KEY_FIELD': 'none', 'ANOMALY_WHERE': '/name=cpu; /cpu=all'}
    """
    return {f"{PREFIX}{name.upper()}": _variable(value) for name, value in settings.items()}


def _variable(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "; ".join(f"{field}={wanted}" for field, wanted in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def key_reader(settings: Settings) -> KeyReader:
    """Return the function that reads a record's instance, None if it has none.

    `auto` is `json` here: whoever has records chooses by them first, with `choice`.
    """
    if settings.format == "auto":
        settings = chosen(settings, Choice("json"))
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
