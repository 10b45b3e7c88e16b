"""What `monitoring/` holds: read by Prometheus's own tools, and run against a real flow."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY, Flow, free_port
from prometheus_client import REGISTRY
from test_flow import made_rows
from test_metrics import BAD, Scrape, scores_of, write

from dataflow.notify.metrics import _Deliveries
from dataflow.recovery import files

MONITORING = REPOSITORY / "monitoring"
RULES = [
    rule
    for group in yaml.safe_load((MONITORING / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARDS = {
    path.stem: json.loads(path.read_text())
    for path in (MONITORING / "grafana/dashboards").glob("*.json")
}
INSTANCES = DASHBOARDS["anomaly-instances"]

OPEN_BY_RECORDS = """sum(anomaly_incidents_open)
- sum(anomaly_incidents_written_total{state="opened"})
+ sum(anomaly_incidents_written_total{state="resolved"})"""

OTHERS = {
    "up",
    "process_start_time_seconds",
    "process_resident_memory_bytes",
    "process_cpu_seconds_total",
}
"""Figures that Prometheus itself and its Python client have."""

NOT_OF_A_FLOW = {"Start", "Incidents held back by notify"}
"""What a flow that has just begun does not show."""


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression of the dashboards as Prometheus gets it, and where it is shown."""
    for board in DASHBOARDS.values():
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield panel["title"], as_sent(target["expr"])
        for annotation in board["annotations"]["list"]:
            yield annotation["name"], as_sent(annotation["expr"])


def as_sent(expression: str) -> str:
    for variable in ("$process", "$instance_name"):
        expression = expression.replace(variable, ".*")
    return expression.replace("$metric", "cpu").replace("$__rate_interval", "10s")


def names_in(expression: str) -> set[str]:
    without_labels = re.sub(r"\{[^}]*\}|\bby \([^)]*\)|\bon \([^)]*\)", "", expression)
    return set(re.findall(r"\b(?:up|[a-z]+_[a-z_]+)\b", without_labels)) - {"histogram_quantile"}


def ours() -> set[str]:
    names = set()
    for family in (*REGISTRY.collect(), *_Deliveries((), lambda: False).collect()):
        if not family.name.startswith("anomaly_"):
            continue
        if family.type == "histogram":
            names |= {family.name + end for end in ("_bucket", "_sum", "_count")}
        else:
            names.add(family.name + ("_total" if family.type == "counter" else ""))
    return names


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: it comes with Debian's package prometheus")
    return found


def promtool(*words: str | Path, given: str | None = None) -> str:
    done = subprocess.run(
        [tool("promtool"), *words],
        cwd=MONITORING,
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_promtool_takes_the_configuration_and_the_rules() -> None:
    assert "11 rules found" in promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "rules.yml")


def test_every_alert_fires_and_is_silent_where_it_should() -> None:
    promtool("test", "rules", "rules.test.yml")
    text = (MONITORING / "rules.test.yml").read_text()
    for rule in RULES:
        assert f'{rule["alert"]}"' in text, "no test sees it fire"
        assert f"alertname: {rule['alert']}}}" in text, "no test sees it silent"


def test_every_alert_says_what_to_do() -> None:
    page = (REPOSITORY / "docs" / "metrics.md").read_text()
    headings = re.findall(r"^### (\w+)$", page, re.MULTILINE)
    assert headings == [rule["alert"] for rule in RULES]
    for rule in RULES:
        assert rule["annotations"]["runbook"] == f"docs/metrics.md#{rule['alert'].lower()}"
        assert rule["annotations"].keys() == {"summary", "description", "runbook"}
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_what_rules_and_dashboard_look_at_exists() -> None:
    looked_at = set().union(
        *(names_in(rule["expr"]) for rule in RULES),
        *(names_in(expression) for _, expression in expressions()),
    )
    assert looked_at - OTHERS <= ours()
    assert looked_at >= OTHERS


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_whole(name: str) -> None:
    board = DASHBOARDS[name]
    assert board["uid"] == name
    # Each links to all boards of this tag.
    assert board["links"][0]["tags"] == board["tags"] == ["anomaly-flow"]
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = set()
    for panel in panels:
        assert panel["description"]
        x, y, w, h = (panel["gridPos"][name] for name in "xywh")
        assert x + w <= 24
        cells = {(x + right, y + down) for right in range(w) for down in range(h)}
        assert not places & cells, panel["title"]
        places |= cells
    source = yaml.safe_load((MONITORING / "grafana/datasources/prometheus.yml").read_text())
    assert source["datasources"][0]["isDefault"]


def links(panel: dict[str, Any]) -> list[str]:
    config = panel["fieldConfig"]
    properties = [one for override in config["overrides"] for one in override["properties"]]
    found = config["defaults"].get("links", [])
    found = found + [it for one in properties if one["id"] == "links" for it in one["value"]]
    return [it["url"] for it in found]


def test_every_panel_of_instances_links_to_the_live_page() -> None:
    (page,) = (it for it in INSTANCES["templating"]["list"] if it["name"] == "page")
    ports = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]["page"]
    assert page["query"] == page["current"]["value"] == "http://localhost:5006"
    assert ports["ports"] == ["127.0.0.1:5006:5006"]
    assert "`instance?name=3fb07c&" in (REPOSITORY / "docs" / "dashboard.md").read_text()
    for panel in INSTANCES["panels"]:
        by_instance = any("instance_name" in target["expr"] for target in panel["targets"])
        assert len(links(panel)) == by_instance, panel["title"]
        for link in links(panel):
            field = "instance_name" if panel["type"] != "table" else "Instance"
            # Names may hold anything.
            form = rf"\$\{{page\}}/instance\?name=\$\{{__[\w.]+\.{field}:percentencode\}}"
            assert re.fullmatch(form, link)
    (table,) = (panel for panel in INSTANCES["panels"] if panel["type"] == "table")
    renamed = table["transformations"][1]["options"]["renameByName"]
    assert renamed["instance_name"] == "Instance"
    values = {f"Value #{target['refId']}" for target in table["targets"]}
    assert set(renamed) == {"instance_name", "metric", *values}


class Prometheus:
    """Debian's Prometheus with our configuration, asking a flow of ours every second."""

    def __init__(self, folder: Path, target: int) -> None:
        self.port = free_port()
        config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(MONITORING / "rules.yml")]
        config["scrape_configs"] = config["scrape_configs"][:1]  # without that of `notify`
        config["scrape_configs"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{target}"]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.process = subprocess.Popen(
            [
                tool("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--log.level=error",
            ],
            cwd=folder,
        )

    def ask(self, path: str, **question: str) -> Any:
        address = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(question)}"
        with urllib.request.urlopen(address, timeout=60) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        return [
            (sample["metric"], float(sample["value"][1]))
            for sample in self.ask("query", query=expression)["result"]
        ]

    def wait_for(self, expression: str, value: float) -> None:
        deadline = time.monotonic() + 90
        result: object = None
        while time.monotonic() < deadline:
            assert self.process.poll() is None
            try:
                result = self.query(expression)
            except OSError:  # it has not started yet
                result = None
            if isinstance(result, list) and [found for _, found in result] == [value]:
                return
            time.sleep(0.2)
        raise AssertionError((expression, result))


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def prometheus(tmp_path: Path, port: int) -> Iterator[Prometheus]:
    folder = tmp_path / "prometheus"
    folder.mkdir()
    server = Prometheus(folder, port)
    yield server
    server.process.terminate()
    server.process.wait(120)


def test_prometheus_asks_a_flow(
    prometheus: Prometheus, port: int, run_flow: Flow, brokers: str, topic: str, tmp_path: Path
) -> None:
    rows = made_rows(9, 400)
    records = write(brokers, topic, rows)
    files.initialize(tmp_path / "store", 3)
    flow = run_flow.start(
        *("-w", "3", "-r", "store", "-s", "1", "-b", "0"),
        **{"brokers": brokers, "topic": topic, "metrics_port": port, "detector": "zscore"},
        **{"output": "found.jsonl", "incidents": True},
    )
    prometheus.wait_for("sum(anomaly_records_read_total)", records)
    prometheus.wait_for("anomaly_readings_scored_total", len(rows))
    prometheus.wait_for("sum(anomaly_records_refused_total)", len(BAD))
    prometheus.wait_for("sum(anomaly_consumer_lag_records)", 0)
    found = sum(score > 0.5 for score in scores_of(rows, "zscore"))
    prometheus.wait_for('sum(anomaly_records_written_total{kind="anomaly"})', found)
    prometheus.wait_for("anomaly_instances", 9)
    prometheus.wait_for("count(anomaly_score)", 9)
    prometheus.wait_for(OPEN_BY_RECORDS, 0)
    prometheus.wait_for('up{job="anomaly-flow"}', 1)
    assert len(prometheus.query("anomaly_records_read_total")) == 3

    # The metrics follow Prometheus's conventions: names, units, types, help.
    assert promtool("check", "metrics", given=Scrape(port).text) == ""
    # Every panel has something to show. A rate needs two looks at it.
    prometheus.wait_for(
        "count(count_over_time(anomaly_last_snapshot_timestamp_seconds[10s]) > 1)", 1
    )
    for title, expression in expressions():
        assert prometheus.query(expression) or title in NOT_OF_A_FLOW, (title, expression)
    for group in prometheus.ask("rules")["groups"]:
        assert {rule["name"]: rule.get("lastError") for rule in group["rules"]} == {
            rule["alert"]: None for rule in RULES
        }
        assert all(rule["health"] in ("ok", "unknown") for rule in group["rules"])

    flow.terminate()
    flow.communicate(timeout=120)
    prometheus.wait_for('up{job="anomaly-flow"}', 0)
    prometheus.wait_for('count(ALERTS{alertname="AnomalyFlowDown", alertstate="pending"})', 1)
