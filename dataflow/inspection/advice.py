"""What would go wrong with some readings in silence, and the settings against it. Pure."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from statistics import median
from typing import Any

import msgspec

from dataflow.formats.paths import UNSET, find, parse
from dataflow.records import Raw, Reading, key_of, series_parts
from dataflow.settings import Settings

__all__ = ["advice"]

SELECTORS = ("name", "metric", "metric_name", "measurement", "__name__", "field", "type", "sensor")
"""Fields that say what a value is of."""

PARTS = ("cpu", "core", "mode", "state", "device")
"""Fields that say which part of a host a value is of."""

ENOUGH = 10
"""Readings of which something is said of all."""

DAY = 86_400.0

_CPU = re.compile(r"(?i)cpu.?(util|usage|percent|pct|load)|^cpu$|processor time")

Proposed = dict[str, Any]


def advice(
    settings: Settings, raws: list[Raw], readings: list[Reading], proposed: Proposed
) -> list[str]:
    """Return warnings, and add settings to those proposed."""
    out: list[str] = []
    if settings.format == "json":
        out += _mixed(settings, raws, proposed)
        out += _names(settings, proposed)
        out += _shares(settings, readings, proposed)
        out += _counters(settings, readings)
    if any(reading.counter is not None for reading in readings):
        out.append(
            "the records hold counters of seconds: the CPU of an instance is known from its second "
            "record on, and not shown here."
        )
    out += _several(readings)
    out += _interval(settings, readings, proposed)
    out += _scattered(settings, readings, proposed)
    out += _changing(readings)
    return out


def _mixed(settings: Settings, raws: list[Raw], proposed: Proposed) -> Iterator[str]:
    """Warn of several metrics among records of which all are read."""
    named = {path for field, _ in settings.where if (path := parse(field))}
    inside = parse(settings.value_field)[:-1]
    for field in SELECTORS:
        path = (*inside, field)
        own = (settings.key_field, settings.value_field, settings.metric_field)
        if path in named or field in own or settings.metric_field == f"/{'/'.join(path)}":
            continue
        seen = Counter(_texts(raws, path))
        if len(seen) < 2:
            continue
        shown = ", ".join(name for name, _ in seen.most_common(4))
        cpu = [name for name in seen if _CPU.search(name)]
        where = f"/{'/'.join(path)}"
        if len(cpu) == 1:
            proposed["where"] = (*proposed.get("where", ()), (where, cpu[0]))
        yield (
            f"several metrics are mixed, by the field {field!r} ({shown}): select one, such as "
            f"ANOMALY_WHERE='{where}={cpu[0] if cpu else seen.most_common(1)[0][0]}', or score "
            f"each by itself, with ANOMALY_METRIC_FIELD={where} and their names in ANOMALY_METRICS."
        )


def _texts(raws: list[Raw], path: tuple[str, ...]) -> Iterator[str]:
    for raw in raws:
        try:
            found = find(msgspec.json.decode(raw.value or b""), path)
        except (ValueError, RecursionError):
            continue
        if found is not UNSET and isinstance(found, str):
            yield found


def _names(settings: Settings, proposed: Proposed) -> Iterator[str]:
    name = settings.value_field.lower()
    if "idle" in name and not settings.invert:
        proposed["invert"] = True
        yield (
            f"the field {settings.value_field!r} is what is not in use: set ANOMALY_INVERT=true, "
            "or anomalies are upside down."
        )
    if re.search(r"(^|[/._])sum$", name):
        yield (
            f"the field {settings.value_field!r} is the sum of a period: use its average, or a "
            "format that divides it by the count."
        )


def _shares(settings: Settings, readings: list[Reading], proposed: Proposed) -> Iterator[str]:
    values = [reading.value for reading in readings if reading.metric is None]
    if settings.scale is None or settings.scale <= 1 or not values or max(values) > 1.0:
        return
    if not any(0.0 < value < 1.0 for value in values):
        return
    if len(values) >= ENOUGH:
        proposed["scale"] = 1
    yield (
        f"all values lie between 0 and 1, and ANOMALY_SCALE is {settings.scale:g}: if they are "
        "shares of 1, set ANOMALY_SCALE=1, or anomalies are reported 100 times too small."
    )


def _counters(settings: Settings, readings: list[Reading]) -> Iterator[str]:
    for key, own in _by_key(readings).items():
        instance, metric = series_parts(key)
        values = [reading.value for reading in own]
        rises = sum(later > value for value, later in pairwise(values))
        falls = any(later < value for value, later in pairwise(values))
        if len(values) >= 2 * ENOUGH and not falls and 2 * rises > len(values):
            yield (
                f"the values of {metric or settings.value_field!r} of the instance {instance!r} "
                "only grow: this looks like a counter; send its rate instead."
            )
            return


def _several(readings: list[Reading]) -> Iterator[str]:
    """Warn of readings of one time: repeats, or several series under one name."""
    first: dict[tuple[str, float], float] = {}
    repeats = others = 0
    for reading in readings:
        if reading.time is None:
            continue
        place = key_of(reading), reading.time
        if place not in first:
            first[place] = reading.value
        elif first[place] == reading.value:
            repeats += 1
        else:
            others += 1
    if others > repeats and others >= len(first) / 2:
        yield (
            f"{others:,} readings have the instance and the time of another and a different value: "
            "several series, such as those of single CPUs, have one name; select one with "
            "ANOMALY_WHERE."
        )
    elif repeats + others:
        said = "they are dropped" if readings[0].index is None else "they differ by their index"
        yield (
            f"instance and time of some readings are those of another: {repeats + others:,} of "
            f"{len(readings):,}; {said}."
        )


def _interval(settings: Settings, readings: list[Reading], proposed: Proposed) -> Iterator[str]:
    steps = [
        later - time
        for own in _by_key(readings).values()
        for time, later in pairwise(sorted({one.time for one in own if one.time is not None}))
    ]
    if len(steps) < 3:
        return
    usual = median(steps)
    if 2 / 3 <= usual / settings.interval <= 1.5:
        return
    rounded = float(f"{usual:.3g}")
    proposed["interval"] = rounded
    yield (
        f"most readings come {rounded:g} s after the one before, and ANOMALY_INTERVAL is "
        f"{settings.interval:g}: set ANOMALY_INTERVAL={rounded:g}, or silences and scores are "
        "wrong."
    )


def _scattered(settings: Settings, readings: list[Reading], proposed: Proposed) -> Iterator[str]:
    partitions: defaultdict[str, set[int]] = defaultdict(set)
    for reading in readings:
        partitions[reading.instance].add(reading.partition)
    several = [instance for instance, found in partitions.items() if len(found) > 1]
    if several and not settings.reorder:
        proposed["reorder"] = True
        yield (
            f"the readings of {len(several):,} of {len(partitions):,} instances, such as "
            f"{several[0]!r}, lie on several partitions: key records by instance, or set "
            "ANOMALY_REORDER=true."
        )


def _changing(readings: list[Reading]) -> Iterator[str]:
    """Warn of names that are used for a day, if the sample is long enough to show it."""
    timed = [(one.time, one.instance) for one in readings if one.time is not None]
    if not timed:
        return
    begin, end = min(timed)[0], max(timed)[0]
    if end - begin < 2 * DAY:
        return
    early = {instance for time, instance in timed if time < begin + DAY}
    late = {instance for time, instance in timed if time > end - DAY}
    if len(early & late) * 2 < min(len(early), len(late)):
        yield (
            f"of the {len(early):,} instances of the first day, {len(early & late):,} still send "
            "on the last one: where instances are replaced daily, a detector learns little of "
            "each; score their group, by its name in ANOMALY_KEY_FIELD."
        )


def _by_key(readings: list[Reading]) -> dict[str, list[Reading]]:
    groups: defaultdict[str, list[Reading]] = defaultdict(list)
    for reading in readings:
        groups[key_of(reading)].append(reading)
    return groups
