"""What `notify` makes of records: of foreign ones, of repetitions, and of many at once."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_notify import NOW, incident
from test_notify_pagerduty import wrong_in

from dataflow.notify import backlog as backlog_module
from dataflow.notify import skipped as skipped_module
from dataflow.notify.alertmanager import Alertmanager
from dataflow.notify.backlog import REPEAT, Backlog, Record
from dataflow.notify.base import Target
from dataflow.notify.decode import decode
from dataflow.notify.pagerduty import PagerDuty
from dataflow.notify.skipped import SkippedRecords
from dataflow.notify.slack import Slack
from dataflow.notify.webhook import Webhook
from dataflow.records import Incident, Source, encode

FIELDS: dict[str, Any] = json.loads(encode(incident()))


def written(**changed: Any) -> bytes:
    return json.dumps({**FIELDS, **changed}).encode()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "it has no value"),
        (b"", "it is not JSON"),
        (b'{"instance": "\xff"}', "it is not JSON"),
        (b'{"x": ' + b"[" * 20_000, "it is not JSON"),
        (b'"text"', "it is not a JSON object"),
        (b"{}", "the field 'instance' is missing or wrong"),
        (written(kind="new\nline"), "the field 'kind' is missing or wrong"),
        (written(source={"topic": "t"}), "the field 'source.partition' is missing or wrong"),
        (written(source={"topic": 5}), "the field 'source.topic' is missing or wrong"),
        (written(instance="x" * 70_000), "it is larger than 64 KiB"),
        (written(id="a\nb"), "the field 'id' holds a control character"),
        (written(id=""), "the field 'id' is empty, too long or not ASCII"),
        (written(id="é"), "the field 'id' is empty, too long or not ASCII"),
        (
            written(since="2024-01-01T00:00:00"),
            "the field 'since' is a time without a time zone",
        ),
        (
            written(peak_at="0001-01-01T00:00:00+01:00"),
            "the field 'peak_at' is outside the years of the calendar",
        ),
    ],
)
def test_what_is_not_an_incident_has_a_reason(value: bytes | None, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)) as error:
        decode(value)
    assert str(error.value) == reason


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=()))
    | st.datetimes(timezones=st.timezones() | st.none()).map(datetime.isoformat)
    | st.sampled_from(["anomaly", "silence", "opened", "updated", "resolved", "quiet", "gone"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def read(value: bytes) -> tuple[Incident | None, str]:
    try:
        return decode(value), ""
    except ValueError as reason:
        return None, str(reason)


@given(
    st.dictionaries(st.sampled_from(sorted(FIELDS)), VALUES),
    st.sets(st.sampled_from(sorted(FIELDS))),
)
def test_a_record_is_skipped_or_every_target_can_deliver_it(
    changed: dict[str, Any], missing: set[str]
) -> None:
    fields = {
        k: v for k, v in {**FIELDS, **changed}.items() if k not in missing or len(missing) > 1
    }
    record, reason = read(json.dumps(fields).encode())
    if record is None:
        assert reason.isprintable()
        assert len(reason) < 80
        return
    assert record.id.isprintable()
    assert record.id.isascii()
    for target in (Webhook, Slack, Alertmanager, PagerDuty):
        body: Any = json.loads(encode(target("http://h").body(record, "", NOW)))
        if target is Slack:
            assert len(body["text"].splitlines()) == 1
            assert not set("<>`@") & set(body["text"]) or "@\u200b" in body["text"]
        if target is Alertmanager:
            (alert,) = body
            starts, ends = (datetime.fromisoformat(alert[it]) for it in ("startsAt", "endsAt"))
            assert starts <= ends
            assert (ends > NOW) == (record.state != "resolved") or ends == NOW
            assert starts.year >= 1970
        if target is PagerDuty:
            assert not wrong_in(body)


@pytest.mark.parametrize("state", ["opened", "updated", "resolved"])
def test_what_the_flow_writes_is_delivered_as_it_is(state: str) -> None:
    record = incident(state, instance="a\nb", expected=None)
    assert decode(encode(record)) == record


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("web-1.example:9100", "web-1.example:9100"),
        ("<!channel> & co", "&lt;!channel&gt; &amp; co"),
        ("<http://evil.example|safe>", "&lt;http:\u200b//evil.example|safe&gt;"),
        ("a\nb\r\n*resolved*", "a\\nb\\r\\n*resolved*"),
        ("a\u2028b\u202ec", "a\\u2028b\\u202ec"),
        ("@channel me@evil.example", "@\u200bchannel me@\u200bevil.example"),
        ("HTTPS://evil.example", "HTTPS:\u200b//evil.example"),
        ("www.evil.example", "www\u200b.evil.example"),
        ("mailto:me", "mailto\u200b:me"),
        ("`code`", "'code'"),
        ("é 😀", "é 😀"),
        ("x" * 300, "x" * 255 + "…"),
    ],
)
def test_a_name_is_text_in_slack(name: str, text: str) -> None:
    record = incident(instance=name, kind="silence", since=None)
    assert Slack("http://h").body(record, "http://wiki.example", NOW) == {
        "text": f"*opened* (warning) {text} is silent\nhttp://wiki.example"
    }


def test_records_are_named_once_for_each_reason_then_counted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    skipped = SkippedRecords("incidents")
    for offset in range(10):
        for _ in range(3):  # three targets read the same topic
            skipped.add((1, offset), "it is not JSON")
    skipped.add((0, 5), "it has no value")
    skipped.print_counts()
    assert capsys.readouterr().err.splitlines() == [
        "warning: the record at partition 1, offset 0 of the topic 'incidents' is not an incident "
        "(it is not JSON): skipped.",
        "warning: the record at partition 0, offset 5 of the topic 'incidents' is not an incident "
        "(it has no value): skipped.",
    ]
    monkeypatch.setattr(skipped_module, "INTERVAL", 0.0)
    for _ in range(2):
        skipped.print_counts()
    assert capsys.readouterr().err.splitlines() == [
        "warning: 9 more records of the topic 'incidents' are not incidents (it is not JSON): "
        "skipped. The last is at partition 1, offset 9."
    ]


# The backlog of a target


def add(backlog: Backlog, record: Incident, offset: int = 0) -> None:
    backlog.add(Record(record, (0, offset), {0: offset + 1}))


@pytest.mark.parametrize("takes", [1.0, 5.0])
def test_no_alert_lapses_and_a_new_incident_is_next(takes: float) -> None:
    """3,500 are open; by a clock of the test, a request takes so many seconds."""
    backlog = Backlog(repeats=True)
    target = Alertmanager("http://h")
    now, start = 0.0, NOW
    for number in range(3500):
        backlog.remember(incident(number=number), now)
    backlog.repeat_all(now)
    lapses: dict[str, datetime] = {}
    written_at: dict[str, float] = {}
    number = 3500
    while now < 400:
        if number < 3530 and now >= 10 * (number - 3500):
            add(backlog, incident(number=number), number)
            written_at[f"host-{number}"] = now
            number += 1
        batch = backlog.batch(target.batch, now)
        assert len(batch.incidents) <= 500
        for it in batch.incidents:
            moment = start + timedelta(seconds=now)
            (alert,) = target.body(it, "", moment)  # type: ignore[misc]
            assert lapses.get(it.instance, moment) >= moment, "it has lapsed"
            lapses[it.instance] = datetime.fromisoformat(alert["endsAt"])
            assert now - written_at.pop(it.instance, now) <= takes + 1
        backlog.done(batch, now)
        now += takes if batch.incidents else 1
    assert len(lapses) == 3530
    assert not written_at
    assert min(lapses.values()) > start + timedelta(seconds=now)


def test_an_alert_fires_longer_if_its_next_post_is_far_and_not_for_ever() -> None:
    target = Alertmanager("http://h")

    def fires() -> timedelta:
        (alert,) = target.body(incident(), "", NOW)  # type: ignore[misc]
        return datetime.fromisoformat(alert["endsAt"]) - NOW

    assert fires() == timedelta(minutes=5)
    target.repeated_within = 200.0
    assert fires() == timedelta(minutes=10)
    target.repeated_within = 1e9
    assert fires() == timedelta(hours=1)


def test_a_resolved_alert_of_year_one_does_not_fire() -> None:
    """Alertmanager takes this time for none, and gives the alert five minutes."""
    first = datetime(1, 1, 1, tzinfo=UTC)
    (alert,) = Alertmanager("http://h").body(  # type: ignore[misc]
        incident("resolved", 1, opened_at=first, resolved_at=first), "", NOW
    )
    assert alert["startsAt"] == alert["endsAt"] == "1970-01-01T00:00:00.000+00:00"


def test_one_record_of_an_instance_in_a_batch() -> None:
    """Opened and resolved in one request would be an alert that was never seen."""
    backlog = Backlog(repeats=True)
    add(backlog, incident(), 0)
    add(backlog, incident(number=2), 1)
    add(backlog, incident("resolved", 1), 2)
    batch = backlog.batch(500, 0.0)
    assert [(it.instance, it.state) for it in batch.incidents] == [
        ("host-1", "opened"),
        ("host-2", "opened"),
    ]
    assert backlog.done(batch, 0.0) == {0: 2}
    assert backlog.open_count == 2
    batch = backlog.batch(500, REPEAT)
    # The open incident of host-1 is due as well, and is not posted beside its end.
    assert [(it.instance, it.state) for it in batch.incidents] == [
        ("host-1", "resolved"),
        ("host-2", "opened"),
    ]
    assert backlog.done(batch, REPEAT) == {0: 3}
    assert backlog.open_count == 1


def test_an_incident_ends_when_the_next_one_of_its_instance_opens() -> None:
    """A flow that lost its store opens it under another id, and never resolves the first."""
    backlog = Backlog(repeats=True)
    lost, next_one = incident(id="lost"), incident(id="next")
    backlog.remember(lost, 0.0)
    backlog.remember(incident(id="silent", kind="silence"), 0.0)
    backlog.remember(incident(id="memory", source=Source("memory", 0, 1)), 0.0)
    backlog.remember(next_one, 0.0)
    assert [it.id for it in backlog.batch(500, REPEAT).incidents] == ["silent", "memory", "next"]
    backlog.remember(incident("resolved", 1, id="lost"), 0.0)
    assert backlog.open_count == 3
    backlog.remember(incident("resolved", 1, id="next"), 0.0)
    assert [it.id for it in backlog.batch(500, REPEAT).incidents] == ["silent", "memory"]


def test_the_labels_of_an_alert_are_those_of_its_first_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backlog_module, "KNOWN", 2)
    backlog = Backlog(repeats=True)

    def labels(record: Incident) -> dict[str, str]:
        return backlog.with_first_labels(record).labels

    assert labels(incident(labels={})) == {}
    assert labels(incident("updated", 1, labels={"env": "prod"})) == {}
    assert labels(incident(number=2, labels={"env": "prod"})) == {"env": "prod"}
    assert labels(incident("resolved", 1, number=2, labels={"env": "b"})) == {"env": "prod"}
    assert list(backlog._labels) == [(f"{1:024x}", "host-1")]
    for number in (3, 4):
        labels(incident(number=number))
    assert len(backlog._labels) == 2
    # To others, a record goes as it is.
    other = Backlog(repeats=False)
    other.with_first_labels(incident(labels={"env": "a"}))
    record = incident("resolved", 1, labels={"env": "b"})
    assert other.with_first_labels(record) is record


def test_repetitions_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    backlog = Backlog(repeats=False)
    records = [incident(), incident("updated", 1), incident("updated", 2), incident("resolved", 3)]
    assert [backlog.is_repetition(it) for it in records] == 4 * [False]
    assert [backlog.is_repetition(it) for it in records] == 4 * [True]
    # The end of an incident is news even under a sequence that was used.
    assert not backlog.is_repetition(incident(number=2, sequence=7))
    assert not backlog.is_repetition(incident("resolved", 1, number=2))
    assert backlog.is_repetition(incident("resolved", 8, number=2, ended="gone"))
    # What was read long ago is forgotten.
    monkeypatch.setattr(backlog_module, "KNOWN", 10)
    for number in range(3, 13):
        assert not backlog.is_repetition(incident(number=number))
    assert not backlog.is_repetition(incident())
    assert len(backlog._last) == 10


STATES = st.lists(
    st.tuples(st.integers(1, 3), st.sampled_from(["opened", "updated", "resolved"])), max_size=30
)


@given(STATES, st.integers(1, 5), st.lists(st.booleans()))
def test_each_opened_and_resolved_is_posted_in_order_before_its_offset(
    states: list[tuple[int, str]], size: int, fails: list[bool]
) -> None:
    backlog = Backlog(repeats=False)
    records = [incident(state, i, number=number) for i, (number, state) in enumerate(states)]
    for offset, record in enumerate(records):
        add(backlog, record, offset)
    posted: list[Incident] = []
    committed = 0
    while backlog:
        batch = backlog.batch(size, 0.0)
        assert len(batch.incidents) <= size
        if fails and fails.pop():
            continue
        posted += batch.incidents
        committed = backlog.done(batch, 0.0)[0]
        needed = [it for it in records[:committed] if it.state != "updated"]
        assert [it for it in posted if it.state != "updated"] == needed
    assert committed == len(records) or not records
    for number in (1, 2, 3):
        own = [it.sequence for it in posted if it.instance == f"host-{number}"]
        assert own == sorted(set(own))


def test_a_target_of_ones_own_keeps_its_defaults() -> None:
    assert (Target.batch, Target.repeats, Alertmanager.batch) == (1, False, 500)
