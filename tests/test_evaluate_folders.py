"""Folders of CSV files that `evaluate` reads: their shapes, labels and errors; several metrics."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from dataflow.alerts import news
from dataflow.commands import evaluate as command
from dataflow.errors import UserError
from dataflow.evaluation import pairs
from dataflow.evaluation.alarms import Counts, count
from dataflow.evaluation.backtest import best_f1
from dataflow.evaluation.datasets import load_directory
from dataflow.evaluation.instances import AnyOf, Scored, held
from dataflow.evaluation.nab import Corpus, Series

READINGS = 700
STAMPS = pd.date_range("2024-03-01", periods=READINGS, freq="5min")
START = STAMPS[0].timestamp()


def values(seed: int, jump: int | None = None) -> np.ndarray:
    found = 2e6 + np.random.default_rng(seed).normal(0, 1e4, READINGS).clip(-3e4, 3e4)
    if jump is not None:
        found[jump : jump + 10] = 9e6
    return found


def evaluate(*arguments: object):
    app = typer.Typer()
    app.command()(command.evaluate)
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    assert result.exception is None or isinstance(result.exception, UserError)
    return result


def figures(*arguments: object) -> dict:
    asked = ("--detector", "zscore", "--threshold", "0.9", "--no-baselines", "--json")
    result = evaluate(*arguments, *asked)
    assert result.exit_code == 0, result.exception
    return json.loads(result.stdout)["detectors"]["zscore"]


def wide(tmp_path: Path) -> Path:
    """Two services of two metrics: of `web` the disk jumps at 500, of `db` the load at 600."""
    folder = tmp_path / "services"
    folder.mkdir()
    for name, disk, load in (("web", 500, None), ("db", None, 600)):
        table = pd.DataFrame(
            {"timestamp": STAMPS, "disk": values(1, disk), "load": values(2, load)}
        )
        table.to_csv(folder / f"{name}.csv.gz", index=False)
    return folder


def test_an_alert_of_any_metric_is_one_of_its_instance(tmp_path: Path) -> None:
    folder = wide(tmp_path)
    windows = {
        "web": [[str(STAMPS[500]), str(STAMPS[510])]],
        "db.csv": [[str(STAMPS[600]), str(STAMPS[610])]],
    }
    (folder / "labels.json").write_text(json.dumps(windows))
    found = figures("--data", folder, "--by-metric")
    assert (found["at_threshold"]["recall"], found["at_threshold"]["precision"]) == (1, 1)
    for one in found["metrics"].values():
        assert (one["recall"], one["precision"]) == (0.5, 1)
    assert list(found["metrics"]) == ["disk", "load"]
    (folder / "labels.json").unlink()
    found = figures("--data", folder, "--by-metric")
    days = 2 * (READINGS - 105 - 1) * 300 / 86_400
    assert found["at_threshold"]["alerts_per_day"] == pytest.approx(2 / days)
    assert found["at_threshold"]["instances_alerting"] == 2
    assert found["metrics"]["disk"]["alerts_per_day"] == pytest.approx(1 / days)
    text = evaluate("--data", folder, "--by-metric").stdout
    assert "2 instances with 4 series, no labels." in text
    assert "zscore, each metric by itself:\nmetric  alerts/day\n" in text


def test_the_same_readings_in_any_shape_are_the_same_series(tmp_path: Path) -> None:
    folder = wide(tmp_path)
    marked = {"web": slice(500, 511), "db": slice(600, 605)}
    windows = {
        name: [[str(STAMPS[places.start]), str(STAMPS[places.stop - 1])]]
        for name, places in marked.items()
    }
    (folder / "labels.json").write_text(json.dumps(windows))
    expected = load_directory(folder, None, None, 300)
    assert [(one.instance, one.metric) for one in expected] == [
        *(("db", "disk"), ("db", "load")),
        *(("web", "disk"), ("web", "load")),
    ]
    tables = []
    for name, places in marked.items():
        table = pd.read_csv(folder / f"{name}.csv.gz")
        table["is_anomaly"] = 0
        table.loc[places.start : places.stop - 1, "is_anomaly"] = 1
        tables.append(table.assign(instance=name))
    together = pd.concat(tables).sort_values(["timestamp", "instance"])
    long = together.melt(["timestamp", "instance", "is_anomaly"], var_name="metric")
    numbered = [
        table.drop(columns="instance").assign(timestamp=range(READINGS)) for table in tables
    ]
    shapes = {
        "labels in a column": {one["instance"].iloc[0]: one for one in tables},
        "wide, of two instances": {"all": together.rename(columns={"is_anomaly": "label"})},
        "long": {"all": long.assign(index=range(len(long)), value=long["value"].astype(str) + "0")},
        "seconds": {
            "all": long.assign(timestamp=pd.to_datetime(long["timestamp"]).astype("int64"))
        },
        "numbered": {"web": numbered[0], "db": numbered[1]},
    }
    for shape, files in shapes.items():
        other = tmp_path / shape
        other.mkdir()
        for name, table in files.items():
            table.to_csv(other / f"{name}.csv", index=False)
        found = {(one.instance, one.metric): one for one in load_directory(other, None, None, 300)}
        shift = START if shape == "numbered" else 0
        for one in expected:
            same = found[one.instance, one.metric]
            assert same.times + shift == pytest.approx(one.times), shape
            assert same.values == pytest.approx(one.values), shape
            assert np.add(same.windows, shift) == pytest.approx(np.array(one.windows)), shape


def test_an_empty_cell_is_no_reading_and_folders_are_part_of_names(tmp_path: Path) -> None:
    (tmp_path / "eu").mkdir()
    path = tmp_path / "eu" / "web.csv"
    path.write_text("timestamp,a,b\n2024-03-01 00:00:00,1,\n2024-03-01 00:05:00,,2\n\n")
    a, b = load_directory(tmp_path, "eu/*", None, 300)
    assert (a.instance, a.metric, a.times.tolist(), a.values.tolist()) == (
        *("eu/web", "a"),
        *([START], [1]),
    )
    assert (b.times.tolist(), b.values.tolist()) == ([START + 300], [2])
    # Alerts of metrics meet at the moments of all.
    judged = AnyOf([a, b])
    assert judged.instances[0].times.tolist() == [START, START + 300]
    found = judged.ranked([Scored.by([0.3]), Scored.by([0.7])])
    assert found[0].tolist() == [0.3, 0.7]


def test_what_is_skipped_does_not_count(tmp_path: Path) -> None:
    table = pd.DataFrame({"timestamp": STAMPS, "value": values(1, 500), "label": 0})
    table.loc[500:509, "label"] = 1
    table.loc[350:351, "label"] = 1
    (tmp_path / "one").mkdir()
    table.to_csv(tmp_path / "one" / "a.csv", index=False)
    assert figures("--data", tmp_path / "one")["at_threshold"]["recall"] == 0.5
    skipped = figures("--data", tmp_path / "one", "--skip", "36h")["at_threshold"]
    assert (skipped["recall"], skipped["f1"]) == (1, 1)
    days = (READINGS - 1) * 300 / 86_400 - 1.5
    assert skipped["alerts_per_day"] == pytest.approx(1 / days)


def test_readings_that_do_not_fit_the_interval_are_a_warning(tmp_path: Path) -> None:
    folder = wide(tmp_path)
    quiet = evaluate("--data", folder, "--no-baselines", "--json")
    assert quiet.stderr == ""
    warned = evaluate("--data", folder, "--interval", 60, "--no-baselines", "--json")
    assert warned.stderr.count("\n") == 1
    assert "4 of 4 series are about 300 s apart, and the interval is 60 s" in warned.stderr


def test_the_best_f1_is_that_of_all_thresholds_that_a_recount_tries() -> None:
    rng = np.random.default_rng(5)
    times = np.arange(300) * 3600.0
    series = [
        Series(name, times, times, ((150 * 3600.0, 160 * 3600.0), (250 * 3600.0, 255 * 3600.0)))
        for name in ("a", "b")
    ]
    runs = [[rng.uniform(0, 0.5, 300) for _ in series] for _ in range(2)]
    for scores in (scores for run in runs for scores in run):
        scores[[80, 120, 200, 240]] = 0.9  # false, and higher than what is right
        scores[150:161] += 0.1
        scores[250:256] += 0.2
    judged = AnyOf(series)
    scored = [[Scored.by(one) for one in run] for run in runs]
    level, figures = best_f1(Corpus(judged.instances), judged, scored, 0.95, 3600.0)

    def f1(threshold: float) -> float:
        found = []
        for run in runs:
            alerts = [np.array(news.held(one.tolist(), threshold, 3600.0)) for one in run]
            pieces = [
                count(one, each > threshold) for one, each in zip(series, alerts, strict=True)
            ]
            found.append(sum(pieces, Counts()).f1 or 0.0)
        return float(np.mean(found))

    counted = np.sort(np.concatenate([one[45:] for run in runs for one in run]))
    highest = max(f1(threshold) for threshold in counted[len(counted) * 3 // 4 :].tolist())
    assert figures["f1"] == pytest.approx(highest)
    assert f1(level) == pytest.approx(highest)


def test_alerts_are_held_back_as_the_flow_does() -> None:
    rng = np.random.default_rng(3)
    for threshold in (0.0, 0.2, 0.5, 0.9):
        scores = rng.uniform(0, 1, 3000) ** rng.choice([1, 8], 3000)
        for interval in (60.0, 300.0, 3600.0):
            expected = news.held(scores.tolist(), threshold, interval)
            assert held(Scored.by(scores), threshold, interval).tolist() == expected


def test_a_run_is_compared_with_another_detector_and_with_an_earlier_run(tmp_path: Path) -> None:
    folder = wide(tmp_path)
    windows = {"web": [[str(STAMPS[500]), str(STAMPS[510])]]}
    (folder / "labels.json").write_text(json.dumps(windows))
    asked = ("--data", folder, "--no-baselines", "--detector", "zscore")
    result = evaluate(*asked, "--against", "tutorial", "--json")
    found = json.loads(result.stdout)
    (pair,) = found["pairs"]
    assert (pair["detector"], pair["against"]) == ("zscore", "tutorial")
    assert list(pair["figures"]) == [
        *("standard", "precision", "recall", "f1", "false_alarms_per_day", "alerts_per_day"),
        *("best_f1", "best_f1_false_alarms_per_day", "average_precision"),
    ]
    for name in ("standard", "f1", "alerts_per_day"):
        one, other = (
            found["detectors"][each]["at_threshold"][name] for each in ("zscore", "tutorial")
        )
        one_pair = pair["figures"][name]
        assert (one_pair["value"], one_pair["against"]) == pytest.approx((one, other))
        assert one_pair["low"] <= one - other <= one_pair["high"]
    before = tmp_path / "before.json"
    before.write_text(result.stdout)
    again = json.loads(evaluate(*asked, "--against", before, "--json").stdout)
    (same,) = again["pairs"]
    assert {one["difference"] for one in same["figures"].values()} == {0}
    text = evaluate(*asked, "--against", before, "--skip", "1d").exception
    assert "is of other readings" in str(text)
    shown = evaluate(*asked, "--against", before).stdout
    assert f"zscore against {before}:\n" in shown
    for arguments, says in (
        ((*asked[:-1], "calibrated", "--against", before), "has no detector calibrated"),
        ((*asked, "--against", "zscore"), "needs another one"),
        ((*asked, "--against", tmp_path / "no.json"), "Cannot read"),
        ((*asked, "--against", folder / "labels.json"), "has no counts of instances"),
        (
            ("--data", folder, "--files", "web*", "--detector", "zscore", "--against", before),
            "other",
        ),
    ):
        assert says in str(evaluate(*arguments).exception)


def test_an_interval_is_that_of_the_choice_of_instances() -> None:
    rng = np.random.default_rng(1)
    counts = rng.poisson(20, (2, 1, 400)).astype(float)
    days = np.ones((1, 400))
    one, other = ({"alarms": each, "days": days} for each in counts)
    found = pairs.compare(one, other)["alerts_per_day"]
    differences = counts[0, 0] - counts[1, 0]
    # What the central limit theorem says of a mean of 400.
    deviation = differences.std() / 20
    assert found.difference == pytest.approx(differences.mean())
    assert found.low == pytest.approx(found.difference - 1.645 * deviation, abs=deviation / 5)
    assert found.high == pytest.approx(found.difference + 1.645 * deviation, abs=deviation / 5)
    # Paired: what both have in common is no uncertainty, whatever the instance.
    much = {"alarms": counts[0] + 1000 * rng.integers(0, 2, 400), "days": days}
    more = {"alarms": much["alarms"] + 1, "days": days}
    assert pairs.compare(more, much)["alerts_per_day"][2:] == pytest.approx((1, 1, 1))
    # Of several seeds, the mean.
    seeds = {"alarms": np.vstack([counts[0], counts[1]]), "days": np.vstack([days, days])}
    assert pairs.compare(seeds, one)["alerts_per_day"].value == pytest.approx(counts.mean())
    assert pairs.compare(
        *({name: values[:, :1] for name, values in each.items()} for each in (one, other))
    )["alerts_per_day"][3:] == (None, None)


HEAD = "timestamp,value\n2024-03-01,1\n"
BAD = {
    "no file": ("x.csv", "", "is not CSV"),
    "no timestamp": ("x.csv", "when,value\n1,2\n", "has no column timestamp"),
    "no values": ("x.csv", "timestamp,label\n2024-03-01,0\n", "needs one column of values"),
    "no one value": ("x.csv", "timestamp,metric,a,b\n2024-03-01,m,0,0\n", "it has a, b"),
    "no readings": ("x.csv", "timestamp,value\n", "has no readings"),
    "a wrong value": ("x.csv", f"{HEAD}2024-03-02,high\n", "line 3, has a value of value that"),
    "no number": ("x.csv", f"{HEAD}2024-03-02,inf\n", "line 3, has a value of value that"),
    "a wrong time": ("x.csv", f"{HEAD}\nsoon,1\n", "line 4, has a timestamp that cannot be read"),
    "a wrong label": ("x.csv", "timestamp,value,label\n1,1,2\n", "line 2, has a label that is not"),
    "no instance": ("x.csv", "timestamp,value,instance\n1,1,\n", "line 2, has no instance"),
    "no such columns": ("x.csv", f"{HEAD}2024-03-02,1,2,3\n", "is not CSV"),
    "longer rows": ("x.csv", "timestamp,value\n1,2,3\n1,2,3\n", "is not CSV"),
    "no gzip": ("x.csv.gz", HEAD, "Cannot read"),
    "twice": ("x.csv", "timestamp,value,instance\n1,1,y\n", "has readings of y, as another"),
}


@pytest.mark.parametrize("case", BAD)
def test_errors_are_one_sentence(tmp_path: Path, case: str) -> None:
    name, text, says = BAD[case]
    (tmp_path / name).write_text(text)
    if case == "twice":
        (tmp_path / "y.csv").write_text(HEAD)
    result = evaluate("--data", tmp_path)
    assert says in str(result.exception)
    assert "\n" not in str(result.exception)


def test_a_cut_file_is_an_error(tmp_path: Path) -> None:
    whole = gzip.compress("".join(f"{HEAD}" for _ in range(999)).encode())
    (tmp_path / "x.csv.gz").write_bytes(whole[:-20])
    assert "x.csv.gz" in str(evaluate("--data", tmp_path).exception)


def test_labels_of_other_instances_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(HEAD)
    (tmp_path / "labels.json").write_text('{"b": [["2024-03-01", "2024-03-02"]]}')
    assert "labels no instance of" in str(evaluate("--data", tmp_path).exception)
