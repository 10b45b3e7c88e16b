from __future__ import annotations

import ast
import csv
import io
import json
import re
import subprocess
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from river.anomaly import HalfSpaceTrees

from dataflow.demo import sample, sample_hosts
from dataflow.demo.sample import READINGS, Labelled, Sample, files, generate

REPOSITORY = Path(__file__).resolve().parents[1]
DATA = REPOSITORY / "data"
SEEDS = (sample.SEED, 0, 1, 2)

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module", params=SEEDS)
def made(request: pytest.FixtureRequest) -> Sample:
    return generate(request.param)


@pytest.fixture(scope="module")
def committed() -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((DATA / "ec2_metrics.csv").read_text())))


def values(made: Sample, instance: str) -> list[float]:
    return [reading.value for reading in made.readings if reading.instance == instance]


def of_kind(made: Sample, kind: str) -> list[Labelled]:
    found = [one for one in made.anomalies if one.fault.kind == kind]
    assert found
    return found


@pytest.mark.parametrize("name", ["ec2_metrics.csv", "labels.json"])
def test_the_committed_files_are_what_the_seed_makes(name: str) -> None:
    assert (DATA / name).read_bytes() == files()[name]


def test_another_seed_makes_another_stream() -> None:
    ours, other = files(), files(sample.SEED + 1)
    assert ours.keys() == other.keys()
    for name in ours:
        assert ours[name] != other[name]


@pytest.mark.parametrize("module", [sample, sample_hosts])
def test_nothing_is_used_whose_last_bit_depends_on_the_platform(module: object) -> None:
    tree = ast.parse(Path(str(vars(module)["__file__"])).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert node.value.id != "random" or node.attr == "random"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"sum", "pow"}
        assert not isinstance(node, ast.Pow)
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            assert not names & {"math", "numpy", "pandas", "statistics", "uniform", "gauss"}


def test_the_file_has_the_tutorials_form(committed: list[dict[str, str]]) -> None:
    assert list(committed[0]) == ["index", "timestamp", "value", "instance"]
    assert len(committed) == 8 * 4032 == 32_256
    instances = [row["instance"] for row in committed[:8]]
    assert instances == sorted(set(instances))
    assert all(re.fullmatch("[0-9a-f]{6}", instance) for instance in instances)
    for number, row in enumerate(committed):
        assert row["index"] == str(number // 8)
        assert row["instance"] == instances[number % 8]
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", row["timestamp"])
        assert re.fullmatch(r"\d{1,3}\.\d{1,3}", row["value"])
        assert 0 <= float(row["value"]) <= 100


def test_readings_of_an_instance_are_five_minutes_apart(committed: list[dict[str, str]]) -> None:
    times = [datetime.fromisoformat(row["timestamp"]) for row in committed]
    for first in range(8):
        for here, there in zip(times[first::8], times[first + 8 :: 8], strict=False):
            assert there - here == timedelta(minutes=5)


def test_no_instance_is_one_of_the_real_ones(committed: list[dict[str, str]], shared: Path) -> None:
    with (shared / "data" / "ec2_metrics.csv").open() as file:
        real = {row["instance"] for row in csv.DictReader(file)}
    assert not real & {row["instance"] for row in committed}


def test_labels_are_in_nabs_form(made: Sample) -> None:
    windows = made.windows()
    assert windows.keys() == {reading.instance for reading in made.readings}
    for instance, pairs in windows.items():
        assert len(pairs) == 2
        times = [r.timestamp for r in made.readings if r.instance == instance]
        left = times[0]
        for pair in pairs:
            start, end = (datetime.strptime(text, "%Y-%m-%d %H:%M:%S.%f") for text in pair)
            assert left < start < end < times[-1]
            assert {start, end} <= set(times)
            left = end
        length = timedelta(minutes=5 * (READINGS // 10 // 2 - 1))
        assert all(end - start == length for start, end in map(parsed, pairs))


def parsed(pair: list[str]) -> tuple[datetime, datetime]:
    return datetime.fromisoformat(pair[0]), datetime.fromisoformat(pair[1])


def test_nothing_is_wrong_in_the_first_fifteen_percent(made: Sample) -> None:
    assert all(one.start >= 0.15 * READINGS for one in made.anomalies)


def test_an_anomaly_starts_with_its_window_and_ends_within(made: Sample) -> None:
    for one in made.anomalies:
        times = [r.timestamp for r in made.readings if r.instance == one.instance]
        assert times[one.start] == one.window[0]
        assert one.start < one.end
        assert times[one.end - 1] <= one.window[1]


def test_there_are_many_kinds_and_grades() -> None:
    faults = [one.fault for one in generate().anomalies]
    assert {fault.kind for fault in faults} == {
        *("spike", "drop", "level shift", "slow creep", "lost rhythm", "extra noise"),
        "stuck value",
    }
    assert {fault.grade for fault in faults} == {"easy", "fair", "hard"}


def test_easy_means_out_of_the_range_seen_before(made: Sample) -> None:
    easy = [one for one in made.anomalies if one.fault.grade == "easy"]
    assert easy
    for one in easy:
        cpu = values(made, one.instance)
        seen = cpu[: one.start]
        assert max(cpu[one.start : one.end]) > max(seen) or min(cpu[one.start : one.end]) < min(
            seen
        )


def test_a_stuck_value_is_the_last_one_again(made: Sample) -> None:
    for one in of_kind(made, "stuck value"):
        cpu = values(made, one.instance)
        assert set(cpu[one.start : one.end]) == {cpu[one.start - 1]}
        assert len(set(cpu[one.end : one.end + 50])) > 10


def test_a_drop_leaves_little(made: Sample) -> None:
    for one in of_kind(made, "drop"):
        cpu = values(made, one.instance)
        assert max(cpu[one.start : one.end]) < 0.5 * max(cpu[one.start - 12 : one.start])
        assert max(cpu[one.start : one.end]) <= 1.2 * one.fault.size


def test_a_level_shift_lifts_the_floor(made: Sample) -> None:
    for one in of_kind(made, "level shift"):
        cpu = values(made, one.instance)
        before = sorted(cpu[one.start - 288 : one.start])[:100]
        assert min(cpu[one.start : one.end]) > max(before)


def test_a_creep_ends_higher_than_it_began(made: Sample) -> None:
    for one in of_kind(made, "slow creep"):
        span = values(made, one.instance)[one.start : one.end]
        third = len(span) // 3
        assert min(span[-third:]) > min(span[:third]) + one.fault.size / 4


def test_extra_noise_is_louder_than_the_day_before(made: Sample) -> None:
    for one in of_kind(made, "extra noise"):
        cpu = values(made, one.instance)
        length = one.end - one.start
        assert jumps(cpu[one.start : one.end]) > 1.2 * jumps(cpu[one.start - length : one.start])


def jumps(cpu: list[float]) -> float:
    """The median step from one reading to the second after: every other one may carry a job."""
    steps = sorted(abs(there - here) for here, there in zip(cpu, cpu[2:], strict=False))
    return steps[len(steps) // 2]


def test_the_web_host_misses_one_morning(made: Sample) -> None:
    (one,) = (one for one in of_kind(made, "lost rhythm") if one.instance == "3fb07c")
    cpu = values(made, one.instance)
    noon = slice(9 * 288 + 132, 9 * 288 + 156)
    assert max(cpu[noon]) < 30
    assert min(cpu[noon.start - 288 : noon.stop - 288]) > 30
    # Nothing but the hour gives it away.
    assert max(cpu[one.start : one.end]) < max(cpu[: one.start])


def test_the_readme_lists_the_anomalies() -> None:
    row = r"^\| `([0-9a-f]{6})`" + r" \| (.*)" * 5 + r" \|$"
    stated = re.findall(row, (DATA / "README.md").read_text(), re.M)
    made = generate()
    times = {(r.instance, r.index): r.timestamp for r in made.readings}
    assert stated == [
        (
            one.instance,
            one.fault.kind,
            one.fault.grade,
            f"{times[one.instance, one.start]:%a %d %H:%M}",
            f"{times[one.instance, one.end - 1]:%a %d %H:%M}",
            one.fault.story,
        )
        for one in made.anomalies
    ]


def test_the_command_writes_what_is_committed(run_command: Command, tmp_path: Path) -> None:
    done = run_command("sample", "--out", "new")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["wrote new/ec2_metrics.csv", "wrote new/labels.json"]
    for name in ("ec2_metrics.csv", "labels.json"):
        assert (tmp_path / "new" / name).read_bytes() == (DATA / name).read_bytes()


def test_the_command_writes_over_another_file_only_when_forced(
    run_command: Command, tmp_path: Path
) -> None:
    sample.write(tmp_path / "data")
    labels = tmp_path / "data" / "labels.json"
    labels.write_text("{}\n")
    refused = run_command("sample", "--seed", "5")
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr == (
        "error: data/ec2_metrics.csv exists with other content: give --force to replace it.\n"
    )
    # Not even one of the two: half a sample would be worse than none.
    assert labels.read_text() == "{}\n"
    forced = run_command("sample", "--force")
    assert forced.returncode == 0
    assert forced.stdout.splitlines() == [
        "data/ec2_metrics.csv is unchanged",
        "wrote data/labels.json",
    ]
    assert json.loads(labels.read_text()) == generate().windows()


def test_the_readme_says_how_the_tutorials_detector_does(committed: list[dict[str, str]]) -> None:
    labels = json.loads((DATA / "labels.json").read_text())
    alerts: dict[str, list[datetime]] = {}
    for instance in labels:
        trees = HalfSpaceTrees(n_trees=5, height=3, window_size=5, seed=42)
        alerts[instance] = []
        for row in committed:
            if row["instance"] == instance:
                reading = {"value": float(row["value"]) / 100}
                trees.learn_one(reading)
                if trees.score_one(reading) > 0.7:
                    alerts[instance].append(datetime.fromisoformat(row["timestamp"]))
    found = [
        any(start <= alert <= end for alert in alerts[instance])
        for instance, windows in labels.items()
        for start, end in map(parsed, windows)
    ]
    total = sum(len(times) for times in alerts.values())
    readme = " ".join((DATA / "README.md").read_text().split())
    assert f"raises {total} alerts in these 112 instance-days" in readme
    assert f"has one in {sum(found)} of the {len(found)} windows" in readme
    assert not alerts["0c94e1"]
    assert not alerts["58e03d"]
