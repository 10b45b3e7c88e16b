"""`python -m dataflow ...`, each command as its users run it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    REPOSITORY,
    PausableBroker,
    environment,
    fill_topic,
    free_port,
    read_topic,
)
from test_flow import made_rows, write_csv

from dataflow import __version__, kafka
from dataflow.cli import COMMANDS
from dataflow.demo import sine
from dataflow.settings import Settings

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_help_lists_every_command(run_command: Command) -> None:
    done = run_command("--help")
    assert done.returncode == 0
    _, _, commands = done.stdout.partition("Commands:")
    listed = re.findall(r"^  ([a-z-]+)  ", commands, re.MULTILINE)
    assert listed == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(run_command: Command, command: str) -> None:
    done = run_command(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Usage: python -m dataflow {command}" in done.stdout


ONE = """
import atexit, sys
from dataflow.cli import main
atexit.register(lambda: print("\\n".join(sys.modules), file=sys.stderr))
sys.argv = ["ec2-anomaly", "topics", "--help"]
main()
"""


def test_a_command_imports_no_other() -> None:
    done = subprocess.run([sys.executable, "-c", ONE], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: ec2-anomaly topics")
    imported = set(done.stderr.splitlines())
    commands = {f"dataflow.commands.{name.replace('-', '_')}" for name in COMMANDS}
    assert commands & imported == {"dataflow.commands.topics"}
    assert not imported & {"pandas", "numpy"}


@pytest.fixture
def without_bytewax(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every Python that a test starts find no Bytewax, as on Python 3.13 and later."""
    (tmp_path / "sitecustomize.py").write_text('import sys\nsys.modules["bytewax"] = None\n')
    path = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))


EXPLAIN_ALL = """
import contextlib
from dataflow.cli import COMMANDS, _app
for command in COMMANDS:
    with contextlib.suppress(SystemExit):
        _app(COMMANDS)([command, "--help"])
"""


@pytest.mark.usefixtures("without_bytewax")
def test_every_command_explains_itself_without_bytewax() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EXPLAIN_ALL], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.findall(r"Usage: \S+ ([a-z-]+)", done.stdout) == list(COMMANDS)


@pytest.mark.usefixtures("without_bytewax")
def test_commands_work_without_bytewax(
    run_command: Command, brokers: str, topic: str, tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "metrics.csv", made_rows(count=100))
    labels = tmp_path / "labels.json"
    times = [row["timestamp"] for row in made_rows(count=100) if row["instance"] == "host-0"]
    labels.write_text(json.dumps({"host-0": [times[50:52]]}))
    own = {"brokers": brokers, "topic": topic}
    for arguments in (
        ["topics"],
        ["produce", str(path)],
        ["replay"],
        ["sample", "--out", "stream"],
        ["evaluate", "--detector", "tutorial", "--data", str(path), "--labels", str(labels)],
        ["plan", "--instances", "1000"],
    ):
        done = run_command(*arguments, **own)
        assert (done.returncode, done.stderr) == (0, ""), arguments
    assert len(read_topic(brokers, topic)) == 800


@pytest.mark.usefixtures("without_bytewax")
@pytest.mark.parametrize("arguments", [["demo"], ["demo", "--dashboard"], ["recovery", "store"]])
def test_what_needs_bytewax_says_how_to_get_it(run_command: Command, arguments: list[str]) -> None:
    done = run_command(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "3.11 and 3.12 only" in done.stderr


@pytest.mark.usefixtures("without_bytewax")
def test_the_flow_without_bytewax_says_how_to_get_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import dataflow.flow"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: The flow needs Bytewax")
    assert len(done.stderr.splitlines()) == 1


def test_the_script_is_the_same_program(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("ec2-anomaly")
    if not script.exists():
        pytest.skip("the package is not installed, only on the path")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [script, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    assert run("--version").stdout == f"ec2-anomaly {__version__}\n"
    assert "Usage: ec2-anomaly plan" in run("plan", "--help").stdout
    assert "--install-completion" in run("--help").stdout
    # It looks for the shell among its parents.
    completion = subprocess.run(
        ["bash", "-c", '"$0" --show-completion bash; true', script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "_EC2_ANOMALY_COMPLETE=complete_bash" in completion.stdout


def test_the_version(run_command: Command) -> None:
    assert run_command("--version").stdout == f"ec2-anomaly {__version__}\n"


def test_completion_is_for_the_script_only(run_command: Command) -> None:
    done = run_command("--help")
    assert done.stdout.startswith("Usage: python -m dataflow")
    assert "completion" not in done.stdout


def test_a_wrong_command_is_refused(run_command: Command) -> None:
    done = run_command("dmeo")
    assert done.returncode == 2
    assert "dmeo" in done.stderr


def test_produce_makes_the_topic_and_keys_by_instance(
    run_command: Command, brokers: str, topic: str, tmp_path: Path
) -> None:
    rows = made_rows(count=50)
    path = write_csv(tmp_path / "metrics.csv", rows)
    done = run_command("produce", str(path), brokers=brokers, topic=topic)
    assert (done.returncode, done.stderr) == (0, "")  # in a pipe: no progress bar
    assert f"created {topic} with 3 partitions" in done.stdout
    assert f"wrote 400 records to {topic}" in done.stdout
    sent = read_topic(brokers, topic)
    assert all(key == record["instance"] for key, record in sent)
    for instance in {row["instance"] for row in rows}:
        mine = [record for _, record in sent if record["instance"] == instance]
        assert mine == [row for row in rows if row["instance"] == instance]
    settings = Settings(_env_file=None, brokers=brokers)
    assert kafka.partition_ids(kafka.metadata(settings), topic) == [0, 1, 2]


def test_produce_again_adds_unless_the_option_forbids_it(
    run_command: Command, brokers: str, topic: str, tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "metrics.csv", made_rows(count=5))
    for expected in (40, 80):
        assert run_command("produce", str(path), brokers=brokers, topic=topic).returncode == 0
        assert len(read_topic(brokers, topic)) == expected
    done = run_command("produce", str(path), "--if-empty", brokers=brokers, topic=topic)
    assert done.returncode == 0
    assert "holds 80 records already: nothing is written" in done.stdout
    assert len(read_topic(brokers, topic)) == 80


def test_produce_sends_what_it_cannot_read_as_it_is(
    run_command: Command, brokers: str, topic: str, tmp_path: Path
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"instance": "a", "value": 1}\nnot JSON\n')
    assert run_command("produce", str(path), brokers=brokers, topic=topic).returncode == 0
    settings = Settings(_env_file=None, brokers=brokers)
    sent = {(it.key(), it.value()) for it in kafka.read_from(settings, topic, {})}
    assert sent == {(b"a", b'{"instance": "a", "value": 1}'), (None, b"not JSON")}


def test_produce_at_a_rate_takes_its_time(
    run_command: Command, brokers: str, topic: str, tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "metrics.csv", made_rows(instances=1, count=60))
    started = time.monotonic()
    done = run_command("produce", str(path), "--rate", "40", brokers=brokers, topic=topic)
    assert done.returncode == 0
    assert time.monotonic() - started >= 1.4  # a lower bound holds on a slow machine as well
    assert len(read_topic(brokers, topic)) == 60


def test_produce_keeps_readings_without_an_instance_together(
    run_command: Command, brokers: str, topic: str, tmp_path: Path
) -> None:
    path = write_csv(tmp_path / "metrics.csv", made_rows(count=5))
    done = run_command("produce", str(path), brokers=brokers, topic=topic, key_field="none")
    assert done.returncode == 0, done.stderr
    sent = read_topic(brokers, topic)
    assert [key for key, _ in sent] == [topic] * 40
    assert [record for _, record in sent] == made_rows(count=5)


@pytest.mark.parametrize("named", [False, True])
def test_produce_sine_is_decided_by_its_seed(
    run_command: Command, own_broker: PausableBroker, named: bool
) -> None:
    own = {"brokers": own_broker.address} | ({"topic": "waves"} if named else {})
    topic = "waves" if named else "raw-data"
    for seed in ("3", "3", "4"):
        done = run_command("produce", "sine", "--count", "900", "--seed", seed, **own)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"wrote 900 records to {topic}" in done.stdout
    sent = [record for _, record in read_topic(own_broker.address, topic)]
    assert sent[:900] == sent[900:1800] != sent[1800:]
    assert sent[900:1800] == [json.loads(record) for record in sine.records(900, 3)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["produce", "missing.csv"], "cannot read missing.csv"),
        (["produce", "metrics.parquet"], "is not a file of records"),
        (["produce", "empty.csv"], "is empty"),
        (["produce", "metrics.csv", "--count", "5"], "--count and --seed apply to `produce sine`"),
        (["produce", "metrics.csv", "--seed", "5"], "--count and --seed apply to `produce sine`"),
    ],
)
def test_produce_refuses_in_one_line(
    run_command: Command, brokers: str, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "empty.csv").touch()
    done = run_command(*arguments, brokers=brokers)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr


def test_topics_makes_what_is_missing(run_command: Command, brokers: str, topic: str) -> None:
    own = {"brokers": brokers, "topic": topic, "anomalies_topic": f"{topic}.found"}
    fill_topic(brokers, topic, [], partitions=5)
    done = run_command("topics", "--partitions", "2", **own)
    assert done.returncode == 0, done.stderr
    cluster = kafka.metadata(Settings(_env_file=None, brokers=brokers))
    assert len(kafka.partition_ids(cluster, topic)) == 5
    assert len(kafka.partition_ids(cluster, f"{topic}.found")) == 2
    assert len(kafka.partition_ids(cluster, f"{topic}.rejected")) == 2
    assert "already" in run_command("topics", **own).stdout


def start_broker(folder: Path, port: int) -> subprocess.Popen[str]:
    broker = subprocess.Popen(
        [sys.executable, "-m", "dataflow", "broker", "--port", str(port)],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert broker.stdout is not None
    assert f"127.0.0.1:{port}" in broker.stdout.readline()
    return broker


def test_the_broker_keeps_its_data_and_stops_when_asked(tmp_path: Path, topic: str) -> None:
    port = free_port()
    for stop in (signal.SIGINT, signal.SIGTERM):
        with start_broker(tmp_path, port) as broker:
            fill_topic(f"127.0.0.1:{port}", topic, [("a", b"{}")])
            broker.send_signal(stop)
            assert broker.wait(120) == 0
    with start_broker(tmp_path, port) as broker:
        assert len(read_topic(f"127.0.0.1:{port}", topic)) == 2
        broker.terminate()


def test_a_port_that_is_taken(run_command: Command, brokers: str) -> None:
    if not brokers.startswith("127.0.0.1:"):
        pytest.skip("the broker of --brokers listens elsewhere")
    port = brokers.rpartition(":")[2]
    done = run_command("broker", "--port", port)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"error: Port {port} on 127.0.0.1 is already in use: choose another with --port."
    ]


@pytest.mark.usefixtures("needs_bytewax")
def test_the_demo_shows_alerts_and_when_they_are_over(run_command: Command) -> None:
    done = run_command("demo", topic="something_else", brokers="nowhere:1")
    assert (done.returncode, done.stderr) == (0, "")
    labels = json.loads((REPOSITORY / "data" / "labels.json").read_text())
    instances = "|".join(labels)
    found = re.findall(
        rf"^\d{{4}}-.* ({instances}) +score 0\.\d\d  CPU ", done.stdout, re.MULTILINE
    )
    total: Any = re.search(r"^all +(\d+) +(\d+)$", done.stdout, re.MULTILINE)
    assert 0 < len(found) == int(total[1]) < int(total[2]) / 5
    over = re.findall(
        rf"^\d{{4}}-.* ({instances})  over after [\w ]+: \w+$", done.stdout, re.MULTILINE
    )
    # A trouble that lasts is over too, if none of it was an alert.
    assert len(found) / 2 < len(over) < 1.5 * len(found)
    assert re.search(r"32,256 records in [\d.]+ s \([\d,]+ a second", done.stdout)
    # The README shows some of these lines.
    shown = (REPOSITORY / "README.md").read_text().partition("$ make run\n")[2].partition("```")[0]
    lines = [line for line in shown.splitlines() if line != "..."]
    assert lines
    assert set(lines) <= set(done.stdout.splitlines())
