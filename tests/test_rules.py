"""Rules by pattern: what the file may say, what applies to whom, and that it may change."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from fnmatch import translate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from conftest import REPOSITORY, Flow, fill_topic, free_port, read_json_lines
from hypothesis import given
from hypothesis import strategies as st

from dataflow.demo.broker import EmbeddedBroker
from dataflow.errors import UserError
from dataflow.incidents import maintenance
from dataflow.incidents.maintenance import after
from dataflow.incidents.monitor import InstanceMonitor
from dataflow.incidents.progress import Progress
from dataflow.incidents.rules import Rules as Limit
from dataflow.notify.alertmanager import Alertmanager
from dataflow.notify.decode import decode
from dataflow.notify.pagerduty import PagerDuty
from dataflow.records import Incident, Raw, Reading, encode
from dataflow.recovery.files import initialize
from dataflow.recovery.places import version_of
from dataflow.rules.document import DECIDE, Document, Limits, Rule, parse
from dataflow.rules.watch import LARGEST, Watch, read
from dataflow.settings import Settings

SAMPLE = REPOSITORY / "data" / "ec2_metrics.csv"

NAMES = st.text("ab-", max_size=3)
PATTERNS = st.text("ab-*?", max_size=3)
SEVERAL = st.one_of(PATTERNS, st.lists(PATTERNS, max_size=2).map(tuple))
RULES = st.builds(
    Rule,
    instances=SEVERAL,
    metrics=st.one_of(st.just("*"), SEVERAL),
    groups=st.one_of(st.none(), SEVERAL),
    labels=st.dictionaries(st.sampled_from("xy"), SEVERAL, max_size=2),
    threshold=st.one_of(st.none(), st.sampled_from((0.3, 0.6))),
    direction=st.sampled_from((None, "high", "low")),
    least=st.one_of(st.none(), st.just(0.0), st.just(5.0)),
    team=st.sampled_from((None, "shop", "data")),
    maintenance=st.sampled_from(((), "daily 02:00-03:00", ("Sun 01:00-04:00",))),
)


def fits(patterns: str | tuple[str, ...] | None, name: str | None) -> bool:
    """Whether a name has one of the patterns, by regular expressions."""
    if patterns is None or name is None:
        return patterns is None
    several = [patterns] if isinstance(patterns, str) else patterns
    return any(re.match(translate(one), name) for one in several)


@given(
    st.lists(RULES, max_size=4),
    NAMES,
    NAMES,
    st.one_of(st.none(), NAMES),
    st.dictionaries(st.sampled_from("xy"), NAMES),
)
def test_each_field_is_that_of_the_first_rule_that_matches_and_names_it(
    rules: list[Rule], instance: str, metric: str, group: str | None, labels: dict[str, str]
) -> None:
    applied = Document(dict(zip("abcd", rules, strict=False))).of(instance, metric, group, labels)
    matching = [
        rule
        for rule in rules
        if fits(rule.instances, instance)
        and fits(rule.metrics, metric)
        and fits(rule.groups, group)
        and all(fits(pattern, labels.get(name)) for name, pattern in rule.labels.items())
    ]
    for field in DECIDE:
        if field == "maintenance":
            assert len(applied.windows) == sum(bool(rule.maintenance) for rule in matching)
            continue
        said = [getattr(rule, field) for rule in matching if getattr(rule, field) is not None]
        assert getattr(applied, field) == (said[0] if said else None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("threshold = 0.5", "'threshold' stands outside of a rule"),
        ("[web\n", "not TOML .*line 1"),
        ("[web]\nthreshold = 1", "'web': threshold must be a number above 0 and below 1"),
        ("[web]\nthreshold = nan", "threshold must be a number"),
        ("[web]\nthreshold = true", "threshold must be a number"),
        ("[web]\nleast = inf", "least must be a number from 0 on"),
        ("[web]\ndirection = 'up'", 'direction must be "high" or "low"'),
        ("[web]\ninstances = 7", "instances must be a pattern or a list"),
        ("[web]\nmetrics = ['cpu', 7]", "metrics must be a pattern or a list"),
        ("[web.labels]\nservice = 7", "labels must be a table of labels"),
        ("[web]\nthreshhold = 0.5", "threshhold is no part of a rule: did you mean threshold"),
        ("[web]\nxyzzy = 1", "xyzzy is no part of a rule: there are instances, metrics"),
        ("[web]\ntime_zone = 'Europe/Berlin'", "set ANOMALY_TIME_ZONE, which takes patterns"),
        ("[web]\nholidays = 'DE'", "set ANOMALY_HOLIDAYS, which takes patterns"),
        ("[web]\nmaintenance = 'always'", "'web': the maintenance window .*always' cannot be read"),
        ("[web]\nseverity = 'bad'", 'severity must be "critical", "error"'),
        ("[web]\nrunbook = 'wiki'", "runbook must be an address"),
        ("[web]\nteam = ''", "team must be a name"),
    ],
)
def test_what_is_wrong_is_a_sentence(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(text.encode())


def test_what_the_settings_do_not_allow() -> None:
    limits = Limits(levels="it has one", expected="it expects none", times="it has no times")
    for text in ("threshold = 0.5", "direction = 'high'", "maintenance = 'daily 1:00-2:00'"):
        with pytest.raises(ValueError, match=f"it names {text.partition(' ')[0]}, but it"):
            parse(f"[web]\n{text}".encode(), limits=limits)
    parse(b"[web]\nteam = 'shop'", limits=limits)


def test_windows_are_in_the_time_zone_of_the_instance() -> None:
    from dataflow.calendars import zones

    document = parse(
        b"[all]\nmaintenance = ['daily 02:00-03:00', '2024-03-01T10:00/2024-03-01T12:00']",
        zones.parse("eu-*: Europe/Berlin"),
    )
    noon = 1_709_251_200.0  # 2024-03-01T00:00Z
    for instance, hour in (("eu-1", 1), ("us-1", 2)):
        windows = document.of(instance, "cpu").windows
        assert after(windows, noon + 3600 * hour) == noon + 3600 * (hour + 1)
        assert after(windows, noon + 3600 * 10.5) == noon + 3600 * 12


def test_a_silence_opens_at_the_end_of_a_window() -> None:
    """Of a rule as of the setting."""
    plan = maintenance.parse("web-*: 1970-01-01T00:10/1970-01-01T03:00")
    found = []
    for rules in (Limit(plan=plan), Limit(windows=lambda reading: plan.windows(reading.instance))):
        monitor = InstanceMonitor(rules, Progress(), "web-1")
        for number, at in enumerate((0.0, 300.0, 20_000.0)):
            found += monitor.add(Reading("web-1", at, number, 0.5, at, 0, number), None)
    assert found[:2] == found[2:]
    assert [one.state for one in found[:2]] == ["opened", "resolved"]
    assert found[0].opened_at == datetime(1970, 1, 1, 3, tzinfo=UTC)


class Looks:
    """What a watch says at each look at a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.said: list[bytes | str] = []
        self.watch = Watch(path, self.said.append, read(path))

    def __call__(self, times: int = 1) -> list[bytes | str]:
        for _ in range(times):
            self.watch.look()
        said = self.said[:]
        self.said.clear()
        return said


def test_a_file_counts_once_it_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_bytes(b"[a]\n")
    look = Looks(path)
    assert look(3) == []
    for half in (b"", b"[b]\nthreshold", b"[b]\nthreshold = 0."):  # as it is being written
        path.write_bytes(half)
        assert look() == []
    path.write_bytes(b"[b]\nthreshold = 0.5\n")
    assert look(5) == [b"[b]\nthreshold = 0.5\n"]
    # Of the same size, and of the same time.
    status = path.stat()
    path.write_bytes(b"[b]\nthreshold = 0.6\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert look(3) == [b"[b]\nthreshold = 0.6\n"]
    path.unlink()
    assert look(3) == ["it cannot be read (No such file or directory)"]
    path.mkdir()
    assert look(3) == ["it is not a regular file"]
    path.rmdir()
    path.write_bytes(b"#" * (LARGEST + 1))
    assert look(3) == ["it is larger than 1 MiB"]
    path.write_bytes(b"")
    assert look(3) == [b""]


def test_a_file_of_a_config_map_changes_by_its_links(tmp_path: Path) -> None:
    for version in ("..1", "..2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "rules.toml").write_text(f"[v{version[-1]}]\n")
    (tmp_path / "..data").symlink_to("..1")
    path = tmp_path / "rules.toml"
    path.symlink_to("..data/rules.toml")
    look = Looks(path)
    assert look(2) == []
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").rename(tmp_path / "..data")
    assert look(3) == [b"[v2]\n"]


INSTANCES = ("0c94e1", "3fb07c", "b81d56")


def sample() -> list[dict[str, str]]:
    """The readings of some of the sample's instances."""
    with SAMPLE.open() as file:
        return [row for row in csv.DictReader(file) if row["instance"] in INSTANCES]


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """Runs the flow over the sample here; returns its anomalies and incidents."""
    from bytewax.testing import TestingSink, TestingSource, run_main

    from dataflow.flow import build
    from dataflow.steps import score

    monkeypatch.setattr(Watch, "start", lambda self: None)
    raw = [Raw(0, at, json.dumps(row).encode()) for at, row in enumerate(sample())]

    def run(**given: Any) -> list[dict[str, Any]]:
        options = Settings(_env_file=None, **given)
        found: list[Any] = []
        sinks = {"write_anomalies": TestingSink(found), "write_incidents": TestingSink(found)}
        if not options.incidents:
            del sinks["write_incidents"]
        source = TestingSource(raw, batch_size=300)
        run_main(build(options, score.detector(options), None, source=source, outputs=dict(sinks)))
        return [json.loads(encode(record)) for _, record in found]

    return run


def places(records: list[dict[str, Any]]) -> set[int]:
    return {one["source"]["offset"] for one in records}


def test_rules_do_what_the_settings_do(
    records: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    """As ANOMALY_LEAST and ANOMALY_MAINTENANCE for all, to the byte."""
    rules = tmp_path / "rules.toml"
    window = "2025-03-04T00:00/2025-03-09T00:00"
    by_setting = records(least=10, incidents=True, maintenance=f"*: {window}")
    rules.write_text(f"[all]\nleast = 10\nmaintenance = '{window}'\n")
    by_rule = records(rules=str(rules), incidents=True)
    version = version_of(rules.read_bytes())
    assert by_rule == [one | {"rules": version} for one in by_setting]
    assert {one.get("state") for one in by_rule} == {None, "opened", "updated", "resolved"}


def test_rules_choose_among_the_scores(
    records: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(
        "[higher]\ninstances = '0c94e1'\nthreshold = 0.7\n"
        "[up]\ninstances = '3*'\ndirection = 'high'\n"
        "[lower]\ninstances = 'b*'\nthreshold = 0.3\n"
        "[none]\nlabels = { never = '*' }\nthreshold = 0.1\n"
    )
    whole, chosen = records(), records(rules=str(rules))
    assert {(one["instance"], one["threshold"]) for one in chosen} == {
        *(("0c94e1", 0.7), ("3fb07c", 0.5), ("b81d56", 0.3))
    }

    def of(instance: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [one for one in found if one["instance"] == instance]

    higher = places([one for one in of("0c94e1", whole) if one["score"] > 0.7])
    assert places(of("0c94e1", chosen)) == higher
    up = places([one for one in of("3fb07c", whole) if one["value"] >= one["expected"]])
    assert places(of("3fb07c", chosen)) == up
    lower = of("b81d56", chosen)
    assert places(of("b81d56", whole)) == places([one for one in lower if one["score"] > 0.5])
    assert len(lower) > 5 * len(of("b81d56", whole)) > 0
    for one in chosen:
        assert one["score"] > one["threshold"]
        assert sum(reason["share"] for reason in one["reasons"]) == pytest.approx(1)
        # Nor has an alert a range where what is expected would be one too.
        assert one["ordinary"] is None or one["alert"]
        if one["ordinary"]:
            low, high = one["ordinary"]
            assert low <= one["expected"] <= high
            assert not low <= one["value"] <= high
    assert {one["threshold"] for one in chosen if one["ordinary"]} == {0.3, 0.5, 0.7}


def test_a_route_goes_with_the_incident(
    records: Callable[..., list[dict[str, Any]]], tmp_path: Path
) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(
        "[web]\ninstances = ['0*', 'b*']\nteam = 'shop'\nseverity = 'info'\n"
        "[all]\nrunbook = 'https://wiki.example/{instance}'\n"
    )
    found = records(rules=str(rules), incidents=True)
    routes = {
        (one["instance"], one.get("team"), one.get("severity"), one.get("runbook"))
        for one in found
        if "state" in one
    }
    wiki = "https://wiki.example/{instance}"
    assert routes == {
        ("0c94e1", "shop", "info", wiki),
        ("3fb07c", None, None, wiki),
        ("b81d56", "shop", "info", wiki),
    }
    incident = msgspec.convert(next(one for one in found if one.get("team")), Incident)
    alert = Alertmanager("http://127.0.0.1")
    alert.labels, alert.runbook = {"team": "ops", "env": "prod"}, "https://elsewhere.example"
    (body,) = msgspec.to_builtins(alert.body(incident, "", datetime.now(UTC)))
    labels = body["labels"]
    assert [labels[name] for name in ("team", "env", "severity")] == ["shop", "prod", "info"]
    assert body["annotations"]["runbook_url"] == f"https://wiki.example/{incident.instance}"
    pager = msgspec.json.decode(
        encode(PagerDuty(f"https://{'k' * 32}@x.example").body(incident, "", datetime.now(UTC)))
    )
    assert pager["payload"]["severity"] == "info"
    assert pager["payload"]["custom_details"]["labels"] == {"team": "shop"}
    assert decode(encode(incident)) == incident


def test_the_rules_at_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bad file, a store of before with rules or without, and rules that are set no longer."""
    from dataflow.steps import places as places_step
    from dataflow.steps import rules as step
    from dataflow.steps import score

    watches: list[Watch] = []
    monkeypatch.setattr(Watch, "start", lambda self: watches.append(self))
    path = tmp_path / "rules.toml"

    def store(*, resumed: bool) -> Any:
        def began(name: str, position: Callable[[], Any]) -> Any:
            return position()

        return SimpleNamespace(folder=tmp_path, process=0, resumed=resumed, began=began)

    def start(kept: Any, ends: Any = None, *, named: bool = True) -> Any:
        options = Settings(_env_file=None, rules=str(path) if named else "")
        log = places_step.places(options, kept, ends)
        return step.rules(options, score.detector(options), 0.5, log)

    good, bad = b"[web]\nthreshold = 0.3\n", b"[web]\nthreshold = 3\n"
    assert start(store(resumed=True), named=False) is None
    path.write_bytes(bad)
    with pytest.raises(UserError, match=r"'web': threshold must be .* rules check"):
        start(None)
    path.write_bytes(good)
    with pytest.raises(UserError, match="a part of the file was read"):
        start(store(resumed=True))
    started = start(store(resumed=False))
    started.places.reach(0, 0, 9)
    assert started.floor == 0.3

    path.write_bytes(bad)
    started = start(store(resumed=False))
    assert started.places.staged("rules") == version_of(good)
    assert "those of before" in capsys.readouterr().err
    for _ in range(3):
        watches[-1].look()
    assert capsys.readouterr().err == ""
    path.write_bytes(good)
    for _ in range(3):
        watches[-1].look()
    assert capsys.readouterr().err == ""

    started = start(store(resumed=False), named=False)
    started.places.reach(0, 5, 14)
    assert [started.places.at("rules", 0, offset) for offset in (9, 10)] == [version_of(good), ""]


def replayed(run_flow: Flow, folder: Path, store: Path, **settings: object) -> list[dict[str, Any]]:
    """What a flow writes that is not killed, and to which each version applies from its place."""
    again = folder / "again"
    initialize(again, 3)
    for path in store.glob("places-*"):
        shutil.copy(path, again / path.name)
    output = folder / "again.jsonl"
    done = run_flow("-r", str(again), "-s", "10", "-b", "0", output=output, **settings)
    assert done.returncode == 0, done.stderr
    return both(output)


def both(output: Path) -> list[dict[str, Any]]:
    """The anomalies and the incidents of a file output, in an order that does not vary."""
    records = read_json_lines(output) + read_json_lines(output.with_suffix(".incidents.jsonl"))
    return sorted(records, key=lambda one: json.dumps(one, sort_keys=True))


def end(flow: subprocess.Popen[str]) -> str:
    flow.kill()
    return flow.communicate()[1]


def until(true: Callable[[], object], flow: subprocess.Popen[str], look: float = 0.1) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert flow.poll() is None, flow.communicate()
        assert time.monotonic() < deadline
        time.sleep(look)


def test_kill_9_across_a_change_of_a_file(run_flow: Flow, tmp_path: Path, store: Path) -> None:
    rules, output = tmp_path / "rules.toml", tmp_path / "out.jsonl"
    settings: dict[str, Any] = {"input": SAMPLE, "rules": rules, "incidents": "true"}
    lives = ["[a]\nthreshold = 0.6\n", "[b]\nthreshold = 0.3\n"]
    for number, text in enumerate(lives):
        rules.write_text(text)
        flow = run_flow.start(
            *("-r", str(store), "-s", "3600", "-b", "0"), output=output, **settings
        )
        if number:
            _, said = flow.communicate(timeout=240)
            assert flow.returncode == 0, said
            assert said.count("apply to each reading") == said.count("warning") == 0
            break
        until(lambda: output.exists() and output.stat().st_size, flow, 0.01)
        end(flow)
    found = both(output)
    first, second = map(version_of, map(str.encode, lives))
    before = places([one for one in found if one["rules"] == first])
    after_it = places([one for one in found if one["rules"] == second])
    assert 0 < len(before) < len(after_it)
    assert max(before) < min(after_it)
    assert found == replayed(run_flow, tmp_path, store, **settings)


def served(port: int, name: str) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
    except OSError:
        return ""
    return "\n".join(line for line in text.splitlines() if line.startswith(name))


@pytest.mark.kafka
@pytest.mark.short("embedded")
def test_a_change_while_the_flow_runs(
    run_flow: Flow, brokers: str, topic: str, tmp_path: Path, store: Path
) -> None:
    """A change, a bad file, kill -9, and a change in the meantime: nothing is lost or twice."""
    records = [(row["instance"], json.dumps(row).encode()) for row in sample()]
    part = len(records) // 4
    rules, output, port = tmp_path / "rules.toml", tmp_path / "out.jsonl", free_port()
    common: dict[str, Any] = {
        **{"brokers": brokers, "topic": topic, "rules": rules, "incidents": "true"},
        "rejected_topic": f"{topic}.rejected",
    }
    fill_topic(brokers, f"{topic}.rejected", [], 1)

    def write(number: int) -> None:
        fill_topic(brokers, topic, records[number * part : (number + 1) * part])
        until(lambda: read_so_far() == (number + 1) * part, flow)

    def read_so_far() -> float:
        lines = served(port, "anomaly_records_read_total").splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def start() -> subprocess.Popen[str]:
        arguments = ("-r", str(store), "-s", "3600", "-b", "0")
        return run_flow.start(*arguments, output=output, metrics_port=port, **common)

    def version(text: str) -> str:
        rules.write_text(text)
        return f'anomaly_rules_info{{version="{version_of(text.encode())}"}}'

    texts = ["[a]\nthreshold = 0.6\n", "[b]\nthreshold = 0.3\n", "[c]\nleast = 5\n"]
    fill_topic(brokers, topic, [])
    version(texts[0])
    flow = start()
    write(0)
    live = version(texts[1])
    until(lambda: live in served(port, "anomaly_rules_info"), flow)
    write(1)
    rules.write_text("[b\n")
    until(lambda: served(port, "anomaly_rules_refused").endswith(" 1.0"), flow)
    assert live in served(port, "anomaly_rules_info")
    write(2)
    said = end(flow)
    assert f"apply to each reading from the next one on ({version_of(texts[1].encode())})" in said
    assert said.count("warning: the rules in") == 1
    version(texts[2])
    flow = start()
    until(lambda: read_so_far() == 3 * part, flow)
    write(3)
    flow.terminate()
    _, said = flow.communicate(timeout=120)
    assert flow.returncode == 0, said
    found = both(output)
    assert {one["rules"] for one in found} == {version_of(text.encode()) for text in texts}
    again = replayed(run_flow, tmp_path, store, follow="false", **common)
    # An instance alone in its partition falls silent by the clock.
    assert [one for one in found if one.get("kind") != "silence"] == [
        one for one in again if one.get("kind") != "silence"
    ]


@pytest.mark.slow
def test_a_cluster_whose_processes_have_other_rules(
    run_flow: Flow, embedded_broker: EmbeddedBroker, topic: str, tmp_path: Path, store: Path
) -> None:
    """Each applies its own to its partitions, wherever an instance is judged; then kill -9."""
    brokers, output = embedded_broker.address, tmp_path / "out.jsonl"
    with SAMPLE.open() as file:
        records = [(row["instance"], json.dumps(row).encode()) for row in csv.DictReader(file)]
    half = len(records) // 2
    fill_topic(brokers, topic, records[:half])
    fill_topic(brokers, f"{topic}.rejected", [], 1)
    common: dict[str, Any] = {
        **{"brokers": brokers, "topic": topic, "incidents": "true"},
        "rejected_topic": f"{topic}.rejected",
    }
    texts = ["[a]\nthreshold = 0.7\n", "[b]\nthreshold = 0.3\n", "[c]\nthreshold = 0.4\n"]
    files = [tmp_path / f"rules-{number}.toml" for number in range(2)]

    def start(*given: str, follow: str) -> list[subprocess.Popen[str]]:
        for path, text in zip(files, given, strict=True):
            path.write_text(text)
        addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in files)
        return [
            run_flow.start(
                *("-i", str(number), "-a", addresses, "-r", str(store), "-s", "3600", "-b", "0"),
                **common | {"output": output, "rules": path, "follow": follow},
            )
            for number, path in enumerate(files)
        ]

    flows = start(texts[0], texts[1], follow="true")
    # Both processes have written.
    first = {version_of(text.encode()).encode() for text in texts[:2]}
    until(lambda: output.exists() and all(it in output.read_bytes() for it in first), flows[0])
    for flow in flows:
        end(flow)
    fill_topic(brokers, topic, records[half:])
    for flow in start(texts[1], texts[2], follow="false"):
        _, said = flow.communicate(timeout=240)
        assert flow.returncode == 0, said
    found = [one for one in both(output) if one.get("kind") != "silence"]
    assert {one["rules"] for one in found} == {version_of(text.encode()) for text in texts}
    files[0].write_text(texts[0])
    again = replayed(run_flow, tmp_path, store, follow="false", rules=files[0], **common)
    assert found == [one for one in again if one.get("kind") != "silence"]


@pytest.mark.slow
def test_rules_that_are_set_for_a_store_of_before(
    run_flow: Flow, embedded_broker: EmbeddedBroker, topic: str, tmp_path: Path, store: Path
) -> None:
    """They begin after all that the flow without rules, which was killed, may have read."""
    brokers, output = embedded_broker.address, tmp_path / "out.jsonl"
    records = [(row["instance"], json.dumps(row).encode()) for row in sample()]
    half = len(records) // 2
    fill_topic(brokers, topic, records[:half], 1)
    fill_topic(brokers, f"{topic}.rejected", [], 1)
    common: dict[str, Any] = {
        **{"brokers": brokers, "topic": topic, "output": output},
        "rejected_topic": f"{topic}.rejected",
    }
    arguments = ("-r", str(store), "-s", "3600", "-b", "0")
    flow = run_flow.start(*arguments, **common)
    until(lambda: output.exists() and output.stat().st_size, flow)
    end(flow)
    (tmp_path / "rules.toml").write_text("[a]\nthreshold = 0.3\n")
    flow = run_flow.start(*arguments, rules=tmp_path / "rules.toml", follow="false", **common)
    assert flow.wait(240) == 0, flow.communicate()
    first = read_json_lines(output)
    assert {one["threshold"] for one in first} == {0.5}
    fill_topic(brokers, topic, records[half:])
    flow = run_flow.start(*arguments, rules=tmp_path / "rules.toml", follow="false", **common)
    assert flow.wait(240) == 0, flow.communicate()
    second = read_json_lines(output)[len(first) :]
    assert {one["threshold"] for one in second} == {0.3}
    assert min(places(second)) >= half
