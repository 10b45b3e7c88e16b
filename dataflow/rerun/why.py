"""Finds an anomaly that was written, and scores the readings of its instance again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from dataflow import kafka
from dataflow.alerts.decision import Decision, decisions
from dataflow.errors import UserError
from dataflow.kafka import topics
from dataflow.records import ALL, Anomaly, Incident, Reading
from dataflow.rerun.changes import last_records
from dataflow.rerun.run import Collect, Held, held, over
from dataflow.settings import Settings, is_output_file
from dataflow.steps import score, together
from dataflow.steps.anomaly import bounder, metrics_of
from dataflow.steps.score import Scored

__all__ = ["Seen", "Why", "explain", "find"]

_anomaly = msgspec.json.Decoder(Anomaly).decode


class Seen(msgspec.Struct):
    """A reading before the anomaly, and the anomaly's own, the last; `value` is as it came.

    `said` are the value and the expected range in words. `time` is in seconds since 1970.
    """

    timestamp: str | int | float | None
    time: float | None
    value: float
    score: float
    expected: float | None
    lower: float | None
    upper: float | None
    anomaly: bool
    alert: bool
    said: tuple[str, str]


class Why(msgspec.Struct):
    """How the score of an anomaly came about.

    `written` is its record, and `again` what the flow makes of the reading with the present
    settings: None if it is no anomaly with them. `readings` were scored from the first that the
    input holds, `learned` before this one. `incident` is the last record of its incident, None if
    it belongs to none. `ordinary` is the range, in words, in which the value would have been no
    anomaly; None if the flow does not say.
    """

    written: Anomaly
    again: Anomaly | None
    score: float
    notes: list[str]
    learned: int
    readings: list[Seen]
    decision: Decision | None
    incident: Incident | None
    ordinary: str | None


def find(settings: Settings, name: str) -> Anomaly:
    """Return the anomaly with this id from where the settings write anomalies.

    The id may also be that of an incident: then it is the alert that opened it, or the first of its
    anomalies. Raises `UserError` if there is none, or if the output cannot be read back.
    """
    searched = []
    first = None
    for output in settings.outputs:
        if output == "kafka":
            searched.append(f"the topic {settings.anomalies_topic!r}")
            lines = _of_topic(settings)
        elif is_output_file(output):
            searched.append(f"the file {output}")
            lines = _of_file(Path(output))
        else:
            continue
        for line in lines:
            if name.encode() not in line:
                continue
            try:
                found = _anomaly(line)
            except msgspec.DecodeError:  # what else is in the topic
                continue
            if found.id == name or (found.episode == name and found.alert):
                return found
            if found.episode == name and first is None:
                first = found
    if first is not None:
        return first
    if not searched:
        raise UserError(
            f"ANOMALY_OUTPUT is {settings.output}, which cannot be read back: name the file, or "
            "`kafka`, that the anomaly was written to."
        )
    raise UserError(
        f"{' and '.join(searched)} have no anomaly with the id {name!r}, nor one of an incident "
        "with it: check the id, and that ANOMALY_OUTPUT is where the flow writes; an incident of "
        "silence has no anomaly."
    )


def _of_topic(settings: Settings) -> Iterator[bytes]:
    topic = settings.anomalies_topic
    topics.existing_partitions(settings, topic, "ANOMALY_ANOMALIES_TOPIC", [kafka.READ])
    for message in kafka.read_from(settings, topic, {}):
        yield message.value() or b""


def _of_file(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror}): name the file that the anomaly was written "
            "to in ANOMALY_OUTPUT."
        ) from None


def explain(settings: Settings, written: Anomaly, count: int) -> Why:
    """Score the readings of an anomaly's instance again; keep the `count` before it.

    Of a topic it reads the partition of the anomaly, unless readings are to be put in order. Raises
    `UserError` if the input does not hold the anomaly's reading, or cannot be read.
    """
    there = _there(settings, written)
    if there is not None and settings.partitions is None and not settings.reorder:
        settings = settings.model_copy(update={"partitions": (written.source.partition,)})
    settings = settings.model_copy(update={"incidents": True})
    default = settings.default_metric
    series: list[Scored] = []
    again: list[Anomaly] = []
    incidents: list[Incident] = []

    def scored(items: Sequence[tuple[str, list[Scored]]]) -> None:
        for _, found in items:
            if found and found[0][0].instance == written.instance:
                series.extend(it for it in found if (it[0].metric or default) == written.metric)

    def anomalies(items: Sequence[tuple[str, Anomaly]]) -> None:
        again.extend(one for _, one in items if one.id == written.id)

    def changes(items: Sequence[tuple[str, Incident]]) -> None:
        incidents.extend(one for _, one in items if one.id == written.episode)

    outputs = {
        "write_anomalies": Collect(anomalies),
        "write_incidents": Collect(changes),
        "write_scored": Collect(scored),
    }
    over(settings, outputs, there)
    place = _place(series, written)
    if place is None:
        raise UserError(
            f"{settings.source_name} holds no reading of the anomaly: its instance "
            f"{written.instance!r} has {len(series):,} readings there. Name the input in which it "
            f"was found, {written.source.topic}, and read it with the same settings."
        )
    detector = score.detector(settings)
    threshold = (
        together.threshold(settings)
        if written.metric == ALL
        else score.episode_rules(settings, detector).threshold
    )
    scores = [(verdict.score, verdict.near) for _, verdict, _ in series[: place + 1]]
    decision = list(decisions(scores, threshold, settings.interval))[-1]
    found = again[-1] if again else None
    return Why(
        written=written,
        again=found,
        score=scores[-1][0],
        notes=_notes(written, found, scores[-1][0], detector.name, threshold),
        learned=place,
        readings=[_seen(settings, one) for one in series[max(0, place - count) : place + 1]],
        decision=decision,
        incident=next(iter(last_records(incidents)), None),
        ordinary=None if found is None else _ordinary(settings, series[place][0], found),
    )


def _there(settings: Settings, written: Anomaly) -> Held:
    """Return what the topic holds; raise `UserError` if the reading is not among it."""
    there = held(settings)
    if there is None:
        return None
    topic, partition, offset = (
        written.source.topic,
        written.source.partition,
        written.source.offset,
    )
    if topic != settings.topic:
        raise UserError(
            f"the anomaly was found in {topic!r}, and ANOMALY_TOPIC is {settings.topic!r}: set it "
            "to the former."
        )
    first, end = there.get(partition, (0, 0))
    if not first <= offset < end:
        holds = f"the offsets {first} to {end - 1}" if first < end else "no records"
        raise UserError(
            f"the topic {topic!r} no longer holds the reading of the anomaly, offset {offset} of "
            f"partition {partition}, which holds {holds}: its retention is over."
        )
    return there


def _place(series: Sequence[Scored], written: Anomaly) -> int | None:
    """Return where the reading of the anomaly is among those of its instance: the last such."""
    for place in range(len(series) - 1, -1, -1):
        reading = series[place][0]
        if (reading.index, reading.timestamp) == (written.index, written.timestamp):
            return place
    return None


def _notes(
    written: Anomaly, again: Anomaly | None, found: float, detector: str, threshold: float
) -> list[str]:
    """Return what differs from when the anomaly was written, in sentences."""
    notes = []
    if written.detector != detector:
        notes.append(f"the detector {written.detector} has found it, and now it is {detector}")
    if written.threshold != threshold:
        notes.append(f"the threshold was {written.threshold:g}, and now it is {threshold:g}")
    if written.score != found:
        notes.append(
            f"the score is {found:.4f} now and was {written.score:.4f}: other settings wrote it, "
            "or a flow that had learned from records that the input no longer holds"
        )
    if again is None:
        notes.append("with the present settings the reading is no anomaly")
    elif again.alert != written.alert:
        notes.append(f"it was {'an' if written.alert else 'no'} alert when it was written")
    return notes


def _seen(settings: Settings, one: Scored) -> Seen:
    reading, verdict, finding = one
    metric = metrics_of(settings)(reading)
    bounded = bounder(metric.scale)
    lower, upper = bounded(verdict.lower), bounded(verdict.upper)
    of_all = reading.metric == ALL
    expected = "" if lower is None or upper is None or of_all else metric.bounds(lower, upper)
    value = f"{reading.value:.2f}" if of_all else metric.amount(reading.value)
    return Seen(
        timestamp=reading.timestamp,
        time=reading.time,
        value=metric.raw(reading.value),
        score=verdict.score,
        expected=_raw(metric.raw, bounded(verdict.expected)),
        lower=_raw(metric.raw, lower),
        upper=_raw(metric.raw, upper),
        anomaly=finding is not None and finding.anomaly,
        alert=finding is not None and finding.alert,
        said=(value, expected),
    )


def _ordinary(settings: Settings, reading: Reading, found: Anomaly) -> str | None:
    return None if found.ordinary is None else metrics_of(settings)(reading).bounds(*found.ordinary)


def _raw(raw: Callable[[float], float], value: float | None) -> float | None:
    return None if value is None else raw(value)
