"""Every command that a page shows is run, as it stands but for its addresses and folders."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, environment, fill_topic, free_port
from test_flow import made_rows

from dataflow.demo.broker import EmbeddedBroker

PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md"))]

ELSEWHERE = {
    "make run": ".ci/run runs it",
    "make test": ".ci/run runs it",
    "make dashboard": "test_demo_dashboard.py runs its command, which does not end by itself",
    "make bench": "test_benchmarks.py runs what it runs, for a glance",
    "python benchmarks/picture.py throughput.png": "test_benchmarks.py runs it, for a glance",
    "pip install .": "test_image.py holds what the image installs; make run installs the same",
    "docker compose up": "test_compose.py runs its services' commands; there may be no engine",
    "kill -TERM PID": "test_faults.py sends it",
}


def blocks(page: str) -> list[str]:
    text = (REPOSITORY / page).read_text()
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page(page: str, tmp_path: Path) -> None:
    for folder in ("data", "benchmarks"):
        (tmp_path / folder).symlink_to(REPOSITORY / folder)
    with EmbeddedBroker(tmp_path / "broker") as broker:
        prepare(broker.address)
        for block in blocks(page):
            if block.strip() in ELSEWHERE:
                continue
            script = block.replace("kafka.example:9092", broker.address)
            script = script.replace("/var/lib/", f"{tmp_path}/")
            for port in ("9464", "3030"):  # two pages may be tested at a time
                script = script.replace(port, str(free_port()))
            environ = environment(brokers=broker.address, follow="false")
            environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"
            if "ANOMALY_KEY_FIELD=host" in script:
                environ["ANOMALY_TOPIC"] = "traffic"
            done = subprocess.run(
                ["bash", "-euc", script],
                cwd=tmp_path,
                env=environ,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, f"{script}\n{done.stdout[-500:]}\n{done.stderr[-2000:]}"
            assert "error" not in done.stderr, f"{script}\n{done.stderr[-2000:]}"


def prepare(brokers: str) -> None:
    """What the pages take for granted: topics with something in them."""
    rows = made_rows(4, 200)
    fill_topic(brokers, "anomalies", [])
    fill_topic(
        brokers, "ec2_metrics", [(row["instance"], json.dumps(row).encode()) for row in rows]
    )
    traffic = [
        {"host": row["instance"], "rx_bytes": 1e6, "at": row["timestamp"], "n": row["index"]}
        for row in rows
    ]
    fill_topic(brokers, "traffic", [(row["host"], json.dumps(row).encode()) for row in traffic])


def test_what_runs_elsewhere_is_shown_somewhere() -> None:
    shown = {block.strip() for page in PAGES for block in blocks(page)}
    assert set(ELSEWHERE) <= shown


def test_every_command_is_in_the_readme() -> None:
    from dataflow.cli import COMMANDS

    table = (REPOSITORY / "README.md").read_text().split("## Commands")[1]
    listed = re.findall(r"^\| `([a-z-]+)", table, re.MULTILINE)
    assert listed == list(COMMANDS)


def test_the_figures_of_the_readme() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "dataflow", "evaluate", "--json"),
            *("--data", REPOSITORY / "data" / "ec2_metrics.csv"),
            *("--labels", REPOSITORY / "data" / "labels.json"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    measured = json.loads(done.stdout)["detectors"]
    rows = re.findall(
        r"^\| `(\w+)`.*? \| ([\d.]+) \| (\d+) of 16 \| (\d+)% \| (-?[\d.]+) \|$",
        (REPOSITORY / "README.md").read_text(),
        re.MULTILINE,
    )
    assert {name for name, *_ in rows} == set(measured)
    for name, false_alarms, found, right, score in rows:
        figures = measured[name]["at_threshold"]
        assert false_alarms == f"{figures['false_alarms_per_day']:.2f}"
        assert found == f"{16 * figures['recall']:.0f}"
        assert right == f"{100 * figures['precision']:.0f}"
        assert score == f"{figures['standard']:.1f}"
