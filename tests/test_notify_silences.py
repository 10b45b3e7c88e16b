"""Silences of Alertmanager that are verdicts: which ones, on what, how often, and until when."""

from __future__ import annotations

import json
import threading
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from conftest import Flow, fill_topic, free_port
from faults import wait_for
from hypothesis import example, given
from hypothesis import settings as tests
from hypothesis import strategies as st
from test_notify import (
    Receiver,
    ended,
    incident,
    listed_alerts,
    notifying,
    receiver,
    running_alertmanager,
    write,
)
from test_rules import end, served
from test_verdict_flow import INTERVAL, PER_DAY, SAID, fed

from dataflow import kafka
from dataflow.demo.broker import EmbeddedBroker
from dataflow.errors import UserError
from dataflow.notify import silences as rules
from dataflow.notify.alertmanager import Alertmanager, alert_labels
from dataflow.notify.silence_watch import watch_of
from dataflow.notify.silences import ENDED, Alerts, Changes, Silence
from dataflow.notify.targets import targets
from dataflow.records import Anomaly, Incident, Source, encode
from dataflow.settings import Settings
from dataflow.verdicts import store as kept
from dataflow.verdicts.record import Feedback

__all__ = ["receiver"]

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)


def moment(minute: float) -> datetime:
    return NOW + timedelta(minutes=minute)


def silence(
    name: str = "s",
    matchers: dict[str, str] | None = None,
    begins: float = 5,
    ends: float = 600,
    state: str = "active",
    **other: Any,
) -> Silence:
    """A silence of `label=value`; a value `~x` is a regular expression, `!x` another value."""
    (found,) = rules.read(
        json.dumps(
            [
                {
                    "id": name,
                    "matchers": [matcher(*pair) for pair in (matchers or WEB).items()],
                    "startsAt": moment(begins).isoformat(),
                    "endsAt": moment(ends).isoformat(),
                    "status": {"state": state},
                    **{"createdBy": "anna", "comment": "the backup", **other},
                }
            ]
        )
    )
    return found


WEB = {"instance": "host-1"}


def matcher(name: str, value: str) -> dict[str, Any]:
    return {
        "name": name,
        "value": value.lstrip("~!"),
        "isRegex": value.startswith("~"),
        "isEqual": not value.startswith("!"),
    }


def alerts(*records: tuple[Incident, float]) -> Alerts:
    known = Alerts()
    for one, minute in records:
        known.take(one, alert_labels(one, one.labels), moment(minute).timestamp())
    return known


OVER = alerts((incident(), 0), (incident("resolved", 1), 10))
"""An alert from minute 0 to 10."""


@pytest.mark.parametrize(
    ("one", "incidents", "counts"),
    [
        (silence(), OVER, True),
        (silence(matchers={**WEB, "alertname": "InstanceAnomalous", "team": ""}), OVER, True),
        (silence(matchers={"instance": "host-2"}), OVER, False),
        (silence(matchers={**WEB, "metric": "mem"}), OVER, False),
        (silence(matchers={"alertname": "InstanceAnomalous"}), OVER, False),
        (silence(matchers={"instance": "~host-1"}), OVER, False),
        (silence(matchers={**WEB, "severity": "!critical"}), OVER, False),
        (silence(begins=-1), OVER, False),
        (silence(begins=11), OVER, False),
        (silence(state="pending"), OVER, False),
        (silence(state="expired"), OVER, False),
        (silence(), alerts((incident(), 0)), False),
        (silence(), alerts((incident("resolved", 1, folded=True), 0)), False),
    ],
)
def test_a_silence_counts_for_the_incident_that_it_was_made_for(
    one: Silence, incidents: Alerts, counts: bool
) -> None:
    assert [it.id for it in rules.wanted([one], incidents)] == [f"silence:s:{1:024x}"] * counts


def test_one_that_is_edited_goes_on() -> None:
    """Alertmanager ends it, and another begins at that moment, when the incident may be over."""
    before = silence("a", ends=60, state="expired")
    for begins in (59.99, 60, 60.01):
        after = silence("b", {**WEB, "kind": "anomaly"}, begins=begins)
        assert [it.silence for it in rules.wanted([after, before], OVER)] == ["b"]
        assert rules.wanted([silence("c", {"instance": "host-2"}, begins), before], OVER) == []
    assert rules.wanted([after], OVER) == []


def test_a_broad_one_is_named_with_what_it_holds() -> None:
    two = alerts((incident(), 0), (incident(number=2), 0), (incident(number=3), 9))
    broad = silence("all", {"alertname": "~Instance.*"})
    other = silence("other", {"alertname": "DiskFull"})
    strange = silence("go", {"instance": r"~\pL+("})
    assert rules.broad([broad, other, strange, silence()], two) == {"all": 2}


def test_what_is_no_silence_is_left_out() -> None:
    text = json.dumps([{"id": "a"}, 5, json.loads(encode({"id": "b", "status": {"state": "?"}}))])
    assert rules.read(text) == []
    with pytest.raises(ValueError, match="Expected `array`"):
        rules.read('{"status": "error"}')


# In any order of events, the topic comes to say what Alertmanager says

NAMES = st.sampled_from(["a", "b", "c"])
STEP = st.one_of(
    st.tuples(st.just("begin"), NAMES, st.integers(1, 2)),
    st.tuples(st.just("end"), NAMES, st.just(0)),
    st.tuples(st.just("longer"), NAMES, st.integers(601, 700)),
    st.tuples(st.just("lost"), NAMES, st.just(0)),
    st.tuples(st.just("undo"), NAMES, st.integers(1, 2)),
    st.tuples(st.just("real"), NAMES, st.integers(1, 2)),
    st.tuples(st.just("look"), NAMES, st.just(0)),
)


BEGIN, LOOK, LOST = ("begin", "a", 1), ("look", "a", 0), ("lost", "a", 0)


@tests(max_examples=40)
@given(st.lists(STEP, max_size=30))
@example([BEGIN, LOOK, ("undo", "a", 1)])
@example([BEGIN, LOOK, ("real", "a", 1)])
@example([("real", "a", 1), BEGIN])
@example([BEGIN, LOOK, ("longer", "a", 650), LOOK, ("end", "a", 0)])
@example([BEGIN, LOOK, LOST, LOOK, BEGIN])
def test_looking_again_adds_nothing_and_only_what_is_active_is_in_force(
    steps: list[tuple[str, str, int]],
) -> None:
    both = alerts(
        *((incident(number=number), 0) for number in (1, 2)),
        *((incident("resolved", 1, number=number), 10) for number in (1, 2)),
    )
    listed: dict[str, Silence] = {}
    said: dict[str, Feedback] = {}
    by_people: set[str] = set()
    real: set[int] = set()
    active: dict[str, tuple[int, int]] = {}

    def look() -> Changes:
        now = list(listed.values())
        found = rules.changes(now, rules.wanted(now, both), said, NOW)
        for record in found.records + [one.record(NOW, SAID) for one in found.new]:
            said[record.id] = record
        return found

    for what, name, number in [*steps, ("look", "a", 0)]:
        if what == "begin" and name not in listed:
            listed[name] = silence(name, {"instance": f"host-{number}"})
            active[name] = number, 600
        elif what == "end" and name in active:
            listed[name] = silence(
                name, {"instance": f"host-{active.pop(name)[0]}"}, 5, 9, "expired"
            )
        elif what == "longer" and name in active:
            listed[name] = silence(name, {"instance": f"host-{active[name][0]}"}, ends=number)
            active[name] = active[name][0], number
        elif what == "lost":
            listed.pop(name, None)
            active.pop(name, None)
        elif what == "undo":
            key = f"silence:{name}:{number:024x}"
            if key in said and said[key].verdict == "fine":
                said[key] = Feedback(id=key, verdict="undo")
                by_people.add(key)
        elif what == "real":
            said[f"{number:024x}"] = Feedback(id=f"{number:024x}", verdict="real")
            real.add(number)
        elif what == "look":
            look()
            assert look() == ([], [])
            expected = {
                f"silence:{name}:{number:024x}": moment(ends)
                for name, (number, ends) in active.items()
                if number not in real and f"silence:{name}:{number:024x}" not in by_people
            }
            assert {key: one.until for key, one in rules.given(said).items()} == expected


def test_one_that_is_missing_ends_nothing_while_a_server_does_not_answer() -> None:
    verdict = rules.wanted([silence()], OVER)[0]
    said = {verdict.id: verdict.record(NOW, SAID)}
    assert rules.changes([], [], said, NOW, complete=False) == ([], [])
    (undo,) = rules.changes([], [], said, NOW).records
    assert (undo.verdict, undo.id, undo.comment) == ("undo", verdict.id, ENDED)
    gone = silence(state="expired")
    assert rules.changes([gone], [], said, NOW, complete=False).records == [undo]


def test_the_alerts_that_opened_first_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "KNOWN", 3)
    known = alerts(*((incident(number=number), 0) for number in range(5)))
    assert [it.instance for it in known.all()] == ["host-2", "host-3", "host-4"]
    assert (known.of("host-1"), len(known.of("host-4"))) == ([], 1)


# With the real Alertmanager


def asked(address: str, method: str, path: str, body: object = None) -> Any:
    request = urllib.request.Request(
        f"{address}/api/v2/{path}",
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read() or "null")


def silenced(address: str, matchers: dict[str, str], **other: Any) -> str:
    now = datetime.now(UTC)
    body = {
        "matchers": [matcher(*pair) for pair in matchers.items()],
        "startsAt": now.isoformat(),
        "endsAt": (now + timedelta(hours=3)).isoformat(),
        **{"createdBy": "anna", "comment": "the backup", **other},
    }
    return str(asked(address, "POST", "silences", body)["silenceID"])


def test_alertmanager_holds_what_we_say_that_it_holds(tmp_path: Path, receiver: Receiver) -> None:
    own = {"k8s.pod/name": "a b", "zone": "eu-1"}
    with running_alertmanager(tmp_path, receiver) as address:
        target = Alertmanager(address)
        incidents = [incident(labels=own), incident(number=2, metric="mem"), incident(number=3)]
        now = datetime.now(UTC)
        for one in incidents:
            asked(address, "POST", "alerts", target.body(one, "", now))
        for matchers in (
            {"instance": "host-1"},
            {"instance": "host-1", "k8s_pod_name": "a b", "zone": "eu-1"},
            {"instance": "host-1", "metric": ""},
            {"instance": "host-2", "metric": ""},
            {"instance": "host-3", "severity": "critical"},
            {"instance": "~host-[12]"},
            {"instance": "~host"},
            {"instance": "~host-.", "metric": "!mem"},
            {"alertname": "InstanceAnomalous", "zone": "~|eu-2"},
        ):
            silenced(address, matchers)
        listed = rules.read(json.dumps(asked(address, "GET", "silences")))
        assert len(listed) == 9
        found = {
            it["labels"]["instance"]: set(it["status"]["silencedBy"])
            for it in asked(address, "GET", "alerts")
        }
        assert found == {
            one.instance: {it.id for it in listed if it.holds(alert_labels(one, one.labels))}
            for one in incidents
        }
        assert sorted(map(len, found.values())) == [2, 2, 5]


def test_alertmanager_edits_a_silence_by_another_one(tmp_path: Path, receiver: Receiver) -> None:
    with running_alertmanager(tmp_path, receiver) as address:
        first = silenced(address, WEB)
        began = datetime.fromisoformat(asked(address, "GET", f"silence/{first}")["startsAt"])
        wait_for(lambda: datetime.now(UTC) > began + timedelta(milliseconds=50))
        over = alerts((incident(), 0), (incident("resolved", 1), 0))
        (known,) = over.all()
        over._by_id[known.incident] = known._replace(resolved=began.timestamp() + 0.01)
        longer = (datetime.now(UTC) + timedelta(hours=9)).isoformat()
        same = {"id": first, "startsAt": began.isoformat()}
        assert silenced(address, WEB, **same, endsAt=longer) == first
        second = silenced(address, {**WEB, "kind": "anomaly"}, **same)
        assert second != first
        listed = rules.read(json.dumps(asked(address, "GET", "silences")))
        assert [it.silence for it in rules.wanted(listed, over)] == [second]


def settings_of(**more: Any) -> Settings:
    return Settings(_env_file=None, **more)


def test_what_is_missing_is_said_at_once(tmp_path: Path) -> None:
    stop: Any = None
    chosen = settings_of(notify_silences=True, verdicts="v.jsonl", notify_slack="http://a.example")
    with pytest.raises(UserError, match="set ANOMALY_NOTIFY_ALERTMANAGER, or leave it out"):
        watch_of(chosen, targets(chosen), stop)
    chosen = settings_of(notify_silences=True, notify_alertmanager="http://a.example")
    with pytest.raises(UserError, match="no verdicts are kept: set ANOMALY_VERDICTS"):
        watch_of(chosen, targets(chosen), stop)
    more = {"verdicts": f"{tmp_path}/v.jsonl", "output": "stdout", "input": "a.csv"}
    chosen = settings_of(notify_silences=True, notify_alertmanager="http://a.example", **more)
    with pytest.raises(UserError, match="anomalies go to stdout, which cannot be read back"):
        watch_of(chosen, targets(chosen), stop)
    assert watch_of(settings_of(notify_alertmanager="http://a.example"), [], stop) is None


QUICK = """
from dataflow.cli import main
from dataflow.notify import silence_watch
silence_watch.EVERY = 0.2
main()
"""
"""The command, which looks five times a second."""


@pytest.mark.kafka
def test_a_silence_keeps_the_pattern_quiet_until_it_is_deleted(
    run_flow: Flow,
    embedded_broker: EmbeddedBroker,
    topic: str,
    tmp_path: Path,
    receiver: Receiver,
) -> None:
    brokers, said = embedded_broker.address, f"{topic}-said"
    port = free_port()
    common: dict[str, Any] = {
        **{"brokers": brokers, "topic": topic, "verdicts": said, "incidents": "true"},
        **{"rejected_topic": f"{topic}.rejected", "anomalies_topic": f"{topic}-anomalies"},
        **{"incidents_topic": f"{topic}-incidents", "interval": INTERVAL, "silence": 0},
        "output": "kafka",
    }
    chosen = settings_of(**common)
    for name in ("", ".rejected", "-anomalies", "-incidents", "-said"):
        fill_topic(brokers, f"{topic}{name}", [], 1)
    records = fed()
    flow = run_flow.start(metrics_port=port, **common)
    written = 0

    def fill(day: int, hour: int = 0) -> None:
        nonlocal written
        last = day * PER_DAY + hour
        fill_topic(brokers, topic, records[written:last], 1)
        written = last
        wait_for(lambda: count("anomaly_records_read_total") >= last)

    def count(name: str) -> float:
        assert flow.poll() is None, flow.communicate()
        return sum(float(it.rpartition(" ")[2]) for it in served(port, name).splitlines())

    def alert_days() -> set[int]:
        lines = kafka.read_from(chosen, chosen.anomalies_topic, {})
        found = [json.loads(it.value() or b"") for it in lines]
        return {it["index"] // PER_DAY for it in found if it["alert"]}

    def last() -> dict[str, Feedback]:
        return kept.last(chosen)

    with (
        running_alertmanager(tmp_path, receiver) as address,
        notifying(
            *(tmp_path, ("-c", QUICK)),
            **common,
            notify_alertmanager=address,
            notify_silences="true",
            notify_max_age=0,
        ) as notify,
    ):
        fill(9, 7)  # amid the trouble of day 9
        wait_for(lambda: len(listed_alerts(address)) == 1)
        labels = listed_alerts(address)[0]["labels"]
        name = silenced(address, labels, createdBy="anna")
        silenced(address, {"topic": topic}, comment="all of them")
        fill(10)  # it is over
        wait_for(lambda: bool(last()))
        wait_for(lambda: count("anomaly_verdicts ") == 1)
        fill(14)
        wait_for(lambda: 13 in alert_days())
        assert not {12} & alert_days()
        asked(address, "DELETE", f"silence/{name}")
        wait_for(lambda: count("anomaly_verdicts ") == 0)
        fill(16)
        wait_for(lambda: 15 in alert_days())
        out, err = ended(notify)
    assert alert_days() >= {9, 10, 13, 15}
    (verdict,) = last().values()
    assert (verdict.verdict, verdict.by, verdict.comment) == ("undo", "anna", ENDED)
    incident_id = verdict.id.rpartition(":")[2]
    assert verdict.id == f"silence:{name}:{incident_id}"
    history = kafka.read_from(chosen, said, {})
    fine, undo = (json.loads(it.value() or b"") for it in history)
    assert (fine["verdict"], fine["by"], fine["comment"]) == ("fine", "anna", "the backup")
    until = datetime.fromisoformat(fine["until"]) - datetime.now(UTC)
    assert timedelta(hours=2) < until < timedelta(hours=3)
    assert fine["pattern"]["anomalies"] >= 4, "of the whole episode"
    assert undo["verdict"] == "undo"
    assert err == ""
    assert out.count("wrote fine for ") == out.count("wrote undo for ") == 1
    assert out.count("holds 1 alerts and is not of one instance") == 1
    assert end(flow) is not None


def test_an_alertmanager_that_is_away_is_one_line_and_changes_nothing(
    brokers: str,
    topic: str,
    tmp_path: Path,
    receiver: Receiver,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also in a process that begins anew, and with a file of verdicts."""
    rest = ("2026-03-02 02:00", None, 0.9, 0.8, 0.5, 0.2, 0.1, 0.3, "calibrated")
    anomaly = Anomaly("host-1", *rest, id="a", source=Source("cpu", 0, 0), episode=f"{1:024x}")
    (tmp_path / "out.jsonl").write_bytes(encode(anomaly))
    more: dict[str, Any] = {
        **{"verdicts": f"{tmp_path}/said.jsonl", "output": f"{tmp_path}/out.jsonl"},
        **{"incidents_topic": topic, "brokers": brokers, "notify_silences": True, "follow": False},
    }
    write(brokers, topic, incident())

    def look(*addresses: str) -> None:
        chosen = settings_of(**more, notify_alertmanager=",".join(addresses))
        watch = watch_of(chosen, targets(chosen), threading.Event())
        assert watch is not None
        watch.run()
        assert watch.failure is None

    with running_alertmanager(tmp_path, receiver) as address:
        name = silenced(address, WEB)
        write(brokers, topic, incident("resolved", 1))
        for _ in range(2):
            look(address)
            assert len((tmp_path / "said.jsonl").read_text().splitlines()) == 1
        # One that answers in another way, or not at all, knows nothing of other silences.
        away = f"http://127.0.0.1:{free_port()}"
        look(away)
        look(away, receiver.address)
        asked(address, "DELETE", f"silence/{name}")
        said = capsys.readouterr()
        assert said.err.splitlines() == [
            f"warning: alertmanager at {away.removeprefix('http://')} lists no silences "
            "(Connection refused): verdicts stay as they are.",
        ] * 2 + [
            f"warning: alertmanager at 127.0.0.1:{receiver.port} lists no silences "
            "(status 501): verdicts stay as they are."
        ]
        assert kept.in_force(settings_of(**more)).all()[0].by == "anna"
        look(away, address)
    assert not kept.in_force(settings_of(**more)).all()
    assert len((tmp_path / "said.jsonl").read_text().splitlines()) == 2
