"""What some records are: the format, the settings to copy, readings, and warnings. No I/O."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

from dataflow.formats.base import PERCENT
from dataflow.formats.detect import Choice, guess
from dataflow.formats.metrics import CPU
from dataflow.inspection.advice import advice
from dataflow.inspection.unknown import seems
from dataflow.records import Raw, Reading, Rejected
from dataflow.settings import Settings
from dataflow.steps import decode

__all__ = ["Found", "Report", "inspect"]


NO_CPU = (
    "the records hold no CPU that is read, only other metrics: docs/feeds.md has what each feed "
    "has to send."
)


class Found(msgspec.Struct):
    """A reading: `time` is in seconds since 1970, `value` in percent for CPU, else as it came."""

    instance: str
    metric: str
    time: float | None
    value: float
    labels: dict[str, str]


class Report(msgspec.Struct):
    """What records are. `format` is None if nothing is known that looks like them.

    `settings` are the variables to copy, `readings` those of the records in their order, `skipped`
    counts those of other metrics, `refused` the rejected ones by reason. `others` counts the
    readings of metrics that ANOMALY_METRICS does not select, by their names.
    """

    format: str | None
    settings: dict[str, str]
    readings: list[Found]
    skipped: int
    refused: dict[str, int]
    warnings: list[str]
    others: dict[str, int]


def inspect(settings: Settings, raws: list[Raw]) -> Report:
    """Find out what records are; the settings are those of the user.

    With the format `auto`, what is proposed may also be a guess by the names of fields.
    """
    values = [raw.value for raw in raws]
    found: Choice | None = Choice(settings.format)
    if settings.format == "auto":
        found = decode.choice(settings, values, sure=False)
        if found is None and not settings.names_fields:
            found = guess(values)
    choice = Choice("json") if found is None else found
    chosen = decode.chosen(settings, choice)
    readings, refused, skipped = _read(chosen, raws)
    proposed: dict[str, Any] = dict(choice.settings)
    warnings = advice(chosen, raws, readings, proposed)
    if found is None and (sentence := seems(values)):
        warnings.append(sentence)
    if not readings and not refused and skipped:
        warnings.append(NO_CPU)
    if proposed != choice.settings:
        chosen = decode.chosen(settings, Choice(choice.format, proposed))
        readings, refused, skipped = _read(chosen, raws)
    return Report(
        format=None if found is None else choice.format,
        settings={
            **({} if found is None else {"ANOMALY_FORMAT": choice.format}),
            **decode.variables(proposed),
        },
        readings=[_found(reading, chosen) for reading in readings if reading.counter is None],
        skipped=skipped,
        refused=dict(refused.most_common()),
        warnings=warnings,
        others=_others(chosen, raws),
    )


def _others(settings: Settings, raws: list[Raw]) -> dict[str, int]:
    """Return how many readings there are of metrics that are not selected, by their names."""
    if settings.format == "json" and settings.metric_field is None:
        return {}
    every, _, _ = _read(settings.model_copy(update={"metrics": ("*",)}), raws)
    seen = Counter(reading.metric or CPU for reading in every)
    own, _, _ = _read(settings, raws)
    for reading in own:
        seen.pop(reading.metric or CPU, None)
    return dict(seen.most_common())


def _read(settings: Settings, raws: list[Raw]) -> tuple[list[Reading], Counter[str], int]:
    """Return the readings of some records, the rejected ones by reason, and how many skipped."""
    skipped: list[int] = []
    records = decode.format_decoder(settings, skipped.append)(raws)
    readings = [one for one in records if isinstance(one, Reading)]
    refused = Counter(one.reason for one in records if isinstance(one, Rejected))
    return readings, refused, sum(skipped)


def _found(reading: Reading, settings: Settings) -> Found:
    value, metric = reading.value, reading.metric
    if metric is None and settings.scale is not None and settings.scale != PERCENT:
        value = value / settings.scale * PERCENT
    name = settings.default_metric if metric is None else metric
    return Found(reading.instance, name, reading.time, value, reading.labels or {})
