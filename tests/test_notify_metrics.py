"""What `notify` says of itself: to Prometheus, to a supervisor, and in its lines."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from pathlib import Path

from conftest import fill_topic, free_port
from faults import wait_for
from prometheus_client.parser import text_string_to_metric_families
from test_notify import Receiver, incident, notifying, receiver, write

from dataflow.notify.backlog import Backlog, Record

__all__ = ["receiver"]


def ask(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError as error:
        return 0, f"{error}"


def metrics(port: int) -> dict[str, float]:
    """Return the samples of `anomaly_notify_`, with the labels that are not the target's name."""
    found = {}
    for family in text_string_to_metric_families(ask(port, "/metrics")[1]):
        for sample in family.samples:
            labels = [
                value.split(" ")[0] if name == "target" else value
                for name, value in sorted(sample.labels.items())
            ]
            found[".".join([sample.name.removeprefix("anomaly_notify_"), *labels])] = sample.value
    return found


def test_metrics_and_health_of_a_target_that_is_down_and_one_that_is_not(
    brokers: str, topic: str, receiver: Receiver, tmp_path: Path
) -> None:
    down = Receiver()
    down.always = (503, {})
    fill_topic(brokers, topic, [])
    port = free_port()
    settings = {
        **{"brokers": brokers, "incidents_topic": topic, "notify_metrics_port": port},
        **{"notify_webhook": receiver.address, "notify_slack": down.address, "follow": "true"},
    }
    with notifying(tmp_path, **settings) as process:
        wait_for(lambda: ask(port, "/readyz") == (200, "ready\n"))
        wait_for(lambda: process.poll() is None and "target_accepting.slack" in metrics(port))
        assert process.stdout is not None
        begun = {process.stdout.readline(), process.stdout.readline()}
        assert all(line.startswith("delivering the topic") for line in begun)
        time.sleep(1)  # both have found where to begin
        write(brokers, topic, incident(), incident(), incident("resolved", 1))
        fill_topic(brokers, topic, [("host-1", b"{}")])
        wait_for(lambda: metrics(port).get("records_sent_total.resolved.webhook") == 1)
        wait_for(lambda: metrics(port)["target_accepting.slack"] == 0)
        found = metrics(port)
        assert found["records_sent_total.opened.webhook"] == 1
        assert found["records_held_back_total.repeated.webhook"] == 1
        assert found["backlog_age_seconds.webhook"] == found["backlog_records.webhook"] == 0
        assert found["records_sent_total.opened.slack"] == 0
        assert found["posts_failed_total.slack"] >= 1
        assert found["posts_failed_total.webhook"] == 0
        assert found["backlog_records.slack"] >= 2
        assert found["backlog_age_seconds.slack"] > 0
        assert found["broker_answering"] == 1
        assert found["last_sent_timestamp_seconds.webhook"] > time.time() - 600
        assert "last_sent_timestamp_seconds.slack" not in found
        wait_for(lambda: metrics(port)["records_held_back_total.invalid.webhook"] == 1)
        # It works; a restart would not help.
        assert ask(port, "/healthz") == (200, "alive\n")
        status, said = ask(port, "/readyz")
        assert (status, said) == (
            503,
            f"slack at 127.0.0.1:{down.port} does not accept incidents.\n",
        )
        assert ask(port, "/")[0] == 404
        assert "SECRET" not in ask(port, "/metrics")[1]
        down.always = (200, {})
        wait_for(lambda: ask(port, "/readyz")[0] == 200)
        wait_for(lambda: metrics(port)["backlog_records.slack"] == 0)
        line = process.stdout.readline()
        assert (
            line == f"delivered to webhook at 127.0.0.1:{receiver.port}: opened {1:024x} host-1\n"
        )
    down.close()


def test_a_port_that_is_taken_is_one_line(
    brokers: str, topic: str, receiver: Receiver, tmp_path: Path
) -> None:
    fill_topic(brokers, topic, [])
    settings = {
        **{"brokers": brokers, "incidents_topic": topic, "notify_webhook": receiver.address},
        "notify_metrics_port": receiver.port,
    }
    with notifying(tmp_path, **settings) as process:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 1
    assert err.startswith("error: metrics cannot be served on 127.0.0.1:")
    assert "an ANOMALY_NOTIFY_METRICS_PORT of its own" in err


def test_the_age_of_the_backlog_is_that_of_the_first_record_to_send() -> None:
    backlog = Backlog(repeats=False)
    backlog.add(Record(None, (0, 0), {0: 1}, 10.0))
    assert backlog.oldest() is None
    backlog.add(Record(incident(), (0, 1), {0: 2}, 20.0))
    backlog.add(Record(incident("updated", 1), (0, 2), {0: 3}, 30.0))
    backlog.add(Record(incident("resolved", 2), (0, 3), {0: 4}, 40.0))
    assert backlog.oldest() == 20.0
    backlog.done(backlog.batch(1, 0.0), 0.0)
    # The update is not sent: a later record of the incident follows.
    assert (backlog.oldest(), backlog.superseded) == (40.0, 1)
    backlog.done(backlog.batch(1, 0.0), 0.0)
    assert (backlog.oldest(), backlog.superseded) == (None, 1)
