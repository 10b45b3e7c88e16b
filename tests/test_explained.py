"""How the score of an anomaly came about: as the flow has computed it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import hypothesis
import msgspec
import pytest
from bytewax.testing import run_main
from conftest import fill_topic, read_json_lines
from hypothesis import given
from hypothesis import strategies as st
from test_preview import START, as_written, troubled

from dataflow import cli, settings
from dataflow.alerts.decision import decisions
from dataflow.alerts.episode import EpisodeRules, Watched
from dataflow.errors import UserError
from dataflow.flow import build
from dataflow.kafka import topics
from dataflow.records import Reading, Source
from dataflow.rerun import run, why
from dataflow.steps import score


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The anomalies of a run whose settings are those of the environment."""
    (tmp_path / "readings.jsonl").write_text("".join(json.dumps(one) + "\n" for one in troubled()))
    monkeypatch.setenv("ANOMALY_INPUT", "readings.jsonl")
    monkeypatch.setenv("ANOMALY_OUTPUT", "found.jsonl")
    own = settings.load(incidents=True)
    run_main(build(own, score.detector(own), None))
    return read_json_lines(tmp_path / "found.jsonl")


def test_what_is_computed_again_is_what_was_written(
    found: list[dict[str, Any]], tmp_path: Path
) -> None:
    alert = next(one for one in found if one["alert"])
    other = next(one for one in found if not one["alert"] and one["episode"] == alert["episode"])
    records = read_json_lines(tmp_path / "found.incidents.jsonl")
    for one in (alert, other):
        options = settings.load()
        again = why.explain(options, why.find(options, one["id"]), 3)
        assert again.again is not None
        assert as_written([again.again]) == [one]
        assert again.score == one["score"]
        assert again.notes == []
        assert again.decision is not None
        assert again.decision.alert is one["alert"]
        assert [it.score for it in again.readings][-1] == one["score"]
        assert [it.value for it in again.readings][-1] == one["raw"]
        assert len(again.readings) == 4
        assert again.learned == one["index"]
        assert again.incident is not None
        last = [it for it in records if it["id"] == one["episode"]][-1]
        assert as_written([again.incident]) == [last]
    # The id of an incident is that of its episode.
    assert why.find(settings.load(), alert["episode"]).id == alert["id"]


def test_it_prints_what_made_the_score(
    found: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    alert = next(one for one in found if one["alert"])
    monkeypatch.setattr("sys.argv", ["ec2-anomaly", "why", alert["id"], "--readings", "2"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{alert['instance']}  {alert['timestamp']}  score {alert['score']:.2f}"
    assert lines[1] == alert["why"]
    table = next(at for at, line in enumerate(lines) if line.startswith("time  "))
    assert lines[table].split() == ["time", "value", "expected", "score"]
    assert lines[table + 3].endswith(f"{alert['score']:.2f}  alert")
    first = alert["reasons"][0]
    assert any(
        line.split()[:2] == [first["kind"], f"{100 * first['share']:.0f}%"] for line in lines
    )
    low, high = (f"{100 * bound:.0f}" for bound in alert["ordinary"])
    assert f"It would have been no anomaly at {low} to {high}%." in lines
    assert "It is an alert: no trouble was known in the 84 readings before it." in lines
    assert any(line.startswith(f"It belongs to the incident {alert['episode']}") for line in lines)


def test_other_settings_are_said(
    found: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    alert = next(one for one in found if one["alert"])
    monkeypatch.setenv("ANOMALY_DETECTOR", "zscore")
    monkeypatch.setenv("ANOMALY_THRESHOLD", "0.999999")
    options = settings.load()
    again = why.explain(options, why.find(options, alert["id"]), 3)
    said = "; ".join(again.notes)
    assert "the detector calibrated has found it, and now it is zscore" in said
    assert "the threshold was 0.5, and now it is 0.999999" in said
    assert "other settings wrote it" in said
    assert "with the present settings the reading is no anomaly" in said


def test_errors_say_where_it_looked(
    found: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"the file found\.jsonl have no anomaly with the id 'nix'"):
        why.find(settings.load(), "nix")
    with pytest.raises(UserError, match="ANOMALY_OUTPUT is stdout, which cannot be read back"):
        why.find(settings.load(output="stdout"), "nix")
    with pytest.raises(UserError, match=r"cannot read missing\.jsonl \(No such file"):
        why.find(settings.load(output="missing.jsonl"), "nix")
    lines = (tmp_path / "readings.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "readings.jsonl").write_text("".join(lines[:600]))
    options = settings.load()
    lost = why.find(options, next(one["id"] for one in found if one["instance"] == "lone"))
    with pytest.raises(UserError, match="holds no reading of the anomaly: its instance 'lone'"):
        why.explain(options, lost, 3)


def test_an_anomaly_in_a_topic(brokers: str, topic: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"brokers": brokers, "topic": topic, "follow": "false", "output": "kafka"}
    given |= {"anomalies_topic": f"{topic}.found", "incidents_topic": f"{topic}.incidents"}
    for name, value in given.items():
        monkeypatch.setenv(f"ANOMALY_{name.upper()}", value)
    fill_topic(brokers, topic, [(one["instance"], json.dumps(one).encode()) for one in troubled()])
    options = settings.load(incidents=True)
    topics.create(options, [options.anomalies_topic, options.incidents_topic], 2)
    run_main(build(options, score.detector(options), None))
    written = list(why._of_topic(options))
    one = msgspec.json.decode(written[-1])
    again = why.explain(options, why.find(options, one["id"]), 3)
    assert again.again is not None
    assert as_written([again.again]) == [one]
    assert again.notes == []
    with pytest.raises(UserError, match=f"the topic '{topic}.found' have no anomaly"):
        why.find(options, "nix")
    gone = msgspec.structs.replace(again.written, source=Source(topic, 1, 9_999))
    with pytest.raises(UserError, match="no longer holds the reading of the anomaly, offset 9999"):
        why.explain(options, gone, 3)
    elsewhere = msgspec.structs.replace(again.written, source=Source("other", 1, 0))
    with pytest.raises(UserError, match="was found in 'other', and ANOMALY_TOPIC is"):
        why.explain(options, elsewhere, 3)


SCORES = st.lists(
    st.tuples(st.sampled_from([0.1, 0.55, 0.7, 0.85, 0.97]), st.sampled_from([1, 1, 2, 30, 90])),
    max_size=25,
)


@hypothesis.settings(max_examples=50)
@given(SCORES, st.sampled_from([300.0, 3600.0]))
def test_a_decision_is_that_of_the_flow(runs: list[tuple[float, int]], interval: float) -> None:
    """Of the rule of alerts, as the step `score` uses it."""
    scores = [one for one, count in runs for one in [one, *(count - 1) * [0.1]]]
    rules = EpisodeRules(0.5, interval, 3600.0)
    watched: Watched | None = None
    expected: list[bool | None] = []
    for index, one in enumerate(scores):
        reading = Reading("a", None, index, 0.5, START + interval * index, 0, index)
        watched, finding = rules.take(watched, reading, one, None)
        expected.append(None if one <= 0.5 else finding is not None and finding.alert)
    found = list(decisions([(one, False) for one in scores], 0.5, interval))
    assert [None if it is None else it.alert for it in found] == expected
    for it in found:
        assert it is None or it.alert is (it.rule in ("first", "worse"))


def test_what_comes_daily_is_said() -> None:
    day = [0.1] * 287
    rules = [
        it.rule
        for it in decisions([(one, False) for one in [0.7, *day] * 4], 0.5)
        if it is not None
    ]
    assert rules == ["first", "first", "daily", "daily"]


def test_a_record_of_another_kind_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "found.jsonl").write_text('{"id": "abc", "note": "no anomaly"}\n')
    with pytest.raises(UserError, match="have no anomaly with the id 'abc'"):
        why.find(settings.load(output="found.jsonl"), "abc")


def test_all_metrics_of_an_instance_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(5)
    lines = []
    for index in range(650):
        for metric in ("cpu", "mem", "load"):
            value = rng.uniform(70, 90) if 610 <= index < 620 else 20 + rng.uniform(0, 3)
            reading = {"instance": "web-1", "index": index, "timestamp": START + 300 * index}
            lines.append(json.dumps({**reading, "name": metric, "value": value}))
    (tmp_path / "readings.jsonl").write_text("\n".join(lines) + "\n")
    given = {"input": "readings.jsonl", "output": "found.jsonl", "together": "true"}
    given |= {"metrics": "*", "metric_field": "name", "scale": "none"}
    for name, value in given.items():
        monkeypatch.setenv(f"ANOMALY_{name.upper()}", value)
    options = settings.load(incidents=True)
    run_main(build(options, score.detector(options), None))
    found = read_json_lines(tmp_path / "found.jsonl")
    alert = next(one for one in found if one["alert"])
    of_one = next(one for one in found if one["metric"] != "*")
    assert alert["metric"] == "*"
    for one in (alert, of_one):
        again = why.explain(options, why.find(options, one["id"]), 3)
        assert again.again is not None
        assert as_written([again.again]) == [one]
        assert again.notes == []
        assert again.readings[-1].score == one["score"]
        if one is alert:
            assert again.decision is not None
            assert again.decision.alert
    ran = run.run(options)
    assert as_written(ran.incidents) == read_json_lines(tmp_path / "found.incidents.jsonl")
    assert ran.readings == len(lines)
