"""TLS and passwords, for clients, commands and the whole flow; no secret is printed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Flow
from kafka_server import ApacheKafka, make_certificate
from test_brokers import keyed, read, settings, write
from test_flow import THRESHOLD, made_rows, rivers_scores, write_csv

from dataflow import kafka
from dataflow.errors import UserError
from dataflow.kafka import client, topics


def secured(broker: ApacheKafka, **changed: str) -> dict[str, str]:
    """What a client of the listener with passwords needs."""
    return {
        "security_protocol": "SASL_SSL",
        "ssl_ca_location": str(broker.ca_file),
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_username": broker.user,
        "sasl_password": broker.password,
        **changed,
    }


def test_tls(apache_kafka: ApacheKafka, topic: str) -> None:
    client = {"security_protocol": "SSL", "ssl_ca_location": str(apache_kafka.ca_file)}
    topics.create(settings(apache_kafka.tls_address, **client), [topic], 3)
    write(apache_kafka.tls_address, topic, range(100), **client)
    assert read(apache_kafka.tls_address, topic, **client) == keyed(range(100))


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
def test_tls_and_a_password(apache_kafka: ApacheKafka, topic: str, mechanism: str) -> None:
    client = secured(apache_kafka, sasl_mechanism=mechanism)
    topics.create(settings(apache_kafka.sasl_address, **client), [topic], 3)
    write(apache_kafka.sasl_address, topic, range(100), **client)
    assert read(apache_kafka.sasl_address, topic, **client) == keyed(range(100))


@pytest.fixture
def expect_error(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Ask the broker with these settings: the error is one line without the password."""
    # librdkafka retries until the timeout, whatever the broker answers.
    monkeypatch.setattr(client, "TIMEOUT", 2.0)

    def ask(brokers: str, client: dict[str, str], said: str) -> None:
        with pytest.raises(UserError) as error:
            kafka.metadata(settings(brokers, **client))
        line = str(error.value)
        assert "\n" not in line
        assert f"no answer from the broker {brokers} " in line
        assert said in line
        assert client.get("sasl_password", "no password") not in line

    return ask


ExpectError = Callable[[str, dict[str, str], str], None]


def test_a_wrong_certificate_authority(
    apache_kafka: ApacheKafka, expect_error: ExpectError, tmp_path: Path
) -> None:
    make_certificate(tmp_path / "keys.p12", tmp_path / "other.pem", "the-keys-password")
    client = {"security_protocol": "SSL", "ssl_ca_location": str(tmp_path / "other.pem")}
    expect_error(apache_kafka.tls_address, client, "certificate verify failed")
    expect_error(
        apache_kafka.sasl_address,
        secured(apache_kafka, ssl_ca_location=str(tmp_path / "other.pem")),
        "certificate verify failed",
    )


def test_plaintext_against_tls(apache_kafka: ApacheKafka, expect_error: ExpectError) -> None:
    expect_error(apache_kafka.tls_address, {}, "ANOMALY_KAFKA__SECURITY_PROTOCOL")


def test_tls_against_plaintext(apache_kafka: ApacheKafka, expect_error: ExpectError) -> None:
    client = {"security_protocol": "SSL", "ssl_ca_location": str(apache_kafka.ca_file)}
    expect_error(apache_kafka.address, client, "SSL")


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
def test_a_wrong_password(
    apache_kafka: ApacheKafka, expect_error: ExpectError, mechanism: str
) -> None:
    client = secured(apache_kafka, sasl_mechanism=mechanism, sasl_password="not-the-password")
    expect_error(apache_kafka.sasl_address, client, "uthentication")


def test_no_password(apache_kafka: ApacheKafka, expect_error: ExpectError) -> None:
    client = {"security_protocol": "SSL", "ssl_ca_location": str(apache_kafka.ca_file)}
    expect_error(apache_kafka.sasl_address, client, "ANOMALY_KAFKA__SECURITY_PROTOCOL")


def through_the_environment(broker: ApacheKafka, topic: str, **changed: str) -> dict[str, object]:
    """Settings of a flow that reads and writes topics through the listener with passwords."""
    client = {f"kafka__{name}": value for name, value in secured(broker, **changed).items()}
    return {
        **{"brokers": broker.sasl_address, "topic": topic, "anomalies_topic": f"{topic}.found"},
        **{"detector": "tutorial", "output": "kafka", "follow": "false", **client},
    }


def test_commands_and_flow_from_topic_to_topic(
    run_command: Callable[..., subprocess.CompletedProcess[str]],
    run_flow: Flow,
    apache_kafka: ApacheKafka,
    topic: str,
    tmp_path: Path,
) -> None:
    rows = made_rows(4, 400)
    path = write_csv(tmp_path / "metrics.csv", rows)
    options = through_the_environment(apache_kafka, topic)
    for arguments in (["topics"], ["produce", str(path)], ["recovery", "store"]):
        done = run_command(*arguments, **options)
        assert done.returncode == 0, done.stderr
        assert apache_kafka.password not in done.stdout + done.stderr
    flow = run_flow("-w", "3", "-r", "store", "-s", "1", "-b", "0", **options)
    assert flow.returncode == 0, flow.stderr
    assert apache_kafka.password not in flow.stdout + flow.stderr
    client = secured(apache_kafka)
    found = [
        json.loads(message.value() or b"")
        for message in kafka.read_from(
            settings(apache_kafka.sasl_address, **client), f"{topic}.found", {}
        )
    ]
    expected = {key for key, score in rivers_scores(rows).items() if score > THRESHOLD}
    assert expected
    assert sorted((it["instance"], it["index"]) for it in found) == sorted(expected)


@pytest.mark.parametrize("command", ["flow", "topics", "produce", "replay"])
def test_a_wrong_password_is_one_line_without_it(
    run_command: Callable[..., subprocess.CompletedProcess[str]],
    run_flow: Flow,
    apache_kafka: ApacheKafka,
    topic: str,
    tmp_path: Path,
    command: str,
) -> None:
    path = write_csv(tmp_path / "metrics.csv", made_rows(1, 10))
    options = through_the_environment(apache_kafka, topic, sasl_password="a-secret-mistyped")
    if command == "flow":
        done = run_flow(**options)
    else:
        done = run_command(command, *([str(path)] if command == "produce" else []), **options)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "uthentication" in done.stderr
    assert "a-secret-mistyped" not in done.stderr
