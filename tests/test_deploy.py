"""`deploy/`: held against Kubernetes's schemas and against the package that it runs.

There is no cluster here. What a pod runs is run as it stands, by `sh`, against the embedded broker.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY, Flow, environment, fill_topic, free_port, read_topic
from hypothesis import given
from hypothesis import settings as tests
from hypothesis import strategies as st
from test_flow import keyed, made_rows

from dataflow import __version__, settings
from dataflow.commands.plan import estimate
from dataflow.demo.broker import EmbeddedBroker
from dataflow.metrics import server
from dataflow.notify.targets import BUILT_IN
from dataflow.rules.document import parse
from dataflow.settings import PREFIX, Settings

FOLDER = REPOSITORY / "deploy"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
OPTIONAL = re.findall(r"^  # - (.*\.yaml)$", (FOLDER / "kustomization.yaml").read_text(), re.M)
"""Files that a user adds by removing a `#`."""
COMPONENTS = re.findall(r"^#   - (\w+)$", (FOLDER / "kustomization.yaml").read_text(), re.M)
"""The same of folders, which change what the files say."""
DOCUMENTS: dict[tuple[str, str], dict[str, Any]] = {
    (document["kind"], document["metadata"]["name"]): document
    for path in sorted(FOLDER.glob("*.yaml"))
    if path.name != "kustomization.yaml"
    for document in yaml.safe_load_all(path.read_text())
}
VERSION = "1.33"

CONFIG = DOCUMENTS["ConfigMap", "anomaly-settings"]["data"]
SECRET = DOCUMENTS["Secret", "anomaly-broker"]["stringData"]
FLOW = DOCUMENTS["StatefulSet", "anomaly-flow"]["spec"]
POD = FLOW["template"]["spec"]
JOB = DOCUMENTS["Job", "anomaly-topics"]["spec"]["template"]["spec"]
PAGE = DOCUMENTS["Deployment", "anomaly-page"]["spec"]
NOTIFY = DOCUMENTS["Deployment", "anomaly-notify"]["spec"]
PODS = [POD, JOB, PAGE["template"]["spec"], NOTIFY["template"]["spec"]]
CONTAINERS = [spec["containers"][0] for spec in PODS]
(CONTAINER, TOPICS, SHOWS, SENDS) = CONTAINERS
STORE = "/recovery"
VALUES = {one["name"]: one["value"] for one in CONTAINER["env"] if "value" in one}
NOTIFY_VALUES = {one["name"]: one["value"] for one in SENDS["env"]}
TARGETS = DOCUMENTS["Secret", "anomaly-notify"]["stringData"]


# What Kubernetes takes


@pytest.mark.parametrize("name", DOCUMENTS, ids="/".join)
def test_kubernetes_takes_it(name: tuple[str, str]) -> None:
    import kubernetes_validate  # takes five seconds: not in each process that collects the tests

    kubernetes_validate.validate(DOCUMENTS[name], VERSION, strict=True)


@pytest.mark.parametrize("wrong", [{"replicas": "three"}, {"replica": 3}])
def test_the_schemas_find_what_is_wrong(wrong: dict[str, Any]) -> None:
    import kubernetes_validate

    document = DOCUMENTS["StatefulSet", "anomaly-flow"]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**document, "spec": FLOW | wrong}, VERSION, strict=True)


def test_every_file_is_applied_but_the_examples_of_secrets() -> None:
    files = {path.name for path in FOLDER.glob("*.yaml")}
    left_out = {"kustomization.yaml", "secret.example.yaml", "notify-secret.example.yaml"}
    assert OPTIONAL == ["page.yaml", "notify.yaml"]
    assert files == {*KUSTOMIZATION["resources"], *OPTIONAL, *left_out}
    assert {path.parent.name for path in FOLDER.glob("*/kustomization.yaml")} == {*COMPONENTS}


def kustomized(folder: Path, *changes: tuple[str, str]) -> list[dict[str, Any]]:
    """What kustomize makes of `deploy/` after these changes of its kustomization.yaml."""
    for words in (["kustomize", "build"], ["kubectl", "kustomize"]):
        if shutil.which(words[0]):
            break
    else:
        pytest.skip("neither `kustomize` nor `kubectl` is installed")
    there = folder / "deploy"
    shutil.copytree(FOLDER, there, ignore=shutil.ignore_patterns("chart"))
    text = (there / "kustomization.yaml").read_text()
    for before, after in changes:
        assert text.count(before) == 1
        text = text.replace(before, after)
    (there / "kustomization.yaml").write_text(text)
    done = subprocess.run([*words, there], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


WITH_ALL = tuple((f"# - {name}", f"- {name}") for name in OPTIONAL)
COMPOSED = (
    ("# components:", "components:"),
    *((f"#   - {name}", f"  - {name}") for name in COMPONENTS),
)
DIGEST = f"sha256:{'0123456789abcdef' * 4}"


def images(documents: list[dict[str, Any]]) -> set[str]:
    """The images of all containers in these documents."""
    specs = [one["spec"]["template"]["spec"] for one in documents if "template" in one["spec"]]
    return {container["image"] for spec in specs for container in spec["containers"]}


def test_kustomize_takes_it_with_a_digest_and_with_all_parts(tmp_path: Path) -> None:
    pinned = (f"newTag: {__version__}", f"newName: registry.example/it\n    digest: {DIGEST}")
    made = kustomized(tmp_path, pinned, *WITH_ALL)
    workloads = [one for one in made if one["kind"] in ("StatefulSet", "Deployment", "Job")]
    assert images(workloads) == {f"registry.example/it@{DIGEST}"}
    names = {(one["kind"], one["metadata"]["name"]) for one in made}
    assert names == DOCUMENTS.keys() - {("Secret", "anomaly-broker"), ("Secret", "anomaly-notify")}


def test_rules_and_the_pages_of_a_day_are_mounted_where_the_settings_look(tmp_path: Path) -> None:
    import kubernetes_validate

    made = kustomized(tmp_path, *WITH_ALL, *COMPOSED)
    for document in made:
        kubernetes_validate.validate(document, VERSION, strict=True)
    found = {(one["kind"], one["metadata"]["name"]): one for one in made}

    def mounted(kind: str, name: str, setting: str) -> tuple[str, dict[str, Any]]:
        """The name of the file that a setting names, and the volume that it lies on."""
        pod = found[kind, name]["spec"]["template"]["spec"]
        env = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
        loaded = Settings(_env_file=None, **{setting: env[PREFIX + setting.upper()]})
        path = Path(getattr(loaded, setting))
        mounts = pod["containers"][0]["volumeMounts"]
        (mount,) = (one for one in mounts if one["mountPath"] == f"{path.parent}")
        assert "subPath" not in mount
        (volume,) = (one for one in pod["volumes"] if one["name"] == mount["name"])
        return path.name, volume

    name, volume = mounted("StatefulSet", "anomaly-flow", "rules")
    text = found["ConfigMap", volume["configMap"]["name"]]["data"][name]
    assert text == (FOLDER / "rules" / "rules.toml").read_text()
    shown = re.sub("^# ?", "", text.partition("\n#\n")[2], flags=re.M)
    assert parse(shown.encode()).of("batch-1", "cpu").threshold == 0.7
    assert mounted("Deployment", "anomaly-page", "rules") == (name, volume)
    name, volume = mounted("Deployment", "anomaly-notify", "notify_store")
    claim = found["PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    pod = found["Deployment", "anomaly-notify"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"]
    env = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}
    assert env["ANOMALY_NOTIFY_PAGES"] == "20"


def test_selectors_find_the_flow_and_not_the_job() -> None:
    labels = FLOW["template"]["metadata"]["labels"]
    others = DOCUMENTS["Job", "anomaly-topics"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        FLOW["selector"]["matchLabels"],
        DOCUMENTS["Service", "anomaly-flow"]["spec"]["selector"],
        DOCUMENTS["PodDisruptionBudget", "anomaly-flow"]["spec"]["selector"]["matchLabels"],
        POD["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= labels.items()
        assert not selector.items() <= others.items()
    network = DOCUMENTS["NetworkPolicy", "anomaly-flow"]["spec"]["podSelector"]["matchLabels"]
    assert network.items() <= labels.items()
    assert network.items() <= others.items()
    for name, spec in (("anomaly-page", PAGE), ("anomaly-notify", NOTIFY)):
        own = spec["template"]["metadata"]["labels"]
        assert own == spec["selector"]["matchLabels"]
        assert own == DOCUMENTS["Service", name]["spec"]["selector"]
        assert own == DOCUMENTS["NetworkPolicy", name]["spec"]["podSelector"]["matchLabels"]
        assert network.items() <= own.items()
        assert not FLOW["selector"]["matchLabels"].items() <= own.items()
    assert FLOW["serviceName"] == DOCUMENTS["Service", "anomaly-flow"]["metadata"]["name"]


# Image, user, volumes


def test_the_image_is_ours_and_of_this_version() -> None:
    (image,) = KUSTOMIZATION["images"]
    assert {container["image"] for container in CONTAINERS} == {image["name"]}
    text = (REPOSITORY / "pyproject.toml").read_text()
    assert image["newTag"] == __version__
    assert image["name"] == re.findall(r'^name = "(.*)"$', text, re.MULTILINE)[0]


def test_the_user_is_the_images_and_may_do_little() -> None:
    (user,) = re.findall(r"--uid (\d+)", (REPOSITORY / "Dockerfile").read_text())
    for pod in PODS:
        context = pod["securityContext"]
        assert context["runAsNonRoot"]
        assert context["runAsUser"] == context["runAsGroup"] == int(user)
        assert pod["automountServiceAccountToken"] is False
        own = pod["containers"][0]["securityContext"]
        assert own["readOnlyRootFilesystem"]
        assert not own["allowPrivilegeEscalation"]
        assert own["capabilities"] == {"drop": ["ALL"]}
    assert POD["securityContext"]["fsGroup"] == int(user)  # or it could not write its volume


def test_the_store_is_on_the_volume_of_the_pod() -> None:
    mounts = {mount["mountPath"]: mount["name"] for mount in CONTAINER["volumeMounts"]}
    (claim,) = FLOW["volumeClaimTemplates"]
    assert mounts[STORE] == claim["metadata"]["name"]
    assert mounts["/tmp"] == POD["volumes"][0]["name"]
    (script,) = CONTAINER["command"][2:]
    assert f"dataflow recovery {STORE} " in script
    assert f"dataflow.flow -r {STORE} " in script
    assert FLOW["persistentVolumeClaimRetentionPolicy"]["whenScaled"] == "Retain"


# Settings


def test_settings_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**CONFIG, **VALUES, **SECRET, **NOTIFY_VALUES, **TARGETS}.items():
        if name.startswith(PREFIX):
            monkeypatch.setenv(name, value)
    loaded = settings.load()
    assert loaded.outputs == ("kafka",)  # a file, or standard output, is no place in a pod
    assert loaded.kafka["sasl.mechanism"] == "SCRAM-SHA-512"
    assert "ssl.ca.pem" in loaded.kafka
    assert TARGETS.keys() == {f"{PREFIX}NOTIFY_{name.upper()}" for name in BUILT_IN}
    assert all(getattr(loaded, f"notify_{name}") for name in BUILT_IN)
    assert all(name.startswith(f"{PREFIX}KAFKA__") for name in SECRET)
    mine = {name for name in (*CONFIG, *VALUES) if not name.startswith(PREFIX)}
    assert mine == {"PARTITIONS", "REPLICAS", "STORE_FILES"}


def test_all_take_them_from_one_place() -> None:
    for container in CONTAINERS:
        config, secret, *more = container["envFrom"]
        assert ("ConfigMap", config["configMapRef"]["name"]) in DOCUMENTS
        assert ("Secret", secret["secretRef"]["name"]) in DOCUMENTS
        assert secret["secretRef"]["optional"]
        # Without an address `notify` has nothing to do: its pod waits for the Secret.
        assert more == ([{"secretRef": {"name": "anomaly-notify"}}] if container is SENDS else [])


def test_replicas_are_what_the_pods_believe() -> None:
    assert VALUES["REPLICAS"] == str(FLOW["replicas"])
    assert FLOW["replicas"] <= int(CONFIG["PARTITIONS"])


def amount(quantity: str) -> float:
    units = {"Gi": 2**30, "Mi": 2**20, "m": 1e-3}
    number, unit = re.fullmatch(r"(\d+)(\w*)", quantity).groups()  # type: ignore[union-attr]
    return float(number) * units.get(unit, 1)


def test_a_pod_has_what_the_plan_says() -> None:
    """For the fleet that the file names, shared among the pods."""
    text = (FOLDER / "flow.yaml").read_text()
    (fleet,) = re.findall(r"# For ([\d,]+) instances in all, a reading each 5 minutes", text)
    made = estimate(int(fleet.replace(",", "")) // FLOW["replicas"], 300)
    requests = CONTAINER["resources"]["requests"]
    assert amount(requests["cpu"]) >= made.cores
    assert amount(requests["memory"]) >= made.memory
    assert amount(CONTAINER["resources"]["limits"]["memory"]) >= 1.5 * made.memory
    (claim,) = FLOW["volumeClaimTemplates"]
    assert amount(claim["spec"]["resources"]["requests"]["storage"]) >= 2 * made.disk
    assert VALUES["STORE_FILES"] == str(made.files)
    assert f"-s {made.every} " in CONTAINER["command"][-1]


def test_probes_and_scrapes_ask_where_the_flow_answers() -> None:
    port = int(CONFIG["ANOMALY_METRICS_PORT"])
    (own,) = CONTAINER["ports"]
    assert own["containerPort"] == port
    (service,) = DOCUMENTS["Service", "anomaly-flow"]["spec"]["ports"]
    assert (service["port"], service["targetPort"]) == (port, own["name"])
    (rule,) = DOCUMENTS["NetworkPolicy", "anomaly-flow"]["spec"]["ingress"]
    assert rule["ports"] == [{"port": port}]
    notes = FLOW["template"]["metadata"]["annotations"]
    assert notes["prometheus.io/port"] == str(port)
    paths = [notes["prometheus.io/path"]]
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        assert CONTAINER[probe]["httpGet"]["port"] == own["name"]
        paths.append(CONTAINER[probe]["httpGet"]["path"])
    said: list[str] = []
    for path in paths:
        request = {"PATH_INFO": path, "REQUEST_METHOD": "GET"}
        list(server._answer(request, lambda status, *_: said.append(status)))  # type: ignore
    assert {status[:3] for status in said} <= {"200", "503"}
    # Where no partition is open yet, a pod is not ready; it must not be killed for it.
    assert CONTAINER["livenessProbe"]["httpGet"]["path"] == "/healthz"


@pytest.mark.parametrize(
    ("name", "container", "live", "ready"),
    [("anomaly-page", SHOWS, "/livez", "/livez"), ("anomaly-notify", SENDS, "/healthz", "/readyz")],
    ids=["page", "notify"],
)
def test_services_and_probes_ask_where_the_others_answer(
    name: str, container: dict[str, Any], live: str, ready: str
) -> None:
    (own,) = container["ports"]
    for probe, path in (("liveness", live), ("startup", live), ("readiness", ready)):
        assert container[f"{probe}Probe"]["httpGet"] == {"path": path, "port": own["name"]}
    (service,) = DOCUMENTS["Service", name]["spec"]["ports"]
    assert (service["port"], service["targetPort"]) == (own["containerPort"], own["name"])
    (rule,) = DOCUMENTS["NetworkPolicy", name]["spec"]["ingress"]
    assert rule["ports"] == [{"port": own["containerPort"]}]
    # Two pages do not share a browser; two of `notify` deliver everything twice.
    spec = DOCUMENTS["Deployment", name]["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (1, "Recreate")


def test_prometheus_asks_notify_where_it_answers() -> None:
    notes = NOTIFY["template"]["metadata"]["annotations"]
    port = NOTIFY_VALUES["ANOMALY_NOTIFY_METRICS_PORT"]
    assert notes["prometheus.io/port"] == port == str(SENDS["ports"][0]["containerPort"])
    assert NOTIFY["template"]["metadata"]["annotations"]["prometheus.io/path"] == "/metrics"


def test_notify_reaches_its_targets() -> None:
    policy = DOCUMENTS["NetworkPolicy", "anomaly-notify"]["spec"]
    everywhere, alertmanager = policy["egress"]
    assert everywhere == {"ports": [{"port": 443}]}
    (address,) = (each for name, each in TARGETS.items() if name.endswith("ALERTMANAGER"))
    host, port = address.removeprefix("http://").split(":")
    assert alertmanager["ports"] == [{"port": int(port)}]
    (to,) = alertmanager["to"]
    namespace = to["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    assert host.split(".")[1] == namespace


def test_the_pods_reach_the_brokers_and_dns_only() -> None:
    policy = DOCUMENTS["NetworkPolicy", "anomaly-flow"]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    dns, brokers = policy["egress"]
    assert {(port["port"], port["protocol"]) for port in dns["ports"]} == {(53, "UDP"), (53, "TCP")}
    host, _, port = CONFIG["ANOMALY_BROKERS"].rpartition(":")
    assert brokers["ports"] == [{"port": int(port)}]
    for rule, namespace in ((dns, "kube-system"), (brokers, host.split(".")[1])):
        (to,) = rule["to"]
        found = to["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        assert found == namespace


# What a pod runs


def programs(folder: Path) -> Path:
    """A folder whose `python` says what it would read."""
    folder.mkdir(exist_ok=True)
    python = folder / "python"
    python.write_text('#!/bin/sh\necho "$2 $ANOMALY_PARTITIONS"\n')
    python.chmod(0o755)
    return folder


def begin(folder: Path, **values: object) -> subprocess.CompletedProcess[str]:
    """What the pod's command does with these values."""
    return subprocess.run(
        CONTAINER["command"],
        env={
            **os.environ,
            **VALUES,
            **{name: str(value) for name, value in values.items()},
            "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return programs(tmp_path_factory.mktemp("stub"))


@tests(max_examples=15)
@given(data=st.data())
def test_every_partition_is_read_by_one_pod(stub: Path, data: st.DataObject) -> None:
    partitions = data.draw(st.integers(1, 40), "partitions")
    replicas = data.draw(st.integers(1, min(partitions, 12)), "replicas")
    read: list[int] = []
    for ordinal in range(replicas):
        done = begin(stub, ORDINAL=ordinal, REPLICAS=replicas, PARTITIONS=partitions)
        assert (done.returncode, done.stderr) == (0, "")
        module, own = done.stdout.splitlines()[-1].split()
        assert module == "bytewax.run"
        taken = Settings(_env_file=None, partitions=own).partitions  # type: ignore[arg-type]
        assert taken
        read += taken
    assert sorted(read) == list(range(partitions))


@pytest.mark.parametrize(("ordinal", "replicas", "partitions"), [(3, 3, 12), (3, 4, 3), (0, 4, 3)])
def test_a_pod_too_many_reads_nothing(
    stub: Path, ordinal: int, replicas: int, partitions: int
) -> None:
    done = begin(stub, ORDINAL=ordinal, REPLICAS=replicas, PARTITIONS=partitions)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: pod ")


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[str]:
    """The topics have the names that every flow's have: they need a broker of their own."""
    with EmbeddedBroker(tmp_path / "broker") as broker:
        yield broker.address


def test_the_pods_find_what_one_process_finds(
    own_broker: str, tmp_path: Path, run_flow: Flow
) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    there = {**environment(), **CONFIG, **VALUES, "PATH": path, "ANOMALY_BROKERS": own_broker}
    there |= {"ANOMALY_METRICS_HOST": "127.0.0.1", "ANOMALY_DETECTOR": "tutorial"}

    def start(command: list[str], **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=tmp_path,
            env={**there, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def pod(ordinal: int, **more: str) -> subprocess.Popen[str]:
        script = CONTAINER["command"][-1].replace(STORE, f"{tmp_path}/store-{ordinal}")
        port = free_port()
        ports[ordinal] = port
        command = [*CONTAINER["command"][:-1], script]
        return start(command, ORDINAL=str(ordinal), ANOMALY_METRICS_PORT=str(port), **more)

    def end(process: subprocess.Popen[str]) -> str:
        try:
            said, errors = process.communicate(timeout=120)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == 0, errors
        return said

    ports: dict[int, int] = {}
    assert end(start(TOPICS["command"])).startswith("created ec2_metrics with 12 partitions")
    rows = keyed(made_rows(20, 200))
    fill_topic(own_broker, "ec2_metrics", rows)

    first = pod(0)
    try:
        deadline = time.monotonic() + 120
        while ask(ports[0], "/readyz") != 200:
            assert first.poll() is None, first.communicate()
            assert time.monotonic() < deadline, "the pod does not get ready"
            time.sleep(0.1)
        assert ask(ports[0], "/healthz") == 200
    finally:
        first.terminate()
    assert "created a recovery store of" in end(first)  # and it ended with status 0
    pods = [pod(ordinal, ANOMALY_FOLLOW="false") for ordinal in range(FLOW["replicas"])]
    for process in pods:
        end(process)

    found = sorted(record["id"] for _, record in read_topic(own_broker, "anomalies"))
    alone = run_flow(brokers=own_broker, follow="false", detector="tutorial")
    assert found
    assert found == sorted(json.loads(line)["id"] for line in alone.stdout.splitlines())


def test_no_probe_stops_the_page_or_notify_while_the_broker_is_away(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    page, notify = free_port(), free_port()
    there = {**environment(), **CONFIG, **NOTIFY_VALUES, "PATH": path}
    there |= {"ANOMALY_METRICS_HOST": "127.0.0.1", "ANOMALY_NOTIFY_METRICS_PORT": str(notify)}
    there["ANOMALY_NOTIFY_WEBHOOK"] = "http://127.0.0.1:9/"
    shows = [word.replace("5006", str(page)) for word in SHOWS["command"]]
    pods = []

    def wait_for(port: int, status: int | None, *paths: str) -> None:
        deadline = time.monotonic() + 120
        while [ask(port, path) for path in paths] != [status] * len(paths):
            assert all(pod.poll() is None for pod in pods)
            assert time.monotonic() < deadline, (port, paths)
            time.sleep(0.1)

    try:
        with EmbeddedBroker(tmp_path / "broker") as broker:
            there["ANOMALY_BROKERS"] = broker.address
            for topic in ("ec2_metrics", "anomalies", "incidents"):
                fill_topic(broker.address, topic, [])
            pods += [
                subprocess.Popen(command, cwd=tmp_path, env=there)
                for command in (shows, SENDS["command"])
            ]
            wait_for(page, 200, "/livez", "/healthz", "/")
            wait_for(notify, 200, "/healthz", "/readyz")
        wait_for(page, None, "/healthz")
        wait_for(notify, None, "/readyz")
        assert ask(page, SHOWS["livenessProbe"]["httpGet"]["path"]) == 200
        assert ask(page, SHOWS["readinessProbe"]["httpGet"]["path"]) == 200
        assert ask(notify, SENDS["livenessProbe"]["httpGet"]["path"]) == 200
    finally:
        for pod in pods:
            pod.terminate()
    assert [pod.wait(60) for pod in pods] == [0, 0]


def ask(port: int, path: str) -> int | None:
    """The status that a pod answers with; None if it does not yet, or not with a good one."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
            return int(answer.status)
    except OSError:
        return None
