"""`docker-compose.yml`: what it says is held against the package that it runs.

There may be no container engine here. The file is read, and the commands in it are run as they
stand, against the embedded broker.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from conftest import REPOSITORY, environment, free_port, read_topic

from dataflow import settings
from dataflow.cli import COMMANDS, _app
from dataflow.demo.broker import EmbeddedBroker
from dataflow.settings import PREFIX, Settings

COMPOSE_FILE = REPOSITORY / "docker-compose.yml"
COMPOSE = yaml.safe_load(COMPOSE_FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"] == "ec2-anomaly-dataflow"]
THEIRS = [name for name in SERVICES if name not in OURS]
WATCHERS = ["prometheus", "grafana"]
STORE = "/recovery"

FIXED = {"brokers", "output", "metrics_port", "metrics_host", "notify_metrics_port", "notify_store"}
"""Settings that the file decides."""

LEFT_OUT = {"input", "follow", "partitions", "kafka", "notify_sns", "notify_eventbridge"}
"""Settings of a flow that reads something else, ends, shares its work or needs a password."""


def commands(service: str) -> list[list[str]]:
    """The programs that a service runs, one after the other."""
    command = SERVICES[service]["command"]
    if command[:2] == ["sh", "-c"]:
        return [shlex.split(part.strip().removeprefix("exec ")) for part in command[2].split("&&")]
    return [command]


def dataflow_options(service: str, command: str) -> dict[str, Any]:
    """What `python -m dataflow COMMAND` makes of its words in a service; refuses what it does."""
    for words in commands(service):
        if words[:4] == ["python", "-m", "dataflow", command]:
            parser = typer.main.get_command(_app(COMMANDS)).commands[command]  # type: ignore
            return dict(parser.make_context(command, words[4:]).params)
    raise AssertionError(f"{service} does not run {command}")


def flow_options(words: list[str]) -> Namespace:
    """What `python -m bytewax.run` makes of its words."""
    from bytewax.run import _parse_args

    assert words[:3] == ["python", "-m", "bytewax.run"]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sys, "argv", words[2:])
        options: Namespace = _parse_args()
    return options


def given(service: str) -> dict[str, str]:
    """The variables that a service always has."""
    return {name: v for name, v in SERVICES[service]["environment"].items() if v is not None}


def seconds(duration: str) -> int:
    assert re.fullmatch(r"\d+s", duration)
    return int(duration[:-1])


# Images and ports


@pytest.mark.parametrize("service", THEIRS)
def test_images_of_others_are_pinned(service: str) -> None:
    image = r"[a-z./-]+:v?\d+\.\d+\.\d+(@sha256:[0-9a-f]{64})?"
    assert re.fullmatch(image, SERVICES[service]["image"])


@pytest.mark.parametrize("service", SERVICES)
def test_containers_may_do_little(service: str) -> None:
    own = SERVICES[service]
    assert own["cap_drop"] == ["ALL"]
    assert own["security_opt"] == ["no-new-privileges:true"]
    assert own["read_only"] == (service != "redpanda")
    assert own["tmpfs"] == ["/tmp"]
    # The images' own users, but for Telegraf's: none is root.
    assert own.get("user") == ("65534:65534" if service == "telegraf" else None)
    assert not {"privileged", "cap_add", "devices", "network_mode", "pid"} & own.keys()


def test_one_service_builds_the_image_and_comes_before_the_others() -> None:
    assert [name for name in OURS if "build" in SERVICES[name]] == ["topics"]
    assert SERVICES["topics"]["build"] == "."
    for name in OURS:
        assert SERVICES[name]["pull_policy"] == "never"
        assert name == "topics" or "topics" in SERVICES[name]["depends_on"]


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_open_to_this_machine_only(service: str) -> None:
    for port in SERVICES[service].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)


def test_listeners_are_where_clients_look() -> None:
    listens, advertises = (
        dict(
            address.split("://")
            for word in SERVICES["redpanda"]["command"]
            if word.startswith(option)
            for address in word.removeprefix(option).split(",")
        )
        for option in ("--kafka-addr=", "--advertise-kafka-addr=")
    )
    port = {name: address.rpartition(":")[2] for name, address in listens.items()}
    assert advertises == {
        "internal": f"redpanda:{port['internal']}",
        "external": f"localhost:{port['external']}",
    }
    # What runs on the host finds the broker without any setting.
    assert advertises["external"] == Settings(_env_file=None).brokers
    assert SERVICES["redpanda"]["ports"] == [f"127.0.0.1:{port['external']}:{port['external']}"]
    assert SERVICES["console"]["environment"] == {"KAFKA_BROKERS": advertises["internal"]}
    for name in OURS:
        assert given(name)[f"{PREFIX}BROKERS"] == advertises["internal"]


# ReorderBuffer, volumes, end


@pytest.mark.parametrize("service", SERVICES)
def test_waits_are_for_something_that_happens(service: str) -> None:
    for name, wait in SERVICES[service].get("depends_on", {}).items():
        needed = SERVICES[name]
        if wait["condition"] == "service_healthy":
            assert needed["healthcheck"]["test"][0] == "CMD"
        else:
            assert wait["condition"] == "service_completed_successfully"
            assert "restart" not in needed


def test_everything_waits_for_the_broker_and_the_flow_for_its_topics() -> None:
    def before(service: str) -> set[str]:
        direct = set(SERVICES[service].get("depends_on", {}))
        return direct.union(*(before(name) for name in direct))

    assert all(
        "redpanda" in before(name) for name in SERVICES if name not in ("redpanda", *WATCHERS)
    )
    # Who watches must be there when the rest is not.
    assert not any(before(name) for name in WATCHERS)
    assert "topics" in before("flow")
    # `docker compose up flow` is the flow on one's own readings.
    assert "load" not in before("flow")


def test_named_volumes_are_declared_and_used() -> None:
    used = [v.split(":") for service in SERVICES.values() for v in service.get("volumes", [])]
    mounted = [volume for volume in used if volume[0].startswith("./")]
    used = [volume for volume in used if volume not in mounted]
    assert sorted(name for name, _ in used) == sorted(COMPOSE["volumes"])
    assert dict(used)["prometheus"] == "/prometheus"
    for folder, _, mode in mounted:
        assert (REPOSITORY / folder).is_dir()
        assert mode == "ro"
    assert dict(used)["grafana"] == "/var/lib/grafana"
    assert dict(used)["redpanda"] == "/var/lib/redpanda/data"
    assert dict(used)["recovery"] == dict(used)["host"] == STORE


def test_the_flow_is_stopped_by_a_signal_that_it_heeds_and_has_time() -> None:
    flow = SERVICES["flow"]
    assert flow["stop_signal"] == "SIGINT"
    words = commands("flow")[-1]
    assert seconds(flow["stop_grace_period"]) >= 2 * flow_options(words).snapshot_interval.seconds
    assert flow["restart"] == "unless-stopped"


# Commands


def test_only_what_needs_more_waits_to_be_asked_for() -> None:
    assert {name: own["profiles"] for name, own in SERVICES.items() if "profiles" in own} == {
        **{"page": ["page"], "notify": ["notify"], "telegraf": ["host"], "host": ["host"]}
    }


def test_the_page_is_where_its_address_says() -> None:
    options = dataflow_options("page", "dashboard")
    assert (options["host"], options["port"]) == ("0.0.0.0", 5006)
    assert SERVICES["page"]["ports"] == ["127.0.0.1:5006:5006"]
    assert "http://localhost:5006\n" in COMPOSE_FILE.read_text()


@pytest.mark.parametrize(
    ("service", "address"),
    [
        ("flow", "http://127.0.0.1:9464/readyz"),
        ("page", "http://127.0.0.1:5006/healthz"),
        ("notify", "http://127.0.0.1:9465/healthz"),
    ],
)
def test_health_is_asked_for_where_it_is_answered(service: str, address: str) -> None:
    own = SERVICES[service]["healthcheck"]["test"]
    assert own[:3] == ["CMD", "python", "-c"]
    assert f'urlopen("{address}", timeout=5)' in own[-1]
    ports = {"9464": given(service)[f"{PREFIX}METRICS_PORT"], "5006": "5006"}
    ports["9465"] = given(service)[f"{PREFIX}NOTIFY_METRICS_PORT"]
    (port,) = re.findall(r":(\d+)/", address)
    assert ports[port] == port


@pytest.mark.parametrize("service", OURS)
def test_every_command_is_one_that_exists(service: str) -> None:
    for words in commands(service):
        if words[2] == "dataflow":
            assert dataflow_options(service, words[3]) is not None
        else:
            assert flow_options(words).import_str == "dataflow.flow"


def test_partitions_files_and_workers_are_as_many() -> None:
    flow = flow_options(commands("flow")[-1])
    partitions = dataflow_options("topics", "topics")["partitions"]
    assert dataflow_options("flow", "recovery")["partitions"] == partitions
    assert flow.workers_per_process == partitions


def test_the_store_is_made_where_the_flow_looks() -> None:
    flow = flow_options(commands("flow")[-1])
    assert dataflow_options("flow", "recovery")["folder"] == Path(STORE)
    assert flow.recovery_directory == Path(STORE)
    assert (flow.snapshot_interval.seconds, flow.backup_interval.seconds) == (10, 0)


def test_the_sample_is_loaded_once() -> None:
    options = dataflow_options("load", "produce")
    assert options["if_empty"] is True
    assert options["file"].parent == Path("data")
    assert (REPOSITORY / options["file"]).is_file()


# Monitoring


def test_prometheus_asks_the_flow_where_it_serves_its_figures() -> None:
    assert "./monitoring:/etc/prometheus:ro" in SERVICES["prometheus"]["volumes"]
    config = yaml.safe_load((REPOSITORY / "monitoring" / "prometheus.yml").read_text())
    job, other = config["scrape_configs"]
    (found,) = other["dns_sd_configs"]
    assert SERVICES[found["names"][0]]["command"][-1] == "notify"
    assert str(found["port"]) == given("notify")[f"{PREFIX}NOTIFY_METRICS_PORT"]
    port = given("flow")[f"{PREFIX}METRICS_PORT"]
    assert job["static_configs"] == [{"targets": [f"flow:{port}"]}]
    assert f"http://127.0.0.1:{port}/readyz" in SERVICES["flow"]["healthcheck"]["test"][-1]
    # Other containers are other machines; this one sees the port of none.
    assert given("flow")[f"{PREFIX}METRICS_HOST"] == "0.0.0.0"
    assert "ports" not in SERVICES["flow"]


def test_grafana_finds_prometheus_and_its_dashboard() -> None:
    grafana = REPOSITORY / "monitoring" / "grafana"
    place = "/etc/grafana/provisioning"
    assert f"./monitoring/grafana:{place}:ro" in SERVICES["grafana"]["volumes"]
    source = yaml.safe_load((grafana / "datasources" / "prometheus.yml").read_text())
    listens = SERVICES["prometheus"]["ports"][0].rpartition(":")[2]
    assert source["datasources"][0]["url"] == f"http://prometheus:{listens}"
    provider = yaml.safe_load((grafana / "dashboards" / "dashboards.yml").read_text())
    assert provider["providers"][0]["options"]["path"] == f"{place}/dashboards"
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (grafana / home.removeprefix(f"{place}/")).is_file()


# Settings


def test_our_services_have_the_same_settings() -> None:
    first, *others = (SERVICES[name]["environment"] for name in OURS if name != "host")
    assert all(other == first for other in others)


def test_the_flow_of_this_machine_reads_what_telegraf_writes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The file of Telegraf is that of docs/feeds.md, which is tested with Telegraf itself."""
    telegraf, host = SERVICES["telegraf"], SERVICES["host"]
    config = tomllib.loads((REPOSITORY / "monitoring" / "telegraf" / "telegraf.conf").read_text())
    page = (REPOSITORY / "docs" / "feeds.md").read_text()
    documented = tomllib.loads(page.partition("```toml\n")[2].partition("```")[0])
    own = {name: value for name, value in host["environment"].items() if value is not None}
    (output,) = config["outputs"]["kafka"]
    (shown,) = documented["outputs"]["kafka"]
    assert config["inputs"] == documented["inputs"]
    assert output | {"brokers": 0, "topic": 0} == shown | {"brokers": 0, "topic": 0}
    assert output["brokers"] == ["${BROKERS}"]
    assert telegraf["environment"]["BROKERS"] == own["ANOMALY_BROKERS"]
    assert output["topic"] == own["ANOMALY_TOPIC"]
    assert config["agent"]["interval"] == f"{own['ANOMALY_INTERVAL']}s"
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    assert settings.load().format == "telegraf"
    # No topic is also one of the flow of the sample.
    for name in ("topic", "anomalies_topic", "incidents_topic"):
        assert getattr(settings.load(), name) != Settings.model_fields[name].default
    assert flow_options(commands("host")[-1]).recovery_directory == Path(STORE)
    assert dataflow_options("host", "recovery")["partitions"] == 1


def test_every_setting_is_fixed_passed_on_or_left_out() -> None:
    names = {name.removeprefix(PREFIX).lower() for name in SERVICES["flow"]["environment"]}
    assert names == Settings.model_fields.keys() - LEFT_OUT
    assert {name.removeprefix(PREFIX).lower() for name in given("flow")} == FIXED


def test_what_the_file_fixes_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in given("flow").items():
        monkeypatch.setenv(name, value)
    assert settings.load().outputs == ("kafka", "stdout")


@pytest.fixture(scope="module")
def compose() -> list[str]:
    """The words that start Docker Compose, which does without an engine for what we ask."""
    for words in (["docker", "compose"], ["docker-compose"]):
        try:
            if subprocess.run([*words, "version"], capture_output=True, check=False).returncode:
                continue
        except OSError:
            continue
        return words
    pytest.skip("neither `docker compose` nor `docker-compose` is installed")


def configured(compose: list[str], folder: Path, **given: object) -> dict[str, Any]:
    """What Docker Compose makes of the file with these settings in the environment."""
    (folder / "empty.env").touch()
    done = subprocess.run(
        [
            *(
                *compose,
                *(word for name in ("page", "notify", "host") for word in ("--profile", name)),
                "--env-file",
                folder / "empty.env",
            ),
            *("-f", COMPOSE_FILE, "config"),
        ],
        env=environment(**given),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return dict(yaml.safe_load(done.stdout)["services"])


def test_docker_compose_takes_the_file(compose: list[str], tmp_path: Path) -> None:
    assert configured(compose, tmp_path).keys() == SERVICES.keys()


def test_settings_are_passed_on_only_if_they_are_set(compose: list[str], tmp_path: Path) -> None:
    unset = configured(compose, tmp_path)["flow"]["environment"]
    assert {name: value for name, value in unset.items() if value is not None} == given("flow")
    services = configured(compose, tmp_path, detector="half-space", brokers="elsewhere:9092")
    for name in OURS:
        environment_there = services[name]["environment"]
        assert environment_there[f"{PREFIX}DETECTOR"] == "half-space"
        assert environment_there[f"{PREFIX}BROKERS"] == given("flow")[f"{PREFIX}BROKERS"]


# All of it, but for the containers


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder like the image's."""
    (tmp_path / "data").symlink_to(REPOSITORY / "data")
    return tmp_path


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[str]:
    """The file's topics have the names that every flow's have: they need a broker of their own."""
    with EmbeddedBroker(tmp_path / "broker") as broker:
        yield broker.address


@pytest.mark.usefixtures("needs_bytewax")
def test_the_commands_work_one_after_the_other(own_broker: str, folder: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    there = {**os.environ, **given("flow"), f"{PREFIX}BROKERS": own_broker, "PATH": path}
    there |= {f"{PREFIX}METRICS_PORT": str(free_port()), f"{PREFIX}METRICS_HOST": "127.0.0.1"}

    def run(service: str) -> str:
        return subprocess.run(
            SERVICES[service]["command"],
            cwd=folder,
            env=there,
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert [line.split()[:2] for line in run("topics").splitlines()] == [
        ["created", name] for name in ("ec2_metrics", "anomalies", "ec2_metrics.rejected")
    ]
    assert run("load").startswith("wrote ")
    assert run("load").endswith("already: nothing is written\n")

    *shell, script = SERVICES["flow"]["command"]
    script = script.replace(STORE, str(folder / "store"))
    with subprocess.Popen(
        [*shell, script],
        cwd=folder,
        env=there,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as flow:
        try:
            assert flow.stdout is not None
            assert flow.stdout.readline().startswith("created a recovery store of 3 files")
            anomaly = json.loads(flow.stdout.readline())
            flow.send_signal(signal.SIGINT)
            flow.communicate(timeout=seconds(SERVICES["flow"]["stop_grace_period"]))
        finally:
            if flow.poll() is None:  # a shell that kept the signal to itself, and its child
                os.killpg(flow.pid, signal.SIGKILL)
    assert flow.returncode == 0
    assert anomaly in [record for _, record in read_topic(own_broker, "anomalies")]
