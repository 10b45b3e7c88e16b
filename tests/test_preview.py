"""What other settings would change: as a flow with them then does, to the bit."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import msgspec
import pytest
from bytewax.testing import run_main
from conftest import environment, fill_topic, read_json_lines
from msgspec.structs import replace

from dataflow import cli, kafka
from dataflow.errors import UserError
from dataflow.flow import build
from dataflow.records import Anomaly, Incident, Reading, Source, encode
from dataflow.rerun import options, run, stages
from dataflow.rerun.changes import Window, changes, last_records
from dataflow.rerun.report import report, window_of
from dataflow.settings import Settings
from dataflow.steps import incidents, score
from dataflow.verdicts.pattern import pattern_of
from dataflow.verdicts.record import Feedback

Command = Callable[..., CompletedProcess[str]]

START = 1_709_251_200
READINGS = 420
MISSING = (118, 120, 121, *range(330, 350))
REFUSED = (119, 200, 390, 391, 392, 393)
"""Of db-1. That at 119 is a sign of life, at the end of a batch of a file, before a gap."""

NAMES = ["web-1", "web-2", "web-3", "db-1", "lone"]


def troubled() -> Iterator[dict[str, Any]]:
    """Readings with spikes, troubles of hours, one of a whole group, gaps, and bad records."""
    rng = random.Random(13)
    until = dict.fromkeys(NAMES, 0)
    for index in range(READINGS):
        for place, name in enumerate(NAMES):
            if index > 230 and rng.random() < 0.006:
                until[name] = index + rng.choice([1, 1, 6, 30])
            value = 20 + 4 * place + 5 * math.sin(index / 45) + rng.uniform(0, 2)
            if index < until[name] or (name.startswith("web") and 300 <= index < 312):
                value = rng.uniform(70, 100)
            if name == "db-1" and index in MISSING:
                continue
            made: dict[str, Any] = {"instance": name, "index": index, "value": round(value, 2)}
            made["timestamp"] = START + 300 * index
            if index in REFUSED and name == "db-1":
                made["value"] = "much"
            yield made


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("input") / "readings.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in troubled()))
    return path


def written(changed: dict[str, str], folder: Path, **given: Any) -> tuple[list[Any], list[Any]]:
    """The incidents and the alerts that a flow with these settings writes to its files."""
    path = folder / "found.jsonl"
    own = options.load({**changed, "ANOMALY_OUTPUT": str(path)}, incidents=True, **given)
    run_main(build(own, score.detector(own), None))
    alerts = [one for one in read_json_lines(path) if one["alert"]]
    return read_json_lines(folder / "found.incidents.jsonl"), alerts


def by_instance(records: list[Any]) -> dict[str, list[Any]]:
    """Records of each instance, in their order: that of others is no part of it."""
    found: dict[str, list[Any]] = {}
    for one in records:
        found.setdefault(one["instance"], []).append(one)
    return found


def as_written(records: list[Incident] | list[Anomaly]) -> list[Any]:
    return [json.loads(encode(one)) for one in records]


ANY = {
    "ANOMALY_LEAST": ["0", "40"],
    "ANOMALY_THRESHOLD": ["0.4", "0.55", "0.6", "0.75"],
    "ANOMALY_DETECTOR": ["calibrated", "calibrated", "zscore", "tutorial"],
    "ANOMALY_INTERVAL": ["60", "300", "600"],
    "ANOMALY_INCIDENT_QUIET": ["600", "3600", "10800"],
    "ANOMALY_INCIDENT_COOLDOWN": ["0", "7200"],
    "ANOMALY_INCIDENT_DURATION": ["0", "600"],
    "ANOMALY_INCIDENT_UPDATES": ["0", "3"],
    "ANOMALY_INCIDENT_READINGS": ["6"],
    "ANOMALY_INCIDENT_ANOMALIES": ["1", "2"],
    "ANOMALY_SILENCE": ["0", "2", "30"],
    "ANOMALY_SILENCE_GONE": ["0", "1800"],
    "ANOMALY_GROUP_PATTERN": ["", "^(web|db)-"],
    "ANOMALY_MAINTENANCE": ["", "web-*: daily 01:00-03:00"],
    "ANOMALY_TIME_ZONE": ["", "Europe/Berlin"],
    "ANOMALY_SEED": ["1", "2"],
    "ANOMALY_MAX_INSTANCES": ["4", "100"],
}


def test_it_equals_the_run_that_follows(readings: Path, tmp_path: Path) -> None:
    """The incidents of 20 settings, record by record, are those that a flow then writes.

    Each is run beside the present settings, with which it shares what it can.
    """
    present = options.load({}, input=str(readings))
    usual = by_instance(written({}, tmp_path, input=str(readings))[0])
    rng = random.Random(3)
    different = set()
    parts: Counter[object] = Counter()
    for number in range(20):
        # In turn: what follows the scores, what follows what is read, and all.
        only = (stages.AFTER, stages.AFTER | stages.SCORING, Settings.model_fields)[number % 3]
        changed = {
            name: rng.choice(values)
            for name, values in ANY.items()
            if name.removeprefix("ANOMALY_").lower() in only and rng.random() < 0.5
        }
        if changed.get("ANOMALY_DETECTOR", "calibrated") != "calibrated":
            changed.pop("ANOMALY_LEAST", None)
        if changed.get("ANOMALY_INCIDENT_ANOMALIES") == "2":
            changed["ANOMALY_INCIDENT_READINGS"] = "6"
        (folder := tmp_path / str(number)).mkdir()
        tried = options.load(changed, input=str(readings))
        steps = stages.shared(present, tried)
        beside, found = (
            run.together([present, tried], None, steps) if steps else map(run.run, [present, tried])
        )
        expected, alerts = written(changed, folder, input=str(readings))
        assert by_instance(as_written(found.incidents)) == by_instance(expected), changed
        assert by_instance(as_written(found.alerts)) == by_instance(alerts), changed
        assert by_instance(as_written(beside.incidents)) == usual, changed
        different.add(json.dumps(expected))
        parts["score" if "score" in steps else steps and "normalize"] += 1
    assert len(different) > 8, "settings that change nothing prove nothing"
    assert len(parts) == 3
    assert min(parts.values()) > 2, parts


RULES = """
[web]
instances = "web-*"
threshold = 0.7
direction = "high"
"""


def as_environment(given: dict[str, str], folder: Path) -> dict[str, str]:
    """The variables of settings. Files have whole paths: they are looked at after the test too."""
    files = (".toml", ".jsonl")
    return {
        f"ANOMALY_{name}": str(folder / value) if value.endswith(files) else value
        for name, value in given.items()
    }


SEVERAL = {"METRICS": "cpu,load", "METRIC_FIELD": "metric", "SCALE": "none"}


@pytest.mark.parametrize(
    ("present", "changed"),
    [
        ({**SEVERAL, "TOGETHER": "true"}, {"THRESHOLD": "0.6"}),
        ({"REORDER": "true"}, {"SILENCE": "9"}),
        ({"RULES": "rules.toml"}, {"RULES": "", "INCIDENT_QUIET": "600"}),
        ({"GROUP_PATTERN": "^(web|db)-", "FIRST_DAY": "true"}, {"SILENCE_GONE": "0"}),
    ],
)
def test_other_flows_share_their_steps_too(
    readings: Path, tmp_path: Path, present: dict[str, str], changed: dict[str, str]
) -> None:
    (tmp_path / "rules.toml").write_text(RULES)
    made = [{**one, "metric": metric} for one in troubled() for metric in ("cpu", "load")]
    path = tmp_path / "several.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in made))
    source = str(path if "METRICS" in present else readings)
    sides = [as_environment(one, tmp_path) for one in (present, present | changed)]
    both = [options.load(side, input=source) for side in sides]
    steps = stages.shared(*both)
    assert "normalize" in steps
    for number, found in enumerate(run.together(both, None, steps)):
        (folder := tmp_path / str(number)).mkdir()
        expected, alerts = written(sides[number], folder, input=source)
        assert by_instance(as_written(found.incidents)) == by_instance(expected)
        assert by_instance(as_written(found.alerts)) == by_instance(alerts)
        assert expected


LOWER = """
[all]
threshold = 0.3
"""

LOW = """
[all]
threshold = 0.3
least = 30

[db]
instances = "db-*"
threshold = 0.8
direction = "low"
"""


@pytest.mark.parametrize(
    ("present", "changed"),
    [
        ({}, {"THRESHOLD": "0.6"}),
        ({"INDEX_FIELD": "none"}, {"THRESHOLD": "0.3", "INCIDENT_QUIET": "600"}),
        ({"INCIDENT_QUIET": "10800"}, {"THRESHOLD": "0.55", "INCIDENT_QUIET": "600"}),
        ({"LEAST": "70", "TIME_ZONE": "Europe/Berlin"}, {"LEAST": "0", "SILENCE": "9"}),
        ({"RULES": "rules.toml"}, {"RULES": "low.toml", "INCIDENT_QUIET": "7200"}),
        ({"RULES": "low.toml", "VERDICTS": "verdicts.jsonl"}, {"RULES": "rules.toml"}),
        ({"VERDICTS": "verdicts.jsonl"}, {"VERDICTS": "", "THRESHOLD": "0.4"}),
        ({"THRESHOLD": "0.7"}, {"VERDICTS": "verdicts.jsonl", "THRESHOLD": "0.4"}),
        ({**SEVERAL, "TOGETHER": "true"}, {"RULES": "rules.toml", "THRESHOLD": "0.4"}),
    ],
)
def test_one_flow_scores_for_both_where_scores_are_the_same(
    readings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    present: dict[str, str],
    changed: dict[str, str],
) -> None:
    (tmp_path / "rules.toml").write_text(RULES if "METRICS" not in present else LOWER)
    (tmp_path / "low.toml").write_text(LOW)
    path = tmp_path / "readings.jsonl"
    metrics = ("cpu", "load") if "METRICS" in present else ("cpu",)
    made = [{**one, "metric": metric} for one in troubled() for metric in metrics]
    path.write_text("".join(json.dumps(one) + "\n" for one in made))
    _, alerts = written({}, tmp_path, input=str(readings))
    said = next(msgspec.convert(one, Anomaly) for one in alerts if one["instance"] == "web-1")
    fine = Feedback(id=said.id, verdict="fine", pattern=pattern_of([said]))
    (tmp_path / "verdicts.jsonl").write_bytes(encode(fine) + b"\n")
    sides = [as_environment(one, tmp_path) for one in (present, present | changed)]
    both = [options.load(side, input=str(path)) for side in sides]
    assert stages.same_scores(*both)
    handed: list[score.ScoredQueue] = []

    class Counted(score.ScoredQueue):
        def __init__(self) -> None:
            super().__init__()
            handed.append(self)

    monkeypatch.setattr(score, "ScoredQueue", Counted)
    found = run.together(both, None, stages.shared(*both))
    assert [len(one.batches) for one in handed] == [0], "no batch is left, and there is one queue"
    for number, one in enumerate(found):
        (folder := tmp_path / str(number)).mkdir()
        expected, alerts = written(sides[number], folder, input=str(path))
        assert by_instance(as_written(one.incidents)) == by_instance(expected)
        assert by_instance(as_written(one.alerts)) == by_instance(alerts)
        assert one.anomalies == len(read_json_lines(folder / "found.jsonl"))
        assert expected
    assert len({one.anomalies for one in found}) == 2, "settings that change nothing prove nothing"


def test_a_topic_is_read_to_where_it_ended(
    brokers: str, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both runs read the same records, whatever is written meanwhile, and create no topic."""
    monkeypatch.setenv("ANOMALY_BROKERS", brokers)
    monkeypatch.setenv("ANOMALY_TOPIC", topic)
    monkeypatch.setenv("ANOMALY_FOLLOW", "false")
    made = list(troubled())
    fill_topic(brokers, topic, [(one["instance"], json.dumps(one).encode()) for one in made])
    present = options.load({})
    before = set(kafka.metadata(present).topics)
    changed = {"ANOMALY_THRESHOLD": "0.6", "ANOMALY_GROUP_PATTERN": "^(web|db)-"}
    expected, alerts = written(changed, tmp_path)
    there = run.held(present)
    producer = kafka.producer(present)
    more = {"instance": "lone", "index": READINGS, "value": 99.9, "timestamp": START + 200_000}
    for _ in range(3):
        producer.produce(topic, json.dumps(more).encode(), "lone")
    assert producer.flush(10) == 0
    found = run.run(options.load(changed), there)
    assert found.readings + found.rejected == len(made)
    order = lambda one: (one["id"], one["sequence"])  # noqa: E731
    assert sorted(as_written(found.incidents), key=order) == sorted(expected, key=order)
    assert {one["id"] for one in alerts} == {one.id for one in found.alerts}
    assert set(kafka.metadata(present).topics) - before <= {f"{topic}.rejected"}


def test_no_clock_decides() -> None:
    """A run that takes long finds no silence that a fast one does not."""
    own = options.load({})
    detector = score.detector(own)
    reading = Reading("a", float(START), 0, 0.5, float(START), 0, 0)
    _, verdict = detector.update(None, 0.5, float(START))
    due = []
    for clock_decides in (True, False):
        logic = incidents.monitors(own, detector, None, clock_decides=clock_decides)(None)
        logic.on_batch([[(reading, verdict, None)]])
        due.append(logic.notify_at())
    assert due[0] is not None
    assert due[1] is None


# The command


@pytest.fixture
def previewed(run_command: Command, readings: Path, tmp_path: Path) -> dict[str, Any]:
    """What the command says, as JSON, and its exit status, with --check."""
    done = run_command(
        *("preview", str(readings), "--json", "--check", "--set", "ANOMALY_THRESHOLD=0.75"),
        group_pattern="^(web|db)-",
        output="found.jsonl",
    )
    assert done.stderr.count("is rejected (not-a-number)") == 1, "each warning is printed once"
    assert not list(tmp_path.glob("*.jsonl"))
    return {"status": done.returncode, **json.loads(done.stdout)}


def test_the_command_compares_two_runs_that_follow(
    previewed: dict[str, Any], readings: Path, tmp_path: Path
) -> None:
    groups = {"ANOMALY_GROUP_PATTERN": "^(web|db)-"}
    sides = []
    for name, changed in (("old", {}), ("new", {"ANOMALY_THRESHOLD": "0.75"})):
        (folder := tmp_path / name).mkdir()
        sides.append(written({**groups, **changed}, folder, input=str(readings)))
    last = [{one["id"]: one for one in incidents} for incidents, _ in sides]
    lost = {one["id"] for one in previewed["lost"]}
    gained = {one["id"] for one in previewed["gained"]}
    changed = {(one["before"]["id"], one["after"]["id"]) for one in previewed["changed"]}
    assert lost | {one for one, _ in changed} <= last[0].keys()
    assert gained | {one for _, one in changed} <= last[1].keys()
    # What is in neither is the same in both.
    same = last[0].keys() - lost - {one for one, _ in changed}
    assert same == last[1].keys() - gained - {one for _, one in changed}
    for one in same:
        for field in ("since", "opened_at", "resolved_at", "ended", "folded"):
            assert last[0][one][field] == last[1][one][field]
    for one in [*previewed["lost"], *(pair["before"] for pair in previewed["changed"])]:
        assert one == last[0][one["id"]]
    assert lost
    assert changed
    assert previewed["status"] == 1
    assert previewed["settings"] == {"ANOMALY_THRESHOLD": ["none", "0.75"]}
    for side, (_, alerts), records in zip(("before", "after"), sides, last, strict=True):
        assert previewed[side]["alerts"] == len(alerts)
        counted = [one for one in records.values() if not one["folded"]]
        assert previewed[side]["incidents"] == len(counted)
        days = (READINGS - 1) * 300 / 86_400
        assert previewed[side]["incidents_per_day"] == pytest.approx(len(counted) / days)


def test_it_prints_a_line_for_each_incident(
    readings: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = printed(["--set", "ANOMALY_THRESHOLD=0.75", "--alerts"], readings, capsys, monkeypatch)
    signs = [line[0] for line in lines if line[:2] in ("+ ", "- ", "~ ")]
    counted = next(line for line in lines if "incidents gained" in line)
    alerts = sum(1 for line in lines if line.startswith("- ") and "  alert, score" in line)
    assert alerts
    assert f", {signs.count('-') - alerts} lost, {signs.count('~')} changed" in counted
    assert "ANOMALY_THRESHOLD=0.75 (before: none)" in lines
    later = printed(
        ["--set", "ANOMALY_THRESHOLD=0.75", "--since", "12h"], readings, capsys, monkeypatch
    )
    times = [line[2:21] for line in later if line[:2] in ("+ ", "- ", "~ ")]
    first = datetime.fromtimestamp(START + 300 * (READINGS - 1) - 12 * 3600, UTC)
    assert all(time >= f"{first:%Y-%m-%d %H:%M:%S}" for time in times)
    assert 0 < len(times) < len(signs) - alerts


def test_it_compares_with_a_file_of_settings(
    readings: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("old.env").write_text("ANOMALY_DETECTOR=zscore\n")
    Path("new.env").write_text("ANOMALY_SEED=1\n")
    given = ["--against", "old.env", "--env-file", "new.env", "--set", "ANOMALY_SEED=7"]
    lines = printed(given, readings, capsys, monkeypatch)
    tried = "ANOMALY_DETECTOR=calibrated (before: zscore), ANOMALY_SEED=7 (before: 42)"
    assert tried in lines


def printed(
    arguments: list[str],
    readings: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> list[str]:
    """What the command prints, with both runs in this process."""
    monkeypatch.setattr(run, "in_processes", lambda both, there: [run.run(one) for one in both])
    monkeypatch.setattr("sys.argv", ["ec2-anomaly", "preview", str(readings), *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0, capsys.readouterr().err
    return capsys.readouterr().out.splitlines()


WRONG = [
    ([], "error: there is nothing to try: "),
    (["--set", "threshold=0.6"], "error: --set 'threshold=0.6' is not a setting and its value: "),
    (["--set", "ANOMALY_THRESHOLD=2"], "error: ANOMALY_THRESHOLD must be less than or equal to 1"),
    (["--set", "ANOMALY_TRESHOLD=1"], "error: ANOMALY_TRESHOLD is not a setting: did you mean"),
    (["--set", "ANOMALY_TOPIC=other"], "error: ANOMALY_TOPIC differs, and both runs must read"),
    (["--env-file", "missing.env"], "error: cannot read missing.env (No such file"),
    (["--set", "ANOMALY_SEED=1", "--since", "long"], "error: --since: "),
    (["--set", "ANOMALY_SEED=1", "--from", "noon"], "error: --from 'noon' is not a time: "),
    (["--set", "ANOMALY_SEED=1", "--from", "2024", "--since", "1d"], "error: --since and --from"),
    (["empty.jsonl", "--set", "ANOMALY_SEED=1"], "error: empty.jsonl holds no reading that can"),
    (["missing.csv", "--set", "ANOMALY_SEED=1"], "error: "),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
@pytest.mark.parametrize("check", [True, False])
def test_an_error_is_a_sentence_and_a_status(
    arguments: list[str],
    message: str,
    check: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("empty.jsonl").write_text('{"host": "a"}\n')
    monkeypatch.setattr(run, "in_processes", lambda both, there: [run.run(one) for one in both])
    given = [*arguments, *(["--check"] if check else [])]
    monkeypatch.setattr("sys.argv", ["ec2-anomaly", "preview", *given])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    # A thread of an earlier test may still say something.
    said = [*capsys.readouterr().err.splitlines(), str(ended.value.code)]
    if check:
        assert ended.value.code == 2
    else:
        assert ended.value.code not in (0, 2, None)
    assert any(line.startswith(message) for line in said), said


BROKEN = """
from dataflow.detectors.zscore import ZScore
from dataflow.errors import stop_process


class Broken(ZScore):
    def update(self, state, value, time):
        stop_process("the disk is full.")
"""


def test_what_ends_a_run_is_printed_once(
    readings: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    broken = options.load({"ANOMALY_DETECTOR": "broken:Broken"}, input=str(readings))
    with pytest.raises(ChildProcessError):
        run.in_processes([broken])
    assert capsys.readouterr().err == "error: the disk is full.\n"

    def ended(*_: object) -> None:
        raise ChildProcessError

    monkeypatch.setattr(run, "in_processes", ended)
    for given, status in (([], 1), (["--check"], 2)):
        arguments = ["preview", str(readings), "--set", "ANOMALY_SEED=1", *given]
        monkeypatch.setattr("sys.argv", ["ec2-anomaly", *arguments])
        with pytest.raises(SystemExit) as exited:
            cli.main()
        assert exited.value.code == status
    assert capsys.readouterr().err == ""


def test_the_settings_of_two_files_are_compared(tmp_path: Path) -> None:
    (old := tmp_path / "old.env").write_text("ANOMALY_THRESHOLD=0.7\nPATH=/nowhere\n")
    (new := tmp_path / "new.env").write_text("anomaly_threshold=0.6\nANOMALY_SEED=7\n")
    before, after = (options.load(options.of_file(path)) for path in (old, new))
    assert options.differing(before, after) == {
        "ANOMALY_THRESHOLD": ["0.7", "0.6"],
        "ANOMALY_SEED": ["42", "7"],
    }


def test_the_environment_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("anomaly_seed", "5")
    assert options.load({"ANOMALY_SEED": "6"}).seed == 6
    assert options.load({}).seed == 5
    with pytest.raises(UserError):
        options.load({"ANOMALY_SEED": "much"})
    assert options.load({}).seed == 5


# Which incidents are the same

MADE = datetime(2024, 3, 1, tzinfo=UTC)


def incident(name: str, start: int, end: int | None, **fields: Any) -> Incident:
    """An incident from one minute to another."""
    at = [None if it is None else MADE + timedelta(minutes=it) for it in (start, end)]
    return replace(
        Incident(
            *("web-1", "anomaly", "opened" if end is None else "resolved", name, 0),
            *(at[0], at[0], at[1] or at[0], at[1], None if end is None else "recovered"),
            *(0.7, at[0], 0.9, 0.2, 1, Source("t", 0, 0)),
        ),
        **fields,
    )


def signs(before: list[Incident], after: list[Incident]) -> list[str]:
    return [
        f"{one.sign}{one.before.id if one.before else ''}{one.after.id if one.after else ''}"
        for one in changes(before, after)
    ]


def test_what_overlaps_is_the_same_incident() -> None:
    long = incident("a", 0, 100)
    assert signs([long], [long]) == []
    assert signs([long], [replace(long, score=0.9, sequence=1)]) == []
    assert signs([long], [incident("a", 0, 90)]) == ["~aa"]
    assert signs([long], [incident("b", 50, 90)]) == ["~ab"]
    assert signs([long], [incident("b", 110, 120)]) == ["-a", "+b"]
    assert signs([long], [incident("b", 10, 20), incident("c", 50, 60)]) == ["~ab", "+c"]
    assert signs([incident("a", 0, None)], [incident("b", 500, 510)]) == ["~ab"]
    assert signs([long], [incident("b", 0, 100, kind="silence")]) == ["-a", "+b"]
    assert signs([long], [incident("b", 0, 100, metric="load")]) == ["-a", "+b"]
    assert signs([long], [incident("b", 0, 100, instance="web-2")]) == ["-a", "+b"]


def test_without_times_the_id_says_which_is_the_same() -> None:
    nothing: Any = dict.fromkeys(("since", "opened_at", "updated_at", "resolved_at", "peak_at"))
    one, other = (incident(name, 0, 9, **nothing) for name in "ab")
    assert signs([one], [one]) == []
    assert sorted(signs([one], [other])) == ["+b", "-a"]


def test_the_last_record_of_an_incident_counts() -> None:
    opened, resolved = incident("a", 0, None), replace(incident("a", 0, 9), sequence=1)
    assert last_records([resolved, opened]) == [resolved]


def test_incidents_count_in_the_window_in_which_they_opened() -> None:
    before = run.Ran([incident("a", 0, 30), incident("b", 100, 130)], [], readings=1)
    after = run.Ran([incident("c", 200, 230)], [], readings=1)
    before.first = after.first = MADE.timestamp()
    before.last = after.last = MADE.timestamp() + 300 * 60
    window = window_of((before, after), 3600 * 4, None, None)
    assert window == Window(MADE.timestamp() + 3600)
    found = report((before, after), window, {})
    assert [one.id for one in found.lost] == ["b"]
    assert [one.id for one in found.gained] == ["c"]
    assert (found.before.incidents, found.after.incidents) == (1, 1)
    assert found.before.incidents_per_day == pytest.approx(6)


def test_a_reading_from_the_future_does_not_move_the_window() -> None:
    ahead = run.Ran([], [], first=0.0, last=9e9)
    start = window_of((ahead, ahead), 60.0, None, None).start
    assert start is not None
    assert start < datetime.now(UTC).timestamp()


# What both runs share


def test_settings_that_may_change_what_is_read_share_nothing() -> None:
    present = Settings(_env_file=None)

    def with_(**changed: Any) -> Any:
        return stages.shared(present, Settings(_env_file=None, **changed))

    assert "score" in with_(incident_duration=600)
    assert "normalize" in with_(threshold=0.6)
    assert "score" not in with_(threshold=0.6)
    assert "normalize" in with_(interval=60)
    # Who counts as gone is looked for more rarely.
    assert not with_(interval=10_000)
    assert not with_(max_instances=60)
    # Set to the default, it says that the value has this name.
    assert not with_(value_field="value")
    # Two flows may see a change of such a file at different readings.
    ruled = [Settings(_env_file=None, rules="rules.toml", silence=it) for it in (3, 6)]
    assert "normalize" in stages.shared(*ruled)
    assert "score" not in stages.shared(*ruled)


def test_each_setting_belongs_to_one_stage() -> None:
    assert Settings.model_fields.keys() >= stages.AFTER | stages.SCORING
    assert not stages.AFTER & stages.SCORING


SLOW = """
import os
import time
from pathlib import Path

from dataflow.detectors.zscore import ZScore


class Slow(ZScore):
    def update(self, state, value, time_):
        Path(f"{os.getpid()}.pid").touch()
        time.sleep(600)
"""


@pytest.mark.parametrize(
    ("stop", "changed", "processes"),
    [(signal.SIGINT, "ANOMALY_SEED=1", 1), (signal.SIGTERM, "ANOMALY_MAX_INSTANCES=60", 2)],
)
def test_a_signal_leaves_no_process(
    readings: Path, tmp_path: Path, stop: signal.Signals, changed: str, processes: int
) -> None:
    """Ctrl-C reaches all processes of the command, SIGTERM only the first."""
    (tmp_path / "slow.py").write_text(SLOW)
    command = [sys.executable, "-m", "dataflow", "preview", str(readings), "--set", changed]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment(detector="slow:Slow"),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as preview:
        wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == processes)
        (os.killpg if stop == signal.SIGINT else os.kill)(preview.pid, stop)
        said = preview.communicate(timeout=120)[1]
    assert preview.returncode != 0
    assert "Traceback" not in said
    wait_for(lambda: not any(is_alive(int(it.stem)) for it in tmp_path.glob("*.pid")))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
