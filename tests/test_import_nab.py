from __future__ import annotations

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dataflow.errors import UserError
from dataflow.evaluation.datasets import convert

Command = Callable[..., subprocess.CompletedProcess[str]]
CPU = "realAWSCloudwatch/ec2_cpu_utilization_{}.csv"
WINDOW = ["2014-02-14 14:35:00.000000", "2014-02-14 14:40:00.000000"]


@pytest.fixture
def nab(tmp_path: Path) -> Path:
    """A checkout with two CPU series of different lengths, and one of bytes."""
    root = tmp_path / "NAB"
    series = {
        CPU.format("ffee01"): ["0.132", "51.846000000000004", "7.0"],
        CPU.format("00aa17"): ["1.5", "2.50"],
        "realAWSCloudwatch/ec2_network_in_257a54.csv": ["251643.0"],
        "realTraffic/speed.csv": ["71"],
    }
    for name, values in series.items():
        path = root / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [f"2014-02-14 14:{30 + 5 * n}:00,{value}" for n, value in enumerate(values)]
        path.write_text("\n".join(["timestamp,value", *rows, ""]))
    labels = root / "labels" / "combined_windows.json"
    labels.parent.mkdir()
    labels.write_text(json.dumps({name: [] for name in series} | {CPU.format("ffee01"): [WINDOW]}))
    return root


def test_the_cpu_series_take_turns_and_keep_their_text(run_command: Command, nab: Path) -> None:
    done = run_command("import-nab", str(nab), "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "wrote out/ec2_metrics.csv",
        "wrote out/labels.json",
        "5 readings of 2 instances",
    ]
    out = nab.parent / "out"
    assert (out / "ec2_metrics.csv").read_text().splitlines() == [
        "index,timestamp,value,instance",
        "0,2014-02-14 14:30:00,1.5,00aa17",
        "0,2014-02-14 14:30:00,0.132,ffee01",
        "1,2014-02-14 14:35:00,2.50,00aa17",
        "1,2014-02-14 14:35:00,51.846000000000004,ffee01",
        "2,2014-02-14 14:40:00,7.0,ffee01",
    ]
    assert json.loads((out / "labels.json").read_text()) == {"00aa17": [], "ffee01": [WINDOW]}


def test_other_files_are_named_by_their_stem_and_may_need_no_scale(
    run_command: Command, nab: Path
) -> None:
    done = run_command("import-nab", str(nab), "out", "--files", "*/*.csv")
    assert done.stdout.splitlines()[2:] == [
        "7 readings of 4 instances",
        "Some values are outside 0 to 100: set ANOMALY_SCALE=none for the flow.",
    ]
    labels = json.loads((nab.parent / "out" / "labels.json").read_text())
    assert list(labels) == ["00aa17", "ec2_network_in_257a54", "ffee01", "speed"]


def test_what_is_there_stays_unless_forced(run_command: Command, nab: Path) -> None:
    mine = nab.parent / "out" / "labels.json"
    mine.parent.mkdir()
    mine.write_text("mine")
    done = run_command("import-nab", str(nab), "out")
    assert done.returncode == 1
    assert done.stderr == (
        "error: out/labels.json exists with other content: give --force to replace it.\n"
    )
    assert [path.name for path in mine.parent.iterdir()] == ["labels.json"]
    assert mine.read_text() == "mine"
    assert run_command("import-nab", str(nab), "out", "--force").returncode == 0
    assert json.loads(mine.read_text())["ffee01"] == [WINDOW]


def test_no_such_file_names_a_glob_that_fits(nab: Path) -> None:
    for path in (nab / "data").glob(CPU.format("*")):
        path.unlink()
    with pytest.raises(
        UserError, match=r"name some, for example --files 'realAWSCloudwatch/\*\.csv'"
    ):
        convert(nab)


@pytest.mark.parametrize("glob", ["", "/etc/*", "[", "realTraffic"])
def test_a_glob_that_fits_no_file(nab: Path, glob: str) -> None:
    with pytest.raises(UserError, match="has no file that matches"):
        convert(nab, glob)


def test_a_folder_that_is_no_checkout(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no series: give the folder of a NAB checkout"):
        convert(tmp_path)


def test_two_files_of_one_name(nab: Path) -> None:
    (nab / "data" / "other").mkdir()
    (nab / "data" / "other" / "speed.csv").write_text("timestamp,value\n")
    labels = {"realTraffic/speed.csv": [], "other/speed.csv": []}
    (nab / "labels" / "combined_windows.json").write_text(json.dumps(labels))
    with pytest.raises(UserError, match="two files named speed"):
        convert(nab, "*/speed.csv")


def test_a_file_without_labels(nab: Path) -> None:
    (nab / "labels" / "combined_windows.json").write_text("{}")
    with pytest.raises(UserError, match=r"has no entry for realTraffic/speed\.csv"):
        convert(nab, "realTraffic/*.csv")


def test_labels_that_are_missing_or_broken(nab: Path) -> None:
    labels = nab / "labels" / "combined_windows.json"
    labels.write_text("{")
    with pytest.raises(UserError, match=r"Cannot read .*combined_windows\.json"):
        convert(nab)
    labels.unlink()
    with pytest.raises(UserError, match=r"Cannot read .*combined_windows\.json"):
        convert(nab)


@pytest.mark.parametrize("content", ["", "time,value\n1,2\n", "\x00\x01"])
def test_a_file_that_is_not_timestamp_and_value(nab: Path, content: str) -> None:
    (nab / "data" / "realTraffic" / "speed.csv").write_text(content)
    with pytest.raises(UserError, match=r"speed\.csv (is empty|has (no column|NUL bytes))"):
        convert(nab, "realTraffic/*.csv")


def test_a_real_checkout(shared: Path) -> None:
    nab = shared / "nab"
    readings, labels = convert(nab, "realAWSCloudwatch/*.csv")
    windows = json.loads((nab / "labels" / "combined_windows.json").read_text())
    paths = sorted((nab / "data" / "realAWSCloudwatch").glob("*.csv"))
    assert sorted(readings["instance"].unique()) == [path.stem for path in paths] == list(labels)
    for path in paths:
        one = readings[readings["instance"] == path.stem]
        with path.open() as file:
            rows = [(row["timestamp"], row["value"]) for row in csv.DictReader(file)]
        assert list(one["index"]) == list(range(len(rows)))
        assert list(zip(one["timestamp"], one["value"], strict=True)) == rows
        assert labels[path.stem] == windows[f"realAWSCloudwatch/{path.name}"]
