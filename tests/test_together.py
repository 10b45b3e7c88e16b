"""The score of an instance from those of its metrics, and the flow with it."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bytewax.testing import TestingSink, TestingSource, run_main
from conftest import REPOSITORY, Flow, fill_topic, read_json_lines
from faults import kill, wait_for
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from pydantic import ValidationError

from dataflow.detectors.calibrated.detector import Calibrated
from dataflow.detectors.together import (
    FLOOR,
    HALF,
    LEARNED,
    MISSING,
    MOST,
    POWER,
    Combined,
    Memory,
    Together,
)
from dataflow.errors import UserError
from dataflow.flow import build
from dataflow.notify.summary import summary
from dataflow.records import ALL, Anomaly, Incident, Raw, Reading, encode, series_key
from dataflow.rules.watch import Watch
from dataflow.settings import Settings
from dataflow.sinks.identity import BY_SOURCE
from dataflow.steps import together
from dataflow.steps.score import detector, episode_rules, scorer

INTERVAL = 300.0
few = settings(max_examples=40)
WARM = 8

# Many scores are equal, 0 or extreme.
scores = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]) | st.floats(0, 1)


def reading(metric: str, time: float, offset: int = 0) -> Reading:
    return Reading("a", time, None, 0.5, time, 0, offset, metric=metric)


def combined(
    feed: Iterable[tuple[str, float, float]], memory: Memory | None = None
) -> list[Combined]:
    """What is said of readings, given by their metric, time and score, after few steps."""
    rule = Together(INTERVAL)
    rule._warm = WARM
    memory = Memory() if memory is None else memory
    out = []
    for offset, (metric, at, score) in enumerate(feed):
        out += rule.take(memory, reading(metric, at, offset), score)
    return out


def said(found: Iterable[Combined]) -> list[object]:
    """All but the place of the reading that came last."""
    return [(one.reading.time, one.reading.value, *one[1:]) for one in found]


def steps(
    rows: Sequence[Sequence[float | None]], jitter: random.Random | None = None
) -> list[list[tuple[str, float, float]]]:
    """For each interval the readings of its metrics; None is a missing one."""
    return [
        [
            (f"m{place}", INTERVAL * at + (jitter.uniform(0, INTERVAL / 4) if jitter else 0), score)
            for place, score in enumerate(row)
            if score is not None
        ]
        for at, row in enumerate(rows)
    ]


def table(some: st.SearchStrategy[float | None]) -> st.SearchStrategy[list[list[float | None]]]:
    def rows(width: int) -> st.SearchStrategy[list[list[float | None]]]:
        return st.lists(st.lists(some, min_size=width, max_size=width), min_size=2, max_size=40)

    return st.integers(1, 5).flatmap(rows)


@few
@given(table(scores))
def test_it_is_the_mean_surprise_over_its_own_habit(rows: list[list[float | None]]) -> None:
    found = combined(one for step in steps(rows) for one in step)
    # The first readings make the metrics known.
    assert [one.reading.time for one in found] == [INTERVAL * at for at in range(1, len(rows))]
    means: list[float] = []
    for one, row in zip(found, rows[1:], strict=True):
        assert one.reading.metric == ALL
        surprises = [MOST if it == 1 else min(it / (1 - it), MOST) for it in row if it is not None]
        mean = (sum(it**POWER for it in surprises) / len(surprises)) ** (1 / POWER)
        assert math.isclose(one.reading.value, mean, abs_tol=1e-12)
        if len(means) < WARM:
            assert one.score == 0
        else:
            habit = sum(means) / len(means)
            variance = sum((it - habit) ** 2 for it in means) / len(means)
            above = max((mean - habit) / math.sqrt(variance + FLOOR**2), 0)
            assert math.isclose(one.score, above / (above + HALF), abs_tol=1e-9)
            assert one.expected is not None
            assert math.isclose(one.expected, habit, abs_tol=1e-9)
            mean = min(mean, habit + LEARNED * math.sqrt(variance + FLOOR**2))
        if means or mean:
            means.append(mean)
        shares = [it.share for it in one.metrics]
        assert shares == sorted(shares, reverse=True)
        assert math.isclose(sum(shares), 1 if any(row) else 0, abs_tol=1e-9)
        assert {it.metric: it.score for it in one.metrics} == {
            f"m{place}": score for place, score in enumerate(row)
        }


@few
@given(table(scores | st.none()), st.randoms(use_true_random=False))
def test_the_order_within_an_interval_does_not_matter(
    rows: list[list[float | None]], generator: random.Random
) -> None:
    whole = steps(rows, generator)
    plain = said(combined(one for step in whole for one in step))
    for step in whole:
        generator.shuffle(step)
    assert said(combined(one for step in whole for one in step)) == plain


@few
@given(table(scores | st.none()), st.data())
def test_it_goes_on_from_its_bytes(rows: list[list[float | None]], data: st.DataObject) -> None:
    feed = [one for step in steps(rows) for one in step]
    cut = data.draw(st.integers(0, len(feed)))
    memory = Memory()
    before = combined(feed[:cut], memory)
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(memory), type=Memory)
    assert said(before + combined(feed[cut:], again)) == said(combined(feed))


times = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 3000).map(float), scores), max_size=60
)


@few
@given(times)
def test_no_feed_breaks_it(feed: list[tuple[str, float, float]]) -> None:
    memory = Memory()
    found = combined(feed, memory)
    places = [one.reading.offset for one in found]
    assert places == sorted(set(places)), "a reading belongs to one step"
    assert all(0 <= one.score <= 1 and 0 <= one.reading.value <= MOST for one in found)
    awaited = [
        it
        for it in memory.metrics.values()
        if it.since < memory.step and it.step < memory.step and memory.step - it.step <= MISSING
    ]
    assert not memory.open or memory.waiting == len(awaited)


def test_a_metric_that_is_missing_counts_for_a_while_and_again_when_it_is_back() -> None:
    gone = range(50, 80)
    rows = [[0.2, 0.2, None if at in gone else 0.6] for at in range(100)]
    found = combined(one for step in steps(rows) for one in step)
    assert [one.reading.time for one in found] == [INTERVAL * at for at in range(1, 100)]
    with_it = {
        at for at, one in enumerate(found, 1) if "m2" in [metric.metric for metric in one.metrics]
    }
    # It is first known again, and counts from the next step on.
    assert with_it == set(range(1, 50 + MISSING)) | set(range(81, 100))


def test_a_late_reading_counts_in_the_next_step_and_an_old_one_in_none() -> None:
    feed = [one for step in steps([[0.2, 0.2]] * 3) for one in step]
    late = ("m1", 2 * INTERVAL, 0.8)
    feed[-1] = ("m0", 3 * INTERVAL, 0.2)  # the third interval has no m1 yet
    found = combined([*feed, late, ("m1", INTERVAL, 0.9), ("m0", 4 * INTERVAL, 0.2)])
    by_time = {one.reading.time: {it.metric: it.score for it in one.metrics} for one in found}
    assert by_time[2 * INTERVAL] == {"m0": 0.2, "m1": 0.2}
    assert by_time[3 * INTERVAL] == {"m0": 0.2, "m1": 0.8}


def test_a_clock_that_was_set_back_stops_it_for_a_step_only() -> None:
    rows = [[0.2, 0.2]] * 20
    ahead = [(metric, time + 1e6, score) for step in steps(rows) for metric, time, score in step]
    back = [one for step in steps(rows) for one in step]
    found = combined([*ahead, *back])
    assert [one.reading.time for one in found][-17:] == [INTERVAL * at for at in range(3, 20)]


def test_a_metric_that_is_forgotten_is_not_awaited() -> None:
    rule, memory = Together(INTERVAL), Memory()
    for at in range(3):
        for metric in ("m0", "m1"):
            rule.take(memory, reading(metric, INTERVAL * at), 0.2)
    rule.forget(memory, "m1")
    (one,) = rule.take(memory, reading("m0", 3 * INTERVAL), 0.2)
    assert [it.metric for it in one.metrics] == ["m0"]


def test_scores_of_a_detector_with_another_threshold_give_the_same() -> None:
    def mean(threshold: float, score: float) -> float:
        rule, memory = Together(INTERVAL, threshold), Memory()
        for at in range(2):
            found = rule.take(memory, reading("m0", INTERVAL * at), score)
        return found[0].reading.value

    assert mean(0.5, 0.5) == mean(0.8, 0.8) == 1


def test_the_benchmark_counts_the_alerts_of_a_folder(tmp_path: Path) -> None:
    """Of two metrics that jump together in a labeled window, once, with a detector that learns."""
    begin = datetime(2024, 1, 1)
    rows = ["timestamp,load,mem"]
    for at in range(700):
        jump = 40 if at in range(600, 620) else 0
        rows.append(f"{begin + at * timedelta(minutes=5)},{at % 7 + jump},{at % 5 + jump}")
    (tmp_path / "web-1.csv").write_text("\n".join(rows))
    labels = {"web-1": [[str(begin + at * timedelta(minutes=5)) for at in (600, 620)]]}
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    script = REPOSITORY / "benchmarks" / "together.py"
    command = [sys.executable, script, tmp_path, "--unlabeled", "1", "--detector", "zscore"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "| all, together | 1.000 | 1.00 | 1.00 | 0.000 | 0.0 |"


# The flow


NAMES = ["m0", "m1", "m2", "m3"]
STEPS = 580
TROUBLE = range(500, 525)


def records(hosts: int, troubled: int = 1) -> list[tuple[str, bytes]]:
    """Readings of hosts, with their keys: of the first ones, three metrics rise together."""
    out = []
    generator = random.Random(7)
    for at in range(STEPS):
        for host in range(hosts):
            for place, metric in enumerate(NAMES):
                value = 50 + 10 * math.sin(at / 46 + place) + generator.gauss(0, 2)
                if host < troubled and place and at in TROUBLE:
                    value += 60
                record = {
                    **{"instance": f"web-{host}", "timestamp": INTERVAL * at, "metric": metric},
                    "value": round(value, 3),
                }
                out.append((f"web-{host}", json.dumps(record).encode()))
    return out


SETTINGS: dict[str, Any] = {
    **{"format": "json", "metric_field": "metric", "metrics": "m*", "index_field": "none"},
    **{"together": "true", "incidents": "true", "silence": 0},
}


def flow(
    values: Iterable[bytes], batch: int = 25, **settings: Any
) -> tuple[list[Anomaly], list[Incident]]:
    """What the flow makes of records of one partition."""
    options = Settings(_env_file=None, **SETTINGS | settings)
    anomalies: list[Any] = []
    incidents: list[Any] = []
    outputs = {
        "write_here": TestingSink(anomalies),
        "write_incidents_here": TestingSink(incidents),
    }
    raws = [Raw(0, offset, value) for offset, value in enumerate(values)]
    source = TestingSource(raws, batch_size=batch)
    run_main(build(options, detector(options), None, source=source, outputs=outputs))
    return [one for _, one in anomalies], [one for _, one in incidents]


def test_one_incident_of_the_instance_says_which_metrics() -> None:
    values = [value for _, value in records(2)]
    anomalies, incidents = flow(values)
    opened, *rest = incidents
    assert (opened.instance, opened.metric, opened.state) == ("web-0", ALL, "opened")
    assert opened.why.startswith("3 of 4 metrics off their habit: ")
    assert opened.metrics is not None
    assert {one.metric for one in opened.metrics[:3]} == {"m1", "m2", "m3"}
    assert [one.metric for one in opened.metrics] == [
        *opened.why.rpartition(": ")[2].split(", "),
        "m0",
    ]
    assert opened.since is not None
    assert INTERVAL * TROUBLE[0] <= opened.since.timestamp() <= INTERVAL * TROUBLE[2]
    assert [one.state for one in rest] == ["resolved"]
    assert {one.id for one in incidents} == {
        one.episode for one in anomalies if one.metric == ALL and one.alert
    }
    # The metrics' own anomalies are written, and none is an alert.
    assert {one.metric for one in anomalies} >= {ALL, "m1", "m2", "m3"}
    assert {one.metric for one in anomalies if one.alert} == {ALL}
    assert all(one.together for one in anomalies)
    assert len({one.id for one in anomalies}) == len(anomalies)
    assert len({BY_SOURCE.of(one) for one in anomalies}) == len(anomalies)


def test_incidents_of_instances_that_come_together_are_one_of_their_group() -> None:
    values = [value for _, value in records(3, troubled=3)]
    anomalies, incidents = flow(values, group_pattern="^(web)-")
    of_group = [one for one in incidents if one.spread is not None]
    assert [(one.instance, one.metric, one.state) for one in of_group] == [
        ("web", ALL, "opened"),
        ("web", ALL, "resolved"),
    ]
    opened = of_group[0]
    assert opened.spread is not None
    assert (opened.spread.affected, opened.spread.size) == (3, 3)
    own = [one for one in incidents if one.spread is None]
    assert {(one.metric, one.folded, one.part_of) for one in own} == {(ALL, True, opened.id)}
    (first,) = (
        one for one in own if one.id == opened.spread.members[0].incident and not one.sequence
    )
    assert opened.metrics is not None
    assert (opened.metrics, opened.why) == (first.metrics, first.why)
    assert "3 of 3 instances are anomalous together" in summary(opened)
    assert {one.group for one in anomalies} == {"web"}
    # Without groups, each has its own.
    _, alone = flow(values)
    assert {one.id for one in alone} == {one.id for one in own}


def test_scores_do_not_depend_on_the_batches() -> None:
    values = [value for _, value in records(1)]
    plain = flow(values)
    assert plain[0]
    for batch in (3, 1000):
        for found, wanted in zip(flow(values, batch), plain, strict=True):
            assert sorted(map(encode, found)) == sorted(map(encode, wanted))


def test_metrics_are_scored_as_each_by_itself() -> None:
    values = [value for _, value in records(1)]
    options = Settings(_env_file=None, **{**SETTINGS, "together": "false"})
    alone: list[Any] = []
    raws = [Raw(0, offset, value) for offset, value in enumerate(values)]
    outputs = {"write_here": TestingSink(alone)}
    single = detector(options)
    assert isinstance(single, Calibrated)
    single.ignore_runs()
    run_main(build(options, single, None, source=TestingSource(raws), outputs=outputs))
    found, _ = flow(values)
    own = [one for one in found if one.metric != ALL]
    assert [one.alert for _, one in alone].count(True) > 0
    assert sorted(encode(replace(one, alert=False, together=True)) for _, one in alone) == sorted(
        map(encode, own)
    )


def test_thresholds_by_pattern_choose_among_the_same_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watch, "start", lambda self: None)
    path = tmp_path / "rules.toml"
    path.write_text(
        "[higher]\ninstances = 'web-0'\nmetrics = '[*]'\nthreshold = 0.6\n"
        "[lower]\ninstances = 'web-1'\nthreshold = 0.3\n"
    )
    values = [value for _, value in records(2, troubled=2)]
    whole, _ = flow(values)
    chosen, incidents = flow(values, rules=str(path))

    def scored(found: list[Anomaly], instance: str, least: float) -> dict[Any, float]:
        return {
            (one.metric, one.timestamp): one.score
            for one in found
            if one.instance == instance and one.score > (least if one.metric == ALL else 0.5)
        }

    assert scored(chosen, "web-0", 0.0) == scored(whole, "web-0", 0.6)
    assert scored(whole, "web-0", 0.6) != scored(whole, "web-0", 0.5)
    lower = [one for one in chosen if one.instance == "web-1"]
    assert scored(lower, "web-1", 0.5) == scored(whole, "web-1", 0.5)
    assert {one.metric for one in lower if one.score <= 0.5} == {ALL, *NAMES}
    thresholds = {(one.instance, one.metric == ALL): one.threshold for one in chosen}
    assert thresholds == {
        ("web-0", True): 0.6,
        ("web-0", False): 0.5,
        ("web-1", True): 0.3,
        ("web-1", False): 0.3,
    }
    assert all(one.score > one.threshold for one in chosen)
    assert {one.metric for one in incidents} == {ALL}
    path.write_text("[all]\nleast = 5\n")
    with pytest.raises(UserError, match="it names least, but ANOMALY_TOGETHER judges all metrics"):
        flow([], rules=str(path))


def test_silence_is_that_of_the_instance() -> None:
    def gap(record: dict[str, Any]) -> bool:
        host, metric, at = record["instance"], record["metric"], record["timestamp"] / INTERVAL
        return (host == "web-1" and 300 <= at < 320) or (metric == "m1" and 400 <= at < 450)

    values = [value for _, value in records(2) if not gap(json.loads(value))]
    _, incidents = flow(values, silence=3)
    silent = [one for one in incidents if one.kind == "silence"]
    assert [(one.instance, one.metric, one.state) for one in silent] == [
        ("web-1", ALL, "opened"),
        ("web-1", ALL, "resolved"),
    ]
    assert silent[0].since is not None
    assert silent[0].since.timestamp() == 299 * INTERVAL
    assert summary(silent[0]).startswith("web-1 is silent since")


def test_a_metric_and_an_instance_are_forgotten() -> None:
    options = Settings(_env_file=None, **SETTINGS)
    own: Any = detector(options)
    rules = episode_rules(options, own)
    step = together.scorer(options, own, scorer(own, rules, lambda _: None))
    state, _ = step.score(None, [reading(name, 300.0) for name in NAMES])
    assert state is not None
    whole = len(step.dump(state))
    marks = together._by_instance([(series_key("a", name), []) for name in NAMES])
    assert {instance for instance, _ in marks} == {"a"}
    for number, (_, mark) in enumerate(marks, 1):
        assert state is not None
        state, found = step.score(state, mark)
        assert found.each == [(mark.key, [])]  # type: ignore[union-attr]
        assert found.forgotten == (state is None) == (number == len(NAMES))
        if number == 1:
            assert state is not None
            assert len(step.dump(state)) < whole


@pytest.mark.kafka
@pytest.mark.short("embedded")
def test_the_metrics_together_through_kill_9(
    run_flow: Flow, brokers: str, topic: str, store: Path
) -> None:
    feed = records(2)
    settings = {"brokers": brokers, "topic": topic, **SETTINGS}
    arguments = ("-r", str(store), "-b", "0", "-w", "2", "-s", "0")
    path = run_flow.folder / "found.jsonl"
    begin, size = 0, 0
    # Both lives end in the trouble and in the middle of an interval, which the snapshot holds.
    for end in (TROUBLE[3] * 8 + 5, TROUBLE[9] * 8 + 2):
        fill_topic(brokers, topic, feed[begin:end], partitions=2)
        process = run_flow.start(*arguments, output="found.jsonl", **settings)
        wait_for(lambda size=size: path.exists() and path.stat().st_size > size)  # type: ignore[misc]
        time.sleep(0.5)
        assert process.poll() is None, process.communicate()
        kill(process)
        begin, size = end, path.stat().st_size
    fill_topic(brokers, topic, feed[begin:], partitions=2)
    done = run_flow(*arguments, output="found.jsonl", follow="false", **settings)
    assert done.returncode == 0, done.stderr
    done = run_flow(output="whole.jsonl", follow="false", **settings)
    assert done.returncode == 0, done.stderr
    for kind in ("", "incidents."):
        found, whole = (
            read_json_lines(run_flow.folder / f"{name}.{kind}jsonl") for name in ("found", "whole")
        )
        assert sorted(map(json.dumps, found)) == sorted(map(json.dumps, whole))
    assert {one["metric"] for one in whole} == {ALL}
    # The states of the two ways are not the same.
    done = run_flow(*arguments, output="found.jsonl", **{**settings, "together": "false"})
    assert done.returncode == 1
    assert "was made with ANOMALY_TOGETHER=True, and now it is False" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"metrics": "cpu"}, "ANOMALY_TOGETHER judges several metrics of an instance"),
        ({"reorder": True}, "ANOMALY_TOGETHER and ANOMALY_REORDER cannot be used together"),
        ({"time_field": None, "index_field": "index"}, "ANOMALY_TOGETHER needs readings with a"),
    ],
)
def test_what_it_cannot_judge_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Settings(_env_file=None, **{**SETTINGS, **change})


def test_a_detector_of_windows_is_refused() -> None:
    options = Settings(_env_file=None, **SETTINGS, detector="isolation-forest")
    with pytest.raises(UserError, match="ANOMALY_TOGETHER does not work with the detector"):
        build(options, detector(options), None, source=TestingSource([]), outputs={})
