"""The command `evaluate`, as its users run it, on small labeled data made here."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from feeds import FEEDS, Row
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from dataflow.commands import evaluate as command
from dataflow.detectors import make
from dataflow.errors import UserError
from dataflow.evaluation import datasets
from dataflow.evaluation.backtest import FIGURES, series_for
from dataflow.evaluation.datasets import load_nab, load_sample, to_unit_range
from dataflow.records import number, seconds

READINGS = 700
STAMPS = pd.date_range("2024-03-01", periods=READINGS, freq="5min")


@pytest.fixture
def run():
    app = typer.Typer()
    app.command()(command.evaluate)

    def invoke(*arguments: object):
        result = CliRunner().invoke(app, [str(one) for one in arguments])
        assert result.exception is None or isinstance(result.exception, UserError)
        return result

    return invoke


def values(seed: int) -> np.ndarray:
    found = 20 + np.random.default_rng(seed).normal(0, 1, READINGS).clip(-3, 3)
    found[500:510] = 90
    return found


@pytest.fixture
def sample(tmp_path: Path) -> tuple[Path, Path]:
    table = pd.concat(
        pd.DataFrame({"index": range(READINGS), "timestamp": STAMPS, "value": values(seed)}).assign(
            instance=name
        )
        for seed, name in enumerate(("i-a", "i-b"))
    )
    data, labels = tmp_path / "data.csv", tmp_path / "labels.json"
    table.to_csv(data, index=False)
    labels.write_text(json.dumps({"i-a": [[str(STAMPS[490]), str(STAMPS[520])]], "i-b": []}))
    return data, labels


@pytest.fixture
def nab(tmp_path: Path) -> Path:
    root = tmp_path / "NAB"
    (root / "data" / "real").mkdir(parents=True)
    (root / "labels").mkdir()
    stamps = STAMPS.to_series(index=range(READINGS))
    stamps[300:] -= pd.Timedelta("1h")  # summer time ends
    for seed, name in enumerate(("bytes", "ec2_cpu_utilization_1")):
        scale = 1 if "cpu" in name else 1e6
        table = pd.DataFrame({"timestamp": stamps, "value": values(seed) * scale})
        table.to_csv(root / "data" / "real" / f"{name}.csv", index=False)
    windows = {
        "real/bytes.csv": [[f"{stamps[490]}.000000", f"{stamps[520]}.000000"]],
        "real/ec2_cpu_utilization_1.csv": [],
        "real/not_here.csv": [],
    }
    (root / "labels" / "combined_windows.json").write_text(json.dumps(windows))
    moments = {"real/bytes.csv": [str(stamps[500])], "real/ec2_cpu_utilization_1.csv": []}
    (root / "labels" / "combined_labels.json").write_text(json.dumps(moments))
    return root


def test_json_has_every_figure_of_the_asked_and_the_baselines(run, sample):
    data, labels = sample
    result = run("--data", data, "--labels", labels, "--detector", "zscore", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)["detectors"]
    assert list(found) == ["zscore", "tutorial"]
    figures = {key for name in FIGURES for key in (name, f"{name}_sd")}
    for one in found.values():
        judged = {"at_threshold", "at_best", "at_best_f1", "average_precision"}
        assert set(one) == {"threshold", "instances", *judged}
        assert list(one["instances"]) == ["i-a", "i-b"]
        # A share of 1.5% to 3% of the readings is labeled.
        assert 0.2 < one["average_precision"] <= 1
        assert set(one["at_threshold"]) == figures
        assert set(one["at_best"]) == figures | {"threshold", "threshold_sd"}
        assert set(one["at_best_f1"]) == figures | {"threshold"}
        assert one["at_best_f1"]["f1"] >= one["at_threshold"]["f1"]
    zscore = found["zscore"]
    assert zscore["threshold"] == 0.5
    # Both instances jump at reading 500; one of the jumps is labeled, from reading 490 on.
    best = zscore["at_best"]
    assert (best["recall"], best["precision"], best["f1"]) == (1, 0.5, pytest.approx(2 / 3))
    assert best["delay_hours"] == pytest.approx(10 / 12)
    assert best["standard"] <= 100
    days = 2 * (READINGS - 105 - 1) * 300 / 86_400
    assert best["false_alarms_per_day"] == pytest.approx(1 / days)


@pytest.mark.parametrize("name", ["telegraf, lines", "cloudwatch"])
def test_records_of_a_feed_are_judged_as_the_same_readings_in_csv(run, sample, tmp_path, name):
    data, labels = sample
    arguments = ("--labels", labels, "--detector", "zscore", "--json")
    expected = json.loads(run("--data", data, *arguments).stdout)["detectors"]["zscore"]
    table = pd.read_csv(data)
    columns = (table["instance"], table["timestamp"], table["value"])
    rows = [
        Row(instance, round(seconds(time)), value)
        for instance, time, value in zip(*columns, strict=True)
    ]
    path = tmp_path / "feed.out"
    with path.open("wb") as file:
        for row in rows:
            file.writelines(line.rstrip(b"\n") + b"\n" for line in FEEDS[name].write(row))
    found = json.loads(run("--data", path, *arguments).stdout)["detectors"]["zscore"]
    # The last digits of scores, and so the best threshold, differ.
    assert found["at_threshold"] == pytest.approx(expected["at_threshold"])


def test_settings_say_how_a_file_is_read(run, sample, tmp_path, monkeypatch):
    data, labels = sample
    table = pd.read_csv(data).rename(columns={"instance": "host", "value": "share"})
    table["share"] /= 100
    shares = tmp_path / "shares.csv"
    table.drop(columns="index").to_csv(shares, index=False)
    arguments = ("--labels", labels, "--detector", "zscore", "--json")
    expected = json.loads(run("--data", data, *arguments).stdout)["detectors"]["zscore"]
    assert "set ANOMALY_KEY_FIELD" in str(run("--data", shares, *arguments).exception)
    for name, value in (("KEY_FIELD", "host"), ("VALUE_FIELD", "share"), ("SCALE", "1")):
        monkeypatch.setenv(f"ANOMALY_{name}", value)
    found = json.loads(run("--data", shares, *arguments).stdout)["detectors"]["zscore"]
    assert found["at_threshold"] == pytest.approx(expected["at_threshold"])
    monkeypatch.setenv("ANOMALY_INTERVAL", "60")
    by_setting = run("--data", shares, *arguments).stdout
    monkeypatch.delenv("ANOMALY_INTERVAL")
    assert by_setting == run("--data", shares, *arguments, "--interval", "60").stdout


def test_a_detector_that_judges_late_is_judged_at_its_readings(run, sample):
    data, labels = sample
    options = ("--detector", "isolation-forest", "--json")
    found = json.loads(run("--data", data, "--labels", labels, *options).stdout)["detectors"]
    # The jump is 1.5% of a series: its scores, late as they came, are the highest.
    assert found["isolation-forest"]["average_precision"] > 0.25


def test_seeds_are_averaged(run, sample):
    data, labels = sample
    detectors = []
    for seeds in (1, 3):
        result = run("--data", data, "--labels", labels, "--json", "--seeds", seeds)
        detectors.append(json.loads(result.stdout)["detectors"])
    one, three = detectors
    assert one["tutorial"]["at_best"]["threshold_sd"] == 0
    assert three["tutorial"]["at_best"]["threshold_sd"] > 0
    assert three["zscore"]["at_best"] == pytest.approx(one["zscore"]["at_best"])


def test_a_threshold_is_for_the_asked_detectors_alone(run, sample):
    data, labels = sample
    options = ("--detector", "zscore", "--threshold", 0.9, "--json")
    found = json.loads(run("--data", data, "--labels", labels, *options).stdout)["detectors"]
    assert found["zscore"]["threshold"] == 0.9
    assert found["tutorial"]["threshold"] == 0.7


def test_in_a_pipe_the_table_is_plain_and_aligned(sample, tmp_path):
    data, labels = sample
    program = (
        "import sys, typer; from dataflow.commands.evaluate import evaluate\n"
        "app = typer.Typer(); app.command()(evaluate); app(standalone_mode=False)\n"
        "assert 'bytewax' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    arguments = ["--data", data, "--labels", labels, "--detector", "zscore", "--tune", "20"]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert done.stdout.isascii()
    assert lines[0].split()[:3] == ["detector", "threshold", "NAB"]
    rows = lines[1 : lines.index("")]
    assert [row[:8].strip() for row in rows] == ["zscore", "", "", "", "tutorial", "", ""]
    assert len({len(line) for line in [lines[0], *rows]}) == 1
    assert lines[-1].startswith("zscore: threshold 0.")


def test_a_threshold_can_be_tuned_without_labels(run, sample):
    data, labels = sample
    tuned = run("--data", data, "--tune", 2, "--detector", "zscore", "--json")
    found = json.loads(tuned.stdout)["detectors"]
    assert found["zscore"]["tuned"]["alerts_per_week"] <= 2
    assert set(found["zscore"]) == {"threshold", "at_threshold", "instances", "tuned"}
    assert set(found["tutorial"]) == {"threshold", "at_threshold", "instances"}
    judged = run("--data", data, "--labels", labels, "--tune", 2, "--detector", "zscore", "--json")
    with_labels = json.loads(judged.stdout)["detectors"]["zscore"]["tuned"]
    assert found["zscore"]["tuned"].items() <= with_labels.items()
    assert "recall" in with_labels
    text = run("--data", data, "--tune", 2, "--detector", "zscore").stdout
    assert "alerts per instance and week (asked: at most 2)" in text


def test_a_nab_checkout_is_read_whatever_its_clock_and_units(run, nab):
    found = json.loads(run("--nab", nab, "--detector", "zscore", "--json").stdout)["detectors"]
    assert found["zscore"]["at_best"]["recall"] == 1
    assert found["zscore"]["at_best"]["delay_hours"] == pytest.approx(0)  # from combined_labels
    assert found["tutorial"]["at_threshold"]["standard"] is not None
    one = json.loads(run("--nab", nab, "--files", "real/b*", "--json").stdout)["detectors"]
    assert one["zscore"]["at_best"]["standard"] >= found["zscore"]["at_best"]["standard"]


def test_values_come_in_the_range_that_detectors_expect(sample, nab):
    assert load_sample(*sample)[0].values[505] == pytest.approx(0.9)
    other, cpu = load_nab(nab)
    assert to_unit_range(cpu).values[505] == pytest.approx(0.9)
    assert cpu.values[505] == 90
    unit = to_unit_range(other).values
    assert (unit.min(), unit.max()) == (0, 1)
    for name, low in (("tutorial", 0), ("zscore", other.values.min())):
        (suited,) = series_for(make(name), [other], raw=True)
        assert suited.values.min() == low
        assert series_for(make(name), [other], raw=False) == [other]


@pytest.mark.parametrize("stamp", ["1709251200", "1709251200000", "2024-03-01T00:00:00Z"])
def test_timestamps_come_as_text_seconds_or_milliseconds(tmp_path, stamp):
    data = tmp_path / "one.csv"
    data.write_text(f"index,timestamp,value,instance\n0,{stamp},1,NA\n")
    (one,) = load_sample(data, None)
    assert (one.instance, one.times[0]) == ("NA", 1709251200)


@given(
    st.lists(
        st.sampled_from(
            ["1", "-0.50", "1.0000000000000002", "123456789012345.25", "1e3", "", "1_0"]
        )
        | st.floats(allow_nan=False, width=32).map(repr),
        max_size=3,
    ),
    st.lists(
        st.sampled_from(["2024-02-29 23:59:59", "2023-02-29 00:00:00", "1709251200", "", "soon"])
        | st.datetimes().map(lambda moment: str(moment.replace(microsecond=0))),
        max_size=3,
    ),
)
def test_texts_are_read_together_as_one_by_one(numbers, stamps):
    def one_by_one(read, texts):
        found = []
        for text in texts:
            try:
                found.append(float(read(text)))
            except (ValueError, OverflowError):
                found.append(np.nan)
        return np.array(found)

    np.testing.assert_array_equal(datasets._values(numbers), one_by_one(number, numbers))
    np.testing.assert_array_equal(datasets._times(stamps), one_by_one(seconds, stamps))


def test_metrics_of_an_instance_have_drawings_of_their_own(run, tmp_path):
    folder = tmp_path / "services"
    folder.mkdir()
    table = pd.DataFrame({"timestamp": STAMPS, "cpu": values(1), "disk": values(2)})
    table.to_csv(folder / "web.csv", index=False)
    options = ("--detector", "zscore", "--no-baselines", "--plot", tmp_path / "plots")
    assert run("--data", folder, *options).exit_code == 0
    names = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert names == ["web-cpu-zscore.png", "web-disk-zscore.png"]


def test_a_drawing_a_series(run, sample, tmp_path):
    data, labels = sample
    out = tmp_path / "deep" / "plots"
    result = run("--data", data, "--labels", labels, "--detector", "zscore", "--plot", out)
    assert result.exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == ["i-a-zscore.png", "i-b-zscore.png"]
    for path in out.iterdir():
        image = path.read_bytes()
        assert image.startswith(b"\x89PNG")
        assert struct.unpack(">II", image[16:24]) == (1400, 700)


def test_instances_of_any_name_get_files_of_their_own(run, sample, tmp_path):
    data, labels = sample
    text = data.read_text().replace("i-a", "../$a/b^").replace("i-b", "../$a b^")
    data.write_text(text)
    labels.write_text(labels.read_text().replace("i-a", "../$a/b^").replace("i-b", "../$a b^"))
    out = tmp_path / "plots"
    assert run("--data", data, "--labels", labels, "--plot", out).exit_code == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == ["a_b_-calibrated.png", "a_b__2-calibrated.png"]


def test_without_matplotlib_the_extra_is_named(run, sample, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    data, labels = sample
    result = run("--data", data, "--labels", labels, "--plot", tmp_path / "plots")
    assert "--plot needs an extra: " in str(result.exception)


ERRORS = {
    "nothing asked": ([], "Give either --data PATH"),
    "both asked": (["--data", "data.csv", "--nab", "NAB"], "Give either --data PATH"),
    "labels with NAB": (["--nab", "NAB", "--labels", "labels.json"], "--labels goes with --data"),
    "files of a file": (["--data", "data.csv", "--files", "*"], "--files goes with a folder"),
    "no such files": (["--data", "NAB", "--files", "x*"], "no file that matches 'x*'"),
    "an absolute glob of a folder": (["--data", "NAB", "--files", "/*"], "no file that matches"),
    "a folder without files": (["--data", "NAB/labels"], "no file whose name ends in .csv"),
    "no time to skip": ([..., "--skip", "20"], "--skip: '20' is no duration such as 14d"),
    "all skipped": (["--data", "data.csv", "--skip", "20d"], "--skip 20d leaves no reading"),
    "all labels skipped": ([..., "--skip", "60h"], "All labels lie in the first 60h"),
    "missing data": (["--data", "no.csv", "--labels", "labels.json"], "no.csv"),
    "missing labels": (["--data", "data.csv", "--labels", "no.json"], "no.json"),
    "no file of records": (["--data", "data.parquet", "--tune", "1"], "whose name ends in .csv"),
    "no JSON": (["--data", "data.csv", "--labels", "data.csv"], "is not JSON"),
    "no NAB": (["--nab", "."], "has no folder data"),
    "no file of NAB": (["--nab", "NAB", "--files", "x*"], "has no file that matches"),
    "an absolute glob": (["--nab", "NAB", "--files", "/x*"], "has no file that matches"),
    "unlabeled files": (
        ["--nab", "NAB", "--files", "real/ec2*"],
        "no window with a reading",
    ),
    "unknown detector": ([..., "--detector", "nosuch"], "'nosuch'"),
    "no seeds": ([..., "--seeds", "0"], "--seeds"),
    "a threshold too high": ([..., "--threshold", "1.5"], "--threshold"),
    "a rate below 0": ([..., "--tune", "-1"], "--tune"),
    "no rate": ([..., "--tune", "nan"], "--tune"),
    "no interval": ([..., "--interval", "0"], "--interval"),
    "a file for plots": ([..., "--plot", "data.csv"], "cannot write to data.csv"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_one_line(run, sample, nab, monkeypatch, tmp_path, case):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.parquet").write_bytes(b"?")
    arguments, says = ERRORS[case]
    if arguments[:1] == [...]:
        arguments = ["--data", "data.csv", "--labels", "labels.json", *arguments[1:]]
    result = run(*arguments)
    assert says in str(result.exception)
    assert "\n" not in str(result.exception)
    assert result.output == ""


def test_an_error_is_printed_as_by_any_other_command(run_command):
    done = run_command("evaluate", "--seeds", "0")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: Give either --data PATH, or --nab DIR.\n"


LABELS = {
    "[]": "give {instance",
    '{"i-a": {}}': "give {instance",
    '{"i-a": [["2024-03-01"]]}': "not a pair",
    '{"i-a": [["2024-03-01", "soon"]]}': "cannot be read",
    '{"i-a": [["2024-03-02", null]]}': "cannot be read",
    '{"i-a": [["2024-03-02", [1]]]}': "cannot be read",
    '{"i-a": [["2024-03-02", "2024-03-01"]]}': "backward or overlap",
    '{"i-a": [["2024-03-01", "2024-03-03"], ["2024-03-02", "2024-03-04"]]}': "overlap",
    '{"i-x": [["2024-03-01", "2024-03-02"]]}': "labels no instance",
    '{"i-a": [["2023-03-01", "2023-03-02"]]}': "no window with a reading",
    '{"i-a": []}': "no window with a reading",
    "{}": "no window with a reading",
}


@pytest.mark.parametrize("text", LABELS)
def test_wrong_labels_are_an_error(sample, text):
    data, labels = sample
    labels.write_text(text)
    with pytest.raises(UserError, match=r"labels\.json") as error:
        load_sample(data, labels)
    assert LABELS[text] in str(error.value)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("0,2024-03-01,x,i-a", "line 3, has a value that is not a finite number"),
        ("0,2024-03-01,inf,i-a", "line 3, has a value that is not a finite number"),
        ("0,2024-03-01,,i-a", "line 3, has a value that is not a finite number"),
        ("0,2024-03-01,106,i-a", "line 3, has a value outside 0 to 100"),
        ("0,2024-03-01,1_0,i-a", "line 3, has a value that is not a finite number"),
        ("\n0,9999-12-31,1,i-a", "line 4, has a timestamp that cannot be read"),
        ('0,2024-03-01,"1,i-a', "line 3: the row is not CSV"),
        ("0,soon,1,i-a", "line 3, has a timestamp that cannot be read"),
        ("0,,1,i-a", "line 3, has a timestamp that cannot be read"),
        ("0,2024-03-01,1,", "line 3, has no instance"),
        ("0,2024-03-01,1,i-a,9,9", "line 3: the row has 6 cells, and the first line 4"),
    ],
)
def test_wrong_readings_are_an_error_with_their_line(tmp_path, line, says):
    data = tmp_path / "data.csv"
    data.write_text(f"index,timestamp,value,instance\n0,2024-03-01,1,i-a\n{line}\n")
    with pytest.raises(UserError) as error:
        load_sample(data, None)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "\n", "timestamp,value\n", "index,timestamp,value,instance\n"]
)
def test_files_without_readings_are_an_error(tmp_path, text):
    data = tmp_path / "data.csv"
    data.write_text(text)
    with pytest.raises(UserError, match=r"data\.csv"):
        load_sample(data, None)


def test_labels_in_the_probation_are_an_error(run, sample):
    data, labels = sample
    labels.write_text(json.dumps({"i-a": [[str(STAMPS[2]), str(STAMPS[9])]]}))
    result = run("--data", data, "--labels", labels)
    assert "first 15%" in str(result.exception)


def test_series_too_short_to_tune_on_are_an_error(run, tmp_path):
    data = tmp_path / "data.csv"
    data.write_text("index,timestamp,value,instance\n0,2024-03-01,1,i-a\n")
    result = run("--data", data, "--tune", 1)
    assert "too short to count alerts per week" in str(result.exception)
