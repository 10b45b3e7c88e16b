"""Outputs of a user's own, found by name, in the real flow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, Flow, environment, read_json_lines
from prometheus_client import REGISTRY
from test_counters import incident
from test_errors import refused
from test_flow import made_rows, write_csv

from dataflow.errors import UserError
from dataflow.recovery.files import initialize
from dataflow.settings import Settings, load
from dataflow.sinks import incident_outputs, outputs

PAGER = '''\
"""Writes each record to a file of its kind, as an output might send it to a service."""

from dataflow.errors import UserError
from dataflow.records import Incident, encode
from dataflow.sinks import BatchOutput


class Pager(BatchOutput):
    def write(self, records):
        for record in records:
            name = "incidents" if isinstance(record, Incident) else "anomalies"
            with open(f"pager.{name}", "ab") as file:
                file.write(encode(record) + b"\\n")


class Broken(BatchOutput):
    def write(self, records):
        raise RuntimeError("HTTP 500\\nfrom the pager")


class Refusing(BatchOutput):
    def write(self, records):
        raise UserError("the pager does not know the key in PAGER_KEY: set another one.")


class Unusable(BatchOutput):
    def __init__(self, settings, store):
        raise UserError("PAGER_KEY is empty: set it to the key of the pager.")

    def write(self, records):
        ...


class Thing:
    ...
'''


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """A module with outputs in the working directory of the flow, and readings to run on."""
    (tmp_path / "mine.py").write_text(PAGER)
    write_csv(tmp_path / "metrics.csv", made_rows(4, 400))
    return {"input": "metrics.csv", "detector": "tutorial", "incidents": "true"}


def by_place(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(records, key=json.dumps)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_class_of_a_module_gets_what_a_file_gets(
    run_flow: Flow, tmp_path: Path, settings: dict[str, Any], workers: int
) -> None:
    done = run_flow("-w", str(workers), output="mine:Pager,found.jsonl", **settings)
    assert (done.returncode, done.stderr) == (0, "")
    for pager, file in (("anomalies", "found.jsonl"), ("incidents", "found.incidents.jsonl")):
        written = read_json_lines(tmp_path / f"pager.{pager}")
        assert len(written) > 3
        assert by_place(written) == by_place(read_json_lines(tmp_path / file))


def test_an_entry_point_of_an_installed_package(
    run_flow: Flow, tmp_path: Path, settings: dict[str, Any]
) -> None:
    site = tmp_path / "site"
    info = site / "pagers-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "pagers.py").write_text(PAGER)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pagers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dataflow.outputs]\npager-1 = pagers:Pager\n")
    path = {"PYTHONPATH": f"{site}:{os.environ.get('PYTHONPATH', '')}"}
    done = run_flow(bytewax=path, output="pager-1,found.jsonl", **settings)
    assert (done.returncode, done.stderr) == (0, "")
    written = read_json_lines(tmp_path / "pager.anomalies")
    assert written == read_json_lines(tmp_path / "found.jsonl")

    done = run_flow(bytewax=path, output="pagers", **settings)
    refused(
        done,
        "ANOMALY_OUTPUT names the output 'pagers', which does not exist: use stdout, kafka, "
        "pager-1, a path ending in .jsonl, module:Class",
    )


def test_what_an_output_did_not_write_is_written_after_a_restart(
    run_flow: Flow, tmp_path: Path, settings: dict[str, Any]
) -> None:
    initialize(tmp_path / "store", 1)
    store = ["-r", "store", "-s", "0", "-b", "0"]
    done = run_flow(*store, output="mine:Broken,found.jsonl", **settings)
    assert done.returncode == 1
    *trace, line = done.stderr.splitlines()
    assert trace[0].startswith("Traceback")
    assert line.startswith(
        "error: the output Broken cannot write (RuntimeError: HTTP 500 from the pager): correct"
    )
    (tmp_path / "mine.py").write_text(
        PAGER.replace("class Broken", "class Was").replace("class Pager", "class Broken")
    )
    done = run_flow(*store, output="mine:Broken,found.jsonl", **settings)
    assert (done.returncode, done.stderr) == (0, "")
    written = read_json_lines(tmp_path / "pager.anomalies")
    assert by_place(written) == by_place(read_json_lines(tmp_path / "found.jsonl"))


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("mine:Refusing", "the pager does not know the key in PAGER_KEY: set another one."),
        ("mine:Unusable", "PAGER_KEY is empty: set it to the key of the pager."),
        ("mine:Thing", "ANOMALY_OUTPUT names 'mine:Thing', which is not an output"),
        ("mine:Gone", "ANOMALY_OUTPUT names the output 'mine:Gone', which cannot be imported"),
        ("mine:Pager,mine:Pager", "ANOMALY_OUTPUT names the same output twice"),
    ],
)
def test_an_output_that_cannot_be_used_is_one_line(
    run_flow: Flow, settings: dict[str, Any], output: str, said: str
) -> None:
    refused(run_flow(output=output, **settings), said)


def options(output: str) -> Settings:
    return Settings(_env_file=None, input="metrics.csv", output=output)


@pytest.fixture
def importable(
    tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Modules of the working directory can be imported, in this test only."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    before = {*sys.modules}
    yield
    for name in {*sys.modules} - before:
        del sys.modules[name]


def test_step_ids_are_part_of_the_stores_format(importable: None) -> None:
    given = options("stdout,found.jsonl,mine:Pager")
    assert list(outputs(given, None)) == ["write_stdout", "write_jsonl", "write_mine_Pager"]
    assert list(incident_outputs(given, None)) == [
        *("write_incidents_stdout", "write_incidents_jsonl", "write_incidents_mine_Pager")
    ]


def test_an_output_without_incidents_has_no_step_for_them(importable: None, tmp_path: Path) -> None:
    (tmp_path / "only.py").write_text(
        "from dataflow.sinks import Output\n"
        "from dataflow.sinks.jsonl import StreamSink\n"
        "class Anomalies(Output):\n"
        "    def anomalies(self):\n"
        "        return StreamSink('stdout')\n"
    )
    assert list(outputs(options("only:Anomalies"), None)) == ["write_only_Anomalies"]
    assert incident_outputs(options("only:Anomalies"), None) == {}


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("incidents_of:Pager", "step id write_incidents_of_Pager is taken"),
        ("twice:Outer.Pager,twice:Outer_Pager", "step id is also write_twice_Outer_Pager"),
    ],
)
def test_an_output_cannot_take_the_step_id_of_another(
    importable: None, tmp_path: Path, output: str, said: str
) -> None:
    (tmp_path / "incidents_of.py").write_text(PAGER)
    (tmp_path / "twice.py").write_text(
        f"{PAGER}\nclass Outer:\n    Pager = Pager\n\nOuter_Pager = Pager\n"
    )
    with pytest.raises(UserError, match=said):
        outputs(options(output), None)


def test_metrics_count_an_output_by_its_class(importable: None) -> None:
    sink: Any = incident_outputs(options("mine:Pager"), None)["write_incidents_mine_Pager"]
    part = sink.build("ec2_anomalies.write_incidents_mine_Pager", 0, 1)
    part.write_batch([("host-0", incident("silence", "opened"))])
    labels = {"output": "Pager", "kind": "incident"}
    for name in ("anomaly_records_written_total", "anomaly_records_confirmed_total"):
        assert REGISTRY.get_sample_value(name, labels) == 1


def test_a_wrong_name_lists_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALY_OUTPUT", "stdout,found.txt")
    with pytest.raises(UserError) as error:
        load()
    assert str(error.value) == (
        "ANOMALY_OUTPUT names the output 'found.txt', which does not exist: use stdout, kafka, a "
        "path ending in .jsonl, module:Class for your own, or several with commas."
    )


def test_a_terminal_shows_alerts_their_ends_and_what_the_flow_does(tmp_path: Path) -> None:
    program = (
        "import pty, sys; "
        "sys.exit(pty.spawn([sys.executable, '-m', 'bytewax.run', 'dataflow.flow']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment(input=REPOSITORY / "data" / "ec2_metrics.csv"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    lines = done.stdout.splitlines()
    assert lines[0].startswith("reading the file ")
    assert lines[0].endswith("with calibrated (alerts above 0.5); anomalies go to stdout") or (
        ", not compiled (alerts" in lines[0]
    )
    alerts = [line for line in lines if "  score 0." in line]
    over = [line for line in lines if "  over after " in line]
    assert all("  CPU " in line for line in alerts)
    assert len(alerts) == 25
    assert 20 < len(over) <= len(alerts)
    assert lines[-1] == "scored 32,256 readings: 25 alerts, 435 anomalies"
