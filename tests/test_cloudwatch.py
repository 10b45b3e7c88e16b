"""Polling CloudWatch, against moto's server in place of AWS."""

from __future__ import annotations

import re
import ssl
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import Flow, free_port, read_topic
from hypothesis import given
from hypothesis import strategies as st

from dataflow.cloudwatch import plan
from dataflow.errors import UserError

boto3 = pytest.importorskip("boto3", reason="needs the extra `cloudwatch`")
moto_server = pytest.importorskip("moto.server", reason="needs the extra `test`")
config = pytest.importorskip("botocore.config")
stub = pytest.importorskip("botocore.stub")

from dataflow.cloudwatch.client import Client, Point, TransientError  # noqa: E402

NOW = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)

Run = Callable[..., Any]


@given(st.integers(1, 5000), st.integers(1, 60 * 24 * 63), st.sampled_from([60, 300, 3600]))
def test_an_answer_never_needs_a_second_page(metrics: int, minutes: int, period: int) -> None:
    window = NOW - timedelta(minutes=minutes), NOW
    size = plan.metrics_per_call(window, period)
    points = minutes * 60 // period + 1
    assert 1 <= size <= 500
    assert size == 1 or size * points <= 100_800
    assert size in (1, 500) or (size + 1) * points > 100_800
    assert plan.calls(metrics, window, period) == -(-metrics // size)


@pytest.mark.parametrize(
    "text", ["", "14", "d", "-1d", "0d", "1.5d", "14 d", "\u0664d", "9" * 9 + "d"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        plan.duration(text)


def test_what_no_poll_asks_for_again_is_forgotten() -> None:
    written = plan.Written()
    for minute in range(10):
        assert written.is_new("a", NOW + timedelta(minutes=minute))
    written.forget(NOW + timedelta(minutes=5))
    assert written.is_new("a", NOW)
    assert not written.is_new("a", NOW + timedelta(minutes=5))


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """CloudWatch's client of an account with nothing in it."""
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    # What it holds outlives it.
    request = urllib.request.Request(f"{address}/moto-api/reset", method="POST")
    urllib.request.urlopen(request, timeout=60).close()
    for name, value in (
        ("AWS_ENDPOINT_URL", address),
        ("AWS_ACCESS_KEY_ID", "a"),
        ("AWS_SECRET_ACCESS_KEY", "b"),
        ("AWS_DEFAULT_REGION", "eu-central-1"),
        ("AWS_CONFIG_FILE", "none"),
        ("AWS_SHARED_CREDENTIALS_FILE", "none"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ):
        monkeypatch.setenv(name, value)
    yield boto3.client("cloudwatch")
    server.stop()


def put(aws: Any, dimension: str, name: str, minutes: list[int], value: float = 20.0) -> None:
    """Let CloudWatch have the CPU of something, so many minutes ago."""
    aws.put_metric_data(
        Namespace="AWS/EC2",
        MetricData=[
            {
                "MetricName": "CPUUtilization",
                "Dimensions": [{"Name": dimension, "Value": name}],
                "Timestamp": NOW - timedelta(minutes=minute),
                "Value": value + minute / 1000,
                "Unit": "Percent",
            }
            for minute in minutes
        ],
    )


def test_only_instances_count_and_their_means_come_by_time(aws: Any) -> None:
    for number in range(30):
        put(aws, "InstanceId", f"i-{number:02}", [300, 295, 290])
    put(aws, "AutoScalingGroupName", "web", [300])
    client = Client(None)
    names = client.instances([])
    assert names == [f"i-{number:02}" for number in range(30)]
    window = NOW - timedelta(days=14), NOW
    assert plan.calls(30, window, 300) == 2
    points = list(client.means(names, 300, window))
    assert sorted(points, key=lambda one: (one.instance, one.time)) == [
        Point(name, NOW - timedelta(minutes=minute), pytest.approx(20 + minute / 1000))
        for name in names
        for minute in (300, 295, 290)
    ]
    for name in names:
        own = [point.time for point in points if point.instance == name]
        assert own == sorted(own)


def test_tags_select_instances(aws: Any) -> None:
    ec2 = boto3.client("ec2")
    image = ec2.describe_images()["Images"][0]["ImageId"]
    made = ec2.run_instances(ImageId=image, MinCount=3, MaxCount=3)["Instances"]
    names = [one["InstanceId"] for one in made]
    for name in names:
        put(aws, "InstanceId", name, [10])
    ec2.create_tags(Resources=names[:2], Tags=[{"Key": "team", "Value": "web-a"}])
    client = Client(None)
    assert client.instances([]) == sorted(names)
    assert client.instances(["team=web-*"]) == sorted(names[:2])
    assert client.instances(["team=db"]) == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [("Throttling", TransientError), ("AccessDenied", UserError), ("InternalFailure", UserError)],
)
def test_an_error_of_aws_is_one_line(aws: Any, code: str, kind: type[Exception]) -> None:
    client = Client(None)
    with stub.Stubber(client._cloudwatch) as answers:
        answers.add_client_error("list_metrics", code, http_status_code=400)
        with pytest.raises(kind) as error:
            client.instances([])
    assert code in str(error.value)
    assert "\n" not in str(error.value)


def test_aws_that_cannot_be_reached_is_asked_again(
    aws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    client = Client(None)
    # Nine more attempts of AWS's library would take a minute.
    once = config.Config(retries={"total_max_attempts": 1})
    client._cloudwatch = boto3.client("cloudwatch", config=once)
    with pytest.raises(TransientError, match="AWS does not answer"):
        client.instances([])


WRONG = [
    (
        "IP:127.0.0.1",
        "",
        "AWS's certificate is not accepted (self-signed certificate): check the clock, the proxy, "
        "and AWS_CA_BUNDLE, the file with the certificates that are trusted",
    ),
    ("DNS:aws.example", "certificate.pem", "(hostname '127.0.0.1' doesn't match 'aws.example'): "),
    (
        "IP:127.0.0.1",
        "none.pem",
        "AWS_CA_BUNDLE names no file of certificates (No such file or directory): correct its path",
    ),
    ("IP:127.0.0.1", "key.pem", "AWS_CA_BUNDLE names no file of certificates (NO_CERTIFICATE_OR_"),
]
"""The name in AWS's certificate, the file that is trusted, and what is said of it."""


@pytest.fixture
def wrong(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[tuple[str, list[object]]]:
    """What is to be said in place of AWS's answer, and a list that has each attempt."""
    name, trusted, says = request.param
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=aws", "-addext", f"subjectAltName={name}"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    attempts: list[object] = []

    class Server(ThreadingHTTPServer):
        def get_request(self) -> Any:
            attempts.append(None)
            return super().get_request()

    with Server(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        if trusted:
            monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / trusted))
        yield says, attempts
        server.shutdown()


@pytest.mark.parametrize("wrong", WRONG, indirect=True)
def test_a_wrong_certificate_is_said_at_once(wrong: tuple[str, list[object]]) -> None:
    says, attempts = wrong
    with pytest.raises(UserError, match=re.escape(says)) as error:
        Client("eu-central-1").instances([])
    assert "credentials" not in str(error.value)
    assert len(attempts) <= 1


def test_the_history_then_what_is_new_and_the_flow_reads_it(
    aws: Any, run_command: Run, run_flow: Flow, brokers: str, topic: str
) -> None:
    most = list(range(5, 1200, 5))  # of a day, as some time passes before they are read
    for name in ("i-a", "i-b"):
        put(aws, "InstanceId", name, most)
    options = {"brokers": brokers, "topic": topic}
    done = run_command("cloudwatch", "--dry-run", "--history", "1d", **options)
    assert done.returncode == 0, done.stderr
    assert "2 instances in eu-central-1" in done.stderr
    assert "a day" in done.stderr
    done = run_command("cloudwatch", "--once", "--history", "1d", **options)
    assert done.returncode == 0, done.stderr
    first = read_topic(brokers, topic)
    assert len(first) >= 2 * len(most) - 10
    assert {key for key, _ in first} == {"i-a", "i-b"}
    assert all(record["instance"] == key for key, record in first)
    # Data that came late, and what is in the topic already.
    done = run_command("cloudwatch", "--once", "--history", "1d", **options)
    assert done.returncode == 0, done.stderr
    assert len(read_topic(brokers, topic)) < len(first) + 20
    put(aws, "InstanceId", "i-a", [0], value=99.0)
    done = run_command("cloudwatch", "--once", **options)
    assert done.returncode == 0, done.stderr
    assert 99.0 in [record["value"] for _, record in read_topic(brokers, topic)]
    done = run_flow(
        output="found.jsonl", detector="tutorial", follow="false", threshold=0.5, **options
    )
    assert done.returncode == 0, done.stderr
    assert "rejected (" not in done.stderr
    assert "the records have the format json, with ANOMALY_INDEX_FIELD=none" in done.stderr
    assert '"value":0.99' in (run_flow.folder / "found.jsonl").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--period", "90"], "--period must be 60, 300 or 3600"),
        (["--tag", "web"], "--tag must be NAME=VALUE"),
        (["--history", "forever"], "'forever' is no duration such as 14d"),
        (["--history", "30d", "--period", "60"], "for 15 days"),
        ([], "CloudWatch has no CPU of such instances in eu-central-1"),
    ],
)
def test_a_wrong_argument_is_one_line(
    aws: Any, run_command: Run, arguments: list[str], says: str
) -> None:
    done = run_command("cloudwatch", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_credentials_it_is_one_line(
    aws: Any, run_command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    done = run_command("cloudwatch", "--once")
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot ask AWS (Unable to locate credentials): configure")
