"""Every command that a page shows is run, as it stands but for its addresses and folders."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, environment, fill_topic, free_port
from test_flow import keyed, made_rows

from dataflow.demo.broker import EmbeddedBroker

PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{path.name}" for path in (REPOSITORY / "docs").glob("*.md")),
]

ELSEWHERE = {
    "make run": ".ci/run runs it",
    "make test": ".ci/run runs it",
    "make lint\nmake test": ".ci/run runs it",
    "make bench": "test_benchmarks.py runs what it runs, for a glance",
    "python benchmarks/picture.py throughput.png": "test_benchmarks.py runs it, for a glance",
    "python -m dataflow evaluate --data data/ec2_metrics.csv --labels data/labels.json": (
        "test_the_figures_of_the_readme runs it"
    ),
    "docker compose up": "test_compose.py runs its services' commands; there may be no engine",
    "docker compose --profile host up": "as above, and test_producers.py runs its Telegraf",
    "kill -TERM PID": "test_faults.py sends it",
}

SINE_WAVE = "docs/sine-wave.md"
"""The page whose commands test_isolation_forest.py runs."""

PRINTED = {
    "docs/extending.md": ["(435,)", "[('i-1', 0.97)]"],
}
"""Lines that the commands of a page print, and the page says so."""


def blocks(page: str) -> list[str]:
    text = (REPOSITORY / page).read_text()
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def files(page: str) -> dict[str, str]:
    """The Python files that a page shows, by the name in their first line."""
    text = (REPOSITORY / page).read_text()
    shown = re.findall(r"^```python\n(# (\w+\.py)\n.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return {name: content for content, name in shown}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with what make has installed: the environment that the tests run in."""
    folder = tmp_path / "clone"
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    compiled = (REPOSITORY / "dataflow").rglob("*.so")
    names = [*tracked.split("\0"), *(str(path.relative_to(REPOSITORY)) for path in compiled)]
    for name in filter(None, names):
        if (REPOSITORY / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)
    environment_here = folder / ".venv"
    environment_here.mkdir()
    for entry in Path(sys.prefix).iterdir():
        if entry.name in ("bin", "lib", "lib64", "include", "share", "etc", "pyvenv.cfg"):
            (environment_here / entry.name).symlink_to(entry)
    for stamp in ("compiled", "run", "dashboard", "install", "dev"):
        (environment_here / stamp).touch()
    return folder


def script_of(page: str) -> str:
    return "".join(block for block in blocks(page) if block.strip() not in ELSEWHERE)


@pytest.mark.usefixtures("needs_bytewax")
@pytest.mark.parametrize("page", [page for page in PAGES if script_of(page) and page != SINE_WAVE])
def test_the_commands_of_a_page(page: str, clone: Path, tmp_path: Path) -> None:
    """As a reader runs them: in one shell, in order, from a clone."""
    script = script_of(page)
    for name, content in files(page).items():
        (clone / name).write_text(content)
    with EmbeddedBroker(tmp_path / "broker") as broker:
        prepare(broker.address)
        script = script.replace("kafka.example:9092", broker.address)
        script = script.replace("/var/lib/", f"{tmp_path}/")
        for port in ("9464", "9465", "3030"):  # two pages may be tested at a time
            script = script.replace(port, str(free_port()))
        environ = environment(brokers=broker.address, follow="false")
        if page != "README.md":  # the one page that says how to get into the environment
            environ["PATH"] = f"{clone / '.venv' / 'bin'}{os.pathsep}{environ['PATH']}"
        done = subprocess.run(
            ["bash", "-eu"],
            input=f"trap 'echo failed: $BASH_COMMAND >&2' ERR\n{script}",
            cwd=clone,
            env=environ,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    assert done.returncode == 0, f"{script}\n{done.stdout[-500:]}\n{done.stderr[-2000:]}"
    assert "error: " not in done.stderr, f"{script}\n{done.stderr[-2000:]}"
    for line in PRINTED.get(page, ()):
        assert line in done.stdout.splitlines(), done.stdout[-2000:]


def test_an_example_of_a_part_of_ones_own_is_short(clone: Path) -> None:
    shown = files("docs/extending.md")
    assert set(shown) == {"jump.py", "telegraf.py", "table.py", "pager.py", "embedded.py"}
    for name, content in shown.items():
        code = [line for line in content.splitlines() if line and not line.startswith("#")]
        assert len(code) <= 20, name


def prepare(brokers: str) -> None:
    """What the pages take for granted: topics with something in them."""
    rows = made_rows(4, 200)
    fill_topic(brokers, "anomalies", [])
    fill_topic(brokers, "ec2_metrics", keyed(rows))
    traffic = [
        {"host": row["instance"], "rx_bytes": 1e6, "at": row["timestamp"], "n": row["index"]}
        for row in rows
    ]
    fill_topic(brokers, "traffic", [(row["host"], json.dumps(row).encode()) for row in traffic])


def test_what_runs_elsewhere_is_shown_somewhere() -> None:
    shown = {block.strip() for page in PAGES for block in blocks(page)}
    assert set(ELSEWHERE) <= shown


def test_every_command_is_on_the_page_of_commands() -> None:
    from dataflow.cli import COMMANDS

    table = (REPOSITORY / "docs" / "commands.md").read_text()
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
