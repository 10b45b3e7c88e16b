"""`deploy/chart/`: what Helm makes of it is what kustomize makes of `deploy/`.

Helm is taken from PATH, or from the cache that `make test-deploy` builds it into.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY
from go_programs import Unavailable, built, place
from test_deploy import COMPOSED, DIGEST, FOLDER, VERSION, WITH_ALL, images, kustomized

from dataflow import __version__
from dataflow.settings import PREFIX, Settings

CHART = FOLDER / "chart"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
HELM = "helm-3.22.0"
ALL = {
    "page": {"enabled": True},
    "notify": {"enabled": True},
    "settings": {"ANOMALY_INCIDENTS": "true"},
}
MONITORED = {"serviceMonitor": True, "rules": True, "dashboards": True}
OPERATORS = {"ServiceMonitor", "PrometheusRule"}
"""Kinds of the Prometheus operator, whose schemas are not Kubernetes's."""

Documents = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def helm() -> Path:
    found = shutil.which("helm")
    if found is not None:
        return Path(found)
    if not place(HELM).exists():
        pytest.skip("helm is not installed: `make test-deploy` builds it")
    return place(HELM)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_helm_can_be_built() -> None:
    """First in `make test-deploy`, so that the tests below have it."""
    try:
        program = built(HELM, f"helm.sh/helm/v3/cmd/helm@v{HELM.partition('-')[2]}")
    except Unavailable as reason:
        pytest.skip(f"{reason}.")
    run(program, "version")


def run(helm: Path, *words: str | Path, values: object = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [helm, *words, *(() if values is None else ("--values", "-"))],
        input=None if values is None else json.dumps(values),
        capture_output=True,
        text=True,
        check=False,
    )


def template(helm: Path, values: object = None, release: str = "anomaly") -> Documents:
    done = run(helm, "template", release, CHART, "--kube-version", VERSION, values=values)
    assert done.returncode == 0, done.stderr
    return by_name(list(yaml.safe_load_all(done.stdout)))


def by_name(documents: list[dict[str, Any]]) -> Documents:
    """By kind and name; the job without the number of its revision."""
    out = {}
    for document in documents:
        metadata = document["metadata"]
        if document["kind"] == "Job":
            metadata["name"] = metadata["name"].removesuffix("-1")
        out[document["kind"], metadata["name"]] = document
    return out


def test_helm_finds_nothing_wrong(helm: Path) -> None:
    for values in ({}, {**ALL, "monitoring": MONITORED}):
        done = run(helm, "lint", "--strict", CHART, "--kube-version", VERSION, values=values)
        assert done.returncode == 0, done.stdout + done.stderr


def test_by_default_it_is_what_kustomize_makes(helm: Path, tmp_path: Path) -> None:
    assert template(helm) == by_name(kustomized(tmp_path))


def test_with_all_parts_it_is_what_kustomize_makes(helm: Path, tmp_path: Path) -> None:
    made = by_name(kustomized(tmp_path, *WITH_ALL))
    made["ConfigMap", "anomaly-settings"]["data"] |= ALL["settings"]
    assert template(helm, ALL) == made


def test_with_rules_and_a_limit_of_pages_it_is_what_kustomize_makes(
    helm: Path, tmp_path: Path
) -> None:
    made = by_name(kustomized(tmp_path, *WITH_ALL, *COMPOSED))
    made["ConfigMap", "anomaly-settings"]["data"] |= ALL["settings"]
    rules = (FOLDER / "rules" / "rules.toml").read_text()
    more = {"flow": {"rules": rules}, "notify": {"enabled": True, "pages": 20}}
    assert template(helm, {**ALL, **more}) == made


def test_kubernetes_takes_it_with_every_value_set(helm: Path) -> None:
    import kubernetes_validate  # takes five seconds: not in each process that collects the tests

    values = {
        **ALL,
        "image": {"digest": DIGEST, "repository": "registry.example/it", "pullSecrets": ["pull"]},
        "flow": {"replicas": 2, "partitions": 4, "storageClass": "fast", "storage": "8Gi"},
        "secret": "own",
        "network": {"brokers": {"cidr": "10.0.0.0/24", "port": 9094}},
        "monitoring": MONITORED | {"page": "https://a.example"},
    }
    values["page"] = {"enabled": True, "origins": ["a.example", "b.example"], "keep": 1_000_000}
    values["notify"] = {"enabled": True, "secret": "targets", "link": "https://a.example/{id}"}
    values["notify"]["pages"] = 20
    made = template(helm, values, release="other")
    for (kind, name), document in made.items():
        assert name.startswith("other-")
        if kind not in OPERATORS:
            kubernetes_validate.validate(document, VERSION, strict=True)
    workloads = [it for it in made.values() if it["kind"] in ("StatefulSet", "Deployment", "Job")]
    assert images(workloads) == {f"registry.example/it@{DIGEST}"}
    flow = made["StatefulSet", "other-flow"]["spec"]
    container = flow["template"]["spec"]["containers"][0]
    assert flow["replicas"] == 2
    assert {"name": "REPLICAS", "value": "2"} in container["env"]
    assert container["envFrom"][1] == {"secretRef": {"name": "own", "optional": False}}
    assert made["ConfigMap", "other-settings"]["data"]["PARTITIONS"] == "4"
    board = json.loads(made["ConfigMap", "other-dashboards"]["data"]["anomaly-instances.json"])
    (address,) = (it for it in board["templating"]["list"] if it["name"] == "page")
    assert address["query"] == address["current"]["value"] == "https://a.example"
    page = made["Deployment", "other-page"]["spec"]["template"]["spec"]["containers"][0]
    assert page["command"][-3:] == ["--keep=1000000", "--origin=a.example", "--origin=b.example"]
    notify = made["Deployment", "other-notify"]["spec"]["template"]["spec"]["containers"][0]
    assert notify["envFrom"][-1] == {"secretRef": {"name": "targets"}}
    link = {"name": "ANOMALY_NOTIFY_LINK", "value": "https://a.example/{id}"}
    assert link in notify["env"]
    env = {it["name"]: it["value"] for it in notify["env"]}
    assert env["ANOMALY_NOTIFY_PAGES"] == "20"
    (mount,) = notify["volumeMounts"]
    assert env["ANOMALY_NOTIFY_STORE"].startswith(f"{mount['mountPath']}/")
    pod = made["Deployment", "other-notify"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"]
    (volume,) = pod["volumes"]
    claim = volume["persistentVolumeClaim"]["claimName"]
    assert made["PersistentVolumeClaim", claim]["spec"]["storageClassName"] == "fast"


def test_the_values_of_the_page_are_accepted(helm: Path) -> None:
    page = (REPOSITORY / "docs" / "scaling.md").read_text().partition("### With Helm\n")[2]
    made = template(helm, yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0]))
    assert {("Deployment", "anomaly-page"), ("PrometheusRule", "anomaly-flow")} <= made.keys()


def test_rules_and_dashboards_are_those_of_monitoring(helm: Path) -> None:
    monitoring = REPOSITORY / "monitoring"
    made = template(helm, {"monitoring": MONITORED})
    rules = made["PrometheusRule", "anomaly-flow"]["spec"]
    assert rules == yaml.safe_load((monitoring / "rules.yml").read_text())
    shown = made["ConfigMap", "anomaly-dashboards"]["data"]
    boards = (monitoring / "grafana" / "dashboards").glob("*.json")
    assert shown == {board.name: board.read_text() for board in boards}
    (endpoint,) = made["ServiceMonitor", "anomaly-flow"]["spec"]["endpoints"]
    ports = {it["spec"]["ports"][0]["name"] for it in made.values() if it["kind"] == "Service"}
    assert ports == {endpoint["port"]}
    (job,) = (it["replacement"] for it in endpoint["relabelings"])
    jobs = yaml.safe_load((monitoring / "prometheus.yml").read_text())["scrape_configs"]
    assert {job.replace("$1", name) for name in ("flow", "notify")} == {
        it["job_name"] for it in jobs
    }


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"flow": {"replica": 3}}, "'replica' not allowed"),
        ({"flow": {"replicas": 13}}, "flow.replicas is above flow.partitions"),
        ({"image": {"digest": "sha256:12"}}, "does not match pattern"),
        ({"notify": {"enabled": True}}, 'set ANOMALY_INCIDENTS: "true"'),
        ({"settings": {"ANOMALY_SEED": 7}}, "got number, want boolean or string"),
        ({"settings": {"ANOMALY_METRICS_PORT": "1"}}, "ANOMALY_METRICS_PORT"),
        ({"settings": {"BROKERS": "here"}}, "'BROKERS' does not match pattern"),
    ],
)
def test_wrong_values_are_refused(helm: Path, values: object, said: str) -> None:
    done = run(helm, "template", CHART, "--kube-version", VERSION, values=values)
    assert done.returncode == 1
    assert said in done.stderr


def test_every_value_is_in_the_schema_and_every_setting_is_one() -> None:
    def check(values: dict[str, Any], schema: dict[str, Any]) -> None:
        assert values.keys() <= schema["properties"].keys()
        for name, value in values.items():
            inner = schema["properties"][name]
            if isinstance(value, dict) and "properties" in inner:
                assert inner["additionalProperties"] is False
                check(value, inner)

    check(VALUES, SCHEMA)
    names = {PREFIX + name.upper() for name in Settings.model_fields}
    kept = SCHEMA["properties"]["settings"]["propertyNames"]["not"]["enum"]
    assert {*VALUES["settings"], *kept} <= names


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__
